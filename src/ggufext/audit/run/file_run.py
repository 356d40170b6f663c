"""A run on a model file: by llama.cpp here, on a cluster, or in a llama-server of the user's."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from ggufext.audit.conditions import conditions, with_copies
from ggufext.audit.engines.cluster import Cluster
from ggufext.audit.engines.llama_cpp import LlamaCpp, contexts, thread_numbers
from ggufext.audit.engines.llama_server import LlamaServer, refuse_self_extend, served_contexts
from ggufext.audit.request import LocalSettings, Template
from ggufext.audit.run.choice import fastest, flash_attention_chosen, threads_chosen
from ggufext.audit.run.duration import measure_speed, measure_threads
from ggufext.audit.run.measure import (
    Computing,
    Prepared,
    Preparing,
    Run,
    Stage,
    prompt_tokens,
    seconds,
)
from ggufext.audit.run.preparation import TASKS, in_order, prompt_plan, versions
from ggufext.audit.run.records import check_records_path, kept_setting
from ggufext.audit.run.server_run import served_run
from ggufext.audit.task import prompts_hash
from ggufext.audit.task.templates import Frame, frame_of
from ggufext.errors import EngineError, ModelWarning, PlanError
from ggufext.header.facts import architecture_name
from ggufext.header.weights import model_widths
from ggufext.llama.expectation import differences, rotations
from ggufext.llama.memory import ModelSize, gpu_layers, micro_batch, plan_memory
from ggufext.llama.process import LlamaProcess
from ggufext.opened.model import open_model
from ggufext.planning.footprint import CacheType
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ggufext.audit.conditions import CopyNeeded, OriginalCopy, ResolvedCondition
    from ggufext.audit.request import CheckRequest
    from ggufext.audit.run.duration import Speed
    from ggufext.audit.task import Task
    from ggufext.header.facts import ModelFacts
    from ggufext.header.header import Header
    from ggufext.llama.memory import Budget
    from ggufext.opened.model import OpenModel
    from ggufext.planning.request import Recipe

#: Lengths tried where none are asked for, and the shortest of them in tokens.
_USUAL_LENGTHS, _SHORTEST_USUAL = 4, 256

_TEMPLATE_KEY = "tokenizer.chat_template"


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a run needs of a model file, taken while it was open."""

    header: Header
    facts: ModelFacts
    size: ModelSize
    conditions: tuple[ResolvedCondition, ...]


@contextmanager
def file_run(
    path: Path,
    request: CheckRequest,
    allow_copy: Callable[[CopyNeeded], bool],
    notify: Callable[[Preparing | Computing], None],
    *,
    task: Task | None = None,
    n_ubatch: int | None = None,
    kept_logits: int = 0,
    recipes: Mapping[str, Recipe] = MappingProxyType({}),
) -> Iterator[Prepared]:
    """A run of all its conditions; other parameters and errors as of `check`.

    Parameters
    ----------
    task : Task, optional
        What is asked; that of the request's mode without.
    n_ubatch : int, optional
        Micro-batch in tokens where memory allows it; a small one without, for prompts that share
        a start of any length.
    kept_logits : int
        Tokens whose logits are kept at once.
    recipes : mapping
        See `ggufext.audit.conditions.planned_request`.
    """
    settings = request.engine or LocalSettings()
    check_records_path(request.resume)
    with open_model(path) as model:
        header = model.header
        assert header.path is not None
        path = header.path  # of a split model that of the first part
        refuse_embedding_model(header)
        lengths = request.lengths or _usual_lengths(model.facts.context_length)
        request = replace(in_order(request, lengths), engine=settings)
        planned = PlanRequest(
            target_length=request.target_length or max(lengths),
            train_length=request.train_length,
            train_freq_base=request.train_freq_base,
        )
        facts = model.original_facts(planned)
        taken = _Taken(
            header=header,
            facts=facts,
            size=model_size(model, facts),
            conditions=conditions(model, request.conditions, planned, recipes),
        )
    if settings.llama_server is not None:
        refuse_self_extend(taken.conditions)
    with ExitStack() as held:
        chosen = held.enter_context(
            with_copies(
                path,
                taken.conditions,
                allow_copy,
                progress=lambda name, done, total: notify(
                    Preparing(f"copying the file for {name}", done, total)
                ),
            )
        )
        taken = replace(taken, conditions=chosen)
        if settings.llama_server is not None:
            server = _llama_server_run(settings.llama_server, taken, request, settings)
            yield held.enter_context(server)
            return
        audited: tuple[str, ...] = ()
        if settings.audit:
            with LlamaProcess(settings.llama_cpp) as process:
                audited = tuple(_audit(path, each, facts.architecture, process) for each in chosen)
        engine: LlamaCpp | Cluster
        if settings.dask:
            engine = Cluster(path, settings.dask)
        else:
            engine = LlamaCpp(
                path,
                rpc=settings.rpc,
                llama_cpp=settings.llama_cpp,
                computed=lambda tokens: notify(Computing(tokens)),
            )
        held.callback(engine.close)
        yield _llama_cpp_run(
            engine,
            taken,
            request,
            settings,
            audited,
            notify,
            task=task or TASKS[request.mode],
            n_ubatch=n_ubatch or micro_batch(min(lengths)),
            kept_logits=kept_logits,
        )


@contextmanager
def _llama_server_run(
    program: Path, taken: _Taken, request: CheckRequest, settings: LocalSettings
) -> Iterator[Prepared]:
    header, lengths = taken.header, request.lengths or ()
    assert header.path is not None
    chat = request.template is not Template.NONE and _template(header, request.template) is not None
    stages = tuple(
        Stage(each.name, group, reuse=1, load=load)
        for each in taken.conditions
        for group, load in served_contexts(header.path, each, lengths)
    )
    first = stages[0].load
    assert first is not None
    with closing(LlamaServer(program, settings, first, chat=chat)) as server:
        yield served_run(
            server,
            request,
            partial(
                Run,
                path=str(header.path),
                engine="llama-server",
                versions=versions(llama_server=server.version),
                train_length=taken.facts.train_length,
            ),
            stages=stages,
            identity={
                "llama_server": server.version,
                "size": header.file_size,
                "conditions": _identity(taken.conditions),
                "cache_type": settings.cache_type.label,
                "flash_attention": settings.flash_attention,
                "chat": chat,
            },
            chat=chat,
            warnings=tuple(warning for each in taken.conditions for warning in each.warnings),
        )


def _llama_cpp_run(
    engine: LlamaCpp | Cluster,
    taken: _Taken,
    request: CheckRequest,
    settings: LocalSettings,
    audited: tuple[str, ...],
    notify: Callable[[Preparing], None],
    *,
    task: Task,
    n_ubatch: int,
    kept_logits: int,
) -> Prepared:
    header, chosen, lengths = taken.header, taken.conditions, request.lengths or ()
    assert header.path is not None
    model = header.path.absolute()
    frame = _frame(header, engine, request.template)
    around = engine.frame(frame)
    task.check_tokenizer(engine.pieces, header.path)
    size = replace(taken.size, widths=replace(taken.size.widths, vocabulary=engine.n_vocab))
    room = engine.hello
    fit = partial(
        plan_memory,
        size,
        lengths=lengths,
        n_ubatch=n_ubatch,
        cache_type=settings.cache_type,
        available=room.available + room.device_memory,
        kept_logits=kept_logits,
    )
    wanted = _flash_attention(settings, gpu=room.gpu)
    kept = kept_setting(request.resume, "flash_attention") if wanted is None else None
    if isinstance(kept, bool):
        wanted = kept
    budget = fit(flash_attention=wanted)
    layers = settings.gpu_layers
    if layers is None:
        layers = gpu_layers(size, budget, room.device_memory) if room.gpu else 0
    prompts = prompt_plan(
        request,
        budget.lengths,
        engine.counts,
        around=around,
        chat=frame.chat,
        # Not the reduced one: memory must not change what is asked. It divides this.
        split=n_ubatch,
    )
    questions = task.questions(prompts, engine.counts)

    def stages_with(budget: Budget) -> tuple[Stage, ...]:
        return tuple(
            Stage(each.name, group, 0 if each.self_extend else budget.n_ubatch, load)
            for each in chosen
            for group, load in contexts(model, each, budget, settings, gpu_layers=layers)
        )

    stages = stages_with(budget)
    speeds: dict[bool, Speed] = {}
    paces: dict[int, float] = {}
    if layers == 0 and not (settings.rpc or settings.dask):
        (*_, (_, longest)) = contexts(model, chosen[0], budget, settings, gpu_layers=layers)
        undecided = wanted is None and not budget.flash_attention
        notify(Preparing("measuring the speed"))
        tokens = prompt_tokens(stages, questions)
        if settings.threads is None:
            paces = measure_threads(
                longest, thread_numbers(longest), tokens=tokens, llama_cpp=settings.llama_cpp
            )
        threads = fastest(paces) or longest.context.n_threads
        settings = replace(settings, threads=threads)
        stages = stages_with(budget)
        context = replace(longest.context, n_threads=threads, n_threads_batch=threads)
        speeds = measure_speed(
            replace(longest, context=context),
            (False, True) if undecided else (budget.flash_attention,),
            tokens=tokens,
            llama_cpp=settings.llama_cpp,
        )
    takes = {
        flash_attention: seconds(speed, prompts, [(each, each.of(questions)) for each in stages])
        for flash_attention, speed in speeds.items()
    }
    if fastest(takes) and not budget.flash_attention:
        budget = fit(flash_attention=True)
        stages = stages_with(budget)
    speed = speeds.get(budget.flash_attention)
    if speed is not None and not speed.can_reuse:
        stages = tuple(replace(each, reuse=0) for each in stages)
    return Prepared(
        request=request,
        run=Run(
            path=str(header.path),
            engine="llama.cpp",
            versions=versions(**room.versions, processor=room.system.strip(" |")),
            train_length=taken.facts.train_length,
            memory_plan=budget.plan,
            flash_attention=budget.flash_attention,
            audited=audited,
            prompts_hash=prompts_hash(questions),
        ),
        engine=engine,
        task=task,
        prompts=prompts,
        questions=questions,
        stages=stages,
        identity={
            "size": header.file_size,
            "conditions": _identity(chosen),
            "answer_tokens": prompts.answer_tokens,
            "cache_type": budget.cache_type.label,
            "flash_attention": budget.flash_attention,
            "llama_cpp": f"{room.release} {room.features}",
        },
        speed=speed,
        warnings=(
            *_warnings(chosen, settings, budget),
            *threads_chosen(paces),
            *flash_attention_chosen(budget.flash_attention, takes, speed, kept=kept),
        ),
    )


def model_size(model: OpenModel, facts: ModelFacts) -> ModelSize:
    """What the memory plan needs to know of a model."""
    return ModelSize(
        tensors=sum(part.file_size for part in (model.header, *model.later_shards)),
        widths=model_widths(model.header),
        layers=facts.layers,
    )


def _usual_lengths(context: int) -> tuple[int, ...]:
    """Up to four doublings that end at a context length."""
    halved = (context >> times for times in range(_USUAL_LENGTHS))
    return tuple(length for length in halved if length >= _SHORTEST_USUAL) or (context,)


def _identity(chosen: tuple[ResolvedCondition, ...]) -> list[list[object]]:
    return [[each.name, each.kv_overrides, _words(each.copy)] for each in chosen]


def _words(copy: PlanRequest | OriginalCopy | None) -> str:
    """A copy as files of kept answers name it; other words would cut them off from their run."""
    if not isinstance(copy, PlanRequest):
        return str(copy)
    return (
        f"RewrittenCopy(target_length={copy.target_length}, method={copy.method!r}, "
        f"train_length={copy.train_length}, keep_short={copy.keep_short}, recipe={copy.recipe!r}, "
        f"train_freq_base={copy.train_freq_base})"
    )


def _flash_attention(settings: LocalSettings, *, gpu: bool) -> bool | None:
    """What the memory plan takes for granted; None: it may choose, on processors alone."""
    on_devices = settings.gpu_layers != 0 and (gpu or bool(settings.rpc))
    if settings.flash_attention is None and (
        on_devices or settings.cache_type is not CacheType.F16
    ):
        return True
    return settings.flash_attention


def refuse_embedding_model(header: Header) -> None:
    """Refuse a model that continues no text.

    Raises
    ------
    EngineError
        ``cannot_be_audited``.
    """
    name = architecture_name(header)
    pooling = header.keys.get(f"{name}.pooling_type")
    pooled = pooling is not None and header.value(pooling.key) != 0
    causal = header.keys.get(f"{name}.attention.causal")
    if pooled or (causal is not None and header.value(causal.key) is False):
        raise EngineError(
            code="cannot_be_audited",
            path=header.path,
            message=f"is an embedding model ({name}): it gives vectors and no answers, so it "
            "cannot be asked for a key; audit the language model",
        )


def _frame(header: Header, engine: LlamaCpp | Cluster, template: Template) -> Frame:
    source = _template(header, template)
    if template is Template.NONE or source is None:
        return Frame()
    return frame_of(source, bos=engine.bos, eos=engine.eos, path=header.path)


def _template(header: Header, wanted: Template) -> str | None:
    """The file's chat template.

    Raises
    ------
    PlanError
        ``no_chat_template``.
    """
    source = header.value(_TEMPLATE_KEY) if _TEMPLATE_KEY in header.keys else None
    if isinstance(source, str):
        return source
    if wanted is Template.CHAT:
        raise PlanError(
            code="no_chat_template",
            path=header.path,
            field=_TEMPLATE_KEY,
            message="the file brings no chat template; `--template none` asks in plain text",
        )
    return None


def _audit(
    path: Path, condition: ResolvedCondition, architecture: str, process: LlamaProcess
) -> str:
    """Compare the ROPE nodes of a condition with what it means.

    Raises
    ------
    EngineError
        ``rope_mismatch``.
    """
    for seen, expected in rotations(
        condition.path or path,
        condition.expected,
        condition.expected_long,
        architecture=architecture,
        kv_overrides=dict(condition.kv_overrides),
        process=process,
    ):
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
    chosen: tuple[ResolvedCondition, ...], settings: LocalSettings, budget: Budget
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
                "no_reuse",
                "Self-Extend moves positions while it reads, so nothing is reused there",
            )
        )
    found += [ModelWarning("memory_reduced", step) for step in budget.plan.steps]
    return tuple(found)
