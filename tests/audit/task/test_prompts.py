from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufext.audit.request import Mode, depth_bins
from ggufext.audit.task import PromptPlan, prompts_hash, wording
from ggufext.audit.task.passkey import Passkey
from ggufext.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

prompt_set = Passkey.questions

PLAN = PromptPlan(
    mode=Mode.STANDARD,
    lengths=(256, 512, 1024),
    depths=depth_bins(5),
    texts=2,
    seed=0,
    answer_tokens=6,
    lead=1,
    trail=0,
    chat=False,
    split=16,
)
SWEEP = replace(PLAN, mode=Mode.SWEEP, lengths=(512, 1024))


def words(texts: Sequence[str]) -> list[int]:
    """Token counts of a tokenizer that knows words, digits and full stops."""
    return [len(re.findall(r" ?[A-Za-z]+| ?\d| ?[^\w\s]", text)) for text in texts]


def thirds(texts: Sequence[str]) -> list[int]:
    """Token counts of a coarser tokenizer."""
    return [max(1, len(text) // 3) for text in texts]


def test_prompts_are_the_same_for_the_same_arguments() -> None:
    assert prompt_set(PLAN, words) == prompt_set(PLAN, words)


def test_prompts_of_a_length_do_not_depend_on_the_other_lengths() -> None:
    alone = prompt_set(replace(PLAN, lengths=(256,)), words)
    among = [question for question in prompt_set(PLAN, words) if question.length == 256]
    assert sorted(alone, key=repr) == sorted(among, key=repr)


def test_prompts_do_not_depend_on_the_number_of_texts() -> None:
    assert prompt_set(PLAN, words)[:15] == prompt_set(replace(PLAN, texts=1), words)


def test_seed_changes_every_prompt() -> None:
    first, second = prompt_set(PLAN, words), prompt_set(replace(PLAN, seed=1), words)
    assert not {question.parts for question in first} & {question.parts for question in second}


def test_hash_changes_with_a_single_key() -> None:
    questions = prompt_set(PLAN, words)
    changed = (replace(questions[0], key="00000"), *questions[1:])
    assert prompts_hash(questions) != prompts_hash(changed)


def test_standard_prompt_and_answer_have_exactly_the_length() -> None:
    for question in prompt_set(PLAN, words):
        assert question.tokens + PLAN.answer_tokens == question.length
        assert question.tokens == PLAN.lead + sum(words(question.parts))


@given(seed=st.integers(0, 10**6), depths=st.integers(1, 12))
def test_length_is_met_within_a_sentence_by_any_tokenizer(seed: int, depths: int) -> None:
    plan = replace(PLAN, seed=seed, depths=depth_bins(depths), texts=1, lengths=(400,))
    for question in prompt_set(plan, thirds):
        assert 0 <= question.length - question.tokens - plan.answer_tokens <= 8


def test_key_lies_in_its_depth_bin_up_to_half_a_sentence() -> None:
    plan = replace(PLAN, lengths=(2048,), texts=4)
    for question in prompt_set(plan, words):
        depth = 1 - question.distance / (question.distance + question.key_start - 11)
        assert abs(depth - question.depth) < 0.5 / 5 + 0.01


def test_depth_is_jittered_within_the_bin() -> None:
    plan = replace(PLAN, lengths=(2048,), texts=4, depths=depth_bins(2))
    distances = {question.distance for question in prompt_set(plan, words)}
    assert len(distances) == 8


def test_distance_counts_the_tokens_between_key_and_question() -> None:
    for question in (*prompt_set(PLAN, words), *prompt_set(SWEEP, words)):
        line = next(i for i, part in enumerate(question.parts) if question.key in part)
        asked = next(i for i, part in enumerate(question.parts) if part.startswith(" What is"))
        assert question.distance == sum(words(question.parts[line + 1 : asked]))


def test_deeper_prompts_of_a_text_come_first_so_that_the_others_reuse_their_filler() -> None:
    starts = [question.key_start for question in prompt_set(replace(PLAN, texts=1), words)]
    assert starts == sorted(starts, reverse=True)


def test_question_of_a_chat_prompt_ends_with_a_question_mark() -> None:
    plan = replace(PLAN, chat=True)
    assert all(question.parts[-1].endswith("?") for question in prompt_set(plan, words))


def test_sweep_text_only_grows_from_length_to_length() -> None:
    short, *_, long = prompt_set(replace(SWEEP, texts=1), words)
    text = short.parts[:-2]
    assert long.parts[: len(text)] == text


def test_sweep_questions_start_on_the_split() -> None:
    for question in prompt_set(SWEEP, words):
        assert (question.tokens - sum(words(question.parts[-2:]))) % SWEEP.split == 0


def test_sweep_asks_every_length_at_every_depth_bin() -> None:
    questions = prompt_set(replace(SWEEP, texts=1), words)
    cells = [(question.length, question.depth) for question in questions]
    assert len(set(cells)) == len(cells) == 10


def test_sweep_labels_differ_and_never_occur_in_filler() -> None:
    labels = wording.labels(random.Random(0), 200)
    assert len(set(labels)) == 200
    rng = random.Random(0)
    filler = " ".join(wording.sentence(rng) for _ in range(2000))
    assert not any(f" {label}" in filler for label in wording.LABELS)


def test_length_without_room_for_the_prompt_is_refused_with_what_it_needs() -> None:
    with pytest.raises(EngineError, match=r"length 80 has no room .* needs \d+ tokens") as refused:
        prompt_set(replace(PLAN, lengths=(80, 256)), words)
    assert refused.value.code == "length_too_short"


def test_sweep_refuses_more_keys_than_a_length_holds() -> None:
    with pytest.raises(EngineError, match="fewer depths"):
        prompt_set(replace(SWEEP, lengths=(256,), depths=depth_bins(10)), words)


@pytest.mark.parametrize("plan", [PLAN, SWEEP], ids=["standard", "sweep"])
def test_a_named_depth_is_met_within_half_a_sentence(plan: PromptPlan) -> None:
    wanted = (0.0, 0.25, 0.5, 1.0)
    named = replace(plan, lengths=(1024, 2048), depths=depth_bins(wanted), texts=3)
    for question in prompt_set(named, words):
        begin = plan.lead + words([question.parts[0]])[0]
        before = question.key_start - begin
        depth = before / (before + question.distance)
        assert depth == pytest.approx(question.depth, abs=16 / question.length)
    assert {question.depth for question in prompt_set(named, words)} == set(wanted)


def test_keys_at_a_named_depth_do_not_depend_on_the_other_depths() -> None:
    alone, among = (
        [q for q in prompt_set(replace(PLAN, depths=depth_bins(depths)), words) if q.depth == 0.0]
        for depths in ((0.0,), (0.0, 0.5))
    )
    assert alone == among


def test_sweep_refuses_named_depths_that_crowd_a_length() -> None:
    crowded = tuple(index / 1000 for index in range(60))
    plan = replace(SWEEP, lengths=(1024, 4096), depths=depth_bins(crowded))
    with pytest.raises(EngineError, match="fewer depths") as refused:
        prompt_set(plan, words)
    assert refused.value.code == "length_too_short"


def test_sweep_refuses_more_keys_than_there_are_names() -> None:
    lengths = tuple(range(10_000, 31_000, 1000))
    plan = replace(SWEEP, lengths=lengths, depths=depth_bins(100), texts=1)
    with pytest.raises(EngineError, match="2,100 labelled keys; there are 2,000") as refused:
        prompt_set(plan, words)
    assert refused.value.code == "request_absurd"


def test_tokenizer_that_gives_sentences_no_tokens_is_refused() -> None:
    def nothing(texts: Sequence[str]) -> list[int]:
        return [0 for _ in texts]

    with pytest.raises(EngineError, match="no tokens") as refused:
        prompt_set(PLAN, nothing)
    assert refused.value.code == "cannot_be_audited"
