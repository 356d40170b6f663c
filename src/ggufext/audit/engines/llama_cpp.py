"""A model file behind llama.cpp, as an engine of the audit."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from ggufext.audit.engines import Answer
from ggufext.audit.task.answers import REASONING
from ggufext.audit.task.templates import Frame
from ggufext.errors import ModelWarning
from ggufext.llama.process import LlamaProcess
from ggufext.llama.settings import LoadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ggufext.audit.task import Question


class LlamaCpp:
    """A model file behind llama.cpp; one child process, which `close` ends.

    Parameters
    ----------
    path : Path
        A GGUF file.
    rpc : sequence of str
        Addresses ``host:port`` of llama.cpp RPC workers that hold a part of the model.

    Attributes
    ----------
    hello : Hello
        What the child says of itself.
    n_vocab : int
    bos, eos : str
        Text of the tokens that chat templates name.

    Raises
    ------
    EngineError
        Of every method: ``extra_missing``, ``model_not_loaded``, ``cannot_be_audited``,
        ``context_not_created``, ``decode_failed``, ``out_of_memory``, and ``engine_died`` with
        the last lines of the log when llama.cpp ends its process.
    """

    def __init__(self, path: Path, *, rpc: Sequence[str] = ()) -> None:
        self._path = path
        self._tokens: dict[str, array[int]] = {}
        self._lead: array[int] = array("i")
        self._trail: array[int] = array("i")
        self._reuses = True
        self._loaded: LoadRequest | None = None
        self._process = LlamaProcess()
        try:
            self.hello = self._process.hello(path, rpc=rpc)
            reply = self._request("vocabulary", load=LoadRequest(path=path))
            self.n_vocab: int = reply["n_vocab"]
            self.bos: str = reply["bos"]
            self.eos: str = reply["eos"]
            self.frame(Frame())
        except BaseException:
            self.close()
            raise

    @property
    def process_id(self) -> int | None:
        """Of the child."""
        return self._process.process_id

    def frame(self, frame: Frame) -> tuple[int, int]:
        """Put every prompt into a chat template; tokens before and behind, BOS included."""
        reply = self._request("frame", before=frame.before, behind=frame.behind)
        self._lead, self._trail = array("i", reply["lead"]), array("i", reply["trail"])
        return len(self._lead), len(self._trail)

    def counts(self, parts: Sequence[str]) -> list[int]:
        """Tokens of texts, each as it stands behind a full stop."""
        new = [part for part in dict.fromkeys(parts) if part not in self._tokens]
        if new:
            reply = self._request("tokenize", texts=new, pieces=False)
            for part, tokens in zip(new, reply["tokens"], strict=True):
                self._tokens[part] = array("i", tokens)
        return [len(self._tokens[part]) for part in parts]

    def pieces(self, texts: Sequence[str]) -> list[list[bytes]]:
        """Bytes of every token of texts that each follow a full stop."""
        reply = self._request("tokenize", texts=list(texts), pieces=True)
        return [[piece.encode("latin-1") for piece in pieces] for pieces in reply["pieces"]]

    def open(self, load: LoadRequest) -> None:
        """Load the model, or a rewritten copy with the same tokens, and create its context."""
        self._reuses &= self._request("open", load=load)["can_reuse"]

    def answers(
        self, load: LoadRequest | None, questions: Sequence[Question], *, tokens: int
    ) -> Iterator[tuple[Question, Answer]]:
        """See `ggufext.audit.engines.AuditEngine`."""
        assert load is not None
        if load != self._loaded:
            self._loaded = None
            self.open(load)
            self._loaded = load
        for question in questions:
            yield question, self.ask(question.parts, stop=question.stop, tokens=tokens)

    def ask(self, parts: Sequence[str], *, stop: str, tokens: int, reuse: bool = True) -> Answer:
        """Continue a prompt greedily by up to `tokens` tokens, or until `stop` matches the answer.

        Parameters
        ----------
        stop : str
            See `ggufext.audit.task.Question`.
        """
        rule = {"hidden": REASONING, "stop": stop}
        reply, _ = self._ask(parts, tokens=tokens, **rule, reuse=reuse, logits=False)
        return Answer(reply["text"], reply["evaluated"], reply["naive"])

    def logits(self, parts: Sequence[str], *, reuse: bool) -> bytes:
        """Float32 logits of the token behind a prompt, for comparing runs bit by bit."""
        _, logits = self._ask(parts, tokens=0, hidden="", stop="", reuse=reuse, logits=True)
        return logits

    def _ask(self, parts: Sequence[str], **how: Any) -> tuple[dict[str, Any], bytes]:
        self.counts(parts)
        prompt = array("i", self._lead)
        for part in parts:
            prompt.extend(self._tokens[part])
        prompt.extend(self._trail)
        return self._process.request(self._path, "ask", prompt.tobytes(), **how)

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
        self._process.close()

    def _request(self, operation: str, **fields: Any) -> dict[str, Any]:
        reply, _ = self._process.request(self._path, operation, **fields)
        return reply
