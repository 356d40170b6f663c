"""The pictures, and the PNG that is drawn from them."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ggufext.audit.report.picture import accuracy_colour, heatmap, length_chart, png
from ggufext.audit.request import Mode
from ggufext.errors import ModelWarning
from made_up_audits import HOSTILE, SHARES, audit, with_run

if TYPE_CHECKING:
    import numpy.typing as npt

    from ggufext.audit.findings.results import CheckResult

#: Pixels of a PNG for each of CSS.
ZOOM = 2


def pixels(result: CheckResult) -> npt.NDArray[np.int64]:
    """The PNG as whole numbers 0 to 255, shape (height, width, 3)."""
    return np.asarray(Image.open(BytesIO(png(result))).convert("RGB")).astype(np.int64)


def of_colour(drawn: npt.NDArray[np.int64], accuracy: float) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (drawn == accuracy_colour(accuracy)).all(axis=2)
    return found


def test_every_cell_has_its_colour_at_its_length_and_depth() -> None:
    depths, lengths = (0.0, 0.5, 1.0), (256, 512, 1024)
    plain = audit({"file": (1.0, 1.0, 1.0)}, lengths=lengths, depths=depths)
    hits = {
        (length, depth): i
        for i, (length, depth) in enumerate(
            (length, depth) for length in lengths for depth in depths
        )
    }
    cells = tuple(replace(c, hits=hits[c.length, c.depth]) for c in plain.conditions[0].cells)
    drawn = pixels(replace(plain, conditions=(replace(plain.conditions[0], cells=cells),)))
    places = {}
    for cell, hit in hits.items():
        down, across = np.nonzero(of_colour(drawn, hit / 10))
        # a cell is 72 by 32, less its text and its rounded corners
        assert len(down) > 72 * 32 * ZOOM**2 * 0.6
        places[cell] = round(float(np.median(across))), round(float(np.median(down)))
    for length in lengths:
        columns = [places[length, depth] for depth in depths]
        assert max(x for x, _ in columns) - min(x for x, _ in columns) < 72 * ZOOM / 2
        assert [y for _, y in columns] == sorted(y for _, y in columns)
    for depth in depths:
        row = [places[length, depth] for length in lengths]
        assert max(y for _, y in row) - min(y for _, y in row) < 32 * ZOOM / 2
        assert [x for x, _ in row] == sorted(x for x, _ in row)


def test_a_png_paints_no_accuracy_where_nothing_was_measured() -> None:
    plain = audit({"file": (1.0, 1.0, 1.0)}, missing=((512, 0.5), (1024, 0.5)))
    full, missing = pixels(audit({"file": (1.0, 1.0, 1.0)})), pixels(plain)
    assert of_colour(missing, 0.0).sum() < 72 * 32 * ZOOM**2 / 2  # the scale holds some
    difference = of_colour(full, 1.0).sum() - of_colour(missing, 1.0).sum()
    assert difference > 2 * 72 * 32 * ZOOM**2 * 0.6


def test_more_conditions_lengths_and_depths_make_a_larger_png() -> None:
    one = pixels(audit({"file": (1.0, 1.0, 1.0)})).shape
    names = ("file", "native", "planned:yarn", "planned:gamma")
    four = pixels(audit(dict.fromkeys(names, (1.0,) * 3))).shape
    assert four[0] > one[0]
    lengths, depths = tuple(range(256, 276)), tuple(i / 19 for i in range(20))
    many = pixels(audit({"file": (1.0,) * 20}, lengths=lengths, depths=depths, texts=1)).shape
    assert many[0] > 20 * 34 * ZOOM
    assert many[1] > 20 * 74 * ZOOM


def test_the_longest_side_of_a_png_has_a_bound() -> None:
    depths = tuple(i / 499 for i in range(500))
    tall = pixels(audit({"file": (1.0,)}, lengths=(256,), depths=depths, texts=1))
    assert tall.shape[0] == 16_000


@pytest.mark.parametrize(
    "name",
    [
        "Meta-Llama-3.1-8B-Instruct-abliterated-v3-extended-to-128k-tokens-Q4_K_M-00001-of-00004",
        "a" * 500,
        "模型" * 60,
        "long words " * 30,
    ],
)
def test_long_texts_are_broken_into_lines_instead_of_cut(name: str) -> None:
    result = audit({name: SHARES["file"]})
    notes = (ModelWarning(code="made_up", message=name * 3),)
    drawn = pixels(replace(with_run(result, path=name, engine=name), warnings=notes))
    # A line that was too long would reach the end of its box, 24 before that of the picture.
    assert (drawn[:, -30 * ZOOM :] == 255).all()
    assert drawn.shape[0] > pixels(audit({"file": SHARES["file"]})).shape[0]


def test_what_a_result_says_is_in_the_png() -> None:
    plain = audit({"file": (1.0, 0.5)}, lengths=(256, 512), depths=(0.5,))
    first = pixels(plain)
    for other in (
        with_run(plain, path="other.gguf"),
        with_run(plain, engine="another engine"),
        replace(plain, request=replace(plain.request, mode=Mode.SWEEP)),
        replace(plain, request=replace(plain.request, seed=2)),
        replace(plain, request=replace(plain.request, threshold=0.9)),
        with_run(plain, train_length=1024),
        replace(plain, warnings=(ModelWarning(code="made_up", message="a note"),)),
    ):
        drawn = pixels(other)
        assert drawn.shape != first.shape or (drawn != first).any()


@pytest.mark.parametrize("name", [HOSTILE, "模型 🔑", "$x^{", "_private", "</svg>", "\x00\ud800"])
def test_a_png_takes_every_name_as_plain_text(name: str) -> None:
    result = with_run(audit({name: SHARES["file"]}), path=name, engine=name)
    assert of_colour(pixels(result), 1.0).sum() > 5 * 72 * 32 * ZOOM**2 * 0.6


def test_a_png_of_an_audit_without_any_answer_says_so() -> None:
    drawn = pixels(audit({"file": (None, None, None)}))
    assert (drawn != 255).any()
    assert of_colour(drawn, 0.0).sum() == of_colour(drawn, 1.0).sum() == 0


def test_lengths_below_the_chart_never_touch() -> None:
    lengths = tuple(round(256 * 2 ** (i / 3)) for i in range(40))
    made = audit({"file": (1.0,) * 40}, lengths=lengths, depths=(0.5,), texts=1)
    chart = length_chart({"file": made.conditions[0].lengths}, 0.85)
    words = {f"{length:,}" for length in lengths}
    labels = [(float(t.get("x", 0)), t.text or "") for t in chart.iter("text") if t.text in words]
    labels.sort()
    assert labels[-1][1] == f"{lengths[-1]:,}"
    assert 5 < len(labels) < 40
    for (x, text), (x_next, text_next) in pairwise(labels):
        assert x_next - x >= 8.5 * (len(text) + len(text_next)) / 2


@pytest.mark.parametrize("depths", [(0.5,), (0.2, 0.8), (0.1, 0.5, 0.9)])
def test_the_name_of_the_depths_fits_beside_them(depths: tuple[float, ...]) -> None:
    result = audit({"file": (1.0, 1.0, 1.0)}, depths=depths)
    picture = heatmap(result.conditions[0], number=0, train_length=None)
    (turned,) = (text for text in picture.iter("text") if text.get("transform"))
    half = len(turned.text or "") * 8.5 / 2
    middle = float(turned.get("y", 0))
    assert middle - half > 0
    assert middle + half < float(picture.get("height", 0))
