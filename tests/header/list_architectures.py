"""Write src/ggufext/header/architectures.toml from the sources of llama.cpp.

Usage: ``python tests/header/list_architectures.py LLAMA_CPP_SOURCES VERSION > architectures.toml``
where VERSION names the llama-cpp-python that brings these sources. Read by a program: the names
of the architectures (src/llama-arch.cpp), their layout (`llama_model_rope_type` in
src/llama-model.cpp), whether their graph rotates and which keys of YaRN, alpha and temperature
their loader reads (src/models). Decided by people: the tables below.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from random_architectures import ARCHITECTURES
from tiny_architectures import TINY

#: Architectures whose every claim is tried on a model: tests/llama/test_experiment.py.
VERIFIED = ARCHITECTURES.keys() | TINY.keys()

LAYOUTS = {
    "NONE": "none",
    "NORM": "interleaved",
    "NEOX": "half",
    "MROPE": "sections",
    "IMROPE": "sections",
}

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

Fact = str | int | float | bool | list[str]

#: Facts of single architectures beside layout and positions.
FACTS: dict[str, dict[str, Fact]] = {
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

_ROTATES = re.compile(r"\bggml_rope(?:_ext|_multi)?\(")


@dataclass
class Source:
    """The parts of llama.cpp that this list is made from."""

    names: dict[str, str]
    layouts: dict[str, str]
    sections_when_present: set[str]
    classes: dict[str, str]
    keys: dict[str, str]
    parents: dict[str, str]
    graphs: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


def read(sources: Path) -> Source:
    """Read names, layouts and graphs."""
    arch = (sources / "src/llama-arch.cpp").read_text()
    model = (sources / "src/llama-model.cpp").read_text()
    names_table = arch[arch.index("LLM_ARCH_NAMES") : arch.index("LLM_KV_NAMES")]
    names = dict(re.findall(r'\{ LLM_ARCH_(\w+), +"([^"]+)"', names_table))
    del names["UNKNOWN"]
    layouts, conditional = _layouts(model[model.index("llama_model_rope_type(const") :])
    headers = (sources / "src/models/models.h").read_text()
    return Source(
        names=names,
        layouts=layouts,
        sections_when_present=conditional,
        classes=dict(re.findall(r"case LLM_ARCH_(\w+):\s+return new (\w+)\(", model)),
        keys=dict(re.findall(r'\{ LLM_KV_(\w+), +"%s\.([^"]+)"', arch)),
        parents=dict(re.findall(r"struct (llama_model_\w+) : public (llama_model_\w+)", headers)),
        graphs=_shared_graphs(headers),
        files=[path.read_text() for path in sorted((sources / "src/models").glob("*.cpp"))],
    )


def _layouts(switch: str) -> tuple[dict[str, str], set[str]]:
    """Layout by enumerator; a conditional one is the layout without rope.dimension_sections."""
    layouts: dict[str, str] = {}
    conditional: set[str] = set()
    waiting: list[str] = []
    for line in switch[: switch.index("GGML_ABORT")].splitlines():
        if match := re.search(r"case LLM_ARCH_(\w+):", line):
            waiting.append(match[1])
        elif match := re.search(r"return LLAMA_ROPE_TYPE_(\w+);", line):
            if line.startswith(" " * 16):  # inside an if: what holds with sections
                conditional |= set(waiting)
                continue
            layouts |= dict.fromkeys(waiting, LAYOUTS[match[1]])
            waiting = []
        elif match := re.search(
            r"return .*\? LLAMA_ROPE_TYPE_(\w+) +: LLAMA_ROPE_TYPE_(\w+);", line
        ):
            conditional |= set(waiting) if match[1] == "MROPE" else set()
            layouts |= dict.fromkeys(waiting, LAYOUTS[match[2]])
            waiting = []
    return layouts, conditional


def _shared_graphs(headers: str) -> dict[str, str]:
    """Class → class whose graph it uses, by an alias or by inheritance."""
    shared: dict[str, str] = {}
    for body in re.split(r"\n(?=struct llama_model_)", headers):
        declared = re.match(r"struct (llama_model_\w+)(?: : public (llama_model_\w+))?", body)
        if not declared:
            continue
        alias = re.search(r"using graph += (llama_model_\w+)::graph", body)
        if alias:
            shared[declared[1]] = alias[1]
        elif declared[2] and declared[2] != "llama_model_base" and "struct graph" not in body:
            shared[declared[1]] = declared[2]
    return shared


def positions(source: Source, enumerator: str) -> str:
    """How a model of the architecture knows positions: rope, learned or none."""
    name = source.names[enumerator]
    if name in POSITIONS:
        return POSITIONS[name]
    owner = source.classes.get(enumerator, "")
    while owner in source.graphs:
        owner = source.graphs[owner]
    graphs = [text for text in source.files if owner and f"{owner}::graph" in text]
    if source.layouts[enumerator] != "none" and any(map(_ROTATES.search, graphs)):
        return "rope"
    return "learned" if any("model.pos_embd" in text for text in graphs) else "none"


def keys_of_some(source: Source, enumerator: str) -> dict[str, Fact]:
    """Which of the keys that some architectures read this one does, and what they default to."""
    owner = source.classes.get(enumerator, "")
    while f"void {owner}::load_arch_hparams" not in "".join(source.files):
        if owner not in source.parents:
            return {}
        owner = source.parents[owner]
    start = f"void {owner}::load_arch_hparams"
    loader = next(text for text in source.files if start in text)
    loader = loader[loader.index(start) :].partition("\n}")[0]
    read = [source.keys[key or alpha.upper()] for key, alpha in _READ_BY_SOME.findall(loader)]
    name = source.names[enumerator]
    found: dict[str, Fact] = {}
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


def toml(source: Source, version: str) -> str:
    """Compose the file."""
    kinds = {name: kind for kind, names in KINDS.items() for name in names}
    lines = [
        "# What llama.cpp does with each architecture, by `general.architecture`.",
        "# Written by tests/header/list_architectures.py from llama.cpp's sources; do not edit.",
        "#",
        "# support    verified: tried on a model by the tests; read: read from the sources;",
        "#            unknown: named there, but no model of it can be loaded",
        "# layout     which values llama_model_rope_type pairs: interleaved, half, sections, none",
        "# positions  rope, learned (their number is context_length), none (also ALiBi, relative)",
        "# kind       language_model when absent",
        "# The other fields are those of ggufext.header.architectures.Architecture.",
        "",
        f'llama_cpp = "{version}"',
    ]
    for enumerator, name in source.names.items():
        loadable = enumerator in source.classes
        support = "verified" if name in VERIFIED else "read" if loadable else "unknown"
        facts: dict[str, Fact] = {
            "support": support,
            "layout": source.layouts[enumerator],
            "positions": positions(source, enumerator),
        }
        if name in kinds:
            facts["kind"] = kinds[name]
        if enumerator in source.sections_when_present:
            facts["sections_when_present"] = True
        facts |= keys_of_some(source, enumerator)
        facts |= FACTS.get(name, {})
        for factor_support, names in FACTOR_TENSORS.items():
            if name in names:
                facts["factor_support"] = factor_support
        lines += ["", f"[architectures.{name}]"]
        lines += [f"{key} = {_value(value)}" for key, value in facts.items()]
    return "\n".join(lines) + "\n"


def _value(value: Fact) -> str:
    if isinstance(value, list):
        return json.dumps(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    sys.stdout.write(toml(read(Path(sys.argv[1])), sys.argv[2]))
