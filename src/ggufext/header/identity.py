"""Which model a file holds, as far as an extension is concerned."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggufext.header.header import Header
    from ggufext.header.model import ModelFacts


def facts_hash(header: Header, facts: ModelFacts) -> str:
    """Hash of the native RoPE facts, and of the tensors' names, shapes and types.

    Parameters
    ----------
    header : Header
        Of the original, before edits of ours: so the hash is the same before and after a rewrite.
    facts : ModelFacts
        From the same header.

    Returns
    -------
    str
        ``"sha256:"`` and 64 hexadecimal digits.
    """
    scaling = facts.scaling
    said = {
        "architecture": facts.architecture,
        "freq_base": facts.freq_base,
        "rotary_dim": facts.rotary_dim,
        "head_dim": facts.head_dim,
        "scaling": [scaling.type, scaling.factor, scaling.original_context_length],
        "attention_factor": scaling.attention_factor,
        "yarn": asdict(scaling.yarn),
        "factors": facts.factors,
        "tensors": [[tensor.name, tensor.shape, tensor.type] for tensor in header.tensors],
    }
    text = json.dumps(said, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode('utf-8')).hexdigest()}"
