from __future__ import annotations

import pytest

from ggufext.audit.request import DepthBin, depth_bins
from ggufext.errors import PlanError


def test_a_number_makes_equal_bins_that_go_by_their_middle() -> None:
    assert depth_bins(2) == (DepthBin(0.0, 0.25, 0.5), DepthBin(0.5, 0.75, 1.0))


def test_named_depths_rise_count_once_and_have_no_width() -> None:
    assert depth_bins((0.5, 0.1, 0.5)) == (DepthBin(0.1, 0.1, 0.1), DepthBin(0.5, 0.5, 0.5))


@pytest.mark.parametrize("depths", [101, (-0.1,), (0.5, 1.5)])
def test_depths_outside_of_the_text_are_refused(depths: int | tuple[float, ...]) -> None:
    with pytest.raises(PlanError, match="from 0") as refused:
        depth_bins(depths)
    assert refused.value.code == "request_absurd"


@pytest.mark.parametrize("depths", [0, ()])
def test_no_depth_at_all_is_refused(depths: int | tuple[float, ...]) -> None:
    with pytest.raises(PlanError) as refused:
        depth_bins(depths)
    assert refused.value.code == "request_absurd"
