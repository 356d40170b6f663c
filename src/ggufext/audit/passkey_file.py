"""The passkey audit of a model file, through llama.cpp on this machine."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ggufext.audit.conditions.conditions import conditions
from ggufext.audit.conditions.copies import refuse_copies, with_copies
from ggufext.audit.engines.cluster import Cluster
from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.audit.request import depth_bins
from ggufext.audit.run.asking import Session, Work, ask_one_by_one, seconds
from ggufext.audit.run.duration import measure_speed
from ggufext.audit.run.measure import (
    PasskeyRun,
    Prepared,
    RunNotes,
    Template,
    answer_tokens,
    measure,
)
from ggufext.audit.run.opening import contexts, opening
from ggufext.audit.run.records import kept_setting
from ggufext.audit.task.keys import check_keys
from ggufext.audit.task.prompts import PromptPlan, prompt_set
from ggufext.audit.task.templates import Frame, frame_of
from ggufext.errors import EngineError, ModelWarning, PlanError
from ggufext.header.header import read_header
from ggufext.header.model import architecture_name
from ggufext.header.rope_keys import ORIGINAL_LENGTH
from ggufext.header.shards import later_shards
from ggufext.header.weights import model_widths
from ggufext.llama.expectation import SMALL_CONTEXT, differences
from ggufext.llama.memory import (
    ModelSize,
    gpu_layers,
    micro_batch,
    plan_memory,
)
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings
from ggufext.opened.inspection import facts_of
from ggufext.planning.footprint import CacheType
from ggufext.text import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ggufext.audit.conditions.conditions import Condition
    from ggufext.audit.conditions.copies import CopyNeeded
    from ggufext.audit.run.asking import Progress
    from ggufext.audit.run.duration import Speed
    from ggufext.audit.run.measure import PasskeyRequest
    from ggufext.header.header import Header
    from ggufext.header.model import ModelFacts
    from ggufext.llama.memory import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """How to run llama.cpp.

    Attributes
    ----------
    threads : int or None
        None: as many processors as this process may use, one for a small model.
    gpu_layers : int or None
        None: as many as fit into the devices' memory.
    cache_type : CacheType
        Of the KV cache, keys and values.
    flash_attention : bool or None
        None: on devices where they can; on processors what is faster, measured on the model, and
        to save memory.
    rpc : tuple of str
        Addresses ``host:port`` of llama.cpp RPC workers.
    dask : str or None
        Address of a dask scheduler, ``tcp://host:port``, whose workers see the file at the same
        path: each text is asked on one of them.
    audit : bool
        Compare the ROPE node of every layer with what the condition means.
    """

    threads: int | None = None
    gpu_layers: int | None = None
    cache_type: CacheType = CacheType.F16
    flash_attention: bool | None = None
    rpc: tuple[str, ...] = ()
    dask: str | None = None
    audit: bool = False


def check_file(
    path: Path,
    request: PasskeyRequest,
    settings: LocalSettings,
    notify: Callable[[Progress | RunNotes], None],
    *,
    allow_copy: Callable[[CopyNeeded], bool] = refuse_copies,
) -> PasskeyRun:
    """Audit a model file.

    Parameters
    ----------
    path : Path
        A GGUF file, the first shard of a split model.
    request : PasskeyRequest
    settings : LocalSettings
    notify : callable
        Hears `RunNotes` before the first question and `Progress` with every answer.
    allow_copy : callable
        Asked before a temporary copy is made for a condition that needs one.

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
    facts = facts_of(
        path, train_length=request.train_length, train_freq_base=request.train_freq_base
    )
    lengths = tuple(sorted(set(request.lengths)))
    chosen = conditions(
        path,
        request.conditions,
        target_length=request.target_length or lengths[-1],
        train_length=request.train_length,
        train_freq_base=request.train_freq_base,
    )
    with ExitStack() as held:
        chosen = held.enter_context(with_copies(path, chosen, allow_copy))
        audited: tuple[str, ...] = ()
        if settings.audit:
            audited = tuple(_audit(path, each, facts.architecture) for each in chosen)
        engine = LlamaCpp(path, rpc=settings.rpc)
        held.callback(engine.close)
        cluster = held.enter_context(Cluster(settings.dask)) if settings.dask else None
        prepared = _prepare(engine, cluster, header, facts, chosen, request, settings, lengths)
        return measure(replace(prepared, audited=audited), request, notify)


def _prepare(
    engine: LlamaCpp,
    cluster: Cluster | None,
    header: Header,
    facts: ModelFacts,
    chosen: tuple[Condition, ...],
    request: PasskeyRequest,
    settings: LocalSettings,
    lengths: tuple[int, ...],
) -> Prepared:
    assert header.path is not None
    path = header.path.absolute()
    frame = _frame(header, engine, request.template)
    lead, trail = engine.frame(frame)
    check_keys(engine.pieces, path=header.path)
    size = ModelSize(
        tensors=sum(part.file_size for part in (header, *later_shards(header))),
        widths=replace(model_widths(header), vocabulary=engine.vocabulary.n_vocab),
        layers=facts.layers,
    )
    place = cluster.smallest(path) if cluster else engine.hello
    fit = partial(
        plan_memory,
        size,
        lengths=lengths,
        n_ubatch=micro_batch(lengths[0]),
        cache_type=settings.cache_type,
        available=place.available + place.device_memory,
    )
    wanted = _flash_attention(settings, gpu=place.gpu)
    kept = kept_setting(request.records, "flash_attention") if wanted is None else None
    if isinstance(kept, bool):
        wanted = kept
    budget = fit(flash_attention=wanted)
    layers = settings.gpu_layers
    if layers is None:
        layers = gpu_layers(size, budget, place.device_memory) if place.gpu else 0
    prompts = PromptPlan(
        mode=request.mode,
        lengths=budget.lengths,
        depths=depth_bins(request.depths),
        texts=request.trials,
        seed=request.seed,
        answer_tokens=answer_tokens(request, engine, chat=frame.chat),
        lead=lead,
        trail=trail,
        chat=frame.chat,
        # Not the reduced one: memory must not change what is asked. It divides this.
        split=micro_batch(lengths[0]),
    )
    questions = prompt_set(prompts, engine.counts)

    def session(condition: Condition, group: tuple[int, ...]) -> Session:
        how = opening(condition, group, budget, settings, gpu_layers=layers)
        if cluster is not None:
            ask = partial(cluster.ask, path, frame, how, prompts.answer_tokens)
        else:
            open_ = partial(engine.open, **how)
            ask = partial(ask_one_by_one, engine, open_, prompts.answer_tokens)
        return Session(condition.name, group, 0 if condition.self_extend else budget.n_ubatch, ask)

    def sessions() -> tuple[Session, ...]:
        return tuple(
            session(condition, group)
            for condition in chosen
            for group in contexts(condition, budget.lengths)
        )

    planned = sessions()
    speeds: dict[bool, Speed] = {}
    if cluster is None and layers == 0 and not settings.rpc:
        *_, group = contexts(chosen[0], budget.lengths)
        undecided = wanted is None and not budget.flash_attention
        speeds = measure_speed(
            path,
            opening(chosen[0], group, budget, settings, gpu_layers=layers),
            (False, True) if undecided else (budget.flash_attention,),
            tokens=Work(planned, questions, ()).tokens,
        )
    takes = {
        flash_attention: seconds(speed, prompts, [(each, each.of(questions)) for each in planned])
        for flash_attention, speed in speeds.items()
    }
    if min(takes, key=takes.__getitem__, default=False) and not budget.flash_attention:
        budget = fit(flash_attention=True)
        planned = sessions()
    speed = speeds.get(budget.flash_attention)
    if speed is not None and not speed.can_reuse:
        planned = tuple(replace(each, reuse=0) for each in planned)
    return Prepared(
        path=str(header.path),
        engine_name="llama.cpp",
        engine=engine,
        prompts=prompts,
        questions=questions,
        sessions=planned,
        identity={
            "size": header.file_size,
            "conditions": [[each.name, each.kv_overrides, str(each.copy)] for each in chosen],
            "answer_tokens": prompts.answer_tokens,
            "cache_type": budget.cache_type.label,
            "flash_attention": budget.flash_attention,
        },
        train_length=facts.train_length,
        memory_plan=budget.plan,
        versions={
            "llama_cpp_python": engine.hello.version,
            "processor": engine.hello.system.strip(" |"),
        },
        flash_attention=budget.flash_attention,
        speed=speed,
        audited=(),
        warnings=(
            *_warnings(chosen, settings, budget),
            *_chosen(budget.flash_attention, takes, speed, kept=kept),
        ),
    )


def _chosen(
    flash_attention: bool, takes: Mapping[bool, float], speed: Speed | None, *, kept: object
) -> tuple[ModelWarning, ...]:
    """Say that flash attention was chosen, and why: answers may differ with it."""
    state = "on" if flash_attention else "off"
    if isinstance(kept, bool):
        why = "as in the run that this one continues"
    elif speed is not None and len(takes) == 2:
        more = takes[not flash_attention] / takes[flash_attention] - 1
        why = (
            f"which is faster here ({'off' if flash_attention else 'on'} it would take "
            f"{percent(more)} longer, measured on {2 * speed.tokens:,} tokens of this model)"
        )
    else:
        return ()
    message = f"flash attention is {state}, {why}; another setting may change single answers"
    return (ModelWarning("flash_attention_chosen", message),)


def _flash_attention(settings: LocalSettings, *, gpu: bool) -> bool | None:
    """What the memory plan takes for granted; None: it may choose, on processors alone."""
    on_devices = settings.gpu_layers != 0 and (gpu or bool(settings.rpc))
    if settings.flash_attention is None and (
        on_devices or settings.cache_type is not CacheType.F16
    ):
        return True
    return settings.flash_attention


def _refuse_embedding_model(header: Header) -> None:
    name = architecture_name(header)
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
    source = header.value(key) if key in header.keys else None
    if template is Template.CHAT and not isinstance(source, str):
        raise PlanError(
            code="no_chat_template",
            path=header.path,
            field=key,
            message="the file brings no chat template; `--template none` asks in plain text",
        )
    if template is Template.NONE or not isinstance(source, str):
        return Frame()
    words = engine.vocabulary
    return frame_of(source, bos=words.bos, eos=words.eos, path=header.path)


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
        key = f"{architecture}.{ORIGINAL_LENGTH}"
        shorter = {**overrides, key: SMALL_CONTEXT}
        contexts.append((2 * SMALL_CONTEXT, condition.expected_long, shorter))
    for n_ctx, expected, given in contexts:
        seen = observe(
            condition.path or path,
            tokens=(0,),
            settings=ContextSettings(n_ctx=n_ctx),
            kv_overrides=given,
        )
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
