"""What options of ``ggufext check`` take: lengths, depths, layers."""

from __future__ import annotations

import re

import click

from ggufext.cli.options import TOKENS


class Lengths(click.ParamType["tuple[int, ...]"]):
    """Lengths in tokens, separated by commas: 4k,8k,16k."""

    name = "lengths"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Rising, each once."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        return tuple(sorted({TOKENS.convert(part.strip(), param, ctx) for part in parts}))


class Depths(click.ParamType["int | tuple[float, ...]"]):
    """Depths of the key: a number of bins, or the depths themselves as shares or in percent."""

    name = "depths"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[float, ...]:
        """Bins 1 … 100, or shares of [0, 1]."""
        if isinstance(value, int):
            return value
        text = str(value)
        bins = int(text) if re.fullmatch(r"\d{1,3}", text) else None
        if bins is not None and 1 <= bins <= 100:
            return bins
        parts = [part.strip() for part in text.split(",")]
        if bins is not None or not all(
            re.fullmatch(r"\d{1,3}(\.\d{1,9})?%?", part) for part in parts
        ):
            self.fail(
                f"{text!r} is neither a number of bins up to 100 nor a list of depths such as "
                "0,25,50,75,100 or 0.1,0.5",
                param,
                ctx,
            )
        numbers = [float(part.removesuffix("%")) for part in parts]
        percent = any(part.endswith("%") for part in parts) or max(numbers) > 1
        if percent and any(0 < number < 1 for number in numbers):
            self.fail(f"{text!r} mixes shares of 1 and percent", param, ctx)
        if percent:
            numbers = [number / 100 for number in numbers]
        if max(numbers) > 1 or len(numbers) > 100:
            self.fail(f"{text!r}: up to 100 depths, each from 0 to 100 %", param, ctx)
        return tuple(sorted(set(numbers)))


class ConditionName(click.ParamType["str"]):
    """A condition: lower case, but for the name of a file in it."""

    name = "condition"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """The name as `ggufext.audit.conditions.conditions` takes it."""
        text = str(value)
        return text if ".json" in text else text.lower()


class LayerCount(click.ParamType["int | None"]):
    """Layers given to a device: a number, or auto for as many as fit."""

    name = "layers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """None for auto."""
        text = str(value).lower()
        if text == "auto":
            return None
        if not text.isdecimal() or len(text) > 6:
            self.fail(f"{text!r} is neither a number of layers nor auto", param, ctx)
        return int(text)
