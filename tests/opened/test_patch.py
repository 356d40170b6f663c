"""What a patch does to a header, and the short cuts that tell the same without building it."""

from __future__ import annotations

import random

import pytest

from ggufext.opened.patch import Patch, Span


def _random_patch(choice: random.Random, header: bytes) -> Patch:
    front = choice.randrange(4, 40)
    places = sorted(choice.sample(range(front, len(header) - 8, 8), choice.randrange(4)))
    spans = tuple(Span(at, header[at : at + 8], choice.randbytes(8)) for at in places)
    return Patch(
        size=len(header) + 64,
        old_front=header[:front],
        new_front=choice.randbytes(choice.randrange(4, 60)),
        spans=(*spans, Span(len(header) + 8, b"old", b"new")),
    )


@pytest.mark.parametrize("seed", range(50))
def test_a_patch_leads_to_what_it_makes_and_to_nothing_else(seed: int) -> None:
    choice = random.Random(seed)
    header = choice.randbytes(256)
    patch = _random_patch(choice, header)
    made = patch.applied(header)
    assert patch.leads_to(header, made)
    place = choice.randrange(len(made))
    other = bytes([made[place] ^ 1])
    assert not patch.leads_to(header, made[:place] + other + made[place + 1 :])
    assert not patch.leads_to(header, made[:-1])
    assert not patch.leads_to(header, made + b"x")
