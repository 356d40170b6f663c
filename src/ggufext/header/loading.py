"""Whether llama.cpp would load a model: what its loader demands, compared with a header.

`loading` in architectures.json, of all files and of each verified architecture:

required
    Keys that must be there, without prefix; those with a dot in front have none.
types
    Of the keys that are read, GGUF names; of arrays those of their elements.
lengths
    Of arrays: a number, ``layers``, or ``all_layers`` (with those that predict tokens).
asserts
    What the head size must equal: ``value_length``, ``rotary_dim``.
needed
    Tensors that must be there: name, shape and the comparisons that must hold for that. Extents are
    sums of products of keys and of llama.cpp's names, of the first layer or ``[i]`` of the layer;
    no extents where the shape is not certain.
possible
    Tensors that may be there, names and shapes; others must not.

And `vocabulary`, of all files with texts for their tokens: `types` of keys, `lists` with the types
that their elements may have, and `pre`, the pre-tokenizers that this llama.cpp knows.
"""

from __future__ import annotations

import math
import operator
import re
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ggufext.errors import HeaderError, printable
from ggufext.header import rope_keys
from ggufext.header.architectures import llama_cpp_version, table
from ggufext.header.header import ValueType
from ggufext.header.shards import COUNT_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ggufext.header.facts import ModelFacts
    from ggufext.header.header import Header

#: llama.cpp reads arrays of these into numbers as well.
_WHOLE = frozenset({"BOOL", "INT32", "UINT32"})

#: What llama_vocab::impl::load looks for by the model's name.
_TOKENS_OF_PHI3 = frozenset({"<unk>", "<s>", "</s>", "<|endoftext|>"})

#: Lists with an element a token (llama_vocab::impl::load).
_BESIDE_TOKENS = frozenset({"tokenizer.ggml.scores", "tokenizer.ggml.token_type"})

#: The tokenizers that read a list, where not all do.
_READ_WITH = {
    "tokenizer.ggml.merges": frozenset({"gpt2", "hybriddna", "whitespace", "gemma4"}),
    "tokenizer.ggml.precompiled_charsmap": frozenset({"t5"}),
}

#: A single expert counts as none.
_SINGLE_EXPERTS = frozenset({"hunyuan-dense", "hunyuan_vl"})

#: Stands for the number of a layer in architectures.json.
_LAYER = "*"

_COMPARISON = re.compile(r" ([=!<>]=?) ")
_SIGNS: dict[str, Callable[..., bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

#: Suffixes of tensors that may stand beside any weight (llama_model_base::load_tensors).
_SCALES = (".scale", ".input_scale")

#: One tensor that takes the place of others (create_tensor_qkv, create_tensor_gate_up_exps).
_FUSED = {
    "attn_q.weight": "attn_qkv.weight",
    "attn_k.weight": "attn_qkv.weight",
    "attn_v.weight": "attn_qkv.weight",
    "ffn_gate_exps.weight": "ffn_gate_up_exps.weight",
    "ffn_up_exps.weight": "ffn_gate_up_exps.weight",
}


def refuse_unloadable(
    header: Header, facts: ModelFacts, *, later_shards: tuple[Header, ...] = ()
) -> None:
    """Refuse a model that llama.cpp would not load.

    What is demanded is listed in architectures.json, read from llama.cpp's loaders. A file without
    tensors (a vocabulary) and an architecture that is not verified are not judged.

    Parameters
    ----------
    header : Header
    facts : ModelFacts
        From the same header.
    later_shards : tuple of Header
        Of a split model's other parts.

    Raises
    ------
    HeaderError
        ``would_not_load`` with the key or tensor, what was found and what llama.cpp expects.
    """
    entry = table()["architectures"].get(facts.architecture, {}).get("loading")
    if entry is None or not facts.has_tensors:
        return
    judge = _Judge(header, facts, (header, *later_shards))
    judge.keys(table()["loading"])
    judge.keys(entry)
    judge.head_sizes(entry["asserts"])
    judge.experts()
    judge.vocabulary(table()["loading"]["vocabulary"])
    if (header.integer(COUNT_KEY, value_type=ValueType.UINT16) or 1) > 1 + len(later_shards):
        return  # of a remote model only the first part was read
    judge.tensors(
        needed=[_Demand(*each) for each in entry["needed"]],
        possible=[_Demand(*each) for each in entry["possible"]],
    )


class _Demand(NamedTuple):
    """A tensor that must, or may, be there."""

    name: str
    shape: Sequence[str]
    conditions: Sequence[str] = ()


class _Judge:
    def __init__(self, header: Header, facts: ModelFacts, shards: tuple[Header, ...]) -> None:
        self._header = header
        self._prefix = f"{facts.architecture}."
        self._facts = facts
        self._layers = len(facts.layers)
        self._all_layers = self._whole("block_count") or self._layers
        self._values: dict[str, Callable[[int], int | None]] = {
            "layers": lambda _: self._layers,
            "is_recr": lambda layer: not self._has_kv(layer),
            "has_kv": self._has_kv,
            "is_swa": self._is_swa,
            "n_embd": lambda _: self._whole("embedding_length"),
            "n_vocab": lambda _: self._vocabulary_size(),
            "n_expert": lambda _: self._whole("expert_count") or 0,
            "n_head": partial(self._whole, rope_keys.HEAD_COUNT),
            "n_head_kv": self._heads_kv,
            "n_embd_head_k": partial(self._head_size, rope_keys.KEY_LENGTH),
            "n_embd_head_v": partial(self._head_size, rope_keys.VALUE_LENGTH),
            "n_ff": lambda layer: self._whole("feed_forward_length", layer) or 0,
            "n_ff_exp": lambda layer: self._whole("expert_feed_forward_length", layer) or 0,
            "n_rot": self._rotated,
        }
        self._extents: dict[tuple[str, int], int | None] = {}
        self._found = {tensor.name: tensor for shard in shards for tensor in shard.tensors}

    def _refuse(self, field: str, message: str, offset: int | None = None) -> None:
        raise HeaderError(
            code="would_not_load",
            field=field,
            offset=offset,
            path=self._header.path,
            message=f"{message}: llama.cpp ({llama_cpp_version()}) does not load this file; "
            "convert the model again",
        )

    def _refuse_key(self, key: str, message: str) -> None:
        entry = self._header.keys.get(key)
        self._refuse(key, message, entry.start if entry else None)

    def _key(self, suffix: str) -> str:
        return suffix[1:] if suffix.startswith(".") else self._prefix + suffix

    def keys(self, demanded: dict[str, Any]) -> None:
        """Presence, type and length."""
        for suffix in demanded["required"]:
            if self._key(suffix) not in self._header.keys:
                self._refuse_key(self._key(suffix), "is not in the file and is needed")
        for suffix, kind in demanded["types"].items():
            entry = self._header.keys.get(self._key(suffix))
            length = demanded["lengths"].get(suffix)
            if entry is None:
                continue
            if entry.type is not ValueType.ARRAY:
                if entry.type.name != kind:
                    self._refuse_key(entry.key, f"has type {entry.type.name}, expected {kind}")
                continue
            element = entry.element_type.name if entry.element_type is not None else ""
            if length is None or element not in (_WHOLE if kind in _WHOLE else {kind}):
                self._refuse_key(entry.key, f"has type ARRAY of {element}, expected {kind}")
            wanted = {"layers": self._layers, "all_layers": self._all_layers}.get(str(length))
            if entry.count != (wanted or int(length)):
                self._refuse_key(
                    entry.key, f"has {entry.count:,} elements, expected {wanted or length}"
                )

    def head_sizes(self, asserted: list[str]) -> None:
        """What the graph asserts before it is built, of the first layer."""
        value = self._value("n_embd_head_v", 0)
        key, rotary = self._value("n_embd_head_k", 0), self._value("n_rot", 0)
        if None in {value, key, rotary}:
            return
        if "value_length" in asserted and value != key:
            self._refuse_key(
                f"{self._prefix}{rope_keys.VALUE_LENGTH}",
                f"values of {value} elements a head beside keys of {key}, expected the same",
            )
        if "rotary_dim" in asserted and rotary != key:
            self._refuse_key(
                f"{self._prefix}{rope_keys.DIMENSION_COUNT}",
                f"{rotary} rotated dimensions in heads of {key}, expected all",
            )

    def experts(self) -> None:
        """What llama_model_base::load_hparams asserts of mixtures of experts."""
        experts = self._whole("expert_count") or 0
        if experts <= 1 and self._facts.architecture in _SINGLE_EXPERTS:
            return
        used = max(self._whole("expert_used_count", i) or 0 for i in range(self._layers))
        if used > experts or (experts and not used):
            self._refuse_key(
                f"{self._prefix}expert_used_count",
                f"{used:,} experts used of {experts:,}, expected "
                + (f"1 to {experts:,}" if experts else "none"),
            )

    def vocabulary(self, demanded: dict[str, Any]) -> None:
        """What every tokenizer needs."""
        model = self._header.keys.get("tokenizer.ggml.model")
        if model is None:
            self._refuse_key("tokenizer.ggml.model", "is not in the file and is needed")
        types = demanded["types"]
        if self._nameless():
            types = {key: kind for key, kind in types.items() if key.startswith(".general.")}
        self.keys({"required": (), "types": types, "lengths": {}})
        if not self._nameless():
            tokens = self._header.keys.get("tokenizer.ggml.tokens")
            if tokens is None or tokens.type is not ValueType.ARRAY:
                self._refuse_key("tokenizer.ggml.tokens", "is no list of tokens")
            self._lists(demanded["lists"])
            self._merges()
            self._tokens_of_phi3()

    def _lists(self, demanded: dict[str, list[str]]) -> None:
        """Types of elements, and that no list beside the tokens is shorter than they are."""
        keys, model = self._header.keys, self._header.value("tokenizer.ggml.model")
        tokens = keys["tokenizer.ggml.tokens"].count
        for key, elements in demanded.items():
            entry = keys.get(key[1:])
            if entry is None or model not in _READ_WITH.get(key[1:], {model}):
                continue
            if entry.element_type is None or entry.element_type.name not in elements:
                wanted = " or ".join(elements)
                self._refuse_key(entry.key, f"is no ARRAY of {wanted}")
            if entry.key in _BESIDE_TOKENS and entry.count < tokens:
                self._refuse_key(
                    entry.key, f"has {entry.count:,} elements for {tokens:,} tokens, expected all"
                )

    def _merges(self) -> None:
        keys, merges = self._header.keys, "tokenizer.ggml.merges"
        if merges in keys or self._header.value("tokenizer.ggml.model") != "gpt2":
            return
        pre = "tokenizer.ggml.pre"
        if pre not in keys or self._header.value(pre) != "kimi-k2":
            self._refuse_key(merges, "is not in the file and is needed by its tokenizer")

    def _tokens_of_phi3(self) -> None:
        """llama.cpp looks for some tokens where the name of a model says Phi-3."""
        key = "general.name"
        name = self._header.value(key) if key in self._header.keys else ""
        if not isinstance(name, str) or not re.search("phi-?3", name, re.IGNORECASE):
            return
        tokens = self._header.value("tokenizer.ggml.tokens")
        missing = _TOKENS_OF_PHI3.difference(tokens if isinstance(tokens, tuple) else ())
        if missing:
            self._refuse_key(
                key,
                f"is {printable(name, 80)!r}, so llama.cpp looks for the token "
                f"{min(missing)}, which is not there",
            )

    def _nameless(self) -> bool:
        """Whether tokens have no text: only their number is in the file."""
        key = "tokenizer.ggml.model"
        return key in self._header.keys and self._header.value(key) in {"none", "no_vocab"}

    def tensors(self, *, needed: list[_Demand], possible: list[_Demand]) -> None:
        """Names and shapes."""
        known = {demand.name for demand in (*needed, *possible)}
        for name in self._found:
            pattern, layer = _pattern(name)
            if layer is not None and layer >= self._all_layers:
                self._refuse(
                    name,
                    f"belongs to layer {layer:,}, but {self._prefix}block_count is "
                    f"{self._all_layers:,}",
                )
            if pattern not in known and not _is_scale(pattern, known):
                self._refuse(name, f"is no tensor of {self._facts.architecture} models")
        # Some files hold the layers that predict tokens alone, others all but those.
        complete = self._all_layers == self._layers
        for demands, must in ((needed, complete), (possible, False)):
            for demand in demands:
                for layer in range(self._layers) if _LAYER in demand.name else (0,):
                    if all(self._holds(each, layer) for each in demand.conditions):
                        self._check(demand, layer, needed=must)

    def _check(self, demand: _Demand, layer: int, *, needed: bool) -> None:
        name = demand.name.replace(_LAYER, str(layer))
        tensor = self._found.get(name)
        if tensor is None:
            fused = _FUSED.get(name.removeprefix(f"blk.{layer}."), "")
            if needed and f"blk.{layer}.{fused}" not in self._found:
                self._refuse(name, "is not in the file and is needed")
            return
        expected = tuple(self._extent(each, layer) for each in demand.shape)
        known = tuple(extent for extent in expected if extent is not None)
        if known and known == expected and _padded(tensor.shape) != _padded(known):
            self._refuse(
                name,
                f"has shape {list(tensor.shape)}; the keys of the file ask for {list(known)}",
            )

    def _holds(self, comparison: str, layer: int) -> bool:
        left, sign, right = _COMPARISON.split(comparison)
        sides = self._extent(left, layer), self._extent(right, layer)
        return None not in sides and bool(_SIGNS[sign](*sides))

    def _extent(self, text: str, layer: int) -> int | None:
        """A sum of products, of one layer; most are alike in all, and there are many."""
        key = (text, layer if "[i]" in text or "layer" in text else 0)
        if key not in self._extents:
            self._extents[key] = self._computed(text, layer)
        return self._extents[key]

    def _computed(self, text: str, layer: int) -> int | None:
        total = 0
        for product in text.split(" + "):
            factors = [self._factor(each, layer) for each in product.split(" * ")]
            if None in factors:
                return None
            total += math.prod(factor for factor in factors if factor is not None)
        return total

    def _factor(self, text: str, layer: int) -> int | None:
        if re.fullmatch(r"-?\d+", text):
            return int(text)
        if text == "layer":
            return layer
        name = text.removesuffix("[i]")
        return self._value(name, layer if name != text else 0)

    def _value(self, name: str, layer: int) -> int | None:
        """What llama.cpp's loaders know by this name, of one layer; else the value of a key."""
        known = self._values.get(name)
        return self._whole(name) or 0 if known is None else known(layer)

    def _is_swa(self, layer: int) -> bool | None:
        if self._whole(rope_keys.SLIDING_WINDOW) == 0:
            return None  # some loaders then have no local layers, others those of the pattern
        return self._facts.layers[layer].window is not None

    def _has_kv(self, layer: int) -> bool:
        """What keeps no keys and values is recurrent, or shares those of another layer."""
        return self._facts.layers[layer].head_count_kv > 0

    def _vocabulary_size(self) -> int | None:
        if self._nameless():
            return self._whole("vocab_size") or 0
        tokens = self._header.keys.get("tokenizer.ggml.tokens")
        return None if tokens is None else tokens.count

    def _heads_kv(self, layer: int) -> int | None:
        heads = self._whole(rope_keys.HEAD_COUNT_KV, layer)
        return self._whole(rope_keys.HEAD_COUNT, layer) if heads is None else heads

    def _rotated(self, layer: int) -> int | None:
        default = self._whole(rope_keys.KEY_LENGTH) or self._default_head_size()
        return self._of_local(rope_keys.DIMENSION_COUNT, layer, default)

    def _head_size(self, key: str, layer: int) -> int | None:
        return self._of_local(key, layer, self._default_head_size())

    def _of_local(self, key: str, layer: int, default: int | None) -> int | None:
        """The value of a key, of a local layer that of its own key if there is one."""
        own, is_swa = self._whole(f"{key}_swa"), self._is_swa(layer)
        if own is not None and is_swa is not False:
            return own if is_swa else None
        return self._whole(key) or default

    def _default_head_size(self) -> int | None:
        width, heads = self._value("n_embd", 0), self._value("n_head", 0)
        return width // heads if width and heads else None

    def _whole(self, suffix: str, layer: int = 0) -> int | None:
        key = self._prefix + suffix
        if key not in self._header.keys:
            return None
        value = self._header.value(key)
        if isinstance(value, tuple):
            value = value[layer] if layer < len(value) else ""
        return int(value) if isinstance(value, int) else None


def _pattern(name: str) -> tuple[str, int | None]:
    """A tensor's name as architectures.json writes it, and its layer."""
    match = re.match(r"blk\.(\d+)\.", name)
    if match is None:
        return name, None
    return f"blk.{_LAYER}.{name[match.end() :]}", int(match[1])


def _is_scale(pattern: str, known: set[str]) -> bool:
    return any(
        pattern.endswith(suffix) and pattern.removesuffix(suffix) + ".weight" in known
        for suffix in _SCALES
    )


def _padded(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape, *(1,) * (4 - len(shape)))
