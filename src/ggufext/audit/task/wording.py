"""What the audit's prompts say: lines about the pass keys, and filler sentences between them.

The wording is our own in the structure of the passkey tests: announcement, filler, a line that
states the key, filler, question. The shipped model was trained on the same words, so that one
wording serves every model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

ANNOUNCEMENT = " One pass key is hidden here. Remember it."
QUESTION = " What is the pass key?"
ANSWER_START = " The pass key is"

SWEEP_ANNOUNCEMENT = " Several pass keys are hidden here. Remember them."

#: Digits of a pass key; the first is not 0, so that it reads the same as an integer.
_KEY_DIGITS = 5


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


DETERMINERS = _words("the one every each another this that my our her his their your")
OPENERS = tuple(word.capitalize() for word in DETERMINERS)
PREPOSITIONS = _words(
    "near under behind beside above below before after beyond against around across with without "
    "past"
)
ADVERBS = _words(
    "slowly quickly quietly loudly gently happily sadly calmly eagerly softly patiently suddenly "
    "often twice again alone outside inside upstairs downstairs yesterday today nearby bravely "
    "politely"
)
ADJECTIVES = _words(
    "old young small large quiet loud tired happy sad hungry brave shy clever gentle proud lazy "
    "busy kind warm cold red blue green white black brown grey golden silver dark bright heavy "
    "light tall short thin round broken dusty muddy narrow wide strange famous friendly simple "
    "empty silent polite careful"
)
VERBS = _words(
    "slept waited turned moved stood sat lay fell rose rested stayed paused walked ran danced sang "
    "laughed smiled cried whispered listened worked played travelled wandered returned arrived "
    "departed appeared vanished trembled rolled drifted floated swam jumped climbed crawled leaned "
    "knelt shivered hesitated hurried lingered marched sneezed yawned dreamed hid shone"
)
NOUNS = _words(
    "dog cat horse bird farmer baker teacher child woman man doctor sailor painter tailor miller "
    "singer dancer driver writer builder cloud storm wind lamp candle clock table chair door "
    "window boat train cart wheel ladder bucket basket blanket pillow kettle fox owl duck goose "
    "sheep goat cow rabbit mouse frog king queen guard guest neighbour stranger traveller brother "
    "sister uncle leaf stone shadow bell flag"
)
# Labels never occur in filler, so the only places that name a label are key lines and questions.
LABELS = _words(
    "river harbour castle market forest bridge tower garden island valley desert mountain library "
    "station temple palace museum theatre village canyon glacier volcano lagoon meadow orchard "
    "lighthouse windmill monastery quarry reservoir cathedral observatory fortress aquarium "
    "stadium airport hospital university prairie peninsula"
)


#: Words of a filler sentence, without the full stop.
SENTENCE_WORDS = range(3, 14)


def key_line(key: str) -> str:
    """Line of standard mode, which states the key twice."""
    return f" The pass key is {key}. Remember, {key} is the pass key."


def sweep_key_line(label: str, key: str) -> str:
    """Line of sweep mode, which states a labelled key once."""
    return f" The pass key of the {label} is {key}."


def sweep_question(label: str) -> str:
    """Question of sweep mode."""
    return f" What is the pass key of the {label}?"


def sweep_answer_start(label: str) -> str:
    """How the answer to `sweep_question` begins."""
    return f" The pass key of the {label} is"


#: Names that sweep mode has for keys.
MOST_LABELS = len(LABELS) * len(ADJECTIVES)


def random_key(rng: random.Random) -> str:
    """Five digits, the first not 0."""
    return str(rng.randrange(10 ** (_KEY_DIGITS - 1), 10**_KEY_DIGITS))


def labels(rng: random.Random, count: int) -> list[str]:
    """Different names for `count` keys; none occurs in filler.

    Raises
    ------
    ValueError
        Above the number of names there are.
    """
    names = list(LABELS)
    if count > len(names):
        names = [f"{adjective} {label}" for adjective in ADJECTIVES for label in LABELS]
    if count > len(names):
        raise ValueError(f"{count} labelled keys; there are {len(names)} labels")
    # Not random.sample: its sequence has changed between versions of Python.
    return [names.pop(rng.randrange(len(names))) for _ in range(count)]


def sentence(rng: random.Random) -> str:
    """Filler sentence of 3 … 13 words, each preceded by a space, with a full stop.

    Determiner, up to two adjectives, noun, verb, perhaps an adverb, then phrases that each name a
    place.
    """
    return sentence_of(rng, rng.choice(SENTENCE_WORDS))


def sentence_of(rng: random.Random, words: int) -> str:
    """Filler sentence of an exact number of words, each preceded by a space, with a full stop.

    Grammar: determiner, up to two adjectives, noun, verb, perhaps an adverb, then prepositional
    phrases of three or four words.
    """
    # Phrases of 3 and 4 words make every count but 1, 2 and 5.
    shapes = [
        (adjectives, adverb, rest)
        for adjectives in range(3)
        for adverb in range(2)
        if (rest := words - 3 - adjectives - adverb) >= 0 and rest not in {1, 2, 5}
    ]
    adjectives, adverb, rest = rng.choice(shapes)
    parts = [rng.choice(OPENERS)]
    parts += [rng.choice(ADJECTIVES) for _ in range(adjectives)]
    parts += [rng.choice(NOUNS), rng.choice(VERBS)]
    if adverb:
        parts.append(rng.choice(ADVERBS))
    while rest:
        size = rng.choice([n for n in (3, 4) if rest - n >= 0 and rest - n not in {1, 2, 5}])
        parts += [rng.choice(PREPOSITIONS), rng.choice(DETERMINERS)]
        if size == 4:
            parts.append(rng.choice(ADJECTIVES))
        parts.append(rng.choice(NOUNS))
        rest -= size
    return " " + " ".join(parts) + "."
