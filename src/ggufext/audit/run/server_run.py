"""A run on one server or several: asked for the one model that they have loaded."""

from __future__ import annotations

from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from ggufext.audit.engines.servers import Servers
from ggufext.audit.request import Template
from ggufext.audit.run.measure import Prepared, Run, Stage
from ggufext.audit.run.preparation import TASKS, in_order, prompt_plan, versions
from ggufext.audit.run.records import check_records_path
from ggufext.audit.task import prompts_hash
from ggufext.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ggufext.audit.engines.llama_server import LlamaServer
    from ggufext.audit.request import CheckRequest, ServerSettings
    from ggufext.errors import ModelWarning


@contextmanager
def server_run(settings: ServerSettings, request: CheckRequest) -> Iterator[Prepared]:
    """A run of its only condition, ``"file"``; parameters and errors as of `check`."""
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
    check_records_path(request.resume)
    chat = request.template is Template.CHAT
    request = in_order(request, request.lengths)
    with closing(Servers(settings, chat=chat)) as servers:
        number = len(servers.addresses)
        yield served_run(
            servers,
            request,
            partial(
                Run,
                path=", ".join(servers.addresses),
                engine=f"{f'{number} servers' if number > 1 else 'server'} ({servers.model})",
                versions=versions(),
                train_length=request.train_length,
            ),
            stages=(Stage("file", request.lengths or (), reuse=1),),
            # The others are like the first: a run that they take part in is still its own.
            identity={"server": servers.addresses[0], "model": servers.model, "chat": chat},
            chat=chat,
        )


def served_run(
    server: Servers | LlamaServer,
    request: CheckRequest,
    run: Callable[..., Run],
    *,
    stages: tuple[Stage, ...],
    identity: dict[str, object],
    chat: bool,
    warnings: tuple[ModelWarning, ...] = (),
) -> Prepared:
    """A run whose prompts a server counts and whose questions it is asked.

    Parameters
    ----------
    server : Servers or LlamaServer
    request : CheckRequest
    run : callable
        Makes the `Run`, given the hash of its prompts.
    stages, identity, warnings
        See `Prepared`.
    chat : bool
        Whether the server is asked as in a chat.
    """
    task = TASKS[request.mode]
    prompts = prompt_plan(
        request,
        request.lengths or (),
        server.counts,
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
