"""One colour scale for every picture of the audit, readable without colour vision.

Lightness rises with accuracy over the whole scale, so it also reads in grey; "not measured" is no
colour of the scale: it is drawn as hatching or a dash.
"""

from __future__ import annotations

from itertools import pairwise

#: sRGB, 0 to 255.
_Colour = tuple[int, int, int]

#: Accuracy and its colour; between two stops channels are mixed linearly.
STOPS: tuple[tuple[float, _Colour], ...] = (
    (0.0, (36, 16, 74)),
    (0.25, (48, 62, 138)),
    (0.5, (38, 120, 152)),
    (0.75, (98, 184, 148)),
    (1.0, (250, 242, 164)),
)

_BLACK: _Colour = (0, 0, 0)
_WHITE: _Colour = (255, 255, 255)


def accuracy_colour(accuracy: float) -> _Colour:
    """Colour of an accuracy in [0, 1]: dark blue for 0, pale yellow for 1."""
    for (low, dark), (high, light) in pairwise(STOPS):
        if accuracy <= high:
            share = (accuracy - low) / (high - low)
            red, green, blue = (
                round(a + share * (b - a)) for a, b in zip(dark, light, strict=True)
            )
            return red, green, blue
    raise ValueError(f"accuracy {accuracy} is above 1")


def luminance(colour: _Colour) -> float:
    """Relative luminance in [0, 1] (WCAG 2.2)."""
    red, green, blue = (
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        for share in (channel / 255 for channel in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: _Colour, b: _Colour) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def text_colour(background: _Colour) -> _Colour:
    """Black or white, whichever is easier to read on a background."""
    return max((_BLACK, _WHITE), key=lambda colour: contrast(colour, background))


def hexadecimal(colour: _Colour) -> str:
    """``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
