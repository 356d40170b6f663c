"""Write src/ggufext/header/architectures.json from the sources of llama.cpp.

Usage: ``python tests/header/list_architectures.py LLAMA_CPP_SOURCES VERSION > architectures.json``
where VERSION names the llama-cpp-python that brings these sources. Read by a program: the names
of the architectures (src/llama-arch.cpp), their layout (`llama_model_rope_type` in
src/llama-model.cpp), whether their graph rotates, which keys of YaRN, alpha and temperature their
loader reads (src/models), and what it demands of a file (`list_loading`). Decided by people: the
tables below. `ggufext.header.architectures` says what the entries mean.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "builders")]
from header import list_loading
from header.llama_cpp_sources import Source, read
from random_architectures import ARCHITECTURES
from tiny_architectures import TINY

#: Architectures whose every claim is tried on a model: tests/llama/test_experiment.py.
VERIFIED = ARCHITECTURES.keys() | TINY.keys()

KINDS = {
    "embedding": (
        "bert",
        "modern-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "eurobert",
        "gemma-embedding",
        "llama-embed",
        "t5encoder",
    ),
    "draft": ("eagle3", "dflash", "gemma4-assistant"),
    "diffusion": ("dream", "llada", "llada-moe", "rnd1"),
    "encoder_decoder": ("t5",),
    "audio": ("wavtokenizer-dec", "qwen3tts", "pockettts"),
    "vision": ("clip",),
}

#: Graphs that several architectures share and that rotate only for some of them (bert.cpp).
POSITIONS = {"bert": "learned", "jina-bert-v2": "none"}

#: Facts of single architectures beside layout and positions.
FACTS: dict[str, dict[str, object]] = {
    # baichuan.cpp rotates only what it takes for the 7B model by this number of layers.
    "baichuan": {"rotates_with_block_count": 32},
    # cogvlm.cpp rotates with ggml's plain function: base 10000, no scaling.
    "cogvlm": {"reads_rope_keys": False},
    "granite": {"rope_switch": True},
    "granitehybrid": {"rope_switch": True},
    "graniteswitch": {"rope_switch": True},
    "deepseek2": {"mscale_is_multiplier": True, "scales_attention": True, "latent_cache": True},
    "deepseek32": {"scales_attention": True, "latent_cache": True},
    "glm-dsa": {"scales_attention": True, "latent_cache": True},
    "mistral4": {"scales_attention": True, "latent_cache": True},
    "gemma2": {"local_rotation": "copied", "local_pattern": 2, "local_window": 4096},
    "gemma3": {"local_rotation": "own_base", "local_freq_base": 10000.0, "local_pattern": 6},
    "gemma3n": {
        "local_rotation": "own_base",
        "local_freq_base": 10000.0,
        "local_pattern": 5,
        "cached_layers": 20,
    },
    "gemma4": {
        "local_rotation": "own_base",
        "local_freq_base": 10000.0,
        "rotary_dim_per_layer": True,
        "shared_kv_layers": True,
    },
    "plamo3": {"local_rotation": "own_base", "local_freq_base": 10000.0, "local_pattern": 8},
    "mimo2": {"local_rotation": "own_base", "local_freq_base": 10000.0},
    "gpt-oss": {"local_rotation": "copied", "local_pattern": 2},
    "spark2_5": {"local_rotation": "copied"},
    "afmoe": {"local_rotation": "copied", "local_pattern": 4, "unrotated": "every_fourth"},
    "llama4": {
        "local_rotation": "copied",
        "local_pattern": 4,
        "local_window": 8192,
        "fixed_window": 8192,
        "unrotated": "every_fourth",
    },
    "smallthinker": {
        "local_rotation": "copied",
        "local_pattern": 4,
        "first_is_global": True,
        "fixed_window": 4096,
        "unrotated": "every_fourth_beside_local",
    },
    "maple": {
        "local_rotation": "copied",
        "rotary_dim_per_layer": True,
        "unrotated": "global_beside_local",
    },
    "muse-glimmer": {
        "local_rotation": "copied_base",
        "local_pattern": 4,
        "unrotated": "global_beside_local",
    },
    "laguna": {
        "local_rotation": "copied_base",
        "local_pattern": 4,
        "first_is_global": True,
        "rotary_dim_per_layer": True,
    },
    "olmo2": {"local_rotation": "plain", "local_pattern": 4},
    "mellum": {"local_rotation": "plain", "local_pattern": 4},
    "cohere2": {
        "local_rotation": "global",
        "local_pattern": 4,
        "unrotated": "global_beside_local",
    },
    "cohere2moe": {
        "local_rotation": "global",
        "local_pattern": 4,
        "first_is_global": True,
        "unrotated": "global_beside_local",
        "dense_layers_rotate": True,
    },
    "exaone4": {
        "local_rotation": "global",
        "local_pattern": 4,
        "local_window": 4096,
        "local_block_count": 64,
        "unrotated": "global_beside_local",
    },
    "exaone-moe": {
        "local_rotation": "global",
        "local_pattern": 4,
        "unrotated": "global_beside_local",
    },
    "granite_swa": {"local_rotation": "global", "rope_pattern": True},
    "lfm2": {"local_rotation": "global", "local_where_attention": True},
    "lfm2moe": {"local_rotation": "global", "local_where_attention": True},
    "smollm3": {"unrotated": "every_fourth"},
    "qwen3next": {"recurrent_interval": 4},
    "qwen35": {"recurrent_interval": 4},
    "qwen35moe": {"recurrent_interval": 4},
}

#: Which frequency-factor tensors the loaders take and the graphs rotate with (src/models). Loaded
#: and ignored, so in no list: falcon-h1, llada, pangu-embedded, refact, cogvlm. step35 rotates
#: its local layers with another number of pairs than its factors have.
FACTOR_TENSORS = {
    "by_type": (
        "llama",
        "deci",
        "minicpm",
        "granite",
        "granitemoe",
        "granite_swa",
        "apertus",
        "mistral3",
    ),
    "long_short": ("phi3", "phimoe", "minicpm3"),
    "rope_freqs": (
        "llama4",
        "arcee",
        "exaone",
        "exaone4",
        "exaone-moe",
        "granitehybrid",
        "gemma4",
        "nanbeige",
    ),
}

#: Keys that a loader reads into a field that nothing uses.
READ_FOR_NOTHING = {("grok", "attention.temperature_length")}

#: Keys that some architectures read, by llama.cpp's enumerators.
_READ_BY_SOME = re.compile(
    r"LLM_KV_((?:ROPE_SCALING_YARN|ATTENTION_TEMPERATURE)_\w+)|hparams\.(rope_scaling_alpha) > "
)
_BETA_FAST = re.compile(r"hparams\.yarn_beta_fast += ([\d.]+)f;")
_MULTIPLIER_UNIT = re.compile(r"hparams\.rope_yarn_log_mul /= ([\d.]+)f;")

#: Longest line of the file, characters.
_LINE = 120

_ROTATES = re.compile(r"\bggml_rope(?:_ext|_multi)?\(")


def positions(source: Source, enumerator: str) -> str:
    """How a model of the architecture knows positions: rope, learned or none."""
    name = source.names[enumerator]
    if name in POSITIONS:
        return POSITIONS[name]
    owner = source.classes.get(enumerator, "")
    owner = source.graph_owner(owner)
    graphs = [text for text in source.files if owner and f"{owner}::graph" in text]
    if source.layouts[enumerator] != "none" and any(map(_ROTATES.search, graphs)):
        return "rope"
    return "learned" if any("model.pos_embd" in text for text in graphs) else "none"


def keys_of_some(source: Source, enumerator: str) -> dict[str, object]:
    """Which of the keys that some architectures read this one does, and what they default to."""
    if enumerator not in source.classes:
        return {}
    loader = source.method(source.classes[enumerator], "load_arch_hparams")
    read = [
        source.keys[f"LLM_KV_{key or alpha.upper()}"]
        for key, alpha in _READ_BY_SOME.findall(loader)
    ]
    name = source.names[enumerator]
    found: dict[str, object] = {}
    if used := sorted({key for key in read if (name, key) not in READ_FOR_NOTHING}):
        found["reads"] = used
    if match := _BETA_FAST.search(loader):
        found["yarn_beta_fast"] = float(match[1])
    if match := _MULTIPLIER_UNIT.search(loader):
        found["yarn_log_multiplier_unit"] = float(match[1])
    return found


def rotation_keys(source: Source) -> list[str]:
    """Every key of rotation and attention that llama.cpp knows."""
    return sorted(key for key in source.keys.values() if key.startswith(("rope.", "attention.")))


def facts(source: Source, enumerator: str) -> dict[str, object]:
    """What llama.cpp does with the RoPE of an architecture."""
    name = source.names[enumerator]
    loadable = enumerator in source.classes
    found: dict[str, object] = {
        "support": "verified" if name in VERIFIED else "read" if loadable else "unknown",
        "layout": source.layouts[enumerator],
        "positions": positions(source, enumerator),
    }
    for kind, names in KINDS.items():
        if name in names:
            found["kind"] = kind
    if enumerator in source.sections_when_present:
        found["sections_when_present"] = True
    found |= keys_of_some(source, enumerator)
    found |= FACTS.get(name, {})
    for factor_support, names in FACTOR_TENSORS.items():
        if name in names:
            found["factor_support"] = factor_support
    return found


def table(source: Source, version: str) -> dict[str, object]:
    """Compose what the file holds."""
    common = list_loading.read_common(source)
    architectures: dict[str, dict[str, object]] = {}
    for enumerator, name in source.names.items():
        entry = architectures[name] = facts(source, enumerator)
        if name in VERIFIED:
            found = list_loading.read_loading(source, enumerator, common)
            entry["loading"] = list_loading.entry(found)
    return {
        "llama_cpp": version,
        "loading": list_loading.common_entry(common)
        | {"vocabulary": list_loading.read_vocabulary(source)},
        "architectures": architectures,
    }


def text(value: object, depth: int = 0) -> str:
    """JSON in lines that a change of llama.cpp changes one by one."""
    line = json.dumps(value)
    if (depth and len(line) + depth <= _LINE) or not isinstance(value, (list, dict)):
        return line
    blanks = " " * (depth + 1)
    if isinstance(value, dict):
        items = [
            f"{blanks}{json.dumps(key)}: {text(each, depth + 1)}" for key, each in value.items()
        ]
    else:
        items = [blanks + text(each, depth + 1) for each in value]
    return "\n".join([line[0], ",\n".join(items), blanks[1:] + line[-1]])


if __name__ == "__main__":
    print(text(table(read(Path(sys.argv[1])), sys.argv[2])))
