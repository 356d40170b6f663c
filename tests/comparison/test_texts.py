"""Texts with keys between their pieces: what is said, what is scored, where is asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufext.audit.request import Mode, depth_bins
from ggufext.audit.task import PromptPlan
from ggufext.comparison.texts import KeysInTexts, bin_edges, pieces, read_pieces
from ggufext.errors import GgufextError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.comparison.texts import Text

PLAN = PromptPlan(
    mode=Mode.SWEEP,
    lengths=(512, 1024, 2048),
    depths=depth_bins(3),
    texts=2,
    seed=0,
    answer_tokens=6,
    lead=1,
    trail=0,
    chat=False,
    split=64,
)
TRAINED = 512


def words(parts: Sequence[str]) -> list[list[str]]:
    """Tokens of a made-up tokenizer: words and marks."""
    return [re.findall(r"\s*\w+|\s*[^\w\s]", part) for part in parts]


def counts(parts: Sequence[str]) -> list[int]:
    return [len(each) for each in words(parts)]


def prose(sentences: int, *, about: str = "thing") -> str:
    return " ".join(
        f"Sentence {n} tells of {about} {n * n}{' and on' * (n % 17)}." for n in range(sentences)
    )


def task(*texts: str, plan: PromptPlan = PLAN) -> KeysInTexts:
    files = [(Path(f"{index}.txt"), pieces(text)) for index, text in enumerate(texts)]
    made = KeysInTexts(files, train_length=TRAINED, target_length=plan.lengths[-1])
    made.questions(plan, counts)
    return made


def tokens(text: Text, segment: int = -1) -> list[str]:
    return ["BOS", *(word for each in words(text.segments[segment].parts) for word in each)]


@given(st.text(alphabet="ab .!?\n語é", max_size=2000))
def test_pieces_together_are_the_text(text: str) -> None:
    found = pieces(text)
    assert "".join(found) == (f" {text.strip()}" if text.strip() else "")
    assert all(len(piece) <= 2 * 120 for piece in found)


def test_what_is_scored_is_the_text_itself_and_nothing_of_ours() -> None:
    whole = prose(900)
    for text in task(whole).texts:
        said = tokens(text)
        scored = [row for each in text.segments for row in each.rows]
        assert scored == sorted(set(scored))
        own = {word.strip() for word in words([whole])[0]} - {"."}
        follows = [said[row + 1].strip() for row in scored]
        assert {word for word in follows if word != "."} <= own
        assert "pass" not in follows
        # What comes next behind a key or a sentence of ours is no surprise of the text's own.
        assert all("Sentence" not in said[row + 1] or said[row] == "." for row in scored)
        assert len(scored) > 0.7 * (PLAN.lengths[-1] - 64)


def test_the_text_goes_on_without_a_gap_behind_every_length() -> None:
    whole = prose(900)
    for text in task(whole).texts[:1]:
        own = [part for part in text.segments[-1].parts if part in set(pieces(whole))]
        assert tuple(own) == pieces(whole)[: len(own)]


def test_every_length_ends_where_cells_can_be_reused() -> None:
    for text in task(prose(900)).texts:
        assert len(text.segments) == len(PLAN.lengths)
        for index, segment in enumerate(text.segments):
            size = len(tokens(text, index))
            assert size % PLAN.split == 0
            assert segment.length - PLAN.split - 40 < size <= segment.length
            assert all(question.length == segment.length for question in segment.questions)
            assert all(question.parts[:-2] == segment.parts for question in segment.questions)
            assert all(question.tokens + 6 <= segment.length for question in segment.questions)


def test_every_question_asks_for_a_key_that_stands_where_it_says() -> None:
    for text in task(prose(900)).texts:
        for index, segment in enumerate(text.segments):
            size = len(tokens(text, index))
            depths = sorted(question.depth for question in segment.questions)
            assert depths == pytest.approx([1 / 6, 1 / 2, 5 / 6])
            for question in segment.questions:
                (line,) = (part for part in segment.parts if f" is {question.key}." in part)
                before = segment.parts[: segment.parts.index(line)]
                assert question.key_start == 1 + sum(counts(before))
                assert question.distance == size - question.key_start - sum(counts([line]))


def test_a_segment_scores_only_what_lies_behind_the_one_before() -> None:
    for text in task(prose(900)).texts:
        sizes = [0, *(len(tokens(text, index)) for index in range(len(text.segments)))]
        for segment, start, end in zip(text.segments, sizes, sizes[1:], strict=False):
            assert all(start <= row < end - 1 for row in segment.rows)
            assert set(segment.distributions) <= set(segment.rows)


def test_distributions_are_compared_within_the_training_length_only() -> None:
    for text in task(prose(900)).texts:
        assert text.distributions == 128
        assert all(row < TRAINED for each in text.segments for row in each.distributions)


def test_bins_count_the_scored_tokens_and_none_lies_between_stop_and_training_length() -> None:
    for text in task(prose(900)).texts:
        scored = [row + 1 for each in text.segments for row in each.rows]
        first_stop = len(tokens(text, 0))
        assert sum(text.bins) == len(scored)
        assert not [t for t in scored if first_stop <= t < TRAINED]
        edges = bin_edges(TRAINED, PLAN.lengths[-1])
        assert list(text.bins) == [sum(e.start <= t < e.end for t in scored) for e in edges]


@pytest.mark.parametrize(
    ("target", "edges"),
    [
        (9000, [0, 1024, 8192, 8596, 9000]),
        (16384, [0, 1024, 8192, 12288, 16384]),
        (24576, [0, 1024, 8192, 13653, 19114, 24576]),
        (131072, [0, 1024, 8192, 38912, 69632, 100352, 131072]),
    ],
)
def test_bins_end_at_the_training_length_and_at_the_target(target: int, edges: list[int]) -> None:
    found = bin_edges(8192, target)
    assert [0, *(span.end for span in found)] == edges
    assert [span.start for span in found] == edges[:-1]


def test_long_texts_are_scored_at_every_so_many_tokens() -> None:
    from dataclasses import replace

    plan = replace(PLAN, lengths=(512, 16384), texts=1)
    (text,) = task(prose(4000), plan=plan).texts
    scored = sum(text.bins)
    assert 2000 < scored <= 4000


def test_a_file_gives_as_many_texts_as_it_has_room_for_and_files_take_turns() -> None:
    long, short = prose(1200), prose(400, about="stone")
    from dataclasses import replace

    found = task(long, short, plan=replace(PLAN, texts=3))
    assert found.names == ("0.txt", "1.txt", "0.txt")
    parts = [set(text.segments[-1].parts) & set(pieces(long)) for text in found.texts]
    first, _, third = parts
    assert " Sentence 0 tells of thing 0." in first - third
    assert not {part for part in first & third if part.endswith(".") and "Sentence" in part}


def test_every_file_gives_a_text_even_where_there_are_more_than_trials() -> None:
    found = task(*(prose(400, about=each) for each in ("a", "b", "c")))
    assert found.names == ("0.txt", "1.txt", "2.txt")


def test_a_text_that_is_too_short_is_named_with_what_it_holds_and_what_is_needed() -> None:
    with pytest.raises(GgufextError, match=r"1\.txt: holds \d+ tokens .* 2,048") as refused:
        task(prose(900), prose(30))
    assert refused.value.code == "text_too_short"


def test_without_a_file_the_program_makes_its_texts_from_the_seed() -> None:
    from dataclasses import replace

    first, again, other = task(), task(), task(plan=replace(PLAN, seed=1))
    assert first.names == ("made text", "made text")
    assert first.texts == again.texts
    assert first.texts[0].segments[-1].parts[5:] != first.texts[1].segments[-1].parts[5:]
    assert first.texts != other.texts
    assert sum(first.texts[0].bins) > 1500


@pytest.mark.parametrize(
    ("content", "says"), [(b"abc \xff\xfe", "UTF-8"), (b" \n\t ", "empty"), (b"", "empty")]
)
def test_what_is_no_text_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(GgufextError, match=says) as refused:
        read_pieces(path, tokens=100)
    assert refused.value.code == "bad_text"
    assert refused.value.path == path


def test_the_place_where_a_file_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"word " * 5000 + b"\xff")
    with pytest.raises(GgufextError) as refused:
        read_pieces(path, tokens=10_000)
    assert refused.value.offset == 25_000


def test_a_byte_order_mark_and_other_line_ends_are_no_part_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffOne.\r\nTwo. Three.".encode())
    assert read_pieces(path, tokens=100) == (" One.\nTwo.", " Three.")


def test_a_character_cut_off_where_reading_ends_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("é" * 1000, encoding="utf-8")
    assert len("".join(read_pieces(path, tokens=1))) == 33
    path.write_text("a" + "é" * 1000, encoding="utf-8")
    assert len("".join(read_pieces(path, tokens=1))) == 33


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GgufextError) as refused:
        read_pieces(tmp_path / "none.txt", tokens=100)
    assert refused.value.code == "unreadable"


def test_no_more_of_a_file_is_read_than_can_be_needed(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("word " * 100_000)
    assert len("".join(read_pieces(path, tokens=10))) <= 641
