"""The passkey audit of a model file, through llama.cpp on this machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import partial
from glob import escape
from typing import TYPE_CHECKING, Any

from ggufext.audit.conditions import conditions
from ggufext.audit.engines import Frame
from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.audit.expectation import SMALL_CONTEXT, differences
from ggufext.audit.keys import check_keys
from ggufext.audit.memory import (
    ModelSize,
    context_cells,
    gpu_layers,
    micro_batch,
    plan_memory,
)
from ggufext.audit.passkey import (
    PasskeyRun,
    Prepared,
    RunNotes,
    Session,
    Template,
    answer_tokens,
    measure,
)
from ggufext.audit.prompts import PromptPlan
from ggufext.audit.rope_nodes import ContextSettings, observe
from ggufext.audit.templates import frame_of
from ggufext.editing.inspection import facts_of
from ggufext.errors import EngineError, ModelWarning
from ggufext.header.reading import read_header
from ggufext.planning.kv_cache import CacheType

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.audit.conditions import Condition
    from ggufext.audit.memory import Budget
    from ggufext.audit.passkey import PasskeyRequest
    from ggufext.audit.results import Trial
    from ggufext.header.header import Header
    from ggufext.header.model import ModelFacts


_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")

_FLASH_ATTENTION = {None: -1, False: 0, True: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """How to run llama.cpp.

    Attributes
    ----------
    threads : int or None
        None: as many processors as this process may use.
    gpu_layers : int or None
        None: as many as fit into the devices' memory.
    cache_type : CacheType
        Of the KV cache, keys and values.
    flash_attention : bool or None
        None: llama.cpp decides.
    rpc : tuple of str
        Addresses ``host:port`` of llama.cpp RPC workers.
    audit : bool
        Compare the ROPE node of every layer with what the condition means.
    """

    threads: int | None = None
    gpu_layers: int | None = None
    cache_type: CacheType = CacheType.F16
    flash_attention: bool | None = None
    rpc: tuple[str, ...] = ()
    audit: bool = False


def check_file(
    path: Path,
    request: PasskeyRequest,
    settings: LocalSettings,
    notify: Callable[[Trial | RunNotes], None],
) -> PasskeyRun:
    """Audit a model file.

    Parameters
    ----------
    path : Path
        A GGUF file, the first shard of a split model.
    request : PasskeyRequest
    settings : LocalSettings
    notify : callable
        Hears `RunNotes` before the first question and every `Trial` as it is measured.

    Returns
    -------
    PasskeyRun
        Complete, or what was measured until Ctrl-C or the engine's death.

    Raises
    ------
    HeaderError, PlanError
        The file, a condition or a length cannot be audited.
    EngineError
        Before the first question: ``embedding_model``, ``no_vocabulary``, ``key_ambiguous``,
        ``length_too_short``, ``template_refused``, ``rope_mismatch``, ``out_of_memory``,
        ``engine_missing``, ``engine_died`` …
    """
    header = read_header(path)
    _refuse_embedding_model(header)
    facts = facts_of(path, train_length=request.train_length)
    lengths = tuple(sorted(set(request.lengths)))
    chosen = conditions(
        path,
        request.conditions,
        target_length=request.target_length or lengths[-1],
        train_length=request.train_length,
    )
    audited = (
        tuple(_audit(path, each, facts.architecture) for each in chosen) if settings.audit else ()
    )
    engine = LlamaCpp(path, rpc=settings.rpc)
    try:
        prepared = _prepare(engine, header, facts, chosen, request, settings, lengths)
        prepared = replace(prepared, audited=audited)
    except BaseException:
        engine.close()
        raise
    return measure(prepared, request, notify)


def _prepare(
    engine: LlamaCpp,
    header: Header,
    facts: ModelFacts,
    chosen: tuple[Condition, ...],
    request: PasskeyRequest,
    settings: LocalSettings,
    lengths: tuple[int, ...],
) -> Prepared:
    frame = _frame(header, engine, request.template)
    lead, trail = engine.frame(frame)
    check_keys(engine.pieces, path=header.path)
    size = _model_size(header, facts, engine.vocabulary.n_vocab)
    budget = plan_memory(
        size,
        lengths=lengths,
        n_ubatch=micro_batch(lengths[0]),
        cache_type=settings.cache_type,
        flash_attention=settings.flash_attention is not False,
        available=engine.hello.available + engine.hello.device_memory,
    )
    layers = settings.gpu_layers
    if layers is None:
        layers = gpu_layers(size, budget, engine.hello.device_memory) if engine.hello.gpu else 0
    prompts = PromptPlan(
        mode=request.mode,
        lengths=budget.lengths,
        depths=request.depths,
        texts=request.trials,
        seed=request.seed,
        answer_tokens=answer_tokens(request, engine, chat=frame.chat),
        lead=lead,
        trail=trail,
        chat=frame.chat,
        split=budget.n_ubatch,
    )
    sessions = tuple(
        Session(
            condition.name,
            group,
            partial(_open, engine, condition, group, budget, settings, layers),
        )
        for condition in chosen
        for group in _contexts(condition, budget.lengths)
    )
    return Prepared(
        path=str(header.path),
        engine_name="llama.cpp",
        engine=engine,
        prompts=prompts,
        sessions=sessions,
        identity={
            "size": header.file_size,
            "conditions": [[each.name, each.kv_overrides] for each in chosen],
            "answer_tokens": prompts.answer_tokens,
            "cache_type": budget.cache_type.label,
        },
        train_length=facts.train_length,
        memory_plan=budget.plan,
        versions={
            "llama_cpp_python": engine.hello.version,
            "processor": engine.hello.system.strip(" |"),
        },
        audited=(),
        warnings=_warnings(chosen, settings, budget),
    )


def _open(
    engine: LlamaCpp,
    condition: Condition,
    lengths: tuple[int, ...],
    budget: Budget,
    settings: LocalSettings,
    layers: int,
) -> None:
    cache = budget.cache_type.label
    threads = settings.threads or _processors()
    parameters: dict[str, Any] = {
        "n_ctx": context_cells(lengths[-1]),
        "n_batch": budget.n_batch,
        "n_ubatch": budget.n_ubatch,
        "n_threads": threads,
        "n_threads_batch": threads,
        "type_k": cache,
        "type_v": cache,
        "flash_attn_type": _FLASH_ATTENTION[settings.flash_attention],
        # Windows would forget cells that the next prompt reuses.
        "swa_full": True,
    }
    engine.open(
        settings=parameters,
        kv_overrides=dict(condition.kv_overrides),
        gpu_layers=layers,
        self_extend=condition.self_extend,
    )


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _contexts(condition: Condition, lengths: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Lengths that may share a context: longrope rotates short contexts otherwise than long."""
    border = condition.short_context
    if border is None:
        return [lengths]
    short = tuple(length for length in lengths if context_cells(length) <= border)
    long = lengths[len(short) :]
    return [group for group in (short, long) if group]


def _refuse_embedding_model(header: Header) -> None:
    name = header.value("general.architecture")
    pooling = header.keys.get(f"{name}.pooling_type")
    pooled = pooling is not None and header.value(pooling.key) != 0
    causal = header.keys.get(f"{name}.attention.causal")
    if pooled or (causal is not None and header.value(causal.key) is False):
        raise EngineError(
            code="embedding_model",
            path=header.path,
            message=f"is an embedding model ({name}): it gives vectors and no answers, so it "
            "cannot be asked for a key; audit the language model",
        )


def _frame(header: Header, engine: LlamaCpp, template: Template) -> Frame:
    key = "tokenizer.chat_template"
    if template is Template.NONE or key not in header.keys:
        return Frame()
    source = header.value(key)
    if not isinstance(source, str):
        return Frame()
    words = engine.vocabulary
    return frame_of(source, bos=words.bos, eos=words.eos, path=header.path)


def _model_size(header: Header, facts: ModelFacts, n_vocab: int) -> ModelSize:
    def largest(suffix: str) -> int:
        key = f"{facts.architecture}.{suffix}"
        value = header.value(key) if key in header.keys else 0
        values = value if isinstance(value, tuple) else (value,)
        return max((each for each in values if isinstance(each, int)), default=0)

    return ModelSize(
        tensors=sum(shard.stat().st_size for shard in _shards(header)),
        vocabulary=n_vocab,
        embedding=largest("embedding_length"),
        feed_forward=largest("feed_forward_length"),
        heads=largest("attention.head_count"),
        layers=facts.layers,
    )


def _shards(header: Header) -> list[Path]:
    """All files of a model, by llama.cpp's names for shards."""
    path = header.path
    assert path is not None
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return [path]
    return sorted(path.parent.glob(f"{escape(match['stem'])}-*-of-{match['count']}.gguf"))


def _audit(path: Path, condition: Condition, architecture: str) -> str:
    """Compare the ROPE nodes of a condition with what it means.

    Raises
    ------
    EngineError
        ``rope_mismatch``.
    """
    overrides = dict(condition.kv_overrides)
    contexts = [(SMALL_CONTEXT, condition.expected, overrides)]
    if condition.expected_long is not None:
        # Above the original length, without the cache that the real one needs.
        key = f"{architecture}.rope.scaling.original_context_length"
        shorter = {**overrides, key: SMALL_CONTEXT}
        contexts.append((2 * SMALL_CONTEXT, condition.expected_long, shorter))
    for n_ctx, expected, given in contexts:
        seen = observe(path, tokens=(0,), settings=ContextSettings(n_ctx=n_ctx), kv_overrides=given)
        for difference in differences(seen.rope_nodes, expected):
            raise EngineError(
                code="rope_mismatch",
                path=path,
                message=f"{condition.name}: {difference}; what is measured would not be what was "
                "planned",
            )
    rotating = len({node.layer for node in seen.rope_nodes})
    return (
        f"{condition.name}: llama.cpp rotates {rotating} of {len(condition.expected)} layers, all "
        "as planned"
    )


def _warnings(
    chosen: tuple[Condition, ...], settings: LocalSettings, budget: Budget
) -> tuple[ModelWarning, ...]:
    found = [warning for condition in chosen for warning in condition.warnings]
    if settings.rpc:
        found.append(
            ModelWarning(
                "rpc_not_authenticated",
                "the link to the RPC workers is neither authenticated nor encrypted: use it in a "
                "network of your own only",
            )
        )
    if any(condition.self_extend for condition in chosen):
        found.append(
            ModelWarning(
                "self_extend_without_reuse",
                "Self-Extend moves positions while it reads, so nothing is reused there",
            )
        )
    found += [ModelWarning("memory_reduced", step) for step in budget.plan.steps]
    return tuple(found)
