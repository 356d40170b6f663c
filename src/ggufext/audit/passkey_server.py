"""The passkey audit of a model behind a server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ggufext.audit.engines.server import Server
from ggufext.audit.request import depth_bins
from ggufext.audit.run.asking import Session, ask_one_by_one
from ggufext.audit.run.measure import PasskeyRun, Prepared, Template, answer_tokens, measure
from ggufext.audit.task.prompts import PromptPlan, prompt_set
from ggufext.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.audit.engines.connection import ServerSettings
    from ggufext.audit.run.asking import Progress
    from ggufext.audit.run.measure import PasskeyRequest, RunNotes


def check_server(
    settings: ServerSettings,
    request: PasskeyRequest,
    notify: Callable[[Progress | RunNotes], None],
) -> PasskeyRun:
    """Audit the model of a server, in plain text or (`Template.CHAT`) as a user of a chat.

    Parameters
    ----------
    settings : ServerSettings
    request : PasskeyRequest
        The only condition is ``"file"``: a server runs what it has loaded.
    notify : callable
        Hears `RunNotes` before the first question and `Progress` with every answer.

    Raises
    ------
    PlanError
        ``bad_condition``.
    EngineError
        Before the first question: ``engine_unreachable``, ``server_not_understood``,
        ``length_too_short`` …
    """
    others = [name for name in request.conditions if name != "file"]
    if others:
        raise PlanError(
            code="bad_condition",
            message=f"condition {others[0]!r}; a server runs the model as it has loaded it: "
            "check the file for other conditions, or start servers with them",
        )
    chat = request.template is Template.CHAT
    server = Server(settings, chat=chat)
    lengths = tuple(sorted(set(request.lengths)))
    prompts = PromptPlan(
        mode=request.mode,
        lengths=lengths,
        depths=depth_bins(request.depths),
        texts=request.trials,
        seed=request.seed,
        answer_tokens=answer_tokens(request, server, chat=chat),
        lead=server.around,
        trail=0,
        chat=chat,
        split=1,
    )
    ask = partial(ask_one_by_one, server, lambda: None, prompts.answer_tokens)
    run = Prepared(
        path=server.address,
        engine_name=f"server ({server.model})",
        engine=server,
        prompts=prompts,
        questions=prompt_set(prompts, server.counts),
        sessions=(Session("file", lengths, 1, ask),),
        identity={"server": server.address, "model": server.model, "chat": chat},
        train_length=None,
        memory_plan=None,
        versions={},
        flash_attention=None,
        speed=None,
        audited=(),
        warnings=(),
    )
    return measure(run, request, notify)
