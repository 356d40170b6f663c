"""How wide a model's graph is: what its compute buffers grow with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggufext.header.header import Header

#: The matrix whose rows are the tokens' embeddings.
_EMBEDDINGS = "token_embd.weight"


@dataclass(frozen=True, slots=True)
class Widths:
    """Values of a token in the widest places of the graph.

    Attributes
    ----------
    vocabulary : int
        Tokens; 0 where the file does not say.
    embedding, feed_forward : int
        Of mixtures of experts: all experts of a token together.
    heads : int
        Query heads.
    """

    vocabulary: int
    embedding: int
    feed_forward: int
    heads: int


def model_widths(header: Header) -> Widths:
    """Widths that a header tells, each the largest of all layers."""

    def largest(suffix: str) -> int:
        key = f"{header.value('general.architecture')}.{suffix}"
        value = header.value(key) if key in header.keys else 0
        values = value if isinstance(value, tuple) else (value,)
        return max((each for each in values if isinstance(each, int)), default=0)

    embeddings = next((t for t in header.tensors if t.name == _EMBEDDINGS), None)
    tokens = header.keys.get("tokenizer.ggml.tokens")
    return Widths(
        vocabulary=embeddings.shape[-1] if embeddings else tokens.count if tokens else 0,
        embedding=largest("embedding_length"),
        feed_forward=max(
            largest("feed_forward_length"),
            largest("expert_feed_forward_length") * largest("expert_used_count"),
        ),
        heads=largest("attention.head_count"),
    )
