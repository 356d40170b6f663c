"""The audit of a model, in a file or behind a server: one way from a request to a result."""

from __future__ import annotations

import platform
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ggufext import __version__
from ggufext.audit.conditions import conditions, refuse_copies, with_copies
from ggufext.audit.engines.cluster import Cluster
from ggufext.audit.engines.llama_cpp import LlamaCpp, contexts
from ggufext.audit.engines.llama_server import LlamaServer, refuse_self_extend, served_contexts
from ggufext.audit.engines.server import Server
from ggufext.audit.findings.summary import result_of
from ggufext.audit.request import LocalSettings, Mode, ServerSettings, Template, depth_bins
from ggufext.audit.run.duration import measure_speed
from ggufext.audit.run.measure import (
    Prepared,
    Preparing,
    Run,
    Stage,
    measure,
    prompt_tokens,
    seconds,
)
from ggufext.audit.run.records import kept_setting
from ggufext.audit.task import PromptPlan, prompts_hash
from ggufext.audit.task.passkey import Passkey
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
from ggufext.text import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ggufext.audit.conditions import CopyNeeded, OriginalCopy, ResolvedCondition
    from ggufext.audit.findings.results import CheckResult
    from ggufext.audit.request import CheckRequest
    from ggufext.audit.run.duration import Speed
    from ggufext.audit.run.measure import Measured, Progress, RunNotes
    from ggufext.audit.task import Task
    from ggufext.header.facts import ModelFacts
    from ggufext.header.header import Header
    from ggufext.llama.memory import Budget

    Notify = Callable[[Preparing | RunNotes | Progress], None]

_TASKS: Mapping[Mode, Task] = {Mode.STANDARD: Passkey(), Mode.SWEEP: Passkey()}

#: Lengths tried where none are asked for, and the shortest of them in tokens.
_USUAL_LENGTHS, _SHORTEST_USUAL = 4, 256

#: Room for the answer of a chat model, which may say a sentence first.
_CHAT_ANSWER_TOKENS = 64

_TEMPLATE_KEY = "tokenizer.chat_template"


def check(
    model: Path | ServerSettings,
    request: CheckRequest,
    *,
    allow_copy: Callable[[CopyNeeded], bool] = refuse_copies,
    notify: Notify = lambda _: None,
) -> CheckResult:
    """Audit a model; nothing is written to its file.

    Parameters
    ----------
    model : Path or ServerSettings
        A GGUF file, of a split model the first shard; or a server, which is asked in plain text
        or (`Template.CHAT`) as a user of a chat.
    request : CheckRequest
        The only condition of a server is ``"file"``: it runs what it has loaded.
    allow_copy : callable
        Asked before a temporary copy is made for a condition that needs one.
    notify : callable
        Hears `Preparing` and then `RunNotes` before the first question, and `Progress` with every
        answer.

    Returns
    -------
    CheckResult
        Complete, or what was measured until Ctrl-C or the engine's death.

    Raises
    ------
    HeaderError, PlanError
        The file, a condition or a length cannot be audited; of a server ``bad_condition``
        and ``request_absurd``.
    EngineError
        Before the first question: ``cannot_be_audited``,
        ``length_too_short``, ``no_chat_template``, ``rope_mismatch``, ``out_of_memory``,
        ``extra_missing``, ``engine_died``, ``engine_unreachable``, ``server_not_understood``,
        ``not_llama_server`` …
    """
    return result_of(measure_model(model, request, allow_copy=allow_copy, notify=notify))


def measure_model(
    model: Path | ServerSettings,
    request: CheckRequest,
    *,
    allow_copy: Callable[[CopyNeeded], bool] = refuse_copies,
    notify: Notify = lambda _: None,
) -> Measured:
    """The run of `check` with every single answer."""
    ready = (
        _server_ready(model, request)
        if isinstance(model, ServerSettings)
        else _file_ready(model, request, allow_copy, notify)
    )
    with ready as prepared:
        return measure(prepared, notify)


@contextmanager
def _server_ready(settings: ServerSettings, request: CheckRequest) -> Iterator[Prepared]:
    others = [name for name in request.conditions if name != "file"]
    if others:
        raise PlanError(
            code="bad_condition",
            message=f"condition {others[0]!r}; a server runs the model as it has loaded it: "
            "check the file for other conditions, or start servers with them",
        )
    if request.lengths is None:
        raise PlanError(
            code="request_absurd",
            message="a server does not say at what lengths to ask it: at least one is needed",
        )
    chat = request.template is Template.CHAT
    request = _resolved(request, request.lengths)
    with closing(Server(settings, chat=chat)) as server:
        yield _served(
            server,
            request,
            partial(
                Run,
                path=server.address,
                engine=f"server ({server.model})",
                versions=_versions(),
                train_length=request.train_length,
            ),
            stages=(Stage("file", request.lengths or (), reuse=1),),
            identity={"server": server.address, "model": server.model, "chat": chat},
            chat=chat,
        )


def _served(
    server: Server | LlamaServer,
    request: CheckRequest,
    run: Callable[..., Run],
    *,
    stages: tuple[Stage, ...],
    identity: dict[str, object],
    chat: bool,
    warnings: tuple[ModelWarning, ...] = (),
) -> Prepared:
    """A run whose prompts a server counts and whose questions it is asked."""
    task = _TASKS[request.mode]
    prompts = _prompts(
        request,
        request.lengths or (),
        answer_tokens=_answer_tokens(request, task, server, chat=chat),
        around=(server.around, 0),
        chat=chat,
        split=1,
    )
    questions = task.questions(prompts, server.counts)
    return Prepared(
        request=request,
        run=run(prompts_hash=prompts_hash(questions)),
        engine=server,
        task=task,
        prompts=prompts,
        questions=questions,
        stages=stages,
        identity=identity,
        warnings=warnings,
    )


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a run needs of a model file, taken while it was open."""

    header: Header
    facts: ModelFacts
    size: ModelSize
    conditions: tuple[ResolvedCondition, ...]


@contextmanager
def _file_ready(
    path: Path, request: CheckRequest, allow_copy: Callable[[CopyNeeded], bool], notify: Notify
) -> Iterator[Prepared]:
    settings = request.engine or LocalSettings()
    with open_model(path) as model:
        header = model.header
        assert header.path is not None
        path = header.path  # of a split model that of the first part
        _refuse_embedding_model(header)
        lengths = request.lengths or _usual_lengths(model.facts.context_length)
        request = replace(_resolved(request, lengths), engine=settings)
        planned = PlanRequest(
            target_length=request.target_length or max(lengths),
            train_length=request.train_length,
            train_freq_base=request.train_freq_base,
        )
        facts = model.original_facts(planned)
        taken = _Taken(
            header=header,
            facts=facts,
            size=ModelSize(
                tensors=sum(part.file_size for part in (header, *model.later_shards)),
                widths=model_widths(header),
                layers=facts.layers,
            ),
            conditions=conditions(model, request.conditions, planned),
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
            server = _llama_server_ready(settings.llama_server, taken, request, settings)
            yield held.enter_context(server)
            return
        audited: tuple[str, ...] = ()
        if settings.audit:
            with LlamaProcess() as process:
                audited = tuple(_audit(path, each, facts.architecture, process) for each in chosen)
        engine: LlamaCpp | Cluster
        engine = Cluster(path, settings.dask) if settings.dask else LlamaCpp(path, rpc=settings.rpc)
        held.callback(engine.close)
        yield _prepared(engine, taken, request, settings, audited, notify)


@contextmanager
def _llama_server_ready(
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
        yield _served(
            server,
            request,
            partial(
                Run,
                path=str(header.path),
                engine="llama-server",
                versions=_versions(llama_server=server.version),
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


def _prepared(
    engine: LlamaCpp | Cluster,
    taken: _Taken,
    request: CheckRequest,
    settings: LocalSettings,
    audited: tuple[str, ...],
    notify: Notify,
) -> Prepared:
    header, chosen, lengths = taken.header, taken.conditions, request.lengths or ()
    assert header.path is not None
    model = header.path.absolute()
    task = _TASKS[request.mode]
    frame = _frame(header, engine, request.template)
    around = engine.frame(frame)
    task.check_tokenizer(engine.pieces, header.path)
    size = replace(taken.size, widths=replace(taken.size.widths, vocabulary=engine.n_vocab))
    room = engine.hello
    fit = partial(
        plan_memory,
        size,
        lengths=lengths,
        n_ubatch=micro_batch(lengths[0]),
        cache_type=settings.cache_type,
        available=room.available + room.device_memory,
    )
    wanted = _flash_attention(settings, gpu=room.gpu)
    kept = kept_setting(request.resume, "flash_attention") if wanted is None else None
    if isinstance(kept, bool):
        wanted = kept
    budget = fit(flash_attention=wanted)
    layers = settings.gpu_layers
    if layers is None:
        layers = gpu_layers(size, budget, room.device_memory) if room.gpu else 0
    prompts = _prompts(
        request,
        budget.lengths,
        answer_tokens=_answer_tokens(request, task, engine, chat=frame.chat),
        around=around,
        chat=frame.chat,
        # Not the reduced one: memory must not change what is asked. It divides this.
        split=micro_batch(lengths[0]),
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
    if layers == 0 and not (settings.rpc or settings.dask):
        (*_, (_, longest)) = contexts(model, chosen[0], budget, settings, gpu_layers=layers)
        undecided = wanted is None and not budget.flash_attention
        notify(Preparing("measuring the speed"))
        speeds = measure_speed(
            longest,
            (False, True) if undecided else (budget.flash_attention,),
            tokens=prompt_tokens(stages, questions),
        )
    takes = {
        flash_attention: seconds(speed, prompts, [(each, each.of(questions)) for each in stages])
        for flash_attention, speed in speeds.items()
    }
    if min(takes, key=takes.__getitem__, default=False) and not budget.flash_attention:
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
            versions=_versions(
                **{engine.hello.package.replace("-", "_"): engine.hello.version},
                processor=engine.hello.system.strip(" |"),
            ),
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
        },
        speed=speed,
        warnings=(
            *_warnings(chosen, settings, budget),
            *_chosen(budget.flash_attention, takes, speed, kept=kept),
        ),
    )


def _resolved(request: CheckRequest, lengths: tuple[int, ...]) -> CheckRequest:
    """Rising lengths and conditions, each once."""
    return replace(
        request,
        lengths=tuple(sorted(set(lengths))),
        conditions=tuple(dict.fromkeys(request.conditions)),
    )


def _usual_lengths(context: int) -> tuple[int, ...]:
    """Up to four doublings that end at a context length."""
    halved = (context >> times for times in range(_USUAL_LENGTHS))
    return tuple(length for length in halved if length >= _SHORTEST_USUAL) or (context,)


def _prompts(
    request: CheckRequest,
    lengths: tuple[int, ...],
    *,
    answer_tokens: int,
    around: tuple[int, int],
    chat: bool,
    split: int,
) -> PromptPlan:
    lead, trail = around
    return PromptPlan(
        mode=request.mode,
        lengths=lengths,
        depths=depth_bins(request.depths),
        texts=request.trials,
        seed=request.seed,
        answer_tokens=answer_tokens,
        lead=lead,
        trail=trail,
        chat=chat,
        split=split,
    )


def _answer_tokens(
    request: CheckRequest,
    task: Task,
    engine: LlamaCpp | Cluster | Server | LlamaServer,
    *,
    chat: bool,
) -> int:
    """Tokens to keep free for an answer."""
    if request.answer_tokens is not None:
        return request.answer_tokens
    return _CHAT_ANSWER_TOKENS if chat else task.answer_tokens(engine.counts)


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


def _versions(**of_engine: str) -> dict[str, str]:
    return {"ggufext": __version__, "python": platform.python_version(), **of_engine}


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
