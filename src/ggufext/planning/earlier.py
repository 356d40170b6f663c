"""The model before an extension that its file carries without a record."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ggufext.errors import PlanError
from ggufext.header.factors import ROPE_FREQS
from ggufext.header.rope_keys import FREQ_BASE
from ggufext.planning.methods import llama3_parameters

if TYPE_CHECKING:
    from ggufext.header.model import ModelFacts

#: llama3 factors tell their original length up to the rounding of 32-bit numbers.
_LENGTH_TOLERANCE = 0.01


def before_extension(facts: ModelFacts) -> ModelFacts:
    """Facts to extend from: those given, or without the llama3 factors of an earlier extension.

    Raises
    ------
    PlanError
        ``train_base_unknown``: an earlier extension may have changed the base.
    """
    earlier = facts.earlier_extension
    if earlier is None or earlier.method is not None:
        return facts
    factors = dict(facts.factors)
    if ROPE_FREQS in factors:
        made = llama3_parameters(facts.inv_freq, factors[ROPE_FREQS])
        before = earlier.train_length
        if made is not None and abs(made[1] - before) <= _LENGTH_TOLERANCE * before:
            # Models trained with such factors have them for a length below their training length.
            return replace(
                facts,
                scaling=replace(facts.scaling, factor_tensors=()),
                factors=(),
                left_over=facts.factors,
                earlier_extension=replace(earlier, freq_base_known=True),
            )
    if earlier.freq_base_known:
        return facts
    said = facts.published
    usual = (
        f"; files of {said.family} say {said.freq_base:,.10g}" if said and said.freq_base else ""
    )
    raise PlanError(
        code="train_base_unknown",
        field=f"{facts.architecture}.{FREQ_BASE}",
        message=f"is {facts.freq_base:,.10g} now, but the file was extended before (from "
        f"{earlier.train_length:,} to {earlier.target_length:,} tokens, without a record), so the "
        "base of the training is not known; say it with --train-freq-base (rope_theta in the "
        f"original's config.json{usual}), or --train-length {earlier.target_length} if the model "
        "was trained as the file stands",
    )
