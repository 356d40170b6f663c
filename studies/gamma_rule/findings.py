"""What the cells of the study say, by the analysis of protocol.md; pure.

A cell is a line of a result file: the condition, the text, and of RETRIEVAL ``lengths`` (length,
keys found, keys asked for), of LOSS ``bins`` and ``losses`` (positions [start, end), means of
blocks of tokens in nats, none where no token was scored), of DECAY ``gamma`` (γ_obs, None where no
law could be fitted).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conditions import BASE_MULTIPLES, GAMMA_TARGETS, NATIVE, base_multiple, gamma_target
from ggufext.planning.gamma import gamma_pade
from inference import Paired, Verdict, holm, main_effects, paired, slope, slope_interval
from schedule import (
    LANGUAGE_LENGTH,
    PASSKEY_LENGTH,
    SMOLLM2,
    SMOLLM2_LENGTH,
    Measure,
    Run,
    decay_conditions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Fields = Mapping[str, Any]
    #: What was measured of each unit (a text or a model) under each condition.
    Table = Mapping[str, Mapping[str, float]]

RULE, RIVALS = "gamma", ("ntk", "yarn")
#: Smallest differences of interest: a share of keys, and nats.
KEYS, NATS = 0.05, 0.01


@dataclass(frozen=True, slots=True)
class Cell:
    """One condition on one text of a run, and what was measured."""

    run: Run
    fields: Fields

    @property
    def kind(self) -> str:
        """Of the model: SmolLM2, language or passkey."""
        return self.run.model.split("-")[0]

    @property
    def unit(self) -> str:
        """What the analysis counts: a passkey model is one, and a text of any other."""
        return self.run.model if self.kind == "passkey" else str(self.fields["text"])


@dataclass(frozen=True, slots=True)
class Primary:
    """A comparison of the γ rule with a rival.

    Attributes
    ----------
    name : str
        P1 … P4.
    rival : str
    found : Paired or None
        The rule less the rival; None where fewer than two units have both.
    p : float
        Holm's, over all primary comparisons that could be made.
    verdict : Verdict
        Undecided where nothing was found.
    """

    name: str
    rival: str
    found: Paired | None
    p: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class OtherBase:
    """H2: another base against the rule's, and Holm's p over all of them."""

    condition: str
    found: Paired
    p: float


def train_length(kind: str) -> int:
    """Tokens that a kind of model was trained on."""
    lengths = {SMOLLM2: SMOLLM2_LENGTH, "language": LANGUAGE_LENGTH, "passkey": PASSKEY_LENGTH}
    return lengths[kind]


def keys_beyond(fields: Fields, length: int) -> float:
    """Share of the keys found in prompts longer than the training length."""
    return _share(fields, lambda at: at > length)


def keys_short(fields: Fields, length: int) -> float:
    """Share of the keys found up to the training length."""
    return _share(fields, lambda at: at <= length)


def _share(fields: Fields, wanted: Callable[[int], bool]) -> float:
    asked = [(hits, trials) for at, hits, trials in fields["lengths"] if wanted(at)]
    return float(sum(hits for hits, _ in asked) / sum(trials for _, trials in asked))


def loss_beyond(fields: Fields, length: int) -> float | None:
    """Mean loss beyond the training length, nats, each bin weighed by its width."""
    return _mean_loss(fields, lambda start, _: start >= length)


def loss_short(fields: Fields, length: int) -> float | None:
    """Mean loss up to the training length, nats, each bin weighed by its width."""
    return _mean_loss(fields, lambda _, end: end <= length)


def loss_near_end(fields: Fields, _length: int) -> float | None:
    """Mean loss in the last bin, nats."""
    last = fields["bins"][-1][1]
    return _mean_loss(fields, lambda _, end: end == last)


def _mean_loss(fields: Fields, wanted: Callable[[int, int], bool]) -> float | None:
    bins = [
        (end - start, sum(losses) / len(losses))
        for (start, end), losses in zip(fields["bins"], fields["losses"], strict=True)
        if wanted(start, end) and losses
    ]
    if not bins:
        return None
    return float(sum(width * loss for width, loss in bins) / sum(width for width, _ in bins))


def tabulate(
    cells: Iterable[Cell],
    measure: Measure,
    kind: str,
    factor: int,
    value: Callable[[Fields, int], float | None],
) -> Table:
    """A value of every condition and unit, of the cells of one kind of model at one factor.

    What has none is left out: no token of a bin was scored.
    """
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for cell in cells:
        if (cell.run.measure, cell.kind, cell.run.factor) == (measure, kind, factor):
            found = value(cell.fields, train_length(kind))
            if found is not None:
                table[cell.fields["condition"]][cell.unit] = found
    return table


def difference(table: Table, a: str, b: str) -> Paired | None:
    """Condition a less condition b, over the units that have both."""
    first, second = table.get(a, {}), table.get(b, {})
    return paired([first[unit] - second[unit] for unit in first if unit in second])


def primary(cells: Sequence[Cell]) -> list[Primary]:
    """The eight comparisons of the protocol; passkey cells are of models that learned the task."""
    asked: list[tuple[str, str, Paired | None, float, bool]] = []
    for name, measure, kind, factor, value in (
        ("P1", Measure.RETRIEVAL, "passkey", 4, keys_beyond),
        ("P2", Measure.LOSS, "language", 4, loss_beyond),
        ("P3", Measure.LOSS, SMOLLM2, 2, loss_beyond),
        ("P4", Measure.LOSS, SMOLLM2, 2, loss_short),
    ):
        table = tabulate(cells, measure, kind, factor, value)
        is_keys = measure is Measure.RETRIEVAL
        smallest = KEYS if is_keys else NATS
        asked += [
            (name, rival, difference(table, RULE, rival), smallest, is_keys) for rival in RIVALS
        ]
    adjusted = iter(holm([found.p for _, _, found, _, _ in asked if found]))
    made = []
    for name, rival, found, smallest, higher in asked:
        p = next(adjusted) if found else 1.0
        verdict = Verdict.UNDECIDED
        if found:
            verdict = found.verdict(p, smallest=smallest, higher_is_better=higher)
        made.append(Primary(name, rival, found, p, verdict))
    return made


def other_bases(table: Table) -> list[OtherBase]:
    """H2: every other base less the rule's, on one measure."""
    names = [gamma_target(gamma) for gamma in GAMMA_TARGETS]
    names += [base_multiple(multiple) for multiple in BASE_MULTIPLES]
    found = [(name, difference(table, name, RULE)) for name in names]
    known = [(name, each) for name, each in found if each]
    adjusted = holm([each.p for _, each in known])
    return [OtherBase(name, each, p) for (name, each), p in zip(known, adjusted, strict=True)]


@dataclass(frozen=True, slots=True)
class Decay:
    """γ_obs of a model at a base, the mean over its texts, and what γ_Padé says there."""

    model: str
    condition: str
    predicted: float
    observed: float


def decays(cells: Iterable[Cell], freq_bases: Mapping[str, float]) -> list[Decay]:
    """γ_obs by model and base.

    Parameters
    ----------
    cells : iterable of Cell
    freq_bases : mapping
        Trained base of every model.
    """
    observed: dict[tuple[str, str], list[float]] = defaultdict(list)
    for cell in cells:
        if cell.run.measure is Measure.DECAY and cell.fields["gamma"] is not None:
            observed[cell.run.model, cell.fields["condition"]].append(cell.fields["gamma"])
    multiples = {decay_conditions([each])[0]: each for each in (1 / 16, 1 / 4, 1, 4)}
    return [
        Decay(
            model,
            condition,
            gamma_pade(freq_bases[model] * multiples[condition], train_length(model.split("-")[0])),
            sum(values) / len(values),
        )
        for (model, condition), values in observed.items()
    ]


@dataclass(frozen=True, slots=True)
class Slopes:
    """H1: slope of γ_obs on γ_Padé.

    Attributes
    ----------
    between : float or None
        Over native models.
    interval : (float, float) or None
        95 %, models resampled within their kind.
    within : Paired or None
        Mean over models of the slope over bases of one model.
    """

    between: float | None
    interval: tuple[float, float] | None
    within: Paired | None


def decay_slopes(found: Sequence[Decay]) -> Slopes:
    """Whether the decay of attention follows γ_Padé."""
    native: dict[str, list[tuple[float, float]]] = defaultdict(list)
    by_model: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for each in found:
        by_model[each.model].append((each.predicted, each.observed))
        if each.condition == NATIVE:
            native[each.model.split("-")[0]].append((each.predicted, each.observed))
    points = [point for group in native.values() for point in group]
    slopes = [slope([x for x, _ in group], [y for _, y in group]) for group in by_model.values()]
    return Slopes(
        slope([x for x, _ in points], [y for _, y in points]),
        slope_interval(list(native.values())),
        paired([each for each in slopes if each is not None]),
    )


def effects(table: Table, models: Mapping[str, tuple[int, int]], rival: str) -> list[float] | None:
    """H4: p of base, head size and interaction, of the rule less a rival over passkey models.

    Parameters
    ----------
    table : mapping
        Of keys beyond T.
    models : mapping
        Base and head size of each model.
    rival : str

    Returns
    -------
    list of float or None
        None where a base with a head size has fewer than two models.
    """
    first, second = table.get(RULE, {}), table.get(rival, {})
    both = [model for model in first if model in second]
    counts: dict[tuple[int, int], int] = defaultdict(int)
    for model in both:
        counts[models[model]] += 1
    if not counts or min(counts.values()) < 2 or len(counts) < len(set(models.values())):
        return None
    return list(
        main_effects(
            [first[model] - second[model] for model in both],
            [models[model][0] for model in both],
            [models[model][1] for model in both],
        )
    )
