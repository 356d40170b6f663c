"""Servers with the same model, each asked text after text; one that dies leaves its text to others.

Whole texts are shared out, since servers keep what they computed for the last prompt, and only
questions of one text share that.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ggufext.audit.engines import Answer
from ggufext.audit.engines.server import Server
from ggufext.errors import EngineError, ModelWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ggufext.audit.request import ServerSettings
    from ggufext.audit.task import Question
    from ggufext.llama.settings import LoadRequest


class Servers:
    """Servers that answer together; see `ggufext.audit.engines.AuditEngine`.

    Parameters
    ----------
    settings : ServerSettings
    chat : bool
        See `Server`.

    Attributes
    ----------
    addresses : tuple of str
    model : str
        Its name on the first of them.
    around : int
        See `Server`.

    Raises
    ------
    EngineError
        ``servers_differ``, and as of `Server`; of `answers` only when no server is left.
    """

    def __init__(self, settings: ServerSettings, *, chat: bool = False) -> None:
        self._servers: list[Server] = []
        self._lost: list[ModelWarning] = []
        try:
            for url in (settings.url, *settings.others):
                server = Server(replace(settings, url=url, others=()), chat=chat)
                self._servers.append(server)
                _refuse_other(self._servers[0], server)
        except BaseException:
            self.close()
            raise
        self.addresses = tuple(server.address for server in self._servers)
        self.model, self.around = self._servers[0].model, self._servers[0].around
        self._left = list(self._servers)

    def counts(self, parts: Sequence[str]) -> list[int]:
        """Tokens of texts, each as it stands behind a full stop."""
        return self._servers[0].counts(parts)

    def answers(
        self,
        load: LoadRequest | None,  # noqa: ARG002 (servers run what they have loaded)
        questions: Sequence[Question],
        *,
        tokens: int,
    ) -> Iterator[tuple[Question, Answer]]:
        """See `ggufext.audit.engines.AuditEngine`; answers as they come."""
        by_text: defaultdict[int, deque[Question]] = defaultdict(deque)
        for question in questions:
            by_text[question.text].append(question)
        waiting, idle = deque(by_text.values()), deque(self._left)
        asked: dict[Server, deque[Question]] = {}
        told: SimpleQueue[tuple[Server, Answer | Exception]] = SimpleQueue()

        def ask(server: Server, question: Question) -> None:
            try:
                told.put((server, server.ask(question.parts, tokens=tokens)))
            except Exception as error:
                told.put((server, error))

        def begin(server: Server, text: deque[Question]) -> None:
            asked[server] = text
            # A thread that Ctrl-C need not wait for.
            threading.Thread(target=ask, args=(server, text[0]), daemon=True).start()

        while waiting or asked:
            while waiting and idle:
                begin(idle.popleft(), waiting.popleft())
            server, answer = told.get()
            text = asked.pop(server)
            if isinstance(answer, Answer):
                question = text.popleft()
                if text:
                    begin(server, text)
                else:
                    idle.append(server)
                yield question, answer
            else:
                self._lose(server, answer)
                waiting.appendleft(text)

    def _lose(self, server: Server, error: Exception) -> None:
        """Go on without a server, if there is another."""
        self._left.remove(server)
        if not (self._left and isinstance(error, EngineError)):
            raise error
        self._lost.append(
            ModelWarning(
                "server_lost", f"what was left to ask of a server went to the others: {error}"
            )
        )

    def warnings(self) -> tuple[ModelWarning, ...]:
        """What was noticed so far, once each, and the servers that were lost."""
        found = {note.code: note for server in self._servers for note in server.warnings()}
        return (*found.values(), *self._lost)

    def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            server.close()


def _refuse_other(first: Server, other: Server) -> None:
    """Refuse a server that would not answer as the first one.

    Raises
    ------
    EngineError
        ``servers_differ``.
    """
    wanted, found = first.traits(), other.traits()
    for name in wanted.keys() & found.keys():
        if wanted[name] != found[name]:
            raise EngineError(
                code="servers_differ",
                message=f"{other.address} has another {name} ({found[name]}) than {first.address} "
                f"({wanted[name]}); servers share a run only with the same model, started alike",
            )
