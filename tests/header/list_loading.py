"""What llama.cpp demands of a file before it loads it, read from its loaders.

Of one architecture: the keys that `load_arch_hparams` reads, the tensors that `load_arch_tensors`
makes with their shapes, and what the graph asserts of head sizes. What depends on other conditions
than comparisons of metadata values is listed as possible, never as needed, and a shape that is no
sum of products of such values is left out: a file is refused only for what is certain.
"""

from __future__ import annotations

import ast
import re
from collections import ChainMap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from header.llama_cpp_sources import without_comments

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from header.llama_cpp_sources import Source

    #: Products of named values with their coefficients.
    Sum = dict[tuple[str, ...], int]

#: What LLAMA_LOAD_LOCALS and the methods of llama_hparams stand for; with brackets where each layer
#: has its own value.
VALUES = {
    "n_embd": "n_embd",
    "n_vocab": "n_vocab",
    "n_expert": "n_expert",
    "n_head": "n_head[]",
    "n_head_kv": "n_head_kv[]",
    "n_embd_head_k": "n_embd_head_k[]",
    "n_embd_head_v": "n_embd_head_v[]",
    "n_embd_k_gqa": "n_head_kv[] * n_embd_head_k[]",
    "n_embd_v_gqa": "n_head_kv[] * n_embd_head_v[]",
    "n_embd_gqa": "n_head_kv[] * n_embd_head_v[]",
    "n_ff": "n_ff[]",
    "n_ff_exp": "n_ff_exp[]",
    "n_rot": "n_rot[]",
    "n_layer": "layers",
    "is_recr": "is_recr[]",
    "is_swa": "is_swa[]",
    "has_kv": "has_kv[]",
}

TYPES = {
    "uint32_t": "UINT32",
    "int": "INT32",
    "int32_t": "INT32",
    "float": "FLOAT32",
    "bool": "BOOL",
    "std::string": "STRING",
}

#: Keys that llama_model_base::load_hparams and llama_model_loader read of every file.
GENERAL_TYPES = {".general.file_type": "UINT32", ".general.name": "STRING"}

#: Of llama-vocab.cpp: variables, keys that are read into them, special tokens, and lists with what
#: is asked of their elements.
_DECLARED = re.compile(r"\b(bool|uint32_t|std::string) +(\w+) *[=;]")
_READ = re.compile(r"ml\.get_key\((LLM_KV_TOKENIZER_\w+), +(?:\w+\.)?(\w+)")
_SPECIAL_TOKENS = re.compile(r"\{ (LLM_KV_TOKENIZER_\w+_ID),")
_LISTS = re.compile(r"gguf_find_key\(ctx, kv\((\w+)\)(.*?)gguf_get_arr_n\(", re.DOTALL)

#: Keys that a loader does without and the graph does not: llama.cpp dies when a context is made.
NEEDED_BY_GRAPH = {
    "afmoe": ["attention.sliding_window"],
    "dots1": ["expert_gating_func"],
    "minimax-m2": ["expert_gating_func"],
    "smallthinker": ["expert_gating_func"],
}

LENGTHS = {"hparams.n_layer()": "layers", "hparams.n_layer_all": "all_layers", "4": "4"}

#: Tensors that LLM_TENSOR_NAMES names once a layer, with this for the layer's number.
LAYER = "*"


#: What must hold for a statement to be reached, as comparisons; None where that is not known.
Conditions = tuple[str, ...] | None

_OPPOSITES = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


@dataclass
class Statement:
    """A statement or the head of a block, as C++ text.

    Attributes
    ----------
    text : str
    conditions : Conditions
    names : mapping
        Local variables in sight and what they were set to.
    """

    text: str
    conditions: Conditions
    names: MutableMapping[str, str]


@dataclass
class Frame:
    """A block that is open; `last_if` is the condition of the latest one that was closed in it."""

    conditions: Conditions
    is_loop: bool
    names: ChainMap[str, str]
    own: Conditions = ()
    last_if: Conditions = None


def statements(body: str, found: Loading) -> Iterator[Statement]:
    """Walk the body of a function."""
    frames = [Frame((), False, ChainMap())]
    text, depth = "", 0
    for character in body:
        if character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        if character == "{" and depth == 0 and not re.search(r"=\s*$|>\s*\w+\s*$", text):
            head, text = text.strip(), ""
            yield Statement(head, frames[-1].conditions, frames[-1].names)
            frames.append(_opened(head, frames[-1], found))
        elif character == "}" and depth == 0 and not text.strip():
            closed = frames.pop()
            if frames:
                frames[-1].last_if = closed.own
            text = ""
        elif character == "{":
            depth, text = depth + 1, text + character
        elif character == "}":
            depth, text = depth - 1, text + character
        elif character == ";" and depth == 0:
            yield from _statement(text.strip(), frames)
            text = ""
        else:
            text += character


def _opened(head: str, outer: Frame, found: Loading) -> Frame:
    own: Conditions = ()
    if match := re.fullmatch(r"if\s*\((.*)\)", head, re.DOTALL):
        own = condition(match[1], outer.names, found.members)
    elif head == "else":
        own = opposite(outer.last_if)
    elif re.match(r"(?:else|switch|while|do|case)\b", head):
        own = None
    if "mtp" in head.partition("=")[0] or re.search(r"=\s*n_layer\s*;", head):
        own = None
    conditions = None if own is None or outer.conditions is None else (*outer.conditions, *own)
    is_loop = head.startswith("for") or bool(re.search(r"\]\s*\(", head))
    return Frame(conditions, is_loop, outer.names.new_child(), own)


def _statement(text: str, frames: list[Frame]) -> Iterator[Statement]:
    frame = frames[-1]
    guarded = re.match(r"(?:else\s+)?if\s*\(|else\b", text)
    if re.search(r"(?:^|\)\s*)(?:continue|return|break)\b", text) and (
        guarded or frame.conditions != ()
    ):
        # What follows in the loop (or function) is for the models that did not leave.
        for each in reversed(frames):
            each.conditions = None
            if each.is_loop and not text.endswith("return"):
                break
    known = not guarded and "?" not in text.partition("create_tensor")[0]
    yield Statement(text, frame.conditions if known else None, frame.names)
    defined = re.match(
        r"(?:const\s+)?(?:auto|int|u?int(?:32|64)_t|bool|float)\s+(\w+)\s*=\s*", text
    )
    if defined:
        frame.names[defined[1]] = text[defined.end() :]
    elif changed := re.match(r"(\w+)\s*[-+*/|]?=[^=]", text):
        frame.names[changed[1]] = "unknown()"


def condition(text: str, names: MutableMapping[str, str], members: dict[str, str]) -> Conditions:
    """A C++ condition as comparisons of sums that all must hold; None: another kind."""
    try:
        return _comparisons(_expression(text), names, members)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _expression(text: str) -> ast.expr:
    text = re.sub(r"static_cast<\w+>|\((?:u?int\w*)\)", "", text)
    text = text.replace("&&", " and ").replace("||", " or ")
    return ast.parse(re.sub(r"!(?!=)", " not ", text).strip(), mode="eval").body


def _comparisons(
    node: ast.expr, names: MutableMapping[str, str], members: dict[str, str]
) -> Conditions:
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        parts = [_comparisons(each, names, members) for each in node.values]
        if None in parts:
            return None
        return tuple(each for part in parts for each in part or ())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return opposite(_comparisons(node.operand, names, members))
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        sides = [_text(_sum(side, names, members)) for side in (node.left, node.comparators[0])]
        signs = {"Eq": "==", "NotEq": "!=", "Lt": "<", "LtE": "<=", "Gt": ">", "GtE": ">="}
        return (f"{sides[0]} {signs[type(node.ops[0]).__name__]} {sides[1]}",)
    if isinstance(node, ast.Name) and node.id in names:
        return _comparisons(_expression(names[node.id]), names, members)
    return (f"{_text(_sum(node, names, members))} != 0",)


def opposite(conditions: Conditions) -> Conditions:
    """The opposite of a single comparison."""
    if conditions is None or len(conditions) != 1:
        return None
    left, sign, right = re.split(r" ([=!<>]=?) ", conditions[0])
    return (f"{left} {_OPPOSITES[sign]} {right}",)


def arguments(text: str) -> list[str]:
    """Split a call's arguments; `text` starts behind its parenthesis."""
    found, depth = [""], 0
    for character in text:
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth < 0:
                break
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [each.strip() for each in found]


def calls(text: str, name: str) -> Iterator[list[str]]:
    """Arguments of every call of a function in a statement."""
    for match in re.finditer(rf"\b{name}\(", text):
        yield arguments(text[match.end() :])


@dataclass
class Loading:
    """What llama.cpp demands of one architecture.

    Attributes
    ----------
    types : dict
        Key to type.
    required : list of str
        Keys.
    lengths : dict
        Key to the number of elements that an array must have.
    needed : list
        Tensors with their shapes, None where that is not certain, and the conditions.
    possible : dict
        Tensor that may be there to its shape.
    members : dict
        Members of llama_hparams that one key sets alone.
    """

    types: dict[str, str] = field(default_factory=dict)
    required: list[str] = field(default_factory=list)
    lengths: dict[str, str] = field(default_factory=dict)
    needed: list[tuple[str, list[str] | None, tuple[str, ...]]] = field(default_factory=list)
    possible: dict[str, list[str] | None] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)
    asserts: list[str] = field(default_factory=list)


def read_keys(found: Loading, body: str, source: Source) -> None:
    """Take in the keys of a loader."""
    for statement in statements(body, found):
        certain = (
            statement.conditions == () and "||" not in statement.text.partition("ml.get_key")[0]
        )
        for name in ("get_key", "get_key_or_arr"):
            for call in calls(statement.text, rf"ml\.{name}"):
                if certain:
                    _read_key(found, call, source, may_be_array=name == "get_key_or_arr")
    for member in list(found.members):
        if len(re.findall(rf"{re.escape(member)}\s*[-+*/]?=[^=]", body)) > 0:
            del found.members[member]


def _read_key(found: Loading, call: list[str], source: Source, *, may_be_array: bool) -> None:
    key, target, rest = source.keys.get(call[0]), call[1], call[2:]
    if key is None:
        return
    length = LENGTHS.get(rest[0]) if rest and rest[0] not in {"true", "false"} else None
    if "false" not in rest and key not in found.required:
        found.required.append(key)
    declared = source.members.get(target) or ""
    if declared in TYPES and (length or not may_be_array):
        found.types[key] = TYPES[declared]
    if length:
        found.lengths[key] = length
    elif declared == "uint32_t" and ("false" not in rest or target in source.zeros):
        found.members[target] = key


def read_tensors(found: Loading, body: str, source: Source) -> None:
    """Take in the tensors of a loader."""
    for statement in statements(body, found):
        text = statement.text
        for call in calls(text, "create_tensor"):
            _tensor(found, call, source, statement)
        for call in calls(text, "create_tensor_qkv"):
            width, q, k, v, flags = call[2:]
            fused = f"{q} + {k} + {v}"
            optional = "TENSOR_NOT_REQUIRED"
            for name, rows, kind in (
                ("ATTN_QKV", fused, optional), ("ATTN_Q", q, flags), ("ATTN_K", k, flags),
                ("ATTN_V", v, flags),
            ):  # fmt: skip
                tensor = f'tn(LLM_TENSOR_{name}, "weight", i)'
                _tensor(found, [tensor, f"{{{width}, {rows}}}", kind], source, statement)
                tensor = f'tn(LLM_TENSOR_{name}, "bias", i)'
                _tensor(found, [tensor, f"{{{rows}}}", optional], source, statement)
        for call in calls(text, "create_tensor_gate_up_exps"):
            width, rows, experts, flags = call[2:]
            for name, height, kind in (
                ("GATE_UP", f"({rows}) * 2", "TENSOR_NOT_REQUIRED"), ("GATE", rows, flags),
                ("UP", rows, flags),
            ):  # fmt: skip
                tensor = f'tn(LLM_TENSOR_FFN_{name}_EXPS, "weight", i)'
                shape = f"{{{width}, {height}, {experts}}}"
                _tensor(found, [tensor, shape, kind], source, statement)


def _tensor(found: Loading, call: list[str], source: Source, statement: Statement) -> None:
    which, extents, flags = call[0], call[1], call[-1]
    named = arguments(which.partition("(")[2])
    suffix = named[1].strip('"') if len(named) > 1 and named[1].startswith('"') else ""
    name = re.sub(r"%d", LAYER, source.tensors[named[0]]) + (f".{suffix}" if suffix else "")
    if "TENSOR_DUPLICATED" in flags and "TENSOR_NOT_REQUIRED" not in flags:
        return
    shape = None
    if "RESHAPE" not in flags:
        shape = _shape(extents, statement.names, found.members)
    if statement.conditions is not None and re.fullmatch(r"0|(?:trunk_)?flags", flags):
        found.needed.append((name, shape, statement.conditions))
    else:
        same = found.possible.get(name, shape) == shape
        found.possible[name] = shape if same else None


def _shape(
    extents: str, names: MutableMapping[str, str], members: dict[str, str]
) -> list[str] | None:
    found = [_extent(each, names, members) for each in arguments(extents.strip("{} ")) if each]
    return None if None in found else [each for each in found if each is not None]


def _extent(text: str, names: MutableMapping[str, str], members: dict[str, str]) -> str | None:
    try:
        return _text(_sum(ast.parse(text.strip(), mode="eval").body, names, members))
    except (SyntaxError, ValueError, RecursionError):
        return None


def _text(terms: Sum) -> str:
    written = " + ".join(
        " * ".join(([str(factor)] if factor != 1 or not product else []) + list(product))
        for product, factor in terms.items()
        if factor
    )
    return written or "0"


def _sum(node: ast.expr, names: MutableMapping[str, str], members: dict[str, str]) -> Sum:
    """An expression as a sum of products."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return {(): node.value}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
        left, right = (_sum(side, names, members) for side in (node.left, node.right))
        total: Sum = {}
        if isinstance(node.op, ast.Mult):
            for a, x in left.items():
                for b, y in right.items():
                    product = tuple(sorted((*a, *b)))
                    total[product] = total.get(product, 0) + x * y
            return total
        sign = 1 if isinstance(node.op, ast.Add) else -1
        total = dict(left)
        for product, factor in right.items():
            total[product] = total.get(product, 0) + sign * factor
        return total
    text = ast.unparse(node)
    if text in names:
        return _sum(ast.parse(names[text], mode="eval").body, names, members)
    return {tuple(sorted(_value(node, text, members).split(" * "))): 1}


def _value(node: ast.expr, text: str, members: dict[str, str]) -> str:
    """A local of LLAMA_LOAD_LOCALS, a member or a method of llama_hparams, as the file has it."""
    layer = ""
    if text in {"i", "il", "bid"}:
        return "layer"
    if text in members:
        return members[text]
    if isinstance(node, ast.Call):
        method = re.fullmatch(r"hparams\.(\w+)\((|i|il|bid)\)", text)
        text, layer = (method[1], "[i]" if method[2] else "") if method else ("", "")
    elif text.startswith("hparams."):
        text = "n_embd" if text == "hparams.n_embd" else ""
    if text not in VALUES:
        raise ValueError(f"{text} is no value of the metadata")
    return VALUES[text].replace("[]", layer)


def read_asserts(source: Source, owner: str) -> list[str]:
    """What the graph asserts of head sizes before it is built."""
    shared = source.graph_owner(owner)
    graphs = "\n".join(
        text[text.index(f"{shared}::graph") :]
        for text in source.files
        if f"{shared}::graph" in text
    )
    graphs = without_comments(graphs)
    head = re.search(r"n_embd_head\s*=\s*hparams\.n_embd_head_([kv])\(\)", graphs)
    found = []
    if re.search(r"GGML_ASSERT\(n_embd_head == hparams\.n_embd_head_[kv]\(\)\)", graphs):
        found.append("value_length")
    if head and "GGML_ASSERT(n_embd_head == n_rot)" in graphs:
        found.append("rotary_dim")
    return found


def read_common(source: Source) -> Loading:
    """What llama.cpp demands of every model."""
    found = Loading()
    read_keys(found, source.common, source)
    return found


def read_loading(source: Source, enumerator: str, common: Loading) -> Loading:
    """What llama.cpp demands of one architecture beside what is common to all."""
    owner, found = source.classes[enumerator], Loading(members=dict(common.members))
    read_keys(found, source.method(owner, "load_arch_hparams"), source)
    read_tensors(found, source.method(owner, "load_arch_tensors"), source)
    found.required += NEEDED_BY_GRAPH.get(source.names[enumerator], [])
    found.asserts = read_asserts(source, owner)
    return found


def read_vocabulary(source: Source) -> dict[str, object]:
    """What llama_vocab::impl::load takes: keys with types, lists with those of their elements.

    And what it knows pre-tokenizers by; a newer llama.cpp knows more.
    """
    declared = {name: kind for kind, name in _DECLARED.findall(source.vocabulary)}
    start = source.vocabulary.index("void llama_vocab::impl::load(")
    loader = source.vocabulary[start : source.vocabulary.index("\n}\n", start)]
    types = {source.keys[key]: TYPES[declared[name]] for key, name in _READ.findall(loader)}
    types |= {source.keys[key]: "UINT32" for key in _SPECIAL_TOKENS.findall(loader)}
    lists = {
        source.keys[key]: sorted(set(re.findall(r"!= GGUF_TYPE_(\w+)", checks)) - {"ARRAY"})
        for key, checks in _LISTS.findall(loader)
    }
    return {
        "types": {**GENERAL_TYPES, **dict(sorted(types.items()))},
        "lists": dict(sorted(lists.items())),
        "pre": sorted(set(re.findall(r'tokenizer_pre == "([^"]+)"', loader))),
    }


def common_entry(found: Loading) -> dict[str, object]:
    """What a header of any architecture must hold, as the list spells it."""
    return {"required": found.required, "types": found.types, "lengths": found.lengths}


def entry(found: Loading) -> dict[str, object]:
    """The demands of one architecture, as the list spells them."""
    always = {name for name, _, conditions in found.needed if not conditions}
    sometimes = {name for name, _, conditions in found.needed if conditions}
    return {
        **common_entry(found),
        "asserts": found.asserts,
        "needed": [
            [name, shape or [], list(conditions or ())] for name, shape, conditions in found.needed
        ],
        "possible": [
            [name, (shape or []) if name not in sometimes else []]
            for name, shape in found.possible.items()
            if name not in always
        ],
    }
