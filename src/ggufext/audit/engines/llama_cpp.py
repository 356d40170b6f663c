"""A model file behind llama.cpp, as an engine of the audit."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, TypeVar

from ggufext.audit.engines import Answer, Scores
from ggufext.audit.task.answers import REASONING
from ggufext.audit.task.templates import Frame
from ggufext.errors import ModelWarning
from ggufext.llama.process import LlamaProcess
from ggufext.llama.settings import ContextSettings, LoadRequest
from ggufext.planning.footprint import padded_cells
from ggufext.system import system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from ggufext.audit.conditions import ResolvedCondition
    from ggufext.audit.request import LocalSettings
    from ggufext.audit.task import Question
    from ggufext.llama.memory import Budget


_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


class LlamaCpp:
    """A model file behind llama.cpp; one child process, which `close` ends.

    Parameters
    ----------
    path : Path
        A GGUF file.
    rpc : sequence of str
        Addresses ``host:port`` of llama.cpp RPC workers that hold a part of the model.
    llama_cpp : Path, optional
        See `LlamaProcess`.
    computed : callable
        Hears how many tokens of the prompt that is being asked are computed.

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

    def __init__(
        self,
        path: Path,
        *,
        rpc: Sequence[str] = (),
        llama_cpp: Path | None = None,
        computed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._path = path
        self._computed = computed
        self._tokens: dict[str, array[int]] = {}
        self._lead: array[int] = array("i")
        self._trail: array[int] = array("i")
        self._reuses = True
        self._loaded: LoadRequest | None = None
        self._process = LlamaProcess(llama_cpp)
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

    def use(self, load: LoadRequest) -> None:
        """See `open`; nothing is done where it is open."""
        if load != self._loaded:
            self._loaded = None
            self.open(load)
            self._loaded = load

    def answers(
        self, load: LoadRequest | None, questions: Sequence[Question], *, tokens: int
    ) -> Iterator[tuple[Question, Answer]]:
        """See `ggufext.audit.engines.AuditEngine`."""
        assert load is not None
        self.use(load)
        for question in questions:
            yield question, self.ask(question.parts, stop=question.stop, tokens=tokens)

    def each(
        self, work: Callable[[LlamaCpp, _Item], Iterator[_Done]], items: Iterable[_Item]
    ) -> Iterator[tuple[_Item, _Done]]:
        """Do something with this engine for every item; what comes of it, as it comes."""
        for item in items:
            for done in work(self, item):
                yield item, done

    def ask(self, parts: Sequence[str], *, stop: str, tokens: int) -> Answer:
        """Continue a prompt greedily by up to `tokens` tokens, or until `stop` matches the answer.

        Parameters
        ----------
        stop : str
            See `ggufext.audit.task.Question`.
        """
        prompt = self._prompt(parts) + self._trail
        reply, _ = self._process.request(
            self._path,
            "ask",
            prompt.tobytes(),
            computed=self._computed,
            tokens=tokens,
            hidden=REASONING,
            stop=stop,
        )
        return Answer(reply["text"], reply["evaluated"], reply["naive"])

    def score(
        self, parts: Sequence[str], *, rows: Sequence[int], distributions: Sequence[int]
    ) -> Scores:
        """What the model expected at places of a text; questions asked next reuse its cells.

        Parameters
        ----------
        parts : sequence of str
            The text, without what `frame` puts behind.
        rows : sequence of int
            Indices of tokens, those of the frame before the text counted, rising, each below the
            last: of what follows each the probability is wanted.
        distributions : sequence of int
            Indices, rising, behind which the probability of every token is wanted.

        Raises
        ------
        EngineError
            ``bad_condition``: the context is one of Self-Extend.
        """
        reply, payload = self._process.request(
            self._path,
            "score",
            self._prompt(parts).tobytes(),
            computed=self._computed,
            rows=list(rows),
            distributions=list(distributions),
        )
        follows = array("f", payload[: 4 * len(rows)])
        return Scores(follows, payload[4 * len(rows) :], reply["evaluated"], reply["naive"])

    def attention(
        self,
        load: LoadRequest,
        parts: Sequence[str],
        *,
        rows: Sequence[int],
        sink: int,
        edges: Sequence[Sequence[int]],
    ) -> Iterator[tuple[int, list[dict[str, int]], bytes]]:
        """Read a text, and the attention of some of its tokens by distance.

        Parameters
        ----------
        load : LoadRequest
            Its context is made for `ggufext.llama.attention.AttentionReader`.
        parts : sequence of str
            At least as many tokens as the last row needs.
        rows : sequence of int
            Positions, rising, the BOS token counted.
        sink, edges
            See `AttentionReader`.

        Yields
        ------
        int, list of dict, bytes
            After each piece of the text its end, and what `AttentionReader.read` gives of it.

        Raises
        ------
        EngineError
            ``engine_unknown``.
        """
        self._loaded = None
        tokens = self._prompt(parts)[: rows[-1] + 1]
        self._request("open_attention", load=load, sink=sink, edges=edges)
        size = load.context.n_ubatch or len(tokens)
        for start in range(0, len(tokens), size):
            piece = tokens[start : start + size]
            end = start + len(piece)
            inside = [row for row in rows if start <= row < end]
            reply, sums = self._process.request(
                self._path, "attention", piece.tobytes(), position=start, rows=inside
            )
            yield end, reply["layers"], sums

    def capture(
        self, load: LoadRequest, parts: Sequence[str], *, rows: Sequence[int], layers: Sequence[int]
    ) -> tuple[list[dict[str, Any]], bytes]:
        """What attention reads of a text up to the last of its rows.

        Parameters
        ----------
        load : LoadRequest
            Its context is made for `ggufext.llama.capture.AttentionCapture`.
        parts : sequence of str
            At least as many tokens as the last row needs.
        rows, layers
            As of `AttentionCapture`, whose `read` says what is returned.

        Raises
        ------
        EngineError
            ``engine_unknown``.
        """
        self._loaded = None
        tokens = self._prompt(parts)[: rows[-1] + 1]
        reply, values = self._process.request(
            self._path,
            "capture",
            tokens.tobytes(),
            computed=self._computed,
            load=load,
            rows=list(rows),
            layers=list(layers),
        )
        return reply["layers"], values

    def _prompt(self, parts: Sequence[str]) -> array[int]:
        self.counts(parts)
        prompt = array("i", self._lead)
        for part in parts:
            prompt.extend(self._tokens[part])
        return prompt

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

    def _request(self, operation: str, payload: bytes = b"", **fields: Any) -> dict[str, Any]:
        reply, _ = self._process.request(self._path, operation, payload, **fields)
        return reply


#: Bytes of weights from which on a micro-batch is worth more than one thread.
_SMALL_MODEL = 64 << 20

#: llama.cpp's value for "where the devices can".
_WHERE_POSSIBLE = -1


def contexts(
    path: Path,
    condition: ResolvedCondition,
    budget: Budget,
    settings: LocalSettings,
    *,
    gpu_layers: int,
) -> list[tuple[tuple[int, ...], LoadRequest]]:
    """Lengths that share a context, and what to load for them, the shortest first.

    Parameters
    ----------
    path : Path
        The model file.
    """
    cache = budget.cache_type.label
    threads = settings.threads or usual_threads(budget.plan.model)
    flash_attention = int(budget.flash_attention)
    if budget.flash_attention and settings.flash_attention is None:
        flash_attention = _WHERE_POSSIBLE
    return [
        (
            lengths,
            LoadRequest(
                path=condition.path or path,
                context=ContextSettings(
                    n_ctx=padded_cells(lengths[-1]),
                    n_batch=budget.n_batch,
                    n_ubatch=budget.n_ubatch,
                    n_threads=threads,
                    n_threads_batch=threads,
                    type_k=cache,
                    type_v=cache,
                    flash_attn_type=flash_attention,
                    # Windows would forget cells that the next prompt reuses.
                    swa_full=True,
                ),
                kv_overrides=dict(condition.kv_overrides),
                gpu_layers=gpu_layers,
                self_extend=condition.self_extend,
            ),
        )
        for lengths in sharing(condition, budget.lengths)
    ]


def thread_numbers(load: LoadRequest) -> tuple[int, ...]:
    """The number of threads of a request, and one other that may be faster on this machine.

    Half of the processors: they may be two of a core, or busy with something else. For a small
    model two instead of one.
    """
    usual, processors = load.context.n_threads or 1, system.usable_processors()
    other = processors // 2 if usual > 1 else min(2, processors)
    return tuple(dict.fromkeys((usual, max(other, 1))))


def sharing(condition: ResolvedCondition, lengths: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Lengths that may share a context: longrope rotates short contexts otherwise than long."""
    border = condition.short_context
    if border is None:
        return [lengths]
    short = tuple(length for length in lengths if padded_cells(length) <= border)
    long = lengths[len(short) :]
    return [group for group in (short, long) if group]


def usual_threads(model: int) -> int:
    """All processors, but one for a small model: its threads would wait more than they compute."""
    return 1 if model < _SMALL_MODEL else system.usable_processors()
