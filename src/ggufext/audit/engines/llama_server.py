"""The user's own llama-server, started once for every model and context, as an engine of the audit.

What a condition changes is said with ``--override-kv``, as the engine here says it to llama.cpp:
the flags of RoPE and YaRN could neither take back an edit nor speak of single layers.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.audit.engines.connection import Connection
from ggufext.audit.engines.llama_cpp import sharing
from ggufext.audit.engines.server import Server
from ggufext.audit.request import ServerSettings
from ggufext.errors import EngineError, PlanError, printable
from ggufext.header.facts import architecture_name
from ggufext.header.header import read_header
from ggufext.header.rope_keys import CONTEXT_LENGTH, ORIGINAL_LENGTH
from ggufext.header.shards import later_shards
from ggufext.llama.program import Program
from ggufext.llama.settings import ContextSettings, LoadRequest
from ggufext.planning.emit import number
from ggufext.planning.footprint import padded_cells
from ggufext.text import binary_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ggufext.audit.conditions import ResolvedCondition
    from ggufext.audit.engines import Answer
    from ggufext.audit.request import LocalSettings
    from ggufext.audit.task import Question
    from ggufext.errors import ModelWarning
    from ggufext.header.header import Header
    from ggufext.llama.settings import Override

#: Without these a program is no llama-server, or none that is new enough.
NEEDED = (
    *("--model", "--host", "--port", "--ctx-size", "--parallel", "--override-kv"),
    *("--cache-type-k", "--cache-type-v", "--flash-attn", "--n-gpu-layers", "--threads"),
)

#: How the help of a version says that it takes all overrides in one option.
_LISTS_OVERRIDES = "KEY=TYPE:VALUE,..."

_HOST = "127.0.0.1"

#: Given where they are known: no pages, templates as the model's, windows that are reused, and no
#: gigabytes for prompts that do not come again.
_WHERE_KNOWN = (("--no-webui",), ("--jinja",), ("--swa-full",), ("--cache-ram", "0"))

#: Settings of llama-server in the environment: the audit says all that counts.
_SETTINGS = re.compile(r"LLAMA_ARG_|LLAMA_API_KEY$")

#: Seconds for its help, for which it looks for devices.
_HELP = 60.0

#: More bytes than it says at its start, or in its help.
_LONGEST_LOG = 64 << 20

#: Seconds for its start, and bytes of the model that it reads in a second more.
_START, _READ = 120.0, 20e6

#: Seconds for an answer to whether it is ready, and between two such questions.
_READY, _LOOK = 5.0, 0.05

#: Seconds for an answer: a long prompt may take hours on a processor.
_ANSWER = 86_400.0

#: Seconds for its end once it does not answer.
_END = 5.0


class LlamaServer:
    """A llama-server of the user's; what it is asked goes through `Server`.

    Parameters
    ----------
    program : Path
        Of llama.cpp's server, or its name on the search path.
    settings : LocalSettings
    load : LoadRequest
        What to start with, to count tokens.
    chat : bool
        Ask as a user of a chat, through the model's template.

    Attributes
    ----------
    version : str
        The build, as it names it.
    around : int
        See `Server`.

    Raises
    ------
    EngineError
        ``not_llama_server``; of every method: ``engine_died``, ``out_of_memory``,
        ``engine_unreachable`` with the last lines of its log.
    """

    def __init__(
        self, program: Path, settings: LocalSettings, load: LoadRequest, *, chat: bool
    ) -> None:
        self._path = _on_search_path(program)
        self._help = _help_of(self._path)
        self._settings = settings
        self._chat = chat
        self._notes: dict[str, ModelWarning] = {}
        self._program: Program | None = None
        self._server: Server | None = None
        self._loaded: LoadRequest | None = None
        try:
            self._start(load)
        except BaseException:
            self.close()
            raise

    def counts(self, parts: Sequence[str]) -> list[int]:
        """Tokens of texts, each as it stands behind a full stop."""
        assert self._server is not None
        with self._told():
            return self._server.counts(parts)

    def answers(
        self, load: LoadRequest | None, questions: Sequence[Question], *, tokens: int
    ) -> Iterator[tuple[Question, Answer]]:
        """See `ggufext.audit.engines.AuditEngine`."""
        assert load is not None
        if load != self._loaded:
            self._start(load)
        assert self._server is not None
        with self._told():
            yield from self._server.answers(load, questions, tokens=tokens)

    def warnings(self) -> tuple[ModelWarning, ...]:
        """What was noticed while asking, in every condition."""
        if self._server is not None:
            self._notes |= {each.code: each for each in self._server.warnings()}
        return tuple(self._notes.values())

    def close(self) -> None:
        """End the program at once."""
        self.warnings()
        self._loaded = None
        if self._server is not None:
            self._server.close()
        if self._program is not None:
            self._program.close()
        self._server = self._program = None

    def _start(self, load: LoadRequest) -> None:
        """End what runs, and start the program on a model and a context."""
        self.close()
        port, key = _free_port(), secrets.token_hex(16)
        environment = {k: v for k, v in os.environ.items() if not _SETTINGS.match(k)}
        self._program = Program(
            [self._path, *_arguments(load, self._settings, self._help), "--port", str(port)],
            # Not among the arguments, which every user of the machine may read.
            {**environment, "LLAMA_API_KEY": key},
        )
        settings = ServerSettings(
            url=f"http://{_HOST}:{port}", api_key=key, timeout=_ANSWER, retries=0
        )
        self._wait(load.path, settings)
        with self._told():
            self._server = Server(settings, chat=self._chat, proxies=False)
        self.around = self._server.around
        self._loaded = load

    def _wait(self, model: Path, settings: ServerSettings) -> None:
        """Wait until the program answers, and see that it is the one that does."""
        header = read_header(model)
        size = sum(part.file_size for part in (header, *later_shards(header)))
        limit = _START + size / _READ
        deadline = time.monotonic() + limit
        with closing(Connection(replace(settings, timeout=_READY), proxies=False)) as connection:
            while True:
                try:
                    connection.get("/health")
                    properties = connection.get("/props")
                    if properties.get("model_path") != str(model):
                        raise EngineError(
                            code="server_not_understood",
                            message=f"{connection.address}/props does not name {model}: another "
                            "program answers there, or an old llama-server",
                        )
                    self.version = printable(str(properties.get("build_info")), 60)
                except EngineError as error:
                    waiting = error.code == "engine_unreachable"
                    self._raise_death(_LOOK if waiting else _END)
                    if not waiting:
                        raise self._with_log(str(error), error.code) from error
                    assert self._program is not None
                    if time.monotonic() > deadline or self._program.log.size > _LONGEST_LOG:
                        said = (
                            f"{self._path} does not answer within {limit:.0f} s of its start and "
                            f"{binary_size(_LONGEST_LOG)} of its log"
                        )
                        raise self._with_log(said, error.code) from error
                else:
                    return

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say of a program that does not answer how it ended, or what it logged last."""
        try:
            yield
        except EngineError as error:
            if error.code != "engine_unreachable":
                raise
            self._raise_death(_END)
            raise self._with_log(str(error), error.code) from error

    def _raise_death(self, seconds: float) -> None:
        """Raise how the program ended, if it does within some seconds."""
        assert self._program is not None
        status = self._program.status(seconds)
        if status is not None:
            raise self._program.log.death(self._path, status, path=None)

    def _with_log(self, said: str, code: str) -> EngineError:
        assert self._program is not None
        log = self._program.log.last_words()
        return EngineError(code=code, message=f"{said}; its log, last line first: {log}")


def refuse_self_extend(chosen: tuple[ResolvedCondition, ...]) -> None:
    """Refuse conditions that llama-server cannot run.

    Raises
    ------
    PlanError
        ``bad_condition``.
    """
    for condition in chosen:
        if condition.self_extend:
            raise PlanError(
                code="bad_condition",
                message=f"condition {condition.name!r}; llama-server has no Self-Extend any more "
                "(--grp-attn-n): leave --llama-server or the condition out",
            )


def served_contexts(
    path: Path, condition: ResolvedCondition, lengths: tuple[int, ...]
) -> list[tuple[tuple[int, ...], LoadRequest]]:
    """Lengths that share a context, and what to start for them, the shortest first.

    Parameters
    ----------
    path : Path
        The model file.
    """
    path = (condition.path or path).absolute()
    header = read_header(path)
    return [
        (
            group,
            LoadRequest(
                path=path,
                context=ContextSettings(n_ctx=padded_cells(group[-1])),
                kv_overrides=_uncapped(
                    dict(condition.kv_overrides), header, padded_cells(group[-1])
                ),
            ),
        )
        for group in sharing(condition, lengths)
    ]


def _uncapped(overrides: dict[str, Override], header: Header, n_ctx: int) -> dict[str, Override]:
    """Overrides with which llama-server gives a context: it caps to what the file says."""
    architecture = architecture_name(header)
    length_key, original_key = (
        f"{architecture}.{name}" for name in (CONTEXT_LENGTH, ORIGINAL_LENGTH)
    )
    length = overrides.get(length_key, header.value(length_key))
    assert isinstance(length, int)
    if n_ctx <= length:
        return overrides
    # What is absent is what the length is: it stays what it was.
    if original_key not in header.keys:
        overrides.setdefault(original_key, length)
    return {**overrides, length_key: n_ctx}


def _on_search_path(program: Path) -> str:
    found = shutil.which(os.fspath(program))
    if found is None:
        raise EngineError(
            code="not_llama_server",
            path=program,
            message="is no program that can be run, nor the name of one on the search path; "
            "expected llama.cpp's llama-server",
        )
    return os.path.abspath(found)  # noqa: PTH100 (links stay: a program may look at its name)


def _help_of(program: str) -> str:
    """What a program says of its options.

    Raises
    ------
    EngineError
        ``not_llama_server``.
    """
    deadline = time.monotonic() + _HELP
    with closing(Program([program, "--help"], os.environ)) as running:
        while (status := running.status(_LOOK)) is None:
            if time.monotonic() > deadline or running.log.size > _LONGEST_LOG:
                break
        text = "\n".join(running.log.lines())
        said = running.log.last_words()
    missing = [flag for flag in NEEDED if not _knows(text, flag)]
    if status == 0 and not missing:
        return text
    if status is None:
        why = f"its --help does not end within {_HELP:.0f} s and {binary_size(_LONGEST_LOG)}"
    elif status:
        why = f"its --help ends with status {status}"
    else:
        why = f"its --help does not name {', '.join(missing)}"
    raise EngineError(
        code="not_llama_server",
        path=Path(program),
        message=f"is not llama.cpp's llama-server, or another version than is known here: {why}; "
        f"its last line first: {said}",
    )


def _knows(text: str, flag: str) -> bool:
    return re.search(rf"(?<![\w-]){flag}(?![\w-])", text) is not None


def _arguments(load: LoadRequest, settings: LocalSettings, known: str) -> list[str]:
    """What a condition is to llama-server.

    Parameters
    ----------
    known : str
        Its help.
    """
    cache = settings.cache_type.label
    arguments = [
        *("--model", str(load.path), "--host", _HOST, "--ctx-size", str(load.context.n_ctx)),
        *("--parallel", "1", "--cache-type-k", cache, "--cache-type-v", cache),
    ]
    overrides = [_override(key, value) for key, value in load.kv_overrides.items()]
    if _LISTS_OVERRIDES in known:
        # It would heed the last of several options only.
        overrides = [",".join(overrides)] if overrides else []
    for override in overrides:
        arguments += ["--override-kv", override]
    if settings.threads is not None:
        arguments += ["--threads", str(settings.threads)]
    if settings.gpu_layers is not None:
        arguments += ["--n-gpu-layers", str(settings.gpu_layers)]
    if settings.flash_attention is not None:
        arguments += ["--flash-attn", "on" if settings.flash_attention else "off"]
    for option in _WHERE_KNOWN:
        if _knows(known, option[0]):
            arguments += option
    return arguments


def _override(key: str, value: Override) -> str:
    if isinstance(value, bool):
        said = f"bool:{str(value).lower()}"
    elif isinstance(value, int):
        said = f"int:{value}"
    else:
        said = f"float:{number(value)}" if isinstance(value, float) else f"str:{value}"
    if not re.fullmatch(r"[\w.+-]{1,127}", key) or not re.fullmatch(r"\w+:[\w.+-]*", said):
        raise EngineError(
            code="cannot_be_audited",
            message=f"{printable(key)} = {printable(str(value))} cannot be said on llama-server's "
            "command line; leave --llama-server out",
        )
    return f"{key}={said}"


def _free_port() -> int:
    """A port of loopback that nobody listens to."""
    with socket.socket() as free:
        free.bind((_HOST, 0))
        port: int = free.getsockname()[1]
        return port
