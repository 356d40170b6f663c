"""Keys that stay as they are: what a file's tensors, parts and lists were made for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from ggufext.errors import EditError, command, printable
from ggufext.header import rope_keys
from ggufext.header.architectures import Positions, architecture, llama_cpp_version, table
from ggufext.header.header import ValueType
from ggufext.opened.model import extension_keys

if TYPE_CHECKING:
    from ggufext.editing.values import KeyType
    from ggufext.header.header import Value
    from ggufext.opened.model import OpenFile

_TOKENS = "tokenizer.ggml.tokens"
_PRE = "tokenizer.ggml.pre"

#: Keys, and with a dot at the end beginnings of keys, and why they stay.
_FIXED = {
    "ggufext.": "is a key of this program, by which it takes edits back",
    "split.": "says which part of which split model the file is; llama.cpp's gguf-split writes it",
    "general.alignment": "says where the data of every tensor begins",
    "general.architecture": "says which model the tensors make up",
    "general.type": "says what kind of file this is",
    "general.quantization_version": "says how the weights are to be read",
    "general.tensor_extra.": "says how single tensors are computed, one element a tensor",
    "adapter.type": "says what kind of file this is",
    "tokenizer.ggml.model": "says which tokenizer the lists of the file were made for",
}

#: Whole numbers of an architecture, without its prefix, that no tensor was made for. All others are
#: sizes and numbers of tensors, or say in which layers they are (llama-model.cpp, src/models).
_FREE_NUMBERS = frozenset(
    {
        rope_keys.CONTEXT_LENGTH,
        rope_keys.ORIGINAL_LENGTH,
        rope_keys.SLIDING_WINDOW,
        rope_keys.TEMPERATURE_LENGTH,
        "expert_used_count",
    }
)

#: A key that holds the number of a token.
_TOKEN_NUMBER = re.compile(r".*[._]token_id")

#: A token that stands for a byte: without it some texts have no tokens.
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")

_WHOLE = frozenset(
    {
        *(ValueType.UINT8, ValueType.INT8, ValueType.UINT16, ValueType.INT16),
        *(ValueType.UINT32, ValueType.INT32, ValueType.UINT64, ValueType.INT64),
    }
)


def check_name(model: OpenFile, key: str) -> None:
    """Refuse a key that stays whatever it is to hold: ``fixed_key``."""
    for name, why in _FIXED.items():
        if key == name or (name.endswith(".") and key.startswith(name)):
            _refuse(key, why)
    made = model.copied or model.history
    if made is not None and model.is_extended and key in extension_keys(model.header):
        _refuse(
            key,
            f"belongs to the extension by {printable(str(made.method), 20)} to "
            f"{made.target_length:,} tokens: rewrite plans another one, and after "
            f"`{command('undo', model.name)}` the key can be set and the model extended then",
        )


def check_change(
    model: OpenFile, key: str, kind: KeyType, value: Value | None, *, force: bool
) -> None:
    """Refuse a change of a key that tensors, lists or llama.cpp do not allow.

    Parameters
    ----------
    model : OpenFile
    key : str
    kind : KeyType
        After the change; of a key that goes, as it is.
    value : Value or None
        None: the key goes.
    force : bool
        Accept a pre-tokenizer that this version does not know.

    Raises
    ------
    EditError
        ``fixed_key``, ``nonsense_value`` for a token that there is not, ``would_not_load`` for a
        pre-tokenizer.
    """
    entry = model.header.keys.get(key)
    prefix = f"{model.header.string('general.architecture')}."
    kinds = {kind.element_type or kind.type}
    if entry is not None:
        kinds.add(entry.element_type or entry.type)
    if key.startswith(prefix):
        _check_number(prefix, key.removeprefix(prefix), is_whole=bool(kinds & _WHOLE))
    if key.startswith((prefix, "tokenizer.")):
        _check_length(model, key, value)
    if key == _TOKENS and isinstance(value, tuple):
        _check_tokens(model, value)
    if (
        key.startswith(prefix)
        and key.endswith("_epsilon")
        and isinstance(value, float)
        and value <= 0.0
    ):
        raise EditError(
            code="nonsense_value", field=key, message=f"is {value:g}, expected a number above 0"
        )
    if key == prefix + rope_keys.SLIDING_WINDOW and value == 0:
        # Without a window llama.cpp dies on some architectures (afmoe) and drops it on others.
        raise EditError(
            code="nonsense_value", field=key, message="is 0, expected a window of 1 or more tokens"
        )
    if _TOKEN_NUMBER.fullmatch(key) and isinstance(value, int):
        _check_token(model, key, value)
    if key == _PRE and value not in {None, *table()["loading"]["vocabulary"]["pre"]} and not force:
        raise EditError(
            code="would_not_load",
            field=key,
            message=f"{printable(repr(value), 80)} is no pre-tokenizer that llama.cpp "
            f"({llama_cpp_version()}) knows; correct it, or --force where a newer one does",
        )


def _refuse(key: str, why: str) -> NoReturn:
    raise EditError(code="fixed_key", field=key, message=f"is not changed: it {why}")


def _check_number(prefix: str, suffix: str, *, is_whole: bool) -> None:
    name = prefix[:-1]
    if suffix == rope_keys.CONTEXT_LENGTH and architecture(name).positions is Positions.LEARNED:
        _refuse(prefix + suffix, "is the number of rows in the table of positions")
    if is_whole and suffix not in _FREE_NUMBERS and not _TOKEN_NUMBER.fullmatch(suffix):
        _refuse(
            prefix + suffix,
            "is a whole number that says how large the tensors of the architecture are, how many, "
            "or in which layers",
        )


def _check_length(model: OpenFile, key: str, value: Value | None) -> None:
    """Lists with an element a token, and those of the architecture, keep their length."""
    entry, tokens = model.header.keys.get(key), model.header.keys.get(_TOKENS)
    if entry is None or entry.type is not ValueType.ARRAY:
        return
    beside_tokens = tokens is not None and entry.count == tokens.count
    if key.startswith("tokenizer.") and not beside_tokens:
        return
    found = len(value) if isinstance(value, tuple) else None
    if found != entry.count:
        what = "no list" if found is None else f"a list of {found:,}"
        each = "one a token" if key.startswith("tokenizer.") else "as the tensors ask for"
        raise EditError(
            code="fixed_key",
            field=key,
            message=f"has {entry.count:,} elements, {each}: expected a list of as many, found "
            f"{what}",
        )


def _check_tokens(model: OpenFile, tokens: tuple[object, ...]) -> None:
    """llama.cpp looks tokens up by their texts, and dies where two are alike."""
    places: dict[object, int] = {}
    for number, token in enumerate(tokens):
        if token and places.setdefault(token, number) != number:
            raise EditError(
                code="nonsense_value",
                field=_TOKENS,
                message=f"tokens {places[token]:,} and {number:,} are both "
                f"{printable(repr(token), 80)}; llama.cpp needs them all different",
            )
    before = model.header.value(_TOKENS)
    olds = before if isinstance(before, tuple) else ()
    for number, (old, new) in enumerate(zip(olds, tokens, strict=True)):
        if old != new and _BYTE.fullmatch(str(old)):
            _refuse(_TOKENS, f"has {old} for token {number:,}, which stands for a byte")


def _check_token(model: OpenFile, key: str, number: int) -> None:
    tokens = model.header.keys.get(_TOKENS)
    if tokens is not None and number >= tokens.count:
        raise EditError(
            code="nonsense_value",
            field=key,
            message=f"there is no token {number:,}: the vocabulary has {tokens.count:,}, from 0 on",
        )
