"""What an audit is asked to do: what to ask, how, and of whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.errors import PlanError
from ggufext.planning.footprint import LARGEST_TARGET, CacheType

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A condition's name: this and a method or the file of a recipe, whose short contexts may be kept.
PLANNED, KEEP_SHORT = "planned:", "+keep-short"

#: The condition that the publisher of a model documents.
DOCUMENTED = f"{PLANNED}documented"

#: Shortest length taken for real, tokens.
_SHORTEST = 64

#: Most texts a cell: the bootstrap over texts then holds 4,000 × 1,000 counts, 32 MB.
_MOST_TRIALS = 1000

_MOST_DEPTHS = 100


class Mode(Enum):
    """How keys are asked for."""

    STANDARD = "standard"
    """One key in a text of its own."""
    SWEEP = "sweep"
    """Many labelled keys in one text: harder, and reported under its own name."""


class Template(Enum):
    """Whether prompts are put into the model's chat template."""

    AUTO = "auto"
    """Where the file brings one; a server is asked in plain text."""
    NONE = "none"
    """Plain text."""
    CHAT = "chat"
    """The file's own, which must be there; a server's, through its chat endpoint."""


@dataclass(frozen=True, slots=True)
class DepthBin:
    """Depths of one row of cells, in [0, 1], and its middle; a named depth has no width."""

    start: float
    depth: float
    end: float

    def at(self, share: float) -> float:
        """The depth that lies `share` of the bin behind its start."""
        return self.start + share * (self.end - self.start)


def depth_bins(depths: int | Sequence[float]) -> tuple[DepthBin, ...]:
    """Bins for a number of them, or for the depths themselves.

    Parameters
    ----------
    depths : int or sequence of float
        So many equal bins of [0, 1], a key at a random place of each; or depths in [0, 1], keys
        at the nearest end of a sentence.

    Raises
    ------
    PlanError
        ``request_absurd``.
    """
    wanted = (
        [
            DepthBin(index / depths, (index + 0.5) / depths, (index + 1) / depths)
            for index in range(depths)
        ]
        if isinstance(depths, int)
        else [DepthBin(depth, depth, depth) for depth in sorted(set(depths))]
    )
    if not wanted:
        raise PlanError(code="request_absurd", message="at least one depth is needed")
    if len(wanted) > _MOST_DEPTHS or not 0 <= wanted[0].start <= wanted[-1].end <= 1:
        raise PlanError(
            code="request_absurd",
            message=f"depths {depths!r}; up to {_MOST_DEPTHS} bins, or up to {_MOST_DEPTHS} "
            "depths from 0 (the beginning) to 1 (just before the question)",
        )
    return tuple(wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """How to run llama.cpp on a file.

    Attributes
    ----------
    threads : int or None
        Threads that compute. None: as many as this process may use processors, one for a small
        model.
    gpu_layers : int or None
        Layers on devices. None: as many as fit into the devices' memory.
    cache_type : CacheType
        Of the KV cache, keys and values.
    flash_attention : bool or None
        Whether to use it. None: on devices where they can; on processors what is faster, measured
        on the model, and to save memory.
    rpc : tuple of str
        Addresses ``host:port`` of llama.cpp RPC workers.
    dask : str or None
        Address of a dask scheduler, ``tcp://host:port``, whose workers see the file at the same
        path: each text is asked on one of them.
    audit : bool
        Compare the ROPE node of every layer with what the condition means.
    llama_server : Path or None
        llama.cpp's own server, or its name on the search path: it is started for every condition
        and ended. What is None here is left to it.
    llama_cpp : Path or None
        llama.cpp's library, or the folder of a build that holds it; None: the installed one.

    Raises
    ------
    PlanError
        ``request_absurd``: `llama_server` with `rpc`, `dask`, `audit` or `llama_cpp`; `dask` with
        `llama_cpp`, which is a path of this machine.
    """

    threads: int | None = None
    gpu_layers: int | None = None
    cache_type: CacheType = CacheType.F16
    flash_attention: bool | None = None
    rpc: tuple[str, ...] = ()
    dask: str | None = None
    audit: bool = False
    llama_server: Path | None = None
    llama_cpp: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what a llama-server, or a worker on another machine, cannot do."""
        if self.dask and self.llama_cpp:
            raise PlanError(
                code="request_absurd",
                message="llama_cpp is a path of this machine, and a dask worker uses what is "
                "installed where it runs: leave one of --llama-cpp and --dask out",
            )
        if self.llama_server is None:
            return
        for name in ("rpc", "dask", "audit", "llama_cpp"):
            if getattr(self, name):
                raise PlanError(
                    code="request_absurd",
                    message=f"{name} goes with llama.cpp's library, not with a llama-server: leave "
                    f"one of --{name.replace('_', '-')} and --llama-server out",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Which server to ask, or several, and with how much patience.

    Attributes
    ----------
    url : str
        ``http://host:port``, with or without ``/v1``; ``http://user:password@host`` where a proxy
        in front of it wants that.
    others : tuple of str
        Of further servers with the same model, started alike, which share its texts.
    model : str or None
        Name of the model; the server's first one when absent.
    api_key : str or None
        Sent to the hosts of `url` and `others` only.
    timeout : float
        Seconds for one answer, and the longest wait that a server may ask for.
    retries : int
        Further tries after a failure of the network or the server.
    retry_seconds : float
        The second of them waits twice this, each later one twice as long as the one before.
    """

    url: str = field(repr=False)
    others: tuple[str, ...] = field(default=(), repr=False)
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 600.0
    retries: int = 3
    retry_seconds: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """What to ask of a model.

    Attributes
    ----------
    lengths : tuple of int or None
        Tokens of prompt and answer. None: up to four doublings that end at the file's context
        length; a server does not say its own.
    depths : int or tuple of float
        Equal bins of a length, 1 … 100; or the depths themselves, from 0 (the beginning) to 1.
    trials : int
        Trials a cell, 1 … 1,000, each in a text of its own.
    mode : Mode
    seed : int
        Of keys, texts and resamples; no unit.
    conditions : tuple of str
        Names of conditions; see `ggufext.audit.conditions.conditions`; each counts once.
    target_length : int or None
        What planned conditions extend to, tokens; the longest length when absent.
    train_length, train_freq_base
        Tokens and RoPE base that the model was really trained with, where the file says something
        else; see `ggufext.header.training.trained_facts`.
    template : Template
    answer_tokens : int or None
        Longest answer, tokens; by default the key's own, 64 for chat models.
    threshold : float
        Accuracy that the effective length asks for, in (0, 1].
    resume : Path or None
        File that every answer is written to, a JSON line each, and whose answers of an earlier run
        of the same request are not asked again.
    engine : LocalSettings or None
        How to run llama.cpp on a file; a server runs the model in its own way.
    """

    lengths: tuple[int, ...] | None = None
    depths: int | tuple[float, ...] = 10
    trials: int = 5
    mode: Mode = Mode.STANDARD
    seed: int = 0
    conditions: tuple[str, ...] = ("file",)
    target_length: int | None = None
    train_length: int | None = None
    train_freq_base: float | None = None
    template: Template = Template.AUTO
    answer_tokens: int | None = None
    threshold: float = 0.8
    resume: Path | None = None
    engine: LocalSettings | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be asked.

        Raises
        ------
        PlanError
            ``request_absurd``, ``target_absurd``.
        """
        depth_bins(self.depths)
        if self.trials > _MOST_TRIALS:
            raise PlanError(
                code="request_absurd",
                message=f"{self.trials:,} trials a cell; up to {_MOST_TRIALS:,}, which with 10 "
                "depths are 10,000 answers a length",
            )
        if self.lengths == () or not (self.conditions and self.trials > 0):
            raise PlanError(
                code="request_absurd",
                message="at least one length, condition, depth and trial is needed",
            )
        for length in self.lengths or ():
            if not _SHORTEST <= length <= LARGEST_TARGET:
                raise PlanError(
                    code="target_absurd",
                    message=f"length of {length:,} tokens; lengths go from {_SHORTEST} to "
                    f"{LARGEST_TARGET:,}",
                )

    @property
    def answers_per_length(self) -> int:
        """Answers of one condition at each length."""
        return self.trials * len(depth_bins(self.depths))

    @property
    def files(self) -> tuple[Path, ...]:
        """Files beside the model that a run reads or writes: kept answers, recipes."""
        recipes = (recipe_file(name) for name in self.conditions)
        return tuple(each for each in (self.resume, *recipes) if each is not None)


def recipe_file(condition: str) -> Path | None:
    """The file of a recipe that a condition names: ``planned:FILE.json``, or with +keep-short."""
    name = condition.removeprefix(PLANNED).removesuffix(KEEP_SHORT)
    return Path(name) if condition.startswith(PLANNED) and name.endswith(".json") else None
