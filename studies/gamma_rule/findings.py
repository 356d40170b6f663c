"""What the cells of the study say, by the analysis of protocol.md; pure.

A cell is a line of a result file: the condition, the text, and of RETRIEVAL ``lengths`` (length,
keys found, keys asked for), of LOSS ``bins`` and ``losses`` (positions [start, end), means of
blocks of tokens in nats, none where no token was scored), of DECAY ``gamma`` (γ_obs, None where no
law could be fitted), of TUNING ``searched`` (scalings, the best first) and ``kept``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from conditions import (
    BASE_MULTIPLES,
    GAMMA_TARGETS,
    NATIVE,
    TUNED,
    base_multiple,
    gamma_target,
)
from ggufext.planning.gamma import gamma_pade
from inference import Paired, Verdict, holm, main_effects, paired, slope, slope_interval
from schedule import (
    DECAY_MULTIPLES,
    LANGUAGE_LENGTH,
    MODULES,
    PASSKEY_LENGTH,
    SMOLLM2,
    SMOLLM2_LENGTH,
    Measure,
    Run,
    decay_conditions,
    runs,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Fields = Mapping[str, Any]
    #: What was measured of each unit (a text or a model) under each condition.
    Table = Mapping[str, Mapping[str, float]]

RULE = "gamma"
#: What the rule is compared with, and its name in sentences.
RIVALS = {"ntk": "NTK-aware scaling", "yarn": "YaRN"}
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
    measure : Measure
    kind : str
        Of the models.
    factor : int
    short : bool
        Whether it is the cost on short text, and not what is beyond the training length.
    rival : str
    values : tuple of float
        The rule less the rival, of every unit that has both.
    found : Paired or None
        Their mean; None of fewer than two.
    p : float
        Holm's, over all primary comparisons that could be made.
    verdict : Verdict
        Undecided where nothing was found.
    """

    name: str
    measure: Measure
    kind: str
    factor: int
    short: bool
    rival: str
    values: tuple[float, ...]
    found: Paired | None
    p: float
    verdict: Verdict

    @property
    def runs(self) -> list[Run]:
        """Runs of the schedule that measure it."""
        return [
            run
            for run in _planned(self.measure, self.kind, self.factor)
            if {RULE, self.rival} <= set(run.conditions)
        ]

    @property
    def units(self) -> int:
        """Texts or models that it is planned on."""
        return _units(self.runs)


def _planned(measure: Measure, kind: str, factor: int) -> list[Run]:
    return [
        run
        for run in runs()
        if run.measure is measure and run.model.startswith(kind) and run.factor == factor
    ]


def _units(planned: Iterable[Run]) -> int:
    return sum(MODULES if run.reads_modules else 1 for run in planned)


def planned_units(kind: str, factor: int, condition: str) -> int:
    """Texts on which the loss of a condition is to be measured."""
    planned = _planned(Measure.LOSS, kind, factor)
    return _units(run for run in planned if condition in run.conditions)


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


def differences(table: Table, a: str, b: str) -> list[float]:
    """One condition less another, of every unit that has both."""
    first, second = table.get(a, {}), table.get(b, {})
    return [value - second[unit] for unit, value in first.items() if unit in second]


def difference(table: Table, a: str, b: str) -> Paired | None:
    """Mean of `differences`, None of fewer than two."""
    return paired(differences(table, a, b))


_PRIMARY = (
    ("P1", Measure.RETRIEVAL, "passkey", 4, False),
    ("P2", Measure.LOSS, "language", 4, False),
    ("P3", Measure.LOSS, SMOLLM2, 2, False),
    ("P4", Measure.LOSS, SMOLLM2, 2, True),
)


def primary(cells: Sequence[Cell]) -> list[Primary]:
    """The eight comparisons of the protocol; passkey cells are of models that learned the task."""
    made = []
    for name, measure, kind, factor, short in _PRIMARY:
        loss = loss_short if short else loss_beyond
        value = loss if measure is Measure.LOSS else keys_beyond
        table = tabulate(cells, measure, kind, factor, value)
        for rival in RIVALS:
            values = tuple(differences(table, RULE, rival))
            made.append(
                Primary(
                    name=name,
                    measure=measure,
                    kind=kind,
                    factor=factor,
                    short=short,
                    rival=rival,
                    values=values,
                    found=paired(values),
                    p=1.0,
                    verdict=Verdict.UNDECIDED,
                )
            )
    adjusted = iter(holm([each.found.p for each in made if each.found]))
    return [_judged(each, next(adjusted)) if each.found else each for each in made]


def _judged(each: Primary, p: float) -> Primary:
    assert each.found is not None
    is_keys = each.measure is Measure.RETRIEVAL
    smallest = KEYS if is_keys else NATS
    verdict = each.found.verdict(p, smallest=smallest, higher_is_better=is_keys)
    return replace(each, p=p, verdict=verdict)


def other_bases(table: Table) -> list[OtherBase]:
    """H2: every other base less the rule's, on one measure."""
    names = [gamma_target(gamma) for gamma in GAMMA_TARGETS]
    names += [base_multiple(multiple) for multiple in BASE_MULTIPLES]
    found = [(name, difference(table, name, RULE)) for name in names]
    known = [(name, each) for name, each in found if each]
    adjusted = holm([each.p for _, each in known])
    return [OtherBase(name, each, p) for (name, each), p in zip(known, adjusted, strict=True)]


def all_other_bases(cells: Sequence[Cell]) -> list[tuple[str, list[OtherBase], bool]]:
    """H2: what was measured, every other base by it, and whether more of it is better."""
    loss = tabulate(cells, Measure.LOSS, "language", 4, loss_beyond)
    keys = tabulate(cells, Measure.RETRIEVAL, "passkey", 4, keys_beyond)
    return [
        ("loss, language model", other_bases(loss), False),
        ("keys, passkey models", other_bases(keys), True),
    ]


@dataclass(frozen=True, slots=True)
class Decay:
    """γ_obs of a model at a base, the mean over its texts, and what γ_Padé says there."""

    model: str
    condition: str
    freq_base: float
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
    multiples = {decay_conditions([each])[0]: each for each in DECAY_MULTIPLES}
    made = []
    for (model, condition), values in observed.items():
        base = freq_bases[model] * multiples[condition]
        predicted = gamma_pade(base, train_length(model.split("-")[0]))
        made.append(Decay(model, condition, base, predicted, sum(values) / len(values)))
    return made


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


class DecayWord(Enum):
    """H1: what an interval of a slope of γ_obs on γ_Padé says."""

    FOLLOWS = "follows"
    """Above 0, with 1 inside."""
    MOVES = "moves"
    """Above 0 without 1."""
    NOT = "does not follow"
    """Holds 0 or less."""
    OPEN = "open"
    """None was measured."""


def decay_word(interval: tuple[float, float] | None) -> DecayWord:
    """The protocol's word for a slope."""
    if interval is None:
        return DecayWord.OPEN
    low, high = interval
    if low <= 0:
        return DecayWord.NOT
    return DecayWord.FOLLOWS if low <= 1 <= high else DecayWord.MOVES


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


@dataclass(frozen=True, slots=True)
class Effect:
    """H4: whether the rule less a rival depends on the base, or on the head size.

    Attributes
    ----------
    rival, of : str
    p : float
        Holm's, over both effects of both rivals.
    interaction : float
        P of base and head size together.
    """

    rival: str
    of: str
    p: float
    interaction: float


def all_effects(table: Table, models: Mapping[str, tuple[int, int]]) -> list[Effect]:
    """Effects on the difference to each rival; none where they cannot be told yet."""
    found = [(rival, effects(table, models, rival)) for rival in RIVALS]
    flat = [
        (rival, of, p, both)
        for rival, p_values in found
        if p_values
        for base, head, both in [p_values]
        for of, p in (("base", base), ("head size", head))
    ]
    adjusted = holm([p for _, _, p, _ in flat])
    return [
        Effect(rival, of, p, both) for (rival, of, _, both), p in zip(flat, adjusted, strict=True)
    ]


def blocks_beyond(a: Fields, b: Fields, kind: str) -> list[float]:
    """A text under one condition less another: every block of tokens beyond T, nats."""
    length = train_length(kind)
    beyond = [index for index, (start, _) in enumerate(a["bins"]) if start >= length]
    return [
        first - second
        for index in beyond
        for first, second in zip(a["losses"][index], b["losses"][index], strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Tuning:
    """H5: a search, and what it kept against the closed form that was best on its texts.

    Attributes
    ----------
    run : Run
    closed : str or None
        None where none was measured.
    kept : bool
        Whether the search kept anything but that.
    found : Paired or None
        Loss beyond the training length on the test texts: tuned less closed form.
    """

    run: Run
    closed: str | None
    kept: bool
    found: Paired | None


def tunings(cells: Sequence[Cell]) -> list[Tuning]:
    """What every search came to."""
    made = []
    for cell in cells:
        if cell.run.measure is Measure.TUNING:
            closed = next(
                (
                    each["name"].removeprefix("planned:")
                    for each in cell.fields["searched"]
                    if each["closed_form"] and each["texts"]
                ),
                None,
            )
            table = tabulate(cells, Measure.LOSS, cell.kind, cell.run.factor, loss_beyond)
            found = difference(table, TUNED, closed) if closed else None
            made.append(Tuning(cell.run, closed, cell.fields["kept"], found))
    return made
