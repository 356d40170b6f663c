"""llama.cpp in a child process: its crash is an EngineError here, and nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from array import array
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ggufext.audit.engines import Answer
from ggufext.audit.task.templates import Frame
from ggufext.errors import EngineError, ModelWarning
from ggufext.llama.process import how_it_ended, last_words, start_child

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ggufext.audit.engines.contexts import Opening
    from ggufext.audit.task import Question
    from ggufext.llama.settings import SelfExtend

_LOG_TAIL = 65_536

_NO_MEMORY = re.compile(r"bad_alloc|failed to allocate|out of memory|cannot allocate", re.I)


@dataclass(frozen=True, slots=True)
class Hello:
    """What the child says of itself.

    Attributes
    ----------
    version : str
        Of llama-cpp-python.
    system : str
        Processor features that llama.cpp was built for.
    gpu : bool
        Whether layers can be given to a device.
    device_memory, available : int
        Free bytes of the devices and of this machine, as far as the child may take them.
    """

    version: str
    system: str
    gpu: bool
    device_memory: int
    available: int


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Size of the vocabulary and the text of the tokens that chat templates name."""

    n_vocab: int
    bos: str
    eos: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A context that was created: micro-batch, and whether its cells can be reused."""

    n_ubatch: int
    can_reuse: bool


class LlamaCpp:
    """A model file behind llama.cpp; one child process, which `close` ends.

    Parameters
    ----------
    path : Path
        A GGUF file.
    rpc : sequence of str
        Addresses ``host:port`` of llama.cpp RPC workers that hold a part of the model.

    Raises
    ------
    EngineError
        Of every method: ``engine_missing``, ``model_not_loaded``, ``no_vocabulary``,
        ``context_not_created``, ``decode_failed``, ``out_of_memory``, and ``engine_died`` with
        the last lines of the log when llama.cpp ends its process.
    """

    def __init__(self, path: Path, *, rpc: Sequence[str] = ()) -> None:
        self._path = path
        self._tokens: dict[str, array[int]] = {}
        self._lead: array[int] = array("i")
        self._trail: array[int] = array("i")
        self._reuses = True
        self._opening: Opening | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child)
        # Ctrl-C is for this process, which then ends the child.
        self._child = start_child("ggufext.llama.worker", self._log, hears_interrupt=False)
        try:
            self.hello = Hello(**self._exchange({"op": "hello", "rpc": list(rpc)}))
            self.vocabulary = Vocabulary(**self._exchange({"op": "vocabulary", "path": str(path)}))
            self.frame(Frame())
        except BaseException:
            self.close()
            raise

    @property
    def process_id(self) -> int:
        """Of the child."""
        return self._child.pid

    def frame(self, frame: Frame) -> tuple[int, int]:
        """Put every prompt into a chat template; tokens before and behind, BOS included."""
        reply = self._exchange({"op": "tokenize", "frame": [frame.before, frame.behind]})
        self._lead, self._trail = array("i", reply["lead"]), array("i", reply["trail"])
        return len(self._lead), len(self._trail)

    def counts(self, parts: Sequence[str]) -> list[int]:
        """Tokens of texts, each as it stands behind a full stop."""
        new = [part for part in dict.fromkeys(parts) if part not in self._tokens]
        if new:
            reply = self._exchange({"op": "tokenize", "texts": new})
            for part, tokens in zip(new, reply["tokens"], strict=True):
                self._tokens[part] = array("i", tokens)
        return [len(self._tokens[part]) for part in parts]

    def pieces(self, texts: Sequence[str]) -> list[list[bytes]]:
        """Bytes of every token of texts that each follow a full stop."""
        reply = self._exchange({"op": "tokenize", "texts": list(texts), "pieces": True})
        return [[piece.encode("latin-1") for piece in pieces] for pieces in reply["pieces"]]

    def open(
        self,
        *,
        settings: Mapping[str, Any],
        kv_overrides: Mapping[str, bool | int | float | str],
        gpu_layers: int,
        self_extend: SelfExtend | None = None,
        path: Path | None = None,
    ) -> Opened:
        """Load the model and create its context.

        Parameters
        ----------
        path : Path, optional
            A rewritten copy, with the same tokens, to load instead of the file.
        settings : mapping
            Fields of ``llama_context_params`` by name; the others keep llama.cpp's defaults.
        kv_overrides : mapping
            Metadata values that stand in for the file's, by key.
        """
        reply = self._exchange(
            {
                "op": "open",
                "path": str(path or self._path),
                "settings": dict(settings),
                "kv_overrides": dict(kv_overrides),
                "gpu_layers": gpu_layers,
                "self_extend": asdict(self_extend) if self_extend else None,
            }
        )
        opened = Opened(**reply)
        self._reuses = self._reuses and opened.can_reuse
        return opened

    def answers(
        self, opening: Opening | None, questions: Sequence[Question], *, tokens: int
    ) -> Iterator[tuple[Question, Answer]]:
        """See `ggufext.audit.engines.AuditEngine`."""
        assert opening is not None
        if opening != self._opening:
            self._opening = None
            self.open(
                path=opening.path,
                settings=opening.settings,
                kv_overrides=opening.kv_overrides,
                gpu_layers=opening.gpu_layers,
                self_extend=opening.self_extend,
            )
            self._opening = opening
        for question in questions:
            yield question, self.ask(question.parts, key=question.key, tokens=tokens)

    def ask(self, parts: Sequence[str], *, key: str, tokens: int, reuse: bool = True) -> Answer:
        """Continue a prompt greedily by up to `tokens` tokens, or until it is surely `key`."""
        reply = self._ask(parts, key=key, tokens=tokens, reuse=reuse)
        return Answer(reply["text"], reply["evaluated"], reply["naive"])

    def logits(self, parts: Sequence[str], *, reuse: bool) -> bytes:
        """Float32 logits of the token behind a prompt, for comparing runs bit by bit."""
        import base64

        reply = self._ask(parts, key="", tokens=1, reuse=reuse, logits=True)
        return base64.b64decode(reply["logits"])

    def _ask(self, parts: Sequence[str], **request: Any) -> dict[str, Any]:
        self.counts(parts)
        prompt = array("i", self._lead)
        for part in parts:
            prompt.extend(self._tokens[part])
        prompt.extend(self._trail)
        return self._exchange({"op": "ask", **request}, prompt.tobytes())

    def warnings(self) -> tuple[ModelWarning, ...]:
        """What was noticed while asking."""
        if self._reuses:
            return ()
        return (
            ModelWarning(
                "no_reuse",
                "this model's memory cannot drop a part of a text (it is recurrent), so every "
                "prompt is computed in full",
            ),
        )

    def close(self) -> None:
        """End the child at once."""
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
        self._log.close()

    def _exchange(self, request: dict[str, Any], payload: bytes = b"") -> dict[str, Any]:
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None
        assert stdout is not None
        line = b""
        try:
            message = {**request, "payload": len(payload)} if payload else request
            stdin.write(json.dumps(message).encode() + b"\n" + payload)
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            pass
        if not line.endswith(b"\n"):
            raise self._death()
        reply: dict[str, Any] = json.loads(line)
        if error := reply.get("error"):
            raise EngineError(code=error["code"], path=self._path, message=error["message"])
        return reply

    def _death(self) -> EngineError:
        status = self._child.wait()
        log = self._last_lines()
        how = how_it_ended(status)
        code = "engine_died"
        if _NO_MEMORY.search(log):
            code = "out_of_memory"
        elif status == -signal.SIGKILL:
            how += ", which is how the kernel stops a process when memory runs out"
        return EngineError(
            code=code,
            path=self._path,
            message=f"llama.cpp's process {how}; its log, last line first: {log or 'empty'}",
        )

    def _last_lines(self) -> str:
        end = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, end - _LOG_TAIL))
        text = self._log.read().decode(errors="replace")
        return last_words(text.splitlines())
