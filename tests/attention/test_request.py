"""What can be asked of a measurement."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from ggufext.attention.request import SINK, MeasureRequest, query_rows, usual_length
from ggufext.errors import PlanError


@pytest.mark.parametrize(
    ("length", "distance", "rows"),
    [(64, 32, 256), (256, 128, 256), (4096, 2048, 256), (4096, 100, 64), (4096, 4075, 256)],
)
def test_every_query_sees_every_distance_something_beyond_and_the_sink(
    length: int, distance: int, rows: int
) -> None:
    found = query_rows(length, distance, rows)
    assert 16 <= len(found) <= rows
    assert len(set(found)) == len(found)
    assert found[0] - distance > SINK
    assert found[-1] < length


def test_queries_are_spread_evenly_to_the_end() -> None:
    found = query_rows(4096, 2048, 256)
    steps = {b - a for a, b in pairwise(found)}
    assert len(found) == 256
    assert steps <= {7, 8}
    assert found[-1] >= 4096 - 8


@pytest.mark.parametrize(("length", "distance"), [(64, 44), (4096, 4076), (4096, 9000), (4096, 0)])
def test_a_distance_without_enough_queries_is_refused(length: int, distance: int) -> None:
    with pytest.raises(PlanError, match="distances go from 1 to") as refused:
        query_rows(length, distance, 256)
    assert refused.value.code == "request_absurd"


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"rows": 15}, "request_absurd"),
        ({"rows": 4097}, "request_absurd"),
        ({"conditions": ()}, "request_absurd"),
        ({"length": 63}, "target_absurd"),
        ({"length": 2**31}, "target_absurd"),
    ],
)
def test_what_cannot_be_measured_is_refused(wanted: dict[str, int], code: str) -> None:
    with pytest.raises(PlanError) as refused:
        MeasureRequest(**wanted)  # type: ignore[arg-type]
    assert refused.value.code == code


def test_the_usual_length_is_the_training_length_up_to_4096() -> None:
    assert [usual_length(each) for each in (32, 256, 4096, 131_072)] == [64, 256, 4096, 4096]


def test_files_of_a_request_are_its_text_and_its_recipes() -> None:
    request = MeasureRequest(text=Path("a.txt"), conditions=("file", "planned:b.json+keep-short"))
    assert request.files == (Path("a.txt"), Path("b.json"))
