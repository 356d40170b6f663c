"""A plan in the words of other programs: blocks and flags ready to paste, or why there are none.

The names are those of each program's documentation and sources; docs/other_engines.md says which
were read and when. Whatever a program cannot say exactly is refused, never approximated.
"""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ggufext.header import rope_keys
from ggufext.header.header import ValueType
from ggufext.planning import rope_parameters
from ggufext.planning.gamma import Verdict
from ggufext.planning.methods import Method, as_float32
from ggufext.planning.rope_parameters import RopeType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ggufext.header.facts import ModelFacts
    from ggufext.header.hf_config import HfConfig
    from ggufext.planning.result import MetadataEdit, Plan
    from ggufext.planning.rope_parameters import ConfigEntries, ConfigObject

#: KoboldCpp takes no other context sizes (koboldcpp.py, --contextsize).
_KOBOLDCPP_CONTEXTS = range(256, 262_144 + 1)

#: Architectures that Ollama ran in an engine of its own before it started llama-server.
_OLLAMA_ENGINE = frozenset(
    {
        *("deepseek2", "gemma3", "gemma3n", "gemma4", "gpt-oss", "laguna", "lfm2", "lfm2moe"),
        *("llama4", "mistral3", "olmo3", "qwen3", "qwen3moe", "qwen3next", "qwen35", "qwen35moe"),
        *("qwen3vl", "qwen3vlmoe"),
    }
)

#: No architecture of llama.cpp has a longer name.
_LONGEST_NAME = 64

_CONFIG_OF_GGUF = (
    "for the configuration this file was converted from; where that has a text_config, the entries "
    "go into it"
)

_UNTOUCHED = "with the file as it is"
_REWRITTEN = "with the file that rewrite wrote"


class Engine(Enum):
    """A program that runs models, by the name that --emit takes."""

    HF = "hf"
    VLLM = "vllm"
    LLAMA_CPP = "llama.cpp"
    OLLAMA = "ollama"
    KOBOLDCPP = "koboldcpp"
    LMSTUDIO = "lmstudio"


@dataclass(frozen=True, slots=True)
class Block:
    """Text ready to paste.

    Attributes
    ----------
    title : str
        What it is and what it goes with.
    text : str
        As it is to be pasted.
    """

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Emission:
    """A plan as one program takes it.

    Attributes
    ----------
    engine : Engine
        Which program.
    blocks : tuple of Block
        Each of them says the whole plan; empty where the program cannot run it at all.
    not_expressible : str or None
        Why the program's own settings cannot say the plan; None where they can.
    notes : tuple of str
        What to know before using a block.
    """

    engine: Engine
    blocks: tuple[Block, ...]
    not_expressible: str | None = None
    notes: tuple[str, ...] = ()


def emit(
    made: Plan, facts: ModelFacts, engine: Engine, *, model: str, config: HfConfig | None = None
) -> Emission:
    """Say a plan in the words of one program.

    Parameters
    ----------
    made : Plan
    facts : ModelFacts
        What the plan was made from.
    engine : Engine
    model : str
        The file or folder, as it is to stand in commands; MODEL stands for a name with control
        characters.
    config : HfConfig, optional
        The Hugging Face configuration that the facts come from, where they do not come from GGUF.

    Returns
    -------
    Emission
        Without blocks for a plan that changes nothing.
    """
    if not model.isprintable():
        model = "MODEL"  # no way to write it would survive a terminal and every shell
    if _sets_nothing(made, facts):
        reason = f"the model reaches {made.target_length:,} tokens as it is: nothing to set"
        return Emission(engine, (), reason)
    if engine in {Engine.HF, Engine.VLLM}:
        return (
            _hf(made, facts, config) if engine is Engine.HF else _vllm(made, facts, model, config)
        )
    if config is not None:
        return Emission(
            engine, (), "it runs GGUF files: plan the GGUF file of this model for its settings"
        )
    return _GGUF_ENGINES[engine](made, facts, model)


def _sets_nothing(made: Plan, facts: ModelFacts) -> bool:
    within = made.target_length <= facts.context_length
    return made.verdict is Verdict.NO_EXTENSION_NEEDED and within


def _hf(made: Plan, facts: ModelFacts, config: HfConfig | None) -> Emission:
    found = rope_parameters.config_entries(made, facts, config)
    if isinstance(found, str):
        return Emission(Engine.HF, (), found)
    blocks = [_entries("config.json of Transformers 5: entries to replace", found, found.rope)]
    notes = () if config else (_CONFIG_OF_GGUF,)
    if found.older_rope is None:
        notes = (*notes, "not expressible in Transformers 4, which computes an attention factor")
    else:
        older = "config.json of Transformers 4: entries to replace"
        blocks.append(_entries(older, found, found.older_rope))
    return Emission(Engine.HF, tuple(blocks), notes=notes)


def _entries(title: str, found: ConfigEntries, rope: ConfigObject) -> Block:
    return Block(title, json.dumps(found.in_section(found.length | rope), indent=2))


def _vllm(made: Plan, facts: ModelFacts, model: str, config: HfConfig | None) -> Emission:
    found = rope_parameters.config_entries(made, facts, config)
    if isinstance(found, str):
        return Emission(Engine.VLLM, (), found)
    if found.rope_type is RopeType.FACTORS:
        return Emission(
            Engine.VLLM,
            (),
            "it applies factors of single pairs through Phi-3's LongRoPE with an attention factor "
            "of its own; rewrite the GGUF file, or choose gamma, ntk, yarn or linear",
        )
    of_its_own = made.yarn.mscale_all_dim or made.attention_factor_written != 1.0
    if facts.temperature_scale or (of_its_own and not facts.scales_attention):
        return Emission(
            Engine.VLLM,
            (),
            "its versions read the attention factor of YaRN and the growth of queries with their "
            "position from different entries, or from none: rewrite the GGUF file",
        )
    # A raised base says nothing about the length; a factor does, and vLLM multiplies with it.
    rebased = made.freq_base.after != made.freq_base.before
    multiplied = found.rope_type in {RopeType.LINEAR, RopeType.YARN} and not rebased
    entries = found.rope if multiplied else found.length | found.rope
    overrides = json.dumps(found.in_section(entries))
    command = (
        f"vllm serve {shlex.quote(model) if config else 'MODEL'} "
        f"--hf-overrides {shlex.quote(overrides)} --max-model-len {made.target_length}"
    )
    notes = () if config else (_CONFIG_OF_GGUF, "MODEL is that model in Hugging Face's format")
    return Emission(Engine.VLLM, (Block("vLLM 0.24 and later", command),), notes=notes)


def _llama_cpp(made: Plan, facts: ModelFacts, model: str) -> Emission:
    rewritten = Block(
        _REWRITTEN, f"llama-server -m {shlex.quote(model)} --ctx-size {made.target_length}"
    )
    notes = ("--ctx-size counts the tokens of all slots: --parallel 1 gives one the whole context",)
    if not facts.architecture.isprintable() or len(facts.architecture) > _LONGEST_NAME:
        reason = "the architecture's name is too long or has control characters for a command line"
        return Emission(Engine.LLAMA_CPP, (rewritten,), reason, notes)
    has_factors = made.scaling_type == "longrope" and made.method is not Method.CONTEXT_LENGTH
    if made.tensor_edits or has_factors:
        reason = "its flags have no factors of single pairs, which are tensors: rewrite the file"
        return Emission(Engine.LLAMA_CPP, (rewritten,), reason, notes)
    options = {"ctx-size": str(made.target_length), **_llama_cpp_options(made, facts)}
    flags = " ".join(f"--{name} {shlex.quote(value)}" for name, value in options.items())
    untouched = Block(_UNTOUCHED, f"llama-server -m {shlex.quote(model)} {flags}")
    blocks = (untouched, *_router_preset(options, facts, model), rewritten)
    return Emission(Engine.LLAMA_CPP, blocks, None, notes)


def _llama_cpp_options(made: Plan, facts: ModelFacts) -> dict[str, str]:
    """Options of llama-server, but for the context size, that rotate as the plan does."""
    if made.method is Method.CONTEXT_LENGTH:
        return {"override-kv": ",".join(map(_override, made.edits))}
    options = {"rope-scaling": made.scaling_type}
    if made.scaling_type != "none":
        options["rope-scale"] = number(made.freq_scale_factor)
    if made.freq_base.after != made.freq_base.before:
        options["rope-freq-base"] = number(made.freq_base.after)
    # Without it llama.cpp takes context_length, which the override below raises.
    options["yarn-orig-ctx"] = str(made.original_length)
    yarn = made.scaling_type == "yarn"
    # Betas and attention stand in the file or in an override, so no flag has to repeat them.
    if yarn:
        options["yarn-ext-factor"] = number(made.yarn.mix("yarn"))
    whole = not yarn or _length_after_yarn_flags(made) == made.target_length
    overrides = [_override(e) for e in made.edits if not (whole and _has_flag(e.key, facts))]
    if overrides:
        options["override-kv"] = ",".join(overrides)
    return options


def _router_preset(options: Mapping[str, str], facts: ModelFacts, model: str) -> tuple[Block, ...]:
    """Entries of one file for llama-server's router; none where a preset file cannot hold them.

    Source: common/preset.cpp; a value ends at ; or #, a name at ].
    """
    entry = model.rsplit("/", 1)[-1].removesuffix(".gguf")
    native = {"ctx-size": str(facts.context_length)}
    extended = f"{entry}-{options['ctx-size']}"
    lines = [
        line
        for name, settings in ((entry, native), (extended, options))
        for line in (
            "",
            f"[{name}]",
            *(f"{k} = {v}" for k, v in {"model": model, **settings}.items()),
        )
    ]
    if "]" in entry or any(character in line for line in lines for character in ";#"):
        return ()
    title = "preset file for llama-server --models-preset, native and extended side by side"
    return (Block(title, "\n".join(lines[1:])),)


def _length_after_yarn_flags(made: Plan) -> int:
    """Training length that llama.cpp computes when flags scale otherwise than the file.

    Rounding may lose a token, to which the server would cap; overrides of the file's keys avoid it.

    Source: llama-context.cpp, llama_init_from_model.
    """
    scale = as_float32(1.0 / as_float32(made.freq_scale_factor))
    return int(as_float32(made.original_length / scale))


def _has_flag(key: str, facts: ModelFacts) -> bool:
    # --ctx-size is no flag for context_length: the server caps every slot to the latter.
    return key.removeprefix(f"{facts.architecture}.") in {
        rope_keys.FREQ_BASE,
        rope_keys.SCALING_TYPE,
        rope_keys.SCALING_FACTOR,
        rope_keys.ORIGINAL_LENGTH,
    }


def _override(edit: MetadataEdit) -> str:
    kind = {ValueType.STRING: "str", ValueType.FLOAT32: "float", ValueType.BOOL: "bool"}
    value = edit.after
    text = number(value) if isinstance(value, float) else str(value)
    return f"{edit.key}={kind.get(edit.type, 'int')}:{text}"


def _ollama(made: Plan, facts: ModelFacts, model: str) -> Emission:
    path = model if "/" in model else f"./{model}"
    text = f"FROM {path}\nPARAMETER num_ctx {made.target_length}"
    notes = [
        "`ollama create NAME -f Modelfile` copies the file into its store: rewrite first, and "
        "rewrite the file, never the copy"
    ]
    if (made.scaling_type != "none" or made.tensor_edits) and facts.architecture in _OLLAMA_ENGINE:
        notes.append(
            f"versions that run {facts.architecture} in their own engine instead of llama-server "
            "may not read what this plan writes; gamma and ntk change a key that they read"
        )
    return Emission(
        Engine.OLLAMA,
        (Block(f"Modelfile, {_REWRITTEN}", text),),
        "a Modelfile has no RoPE parameter: the plan has to be in the file",
        tuple(notes),
    )


def _koboldcpp(made: Plan, facts: ModelFacts, model: str) -> Emission:
    length = made.target_length
    if length not in _KOBOLDCPP_CONTEXTS:
        reason = f"--contextsize takes 256 to 262144 tokens, not {length}"
        return Emission(Engine.KOBOLDCPP, (), reason)
    start = f"koboldcpp --model {shlex.quote(model)} --contextsize {length}"
    rewritten = Block(_REWRITTEN, start)
    obstacle = _no_ropeconfig(made, facts)
    if obstacle is not None:
        return Emission(Engine.KOBOLDCPP, (rewritten,), obstacle)
    scale = as_float32(1.0 / made.freq_scale_factor)
    text = f"{start} --ropeconfig {number(scale)} {number(made.freq_base.after)}"
    return Emission(Engine.KOBOLDCPP, (Block(_UNTOUCHED, text), rewritten))


def _no_ropeconfig(made: Plan, facts: ModelFacts) -> str | None:
    if made.tensor_edits or made.scaling_type == "longrope":
        return "--ropeconfig has no factors of single pairs: rewrite the file"
    if made.scaling_type == "yarn":
        return "--ropeconfig has a scale and a base, no YaRN: rewrite the file"
    if made.scaling_type == "linear" and facts.scaling.type != "linear":
        return (
            f"the file says rope.scaling.type {facts.scaling.type}, which --ropeconfig leaves and "
            "under which its scale is not linear: rewrite the file"
        )
    return None


def _lmstudio(made: Plan, _facts: ModelFacts, _model: str) -> Emission:
    length = made.target_length
    blocks = [Block(_REWRITTEN, f"lms load MODEL --context-length {length}")]
    notes = ("MODEL is the name that `lms ls` shows after `lms import`",)
    if made.scaling_type == "none" and not made.tensor_edits:
        load = {"contextLength": length, "ropeFrequencyBase": made.freq_base.after}
        blocks.insert(0, Block(f"load configuration of its SDKs, {_UNTOUCHED}", json.dumps(load)))
        cap = "its documentation does not say whether contextLength may exceed that of the file"
        return Emission(Engine.LMSTUDIO, tuple(blocks), None, (*notes, cap))
    reason = (
        "its load configuration has a RoPE base and a frequency scale whose direction its "
        "documentation does not settle, no YaRN and no factors: rewrite the file"
    )
    return Emission(Engine.LMSTUDIO, tuple(blocks), reason, notes)


_GGUF_ENGINES: Mapping[Engine, Callable[[Plan, ModelFacts, str], Emission]] = {
    Engine.LLAMA_CPP: _llama_cpp,
    Engine.OLLAMA: _ollama,
    Engine.KOBOLDCPP: _koboldcpp,
    Engine.LMSTUDIO: _lmstudio,
}


def number(value: float) -> str:
    """The shortest decimal that a program with 32-bit floats reads as this value.

    Parameters
    ----------
    value : float
        Finite.
    """
    if value == math.floor(value) and abs(value) < 2**53:
        return str(int(value))
    texts = (f"{value:.{digits}g}" for digits in range(1, 9))
    return next((t for t in texts if as_float32(float(t)) == as_float32(value)), f"{value:.9g}")
