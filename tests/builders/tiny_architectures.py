"""Models small enough to try every architecture: keys decided here, tensors asked of llama.cpp.

`TINY` joins both. Sources of the keys: src/models/*.cpp of llama.cpp. The shapes in
tiny_architectures.toml are what its loaders require for these keys. Written by
``python tests/builders/tiny_architectures.py [ARCHITECTURE …]`` (all without arguments): a file
without tensors is offered, llama.cpp says which tensor it misses and which shape it expects, until
it loads the file.
"""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.errors import EngineError
from ggufext.llama.library import Llama
from ggufext.llama.settings import LoadRequest
from random_architectures import (
    GEOMETRY_KEYS,
    SMALL,
    Architecture,
    Key,
    Role,
    Tensor,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from random_architectures import Dimension

    Value = bool | int | float | str | Sequence[bool] | Sequence[int]

#: Heads of 32 values (a quantization block), embedding of two heads, fewest tokens of a vocabulary.
GEOMETRY = replace(SMALL, embedding=64, heads=2, kv_heads=1, feed_forward=64, vocabulary=288)

SHAPES = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True, slots=True)
class Tiny:
    """What people decide of one architecture.

    Attributes
    ----------
    layers : int
        As few as show every kind of layer.
    keys : mapping
        Metadata without the architecture's prefix, beside or instead of the common keys.
    optional : tuple of str
        Tensors that the loader can do without, but not the graph; ``*``: in every layer.
    """

    layers: int = 2
    keys: Mapping[str, Value] = field(default_factory=dict)
    optional: tuple[str, ...] = ()


COMMON: Mapping[str, Value] = {
    # Not 10,000, which local layers have by themselves.
    "rope.freq_base": 50_000.0,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.layer_norm_epsilon": 1e-5,
}
WINDOW: Mapping[str, Value] = {"attention.sliding_window": 16}
EXPERTS: Mapping[str, Value] = {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 32,
}
SHARED_EXPERT: Mapping[str, Value] = {
    **EXPERTS,
    "expert_shared_count": 1,
    "expert_shared_feed_forward_length": 32,
}
DENSE_FIRST: Mapping[str, Value] = {"leading_dense_block_count": 1}
SECTIONS: Mapping[str, Value] = {"rope.dimension_sections": (4, 6, 6, 0)}
LOW_RANK: Mapping[str, Value] = {
    "attention.q_lora_rank": 32,
    "attention.kv_lora_rank": 32,
    "rope.dimension_count": 32,
    "attention.key_length": 64,
    "attention.value_length": 32,
}
#: Keys and values compressed together: one KV head of rank + rotated dimensions.
LATENT: Mapping[str, Value] = {
    **LOW_RANK,
    "attention.head_count_kv": 1,
    "attention.key_length_mla": 64,
    "attention.value_length_mla": 32,
}
STATE_SPACE: Mapping[str, Value] = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 64,
    "ssm.state_size": 32,
    "ssm.time_step_rank": 2,
    "ssm.group_count": 1,
}
DELTA_NET: Mapping[str, Value] = {
    **STATE_SPACE,
    "ssm.group_count": 2,
    "full_attention_interval": 2,
}
#: Of the recurrent layer, the first of two.
DELTA_TENSORS = ("blk.0.attn_qkv.weight", "blk.0.attn_gate.weight")
ALTERNATING: Mapping[str, Value] = {
    **WINDOW,
    "attention.sliding_window_pattern": (True, False),
}

#: A norm over all query or key heads at once leaves no room for fewer KV heads.
ALL_HEADS: Mapping[str, Value] = {"attention.head_count_kv": 2}

PLAIN = Tiny()

DECIDED: Mapping[str, Tiny] = {
    "gemma": PLAIN,
    "mistral3": PLAIN,
    "phi2": PLAIN,
    "phi3": Tiny(
        # llama.cpp looks for tokens of Phi-3 where the name says so.
        keys={".general.name": "random weights"},
        optional=("blk.*.attn_qkv.weight",),
    ),
    "falcon": PLAIN,
    "stablelm": PLAIN,
    "starcoder2": PLAIN,
    "internlm2": PLAIN,
    "minicpm": PLAIN,
    "seed_oss": PLAIN,
    "hunyuan-dense": PLAIN,
    "command-r": PLAIN,
    "exaone": PLAIN,
    "exaone4": PLAIN,
    "ernie4_5": PLAIN,
    "glm4": PLAIN,
    "olmo": PLAIN,
    "orion": PLAIN,
    "xverse": PLAIN,
    "plamo": PLAIN,
    "codeshell": PLAIN,
    "chatglm": PLAIN,
    "nemotron": PLAIN,
    "bitnet": PLAIN,
    "qwen": PLAIN,
    "arcee": PLAIN,
    "deci": PLAIN,
    "jais2": PLAIN,
    "nanbeige": PLAIN,
    "maincoder": PLAIN,
    "openelm": PLAIN,
    "pangu-embedded": PLAIN,
    "hunyuan_vl": PLAIN,
    "talkie": Tiny(keys={"logit_scale": 1.0}),
    "gptneox": Tiny(keys={"use_parallel_residual": True}),
    "granite": Tiny(keys={"logit_scale": 1.0}),
    "baichuan": Tiny(layers=32),
    "smollm3": Tiny(layers=4),
    "apertus": Tiny(keys={f".xielu.{name}": 1.0 for name in ("alpha_n", "alpha_p", "beta", "eps")}),
    "gemma2": Tiny(keys=WINDOW),
    "gemma3n": Tiny(layers=22, keys=WINDOW),
    "gemma4": Tiny(
        layers=6,
        keys={
            **WINDOW,
            "attention.sliding_window_pattern": (True, False) * 3,
            "attention.key_length": 64,
            "attention.value_length": 64,
            "attention.key_length_swa": 32,
            "attention.value_length_swa": 32,
            "rope.dimension_count": 64,
            "rope.dimension_count_swa": 32,
            "embedding_length_per_layer_input": 32,
            "attention.shared_kv_layers": 2,
        },
    ),
    "cohere2": Tiny(layers=4, keys={**WINDOW, "logit_scale": 1.0}),
    "olmo2": Tiny(layers=4, keys=WINDOW),
    "plamo3": Tiny(layers=8, keys=WINDOW),
    "spark2_5": Tiny(keys=ALTERNATING),
    "granite_swa": Tiny(keys={**ALTERNATING, "logit_scale": 1.0}),
    "muse-glimmer": Tiny(layers=4, keys={**WINDOW, "logit_scale": 1.0}),
    "qwen2vl": Tiny(keys=SECTIONS),
    "paddleocr": Tiny(keys=SECTIONS),
    "qwen3vl": Tiny(keys=SECTIONS),
    "qwen3vlmoe": Tiny(keys={**SECTIONS, **EXPERTS}),
    "qwen2moe": Tiny(keys=SHARED_EXPERT),
    "qwen3moe": Tiny(keys=EXPERTS),
    "olmoe": Tiny(keys={**EXPERTS, **ALL_HEADS}),
    "phimoe": Tiny(keys=EXPERTS),
    "granitemoe": Tiny(keys={**EXPERTS, "logit_scale": 1.0}),
    "dbrx": Tiny(keys={**EXPERTS, "attention.clamp_kqv": 8.0}),
    "arctic": Tiny(keys=EXPERTS),
    # Its heads are rotated whole; without values of their own its scales would leave no logit.
    "grok": Tiny(keys=EXPERTS),
    "deepseek": Tiny(keys={**SHARED_EXPERT, **DENSE_FIRST, "expert_weights_scale": 1.0}),
    "bailingmoe": Tiny(keys={**SHARED_EXPERT, "expert_weights_scale": 1.0}),
    "bailingmoe2": Tiny(keys={**SHARED_EXPERT, **DENSE_FIRST, "expert_gating_func": 2}),
    "dots1": Tiny(keys={**SHARED_EXPERT, **DENSE_FIRST, **ALL_HEADS, "expert_gating_func": 2}),
    "glm4moe": Tiny(keys={**SHARED_EXPERT, **DENSE_FIRST, "expert_weights_scale": 1.0}),
    "ernie4_5-moe": Tiny(keys={**SHARED_EXPERT, **DENSE_FIRST, "interleave_moe_layer_step": 1}),
    "hunyuan-moe": Tiny(keys=SHARED_EXPERT),
    "minimax-m2": Tiny(keys={**EXPERTS, "expert_gating_func": 2}),
    "gpt-oss": Tiny(keys={**WINDOW, **EXPERTS}),
    "llama4": Tiny(layers=4, keys={**EXPERTS, "interleave_moe_layer_step": 1}),
    # Every fourth layer does not rotate, unless there are four.
    "smallthinker": Tiny(layers=5, keys={**WINDOW, **EXPERTS, "expert_gating_func": 2}),
    "exaone-moe": Tiny(
        layers=4, keys={**WINDOW, **SHARED_EXPERT, **DENSE_FIRST, "expert_gating_func": 2}
    ),
    "cohere2moe": Tiny(
        layers=4, keys={**WINDOW, **SHARED_EXPERT, **DENSE_FIRST, "logit_scale": 1.0}
    ),
    "afmoe": Tiny(layers=4, keys={**WINDOW, **SHARED_EXPERT, **DENSE_FIRST}),
    "mimo2": Tiny(keys={**ALTERNATING, **EXPERTS}),
    "maple": Tiny(keys={**ALTERNATING, **EXPERTS, "swiglu_clamp_exp": 7.0}),
    "mellum": Tiny(layers=4, keys={**WINDOW, **EXPERTS}),
    "deepseek2": Tiny(keys={**LATENT, **SHARED_EXPERT, **DENSE_FIRST}),
    "mistral4": Tiny(keys={**LATENT, **SHARED_EXPERT, **DENSE_FIRST}),
    "minicpm3": Tiny(keys={**LOW_RANK, **ALL_HEADS}),
    "qwen3next": Tiny(layers=2, keys={**SHARED_EXPERT, **DELTA_NET}, optional=DELTA_TENSORS),
    "qwen35": Tiny(layers=2, keys={**DELTA_NET, **SECTIONS}, optional=DELTA_TENSORS),
    "qwen35moe": Tiny(
        layers=2, keys={**SHARED_EXPERT, **DELTA_NET, **SECTIONS}, optional=DELTA_TENSORS
    ),
    "lfm2": Tiny(layers=3, keys={"shortconv.l_cache": 3, "attention.head_count_kv": (0, 1, 0)}),
    "lfm2moe": Tiny(
        layers=3,
        keys={
            **EXPERTS,
            **DENSE_FIRST,
            "shortconv.l_cache": 3,
            "attention.head_count_kv": (0, 1, 0),
            "expert_gating_func": 2,
        },
    ),
    "granitehybrid": Tiny(
        keys={
            **STATE_SPACE,
            "ssm.inner_size": 128,
            "attention.head_count_kv": (0, 1),
            "logit_scale": 1.0,
        },
        optional=("blk.0.ssm_conv1d.bias",),
    ),
    "falcon-h1": Tiny(keys=STATE_SPACE, optional=("blk.*.ssm_conv1d.bias",)),
}


def keys_of(name: str) -> tuple[Key, ...]:
    """Keys of one architecture, in the order in which they are written."""
    tiny = DECIDED[name]
    geometry = {key.name: key for key in GEOMETRY_KEYS}
    decided = {key: Key(key, None, value) for key, value in {**COMMON, **tiny.keys}.items()}
    return tuple((geometry | decided).values())


def architecture(name: str, shapes: Mapping[str, Sequence[int]]) -> Architecture:
    """Join what is decided with the shapes of the tensors; ``*`` in a name: in every layer."""
    return Architecture(
        name=name,
        geometry=replace(GEOMETRY, layers=DECIDED[name].layers),
        keys=keys_of(name),
        tensors=tuple(
            Tensor(tensor.replace("*", "{layer}"), tuple(map(_extent, shape)), role(tensor))
            for tensor, shape in shapes.items()
        ),
        pre_tokenizer="llama-bpe",
    )


def with_mtp(architecture: Architecture) -> Architecture:
    """The same with a layer behind the last, like it, that predicts the token after the next."""
    count, embedding = architecture.geometry.layers, architecture.geometry.embedding
    last, new = f"blk.{count - 1}.", f"blk.{count}."
    nextn = {"eh_proj": (2 * embedding, embedding), "enorm": (embedding,), "hnorm": (embedding,)}
    return replace(
        architecture,
        geometry=replace(architecture.geometry, layers=count + 1),
        keys=(*architecture.keys, Key("nextn_predict_layers", None, 1)),
        tensors=(
            *architecture.tensors,
            *(
                replace(each, name=each.name.replace(last, new))
                for each in architecture.tensors
                if each.name.startswith(last)
            ),
            *(
                Tensor(name := f"{new}nextn.{part}.weight", shape, role(name))
                for part, shape in nextn.items()
            ),
        ),
    )


def _extent(number: int) -> Dimension | int:
    """The vocabulary's size is no other extent; tables of other vocabularies can be written."""
    return "vocabulary" if number == GEOMETRY.vocabulary else number


_ROLES = (
    (r"token_embd\.", Role.EMBEDDING),
    (r"_[qk]_norm\.weight", Role.ATTENTION_NORM),
    (r"norm\w*\.weight", Role.NORM),
    (r"attn_(?:q|k|qkv)\.weight", Role.ATTENTION_MATRIX),
    (r"\.bias|_sinks", Role.BIAS),
    (r"ssm_a$|ssm_a_log", Role.DECAY),
    (r"rope_freqs\.", Role.FREQUENCY_FACTORS),
)


def role(tensor: str) -> Role:
    """What the values of a tensor must look like, by its name."""
    return next((role for part, role in _ROLES if re.search(part, tensor)), Role.MATRIX)


def _shapes() -> dict[str, dict[str, Sequence[int]]]:
    return tomllib.loads(SHAPES.read_text(encoding="utf-8")) if SHAPES.exists() else {}


def _read() -> dict[str, Architecture]:
    shapes = _shapes()
    return {name: architecture(name, shapes[name]) for name in DECIDED if name in shapes}


TINY = _read()

_MISSING = re.compile(r"tensor '([^']+)'(?: not found|$|;)")
_SHAPE = re.compile(r"tensor '([^']+)' has wrong shape; expected +([\d, ]+), got")

Shapes = dict[str, tuple[int, ...]]


def required_tensors(llama: Llama, name: str, folder: Path) -> Shapes:
    """Ask llama.cpp for the tensors of one architecture."""
    try:  # most layers are like an earlier one: a guess of whole layers saves most questions
        return _asked(llama, name, folder, guess_layers=True)
    except ValueError:
        return _asked(llama, name, folder, guess_layers=False)


def _asked(llama: Llama, name: str, folder: Path, *, guess_layers: bool) -> Shapes:
    shapes: Shapes = {}
    waiting = [
        tensor.replace("*", str(layer))
        for tensor in DECIDED[name].optional
        for layer in range(DECIDED[name].layers if "*" in tensor else 1)
    ]
    while True:
        if (complaint := _complaint(llama, name, shapes, folder)) is None:
            if not waiting:
                return shapes
            shapes[waiting.pop()] = (1,)
        elif match := _SHAPE.search(complaint):
            shapes[match[1]] = tuple(int(extent) for extent in match[2].split(","))
        elif (match := _MISSING.search(complaint)) and match[1] not in shapes:
            shapes[match[1]] = (1,)
            if guess_layers:
                shapes |= _layer_like_the_one_before(shapes, match[1])
        else:
            raise ValueError(f"{name}: {complaint}")


def _layer_like_the_one_before(shapes: Shapes, missing: str) -> Shapes:
    layer = re.match(r"blk\.(\d+)\.", missing)
    if layer is None or layer[1] == "0":
        return {}
    before, here = f"blk.{int(layer[1]) - 1}.", layer[0]
    return {
        name.replace(before, here): shape
        for name, shape in shapes.items()
        if name.startswith(before)
    }


def _complaint(llama: Llama, name: str, shapes: Shapes, folder: Path) -> str | None:
    from random_model import write_random_model

    path = write_random_model(folder / "model.gguf", architecture(name, shapes), type="F32")
    try:
        llama.api.llama_model_free(llama.load(LoadRequest(path=path)))
    except EngineError as refusal:
        return refusal.message
    return None


def shortened(shapes: Shapes, layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors with ``*`` for the layer where every layer has the same."""
    for name, shape in shapes.items():
        starred = re.sub(r"^blk\.\d+\.", "blk.*.", name)
        everywhere = (starred.replace("*", str(layer)) for layer in range(layers))
        if starred == name or any(shapes.get(other) != shape for other in everywhere):
            yield name, shape
        elif name.startswith("blk.0."):
            yield starred, shape


def main() -> None:
    wanted = sys.argv[1:] or list(DECIDED)
    llama = Llama()
    tables = _shapes()
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            try:
                found = required_tensors(llama, name, Path(folder))
            except ValueError as error:
                print(error, flush=True)
                continue
            tables[name] = dict(shortened(found, DECIDED[name].layers))
            print(f"{name}: {len(found)} tensors", flush=True)
            _write(tables)


def _write(tables: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
    lines = ["# Written by tiny_architectures.py from the answers of llama-cpp-python 0.3.36."]
    for name in DECIDED:
        if name in tables:
            lines += ["", f"[{name}]"]
            lines += [f'"{tensor}" = {list(shape)}' for tensor, shape in tables[name].items()]
    SHAPES.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
