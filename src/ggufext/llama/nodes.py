"""Reading nodes of a graph while llama.cpp computes it; in the child process."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ggufext.llama.library import Tensor

if TYPE_CHECKING:
    from ggufext.llama.library import Llama
    from ggufext.llama.loaded import Model, Tokens
    from ggufext.llama.settings import ContextSettings


class NodeReader(ABC):
    """Reads what nodes of some layers hold, in a context that is opened for it.

    Parameters
    ----------
    llama : Llama
    model : Model
    settings : ContextSettings

    Raises
    ------
    EngineError
        ``context_not_created``.
    """

    def __init__(self, llama: Llama, model: Model, settings: ContextSettings) -> None:
        self._ggml = llama.ggml
        self._is_host = llama.ggml.function(
            "ggml_backend_buffer_is_host", ctypes.c_bool, ctypes.c_void_p
        )
        self._model = model
        self._verified = False
        self._failure: Exception | None = None
        model.open(settings, on_node=llama.node_callback(self.node))

    @abstractmethod
    def layer_of(self, tensor: Tensor) -> int | None:
        """The layer of a node that is wanted; None for one that is not."""

    @abstractmethod
    def read_node(self, layer: int, tensor: Tensor) -> None:
        """Read a wanted node; its memory is used again behind it."""

    def decode(self, tokens: Tokens, position: int) -> None:
        """Compute tokens at consecutive positions; raises what reading their nodes raised.

        Raises
        ------
        EngineError
            ``decode_failed``, and what `read_node` raises.
        """
        self._model.decode(tokens, position)
        if self._failure is not None:
            raise self._failure

    def node(self, address: int, ask: bool, _: Any) -> bool:
        """Want nodes, and read them; to be llama.cpp's ``cb_eval``."""
        # An exception that left this function, or a no to what was computed, would end the graph
        # while llama_decode says 0.
        try:
            tensor = Tensor.from_address(address)
            layer = None if self._failure is not None else self.layer_of(tensor)
            if layer is None:
                return not ask
            if not ask:
                if not self._verified:
                    self._ggml.verify(tensor)
                    self._verified = True
                self.read_node(layer, tensor)
        except Exception as error:
            self._failure = self._failure or error
        return True
