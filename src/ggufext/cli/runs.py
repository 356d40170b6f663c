"""What the commands that run a model share: options, permission for copies, how they end."""

from __future__ import annotations

import re
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import click

from ggufext.cli.options import llama_cpp_option
from ggufext.cli.output import show_error, show_json
from ggufext.cli.waiting import Told, waiting
from ggufext.errors import EngineError, GgufextError, printable
from ggufext.text import binary_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ggufext.api.audits import CheckResult, CopyNeeded, LocalSettings
    from ggufext.api.comparisons import CompareResult
    from ggufext.api.measurements import MeasureResult
    from ggufext.api.tunings import TuneResult
    from ggufext.cli.waiting import Wait

_Command = TypeVar("_Command", bound="Callable[..., object]")

_INTERRUPTED = 130

#: What ``--flash-attention`` means for settings.
_FLASH_ATTENTION = {"auto": None, "on": True, "off": False}


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


class _LayerCount(click.ParamType["int | None"]):
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


_OF_THE_ENGINE = (
    click.option(
        "--gpu-layers",
        type=_LayerCount(),
        default="auto",
        show_default=True,
        help="Layers on devices.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        help="Threads; without: all cores or half of them, one or two for a small model, as is "
        "faster.",
    ),
    click.option(
        "--kv-type",
        type=click.Choice(["f16", "q8_0", "q4_0"], case_sensitive=False),
        default="f16",
        show_default=True,
        help="Type of the KV cache.",
    ),
    click.option(
        "--flash-attention",
        type=click.Choice(["auto", "on", "off"], case_sensitive=False),
        default="auto",
        show_default=True,
        help="Attention that never writes its scores out. auto: on devices that can; on processors "
        "what is faster for this model, or to save memory.",
    ),
    click.option(
        "--rpc",
        multiple=True,
        metavar="HOST:PORT",
        help="llama.cpp RPC worker that holds a part of the model; repeatable. The link is not "
        "authenticated.",
    ),
    click.option(
        "--dask",
        metavar="ADDRESS",
        help="Ask on the workers of a dask scheduler, which see FILE at the same path: "
        "tcp://host:8786.",
    ),
    llama_cpp_option,
)

yes_option = click.option(
    "--yes",
    is_flag=True,
    help="Make a temporary copy of FILE for a condition that needs one, without asking.",
)
report_option = click.option(
    "--report",
    "reports",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Write a report: .html, .png or .json; repeatable.",
)

texts_option = click.option(
    "--text",
    "texts",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Text to read, UTF-8, at least as long as the target; repeatable. Without, sentences that "
    "the program makes itself, which say little of real text.",
)
native_threshold_option = click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.8,
    show_default=True,
    help="Share of the keys within the training length that native must find for keys to count.",
)

_OF_THE_RUN = (
    click.option(
        "--audit", is_flag=True, help="Compare the rotation of every layer with the plan."
    ),
    yes_option,
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of prompts and keys."
    ),
    click.option(
        "--resume",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Keep every finished answer in this file, and go on with those that are in it.",
    ),
)


def engine_options(command: _Command) -> _Command:
    """Options of llama.cpp here, on devices and on other machines."""
    for option in reversed(_OF_THE_ENGINE):
        command = option(command)
    return command


#: Options of commands that are settings of llama.cpp under the same name.
_SETTINGS = ("threads", "gpu_layers", "rpc", "dask", "audit", "llama_server", "llama_cpp")


def local_settings(options: dict[str, Any]) -> LocalSettings:
    """Take what `engine_options`, ``--audit`` and ``--llama-server`` say out of the options."""
    from ggufext.api.audits import LocalSettings
    from ggufext.api.plans import CacheType

    settings = {name: options.pop(name) for name in _SETTINGS if name in options}
    if settings["dask"] and settings["rpc"]:
        raise click.UsageError("give one of --dask and --rpc")
    return LocalSettings(
        cache_type=CacheType[options.pop("kv_type").upper()],
        flash_attention=_FLASH_ATTENTION[options.pop("flash_attention")],
        **settings,
    )


def run_options(command: _Command) -> _Command:
    """Options of a run: what is checked before, what it may do, and what it keeps."""
    for option in reversed(_OF_THE_RUN):
        command = option(command)
    return command


def agreed(wait: Wait, copy: CopyNeeded) -> bool:
    """Ask for a temporary copy; nobody at a terminal is a no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    with wait.silent():
        return click.confirm(
            f"{printable(copy.condition)} needs a temporary copy of {binary_size(copy.size)} in "
            f"{printable(str(copy.folder))}, which has {binary_size(copy.free)} free. Make it?",
            err=True,
        )


@contextmanager
def running(
    what: str, *, inputs: Iterable[Path] = (), reports: tuple[Path, ...] = ()
) -> Iterator[Wait]:
    """A run about to begin: its waits are told, and at SIGTERM it ends as at Ctrl-C.

    Parameters
    ----------
    what : str
        What is done first.
    inputs : iterable of Path
        Files of the run.
    reports : tuple of Path
        Those to be written, which must not replace any of them.
    """
    from ggufext.api.audits import check_report_path

    for report in reports:
        check_report_path(report, inputs=tuple(inputs))
    # Copies and processes are given back, as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with waiting(what) as wait:
        yield wait


class _Notes(Protocol):
    """What is known before the first question or cell."""

    @property
    def tokens(self) -> int: ...


_Known = TypeVar("_Known", bound=_Notes)


@dataclass(slots=True)
class Listener(Generic[_Known]):
    """Hears what a run tells, and passes it on.

    Attributes
    ----------
    wait : Wait
    what : str
        What the run does.
    beginning : callable
        Says what is known beforehand.
    seconds : callable
        Seconds that all of it takes, or None.
    detail : callable
        Says where the run is, of its progress and what was known beforehand.
    """

    wait: Wait
    what: str
    beginning: Callable[[_Known], str]
    seconds: Callable[[_Known], float | None]
    detail: Callable[[Any, _Known], str]
    _known: _Known | None = field(default=None, init=False)
    _told: Told = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing done."""
        self._told = Told(self.what)

    def __call__(self, event: Any) -> None:
        """Tell what is copied, what the run begins with, and where it is."""
        from ggufext.api.audits import Computing, Preparing

        if isinstance(event, Preparing):
            self.wait.tell(Told(event.what, event.done, event.total, "bytes"))
            return
        if isinstance(event, Computing):
            self.wait.tell(replace(self._told, done=self._told.done + event.tokens))
            return
        if self._known is None:
            known: _Known = event
            with self.wait.silent():
                click.echo(self.beginning(known), err=True)
            self._known = known
            expected = self.seconds(known)
            self._told = Told(self.what, 0, known.tokens, "tokens", expected=expected)
        else:
            detail = self.detail(event, self._known)
            self._told = replace(self._told, done=event.tokens, detail=detail)
        self.wait.tell(self._told)


def told(
    result: CheckResult | CompareResult | MeasureResult | TuneResult,
    reports: tuple[Path, ...] = (),
    *,
    as_json: bool,
) -> bool:
    """Show a result and write its reports; whether all could be written.

    A run that was interrupted or failed ends the program here.
    """
    from ggufext.api.audits import print_report

    if as_json:
        show_json(result)
    else:
        print_report(result)
        for sentence in getattr(result.run, "audited", ()):
            click.echo(f"  audited: {printable(sentence)}")
    written = [_is_written(result, path) for path in reports]
    stop = result.run.stop
    if stop is not None and stop.code == "interrupted":
        click.echo("interrupted: the report holds what was done", err=True)
        sys.exit(_INTERRUPTED)
    if stop is not None:
        show_error(EngineError(code=stop.code, message=stop.message), as_json=False)
        sys.exit(1)
    return all(written)


def _is_written(result: Any, path: Path) -> bool:
    """Write a report, or say why not."""
    from ggufext.api.audits import write_report

    try:
        write_report(result, path)
    except GgufextError as error:
        show_error(error, as_json=False)
        return False
    click.echo(f"report written to {printable(str(path))}", err=True)
    return True
