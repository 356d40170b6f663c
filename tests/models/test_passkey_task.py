from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import passkey_task as task
from ggufext.audit.task.wording import sentence_of as sentence

FULL_STOP = task.encode(".")[0]

lengths = st.integers(task.shortest_length(), 700)
depths = st.floats(0, 1)
seeds = st.integers(0, 2**32)


def prompt(*, seed: int, length: int, depth: float) -> task.Prompt:
    return task.passkey_prompt(random.Random(seed), length=length, depth=depth)


def test_vocabulary_has_544_different_tokens() -> None:
    assert task.VOCABULARY_SIZE == 544
    assert len(set(task.WORDS)) == len(task.WORDS)


def test_task_is_importable_without_numpy_and_torch() -> None:
    code = "import sys, passkey_task; sys.exit(bool({'numpy', 'torch'} & set(sys.modules)))"
    folder = Path(task.__file__).parent
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, check=False).returncode == 0


@given(words=st.sampled_from(task.SENTENCE_WORDS), seed=seeds)
def test_sentence_has_one_token_a_word_and_a_full_stop(words: int, seed: int) -> None:
    text = sentence(random.Random(seed), words)
    ids = task.encode(text)
    assert len(ids) == words + 1
    assert ids[-1] == FULL_STOP
    assert min(ids[:-1]) >= task.FIRST_WORD


@given(tokens=st.one_of(st.just(0), st.integers(task.SHORTEST_SENTENCE, 500)), seed=seeds)
def test_filler_has_exactly_the_wanted_tokens(tokens: int, seed: int) -> None:
    sentences = task.filler(random.Random(seed), tokens)
    assert len(task.encode("".join(sentences))) == tokens


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_filler_shorter_than_a_sentence_is_refused(tokens: int) -> None:
    with pytest.raises(ValueError, match="the shortest has 4"):
        task.filler(random.Random(0), tokens)


@given(length=lengths, depth=depths, seed=seeds)
def test_prompt_and_answer_have_exactly_the_wanted_length(
    length: int, depth: float, seed: int
) -> None:
    asked = prompt(seed=seed, length=length, depth=depth)
    assert len(asked.ids) + len(asked.answer_ids) == asked.length == length


@given(length=lengths, depth=depths, seed=seeds)
def test_text_and_ids_say_the_same(length: int, depth: float, seed: int) -> None:
    asked = prompt(seed=seed, length=length, depth=depth)
    assert asked.ids == (task.BOS, *task.encode(asked.text))
    assert task.decode(asked.ids) == asked.text


@given(text=st.text())
def test_decoding_reverses_encoding(text: str) -> None:
    assert task.decode(task.encode(text)) == text


@given(length=lengths, depth=depths, seed=seeds)
def test_key_line_stands_between_sentences_nearest_to_the_depth(
    length: int, depth: float, seed: int
) -> None:
    asked = prompt(seed=seed, length=length, depth=depth)
    room = length - task.shortest_length() + task.SHORTEST_SENTENCE
    before = asked.key_start - prompt(seed=seed, length=length, depth=0).key_start
    assert asked.ids[asked.key_start - 1] == FULL_STOP
    assert abs(before - depth * room) <= task.LONGEST_SENTENCE / 2


@given(length=lengths, depth=depths, seed=seeds)
def test_key_line_states_the_key_twice_and_nothing_else_states_it(
    length: int, depth: float, seed: int
) -> None:
    asked = prompt(seed=seed, length=length, depth=depth)
    assert task.decode(asked.ids[asked.key_start : asked.key_end]).count(asked.key) == 2
    assert asked.text.count(asked.key) == 2


def test_distance_is_the_filler_behind_the_key_line() -> None:
    room = 300 - task.shortest_length() + task.SHORTEST_SENTENCE
    assert prompt(seed=1, length=300, depth=0).distance == room
    assert prompt(seed=1, length=300, depth=1).distance == 0


def test_depth_moves_the_key_line_and_leaves_the_filler() -> None:
    def without_key_line(asked: task.Prompt) -> tuple[int, ...]:
        return asked.ids[: asked.key_start] + asked.ids[asked.key_end :]

    shallow, deep = (prompt(seed=5, length=300, depth=depth) for depth in (0.2, 0.9))
    assert without_key_line(shallow) == without_key_line(deep)


def test_prompts_are_the_same_on_every_machine() -> None:
    asked = task.prompt_set(seed=1, length=64, depths=1, trials=1)[0]
    assert asked.text == (
        " One pass key is hidden here. Remember it. Each blue cart turned across another tailor. "
        "The pass key is 43209. Remember, 43209 is the pass key. Each tall leaf stayed. What is "
        "the pass key? The pass key is"
    )


def test_prompt_does_not_depend_on_how_many_are_asked_for() -> None:
    few = task.prompt_set(seed=3, length=128, depths=2, trials=1)
    many = task.prompt_set(seed=3, length=128, depths=2, trials=4)
    assert few == [many[0], many[4]]


def test_key_asked_for_lies_in_its_depth_bin() -> None:
    prompts = task.prompt_set(seed=3, length=600, depths=4, trials=3, keys=5)
    assert len(prompts) == 12
    for index, asked in enumerate(prompts):
        share = asked.key_start / asked.question_start
        assert index // 3 / 4 - 0.1 <= share <= (index // 3 + 1) / 4 + 0.1


def test_prompts_of_another_seed_differ() -> None:
    first, second = (task.prompt_set(seed=s, length=128, depths=2, trials=2) for s in (1, 2))
    assert not set(first) & set(second)


def test_length_too_short_for_the_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 3 tokens more"):
        prompt(seed=1, length=task.shortest_length() - 3, depth=0.5)


@given(keys=st.integers(1, 8), spare=st.integers(0, 300), seed=seeds, data=st.data())
def test_sweep_prompts_ask_for_each_key_by_its_label(
    keys: int, spare: int, seed: int, data: st.DataObject
) -> None:
    length = task.shortest_length(keys=keys) + spare
    wanted = data.draw(st.lists(depths, min_size=keys, max_size=keys))
    prompts = task.sweep_prompts(random.Random(seed), length=length, depths=wanted)
    for asked in prompts:
        line = task.decode(asked.ids[asked.key_start : asked.key_end])
        question = task.decode(asked.ids[asked.question_start :])
        assert line == f"{question.split('?')[1]} {asked.key}."
        assert asked.length == length


def test_sweep_prompts_share_one_text_up_to_the_question() -> None:
    prompts = task.sweep_prompts(random.Random(1), length=200, depths=[0.1, 0.5, 0.9])
    assert len({asked.ids[: asked.question_start] for asked in prompts}) == 1
    assert len({asked.ids for asked in prompts}) == 3


def test_sweep_refuses_more_keys_than_labels() -> None:
    with pytest.raises(ValueError, match="only 40 labels"):
        task.sweep_prompts(random.Random(1), length=2000, depths=[0.5] * 41)
