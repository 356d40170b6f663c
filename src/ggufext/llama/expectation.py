"""How llama.cpp should rotate a layer, what shows how it does, and where the two differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from ggufext.errors import EditError, EngineError, printable
from ggufext.header.frequencies import factors_in_effect
from ggufext.header.header import read_header
from ggufext.header.rope_keys import FREQ_BASE_SWA, ORIGINAL_LENGTH
from ggufext.llama.process import LlamaProcess
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings, LoadRequest
from ggufext.opened.model import facts_of
from ggufext.planning.methods import as_float32
from ggufext.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ggufext.header.facts import ModelFacts
    from ggufext.header.frequencies import Yarn
    from ggufext.header.layers import LayerFacts
    from ggufext.llama.rope_nodes import Observation, RopeNode
    from ggufext.llama.settings import Override
    from ggufext.planning.result import Plan

    #: Values of keys, elements of tensors, by name.
    _Values = tuple[Mapping[str, object], Mapping[str, list[float] | None]]


#: Context of the run that shows what llama.cpp does: a file's own would need its whole cache.
SMALL_CONTEXT = 256


@dataclass(frozen=True, slots=True)
class Expected:
    """One layer's rotation.

    Attributes
    ----------
    freq_base, freq_scale : float
        Base θ, and what every angle is multiplied by.
    mix : float
        How much of YaRN's mix takes place.
    betas : (float, float)
        beta_fast and beta_slow of that mix.
    original_length : int
        Training length that YaRN starts from, tokens.
    attn_factor : float
        What the rotated values are multiplied by, beside YaRN's own 1 + 0.1 ln(1/freq_scale).
    factors : tuple of float or None
        What each pair's angle is divided by.
    """

    freq_base: float
    freq_scale: float
    mix: float
    betas: tuple[float, float]
    original_length: int
    attn_factor: float = 1.0
    factors: tuple[float, ...] | None = None


def of_plan(plan: Plan, layer: LayerFacts, *, is_long: bool) -> Expected:
    """What a plan means for a layer of the original file.

    Parameters
    ----------
    is_long : bool
        Whether the context is above the plan's original length.
    """
    kept = any(edit.key.endswith(f".{FREQ_BASE_SWA}") for edit in plan.edits)
    follows = layer.moves or (layer.follows_freq_base and not kept)
    is_scaled = layer.moves or layer.follows_scaling
    factors = plan.long_factors if is_long else plan.short_factors
    mix = plan.yarn.mix(plan.scaling_type)
    attention = _node_attention(plan.yarn, plan.freq_scale_factor, mix)
    factor = plan.factor_key if layer.scaled_under_none else plan.freq_scale_factor
    return Expected(
        freq_base=plan.freq_base.after if follows else layer.freq_base,
        freq_scale=1.0 / factor if is_scaled else 1.0,
        mix=mix,
        betas=(plan.yarn.beta_fast, plan.yarn.beta_slow),
        original_length=plan.original_length,
        attn_factor=attention * plan.attention_factor_written if layer.follows_attention else 1.0,
        factors=factors if is_scaled else None,
    )


def of_facts(facts: ModelFacts, layer: LayerFacts, *, is_long: bool) -> Expected:
    """What a file's own keys and tensors mean for a layer; `is_long` as in `of_plan`."""
    scaling = facts.scaling
    is_scaled = layer.moves or layer.follows_scaling
    factor = scaling.factor if layer.scaled_under_none else scaling.factor_in_effect
    attention = _node_attention(scaling.yarn, scaling.factor_in_effect, scaling.mix)
    factors = factors_in_effect(dict(facts.factors), is_long=is_long)
    return Expected(
        freq_base=layer.freq_base,
        freq_scale=1.0 / factor if is_scaled else 1.0,
        mix=scaling.mix,
        betas=(scaling.yarn.beta_fast, scaling.yarn.beta_slow),
        original_length=facts.yarn_length,
        attn_factor=attention * scaling.attention_factor if layer.follows_attention else 1.0,
        factors=factors if is_scaled else None,
    )


def _node_attention(yarn: Yarn, factor: float, mix: float) -> float:
    """The node's attn_factor, which ggml multiplies by 1 + 0.1 ln f where it mixes."""
    attention = yarn.attention_factor(factor, mix)
    return attention / (1.0 + 0.1 * math.log(factor)) if mix else attention


def rotations(
    path: Path,
    expected: Sequence[Expected],
    expected_long: Sequence[Expected] | None,
    *,
    architecture: str,
    kv_overrides: Mapping[str, Override],
    process: LlamaProcess,
) -> Iterator[tuple[Observation, Sequence[Expected]]]:
    """Run a file on a token in a context of `SMALL_CONTEXT`, and in one above its original length.

    Parameters
    ----------
    path : Path
    expected : sequence of Expected
        One a layer.
    expected_long : sequence of Expected or None
        The same above the original length; None where it is no other, which is not run then.
    architecture : str
    kv_overrides : mapping
        Metadata values that stand in for the file's, by key.
    process : LlamaProcess

    Yields
    ------
    Observation, sequence of Expected
        What was seen, and what it is to be compared with.

    Raises
    ------
    EngineError
        As `observe`.
    """
    runs = [(SMALL_CONTEXT, expected, kv_overrides)]
    if expected_long is not None:
        # Without the cache that a context above the real original length needs.
        shorter = {**kv_overrides, f"{architecture}.{ORIGINAL_LENGTH}": SMALL_CONTEXT}
        runs.append((2 * SMALL_CONTEXT, expected_long, shorter))
    for n_ctx, planned, overrides in runs:
        settings = ContextSettings(n_ctx=n_ctx)
        yield (
            observe(path, tokens=(0,), settings=settings, kv_overrides=overrides, process=process),
            planned,
        )


def differences(nodes: Sequence[RopeNode], expected: Sequence[Expected]) -> Iterator[str]:
    """Where llama.cpp rotates otherwise, a sentence each.

    Parameters
    ----------
    nodes : sequence of RopeNode
    expected : sequence of Expected
        One a layer.
    """
    for node in nodes:
        if node.factors != expected[node.layer].factors:
            yield (
                f"llama.cpp rotates {node.tensor} of layer {node.layer} with "
                f"{_named(node.factors)}, planned {_named(expected[node.layer].factors)}"
            )
        for name, found, planned in _compared(node, expected[node.layer]):
            if not math.isclose(found, planned, rel_tol=1e-6):
                yield (
                    f"llama.cpp rotates {node.tensor} of layer {node.layer} with {name} "
                    f"{found:g}, planned {planned:g}"
                )


def _named(factors: tuple[float, ...] | None) -> str:
    if factors is None:
        return "no factors"
    return f"{len(factors)} factors from {factors[0]:g} to {factors[-1]:g}"


def _compared(node: RopeNode, expected: Expected) -> Iterator[tuple[str, float, float]]:
    yield "base", node.freq_base, expected.freq_base
    yield "scale", node.freq_scale, expected.freq_scale
    yield "attention factor", node.attn_factor, expected.attn_factor
    if expected.freq_scale != 1.0:
        # Where nothing is scaled, YaRN's mix has two equal sides.
        yield "yarn mix", node.ext_factor, expected.mix
        if expected.mix:
            yield "original length", node.n_ctx_orig, expected.original_length
            yield "beta_fast", node.beta_fast, expected.betas[0]
            yield "beta_slow", node.beta_slow, expected.betas[1]


def verify_file(
    path: Path,
    plan: Plan,
    *,
    llama_cpp: Path | None = None,
    notify: Callable[[str], None] = lambda _what: None,
) -> tuple[str, ...]:
    """What `ggufext.verify` does, for a file and its plan."""
    wanted = (
        {edit.key: edit.after for edit in plan.edits},
        {made.name: list(made.after) for made in plan.tensor_edits},
    )
    return _verified(
        path, wanted, lambda process: _by_llama_cpp(path, plan, process), llama_cpp, notify
    )


def verify_keys(
    path: Path,
    keys: Iterable[str],
    *,
    llama_cpp: Path | None = None,
    notify: Callable[[str], None] = lambda _what: None,
) -> tuple[str, ...]:
    """What `ggufext.verify` does, for a file and keys that were set; arrays are not compared."""
    header = read_header(path)
    values = {key: header.value(key) if key in header.keys else None for key in keys}
    scalars = {key: value for key, value in values.items() if not isinstance(value, tuple)}

    def load(process: LlamaProcess) -> str:
        settings = ContextSettings(n_ctx=SMALL_CONTEXT)
        observe(path, tokens=(), starts=(), settings=settings, process=process)
        return "llama.cpp loads the file"

    return _verified(path, (scalars, {}), load, llama_cpp, notify)


def _verified(
    path: Path,
    wanted: _Values,
    load: Callable[[LlamaProcess], str],
    llama_cpp: Path | None,
    notify: Callable[[str], None],
) -> tuple[str, ...]:
    with LlamaProcess(llama_cpp) as process:
        notify("llama.cpp's GGUF reader reads the file")
        try:
            values = _read_by_llama_cpp(path, wanted, process)
        except EngineError as error:
            if error.code != "extra_missing":
                raise
            return _without_llama_cpp(path, wanted, notify)
        compared = _compared_values(path, wanted, "llama.cpp's GGUF reader", values)
        notify("llama.cpp loads the file")
        return compared, load(process)


def _without_llama_cpp(
    path: Path, wanted: _Values, notify: Callable[[str], None]
) -> tuple[str, ...]:
    notify("gguf-py reads the file (llama.cpp's reader is quicker: pip install 'ggufext[check]')")
    return (
        _compared_values(path, wanted, "gguf-py", _read_by_gguf_py(path, wanted)),
        "llama.cpp is not installed: not asked (pip install 'ggufext[check]')",
    )


def _read_by_gguf_py(path: Path, wanted: _Values) -> _Values:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except Exception as error:
        # What it raises for a file that it does not understand is not said anywhere.
        _differs(path, f"gguf-py does not read the file ({type(error).__name__}: {error})")
    keys, tensors = wanted
    fields = {key: reader.fields.get(key) for key in keys}
    found = {key: None if field is None else field.contents() for key, field in fields.items()}
    return found, {each.name: each.data.tolist() for each in reader.tensors if each.name in tensors}


def _read_by_llama_cpp(path: Path, wanted: _Values, process: LlamaProcess) -> _Values:
    keys, tensors = map(list, wanted)
    load = LoadRequest(path=path)
    values, _ = process.request(path, "values", load=load, keys=keys, tensors=tensors)
    return values["keys"], values["tensors"]


def _compared_values(path: Path, wanted: _Values, reader: str, read: _Values) -> str:
    (planned, factors), (values, tensors) = wanted, read
    for key, after in planned.items():
        found = values.get(key)
        if not _same(found, after):
            shown, meant = printable(repr(found)), printable(repr(after))
            _differs(path, f"{reader} reads {key} as {shown}, planned {meant}")
    for name, numbers in factors.items():
        if tensors.get(name) != numbers:
            _differs(path, f"{reader} does not read the planned factors in {name}")
    done = f"{reader} reads {counted(len(planned), 'value')}"
    if factors:
        done += f" and {counted(len(factors), 'tensor')} of factors"
    return f"{done} as written"


def _by_llama_cpp(path: Path, plan: Plan, process: LlamaProcess) -> str:
    layers = facts_of(path).layers
    is_long = plan.original_length < SMALL_CONTEXT
    both = plan.long_factors != plan.short_factors and not is_long
    for seen, expected in rotations(
        path,
        [of_plan(plan, layer, is_long=is_long) for layer in layers],
        [of_plan(plan, layer, is_long=True) for layer in layers] if both else None,
        architecture=plan.architecture,
        kv_overrides={},
        process=process,
    ):
        if seen.n_ctx_train != plan.target_length:
            _differs(
                path,
                f"llama.cpp takes {seen.n_ctx_train:,} for the context length, planned "
                f"{plan.target_length:,}",
            )
        for difference in differences(seen.rope_nodes, expected):
            _differs(path, difference)
    how = "as planned, the others as before"
    if both:
        how += "; it takes the long factors above the original length only"
    moved = sum(layer.moves for layer in layers)
    return f"llama.cpp loads the file and rotates {moved} of {len(layers)} layers {how}"


def _same(found: object, planned: object) -> bool:
    return found == planned or (isinstance(planned, float) and found == as_float32(planned))


def _differs(path: Path, what: str) -> NoReturn:
    raise EditError(code="not_verified", path=path, message=what)
