"""Writes architectures.md: every architecture, and what was tried with it.

Usage: ``python docs/write_architectures.py``; where llama.cpp disagrees with the table, nothing is
written.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parents[1] / "tests" / "builders"))
from experiment import METHODS, try_architecture
from ggufext.header.architectures import (
    Layout,
    LocalRotation,
    Positions,
    Support,
    architecture,
    architecture_names,
    llama_cpp_version,
)
from ggufext.header.frequencies import USUAL_YARN
from ggufext.llama.process import LlamaProcess
from random_architectures import ARCHITECTURES
from random_model import write_random_model
from tiny_architectures import TINY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from experiment import MethodTrial, Trial
    from ggufext.header.architectures import Architecture
    from ggufext.header.layers import LayerFacts

PAGE = Path(__file__).with_name("architectures.md")

_INTRODUCTION = """\
# Architectures

Written by `docs/write_architectures.py` from `src/ggufext/header/architectures.json` (read from
the sources of {version}) and from an experiment with the same version; a test
compares.

- **verified**: a small random model of the architecture was planned, rewritten, run by llama.cpp
  and undone with every method. Compared for each layer: whether it rotates, base, scale, YaRN's
  mix and betas, rotated dimensions and pairs of its ROPE node before and after; KV cache against
  allocation and log; logits, which must change where a layer moves and stay to the last bit where
  none does; the bytes after the undo. `rewrite` does these without further questions.
- **read**: taken from llama.cpp's source, not tried. `plan` explains, `rewrite` needs `--force`.
- **unknown**: named there, but no model of it can be loaded; or not in the list at all.

Random weights say how llama.cpp rotates, not whether a model still understands anything at the
new length: that is what `ggufext check` measures.
"""

_COLUMNS = """\
The layers are those of the model that was tried; `ggufext inspect --layers` shows those of a file.
*Local* layers see a sliding window only. A method in brackets is refused, with the reason below.
"""

_REASONS = """\
- [1] `local_layers_would_change`: the method would change the rotation of local layers, which only
  see distances that they were trained for, and llama.cpp cannot keep them apart. `--force` accepts
  it.
- [2] every method raises `context_length` only: no layer that sees the whole context rotates.
"""

_LOCAL = {
    LocalRotation.OWN_BASE: "local layers have a base of their own (10,000 or "
    "`rope.freq_base_swa`) and are never scaled",
    LocalRotation.COPIED: "local layers follow base and scaling; `rope.freq_base_swa` keeps their "
    "base, nothing keeps scaling away",
    LocalRotation.COPIED_BASE: "local layers follow the base, which `rope.freq_base_swa` keeps; "
    "they are never scaled",
    LocalRotation.PLAIN: "local layers always have `rope.freq_base`; they are never scaled",
    LocalRotation.GLOBAL: "local layers always have base and scaling of the global ones",
}


def caveats(entry: Architecture) -> str:
    """What is special about an architecture."""
    local = entry.local_rotation
    yarn = [key.rpartition(".")[2] for key in entry.reads if not key.endswith(".alpha")]
    rules = (
        (local, _LOCAL[local] if local else ""),
        (
            entry.local_block_count,
            f"windows with {entry.local_block_count} layers only (tried as well)",
        ),
        (entry.fixed_window, f"a window of {entry.fixed_window} tokens whatever the file says"),
        (
            entry.rotates_with_block_count,
            f"rotates with {entry.rotates_with_block_count} layers only; others are refused",
        ),
        (entry.rope_switch, "`rope.scaling.finetuned` false switches rotation off: refused"),
        (entry.rope_pattern, "`attention.rope_pattern` says which layers rotate"),
        (
            "rope.scaling.alpha" in entry.reads,
            "`rope.scaling.alpha` multiplies the base; written bases allow for it",
        ),
        (
            entry.scales_attention,
            "linear and yarn multiply every score of attention too, by (1 + 0.1 ln f)² where the "
            "file has no `yarn_log_multiplier`",
        ),
        (
            bool(yarn),
            "reads " + ", ".join(f"`{key}`" for key in yarn) + ", which plans keep and count",
        ),
        (
            entry.yarn_beta_fast != USUAL_YARN.beta_fast,
            f"YaRN's beta_fast is {entry.yarn_beta_fast:g} where the file does not say",
        ),
        (
            entry.latent_cache,
            "MLA: with `attention.key_length_mla` the cache holds no values",
        ),
        (
            entry.cached_layers,
            f"layers from {entry.cached_layers} on share the KV cache of earlier ones",
        ),
        (
            entry.shared_kv_layers,
            "the last `attention.shared_kv_layers` layers share the KV cache of earlier ones",
        ),
        (entry.recurrent_interval, "other layers are recurrent: no positions, no KV cache"),
        (
            entry.layout is Layout.SECTIONS,
            "positions of images after an extension are not measured",
        ),
        (not entry.reads_rope_keys, "rotates with base 10,000 whatever the file says: refused"),
    )
    return "; ".join(text for holds, text in rules if holds)


def layers(facts: Sequence[LayerFacts]) -> str:
    """Layers of a model in a few words, neighbours that are alike together."""
    parts = []
    for what, group in groupby(facts, key=_layer):
        count = len(list(group))
        parts.append(f"{count} {what}" if count > 1 else what)
    shown = ", ".join(parts[:4])
    return f"{len(facts)}: {shown}" + (" …" if len(parts) > 4 else "")


def _layer(layer: LayerFacts) -> str:
    if not layer.rotates:
        return "recurrent" if not layer.head_count_kv else "without positions"
    if layer.moves:
        return "moved"
    return "local"


def _method(trial: MethodTrial) -> str:
    name = trial.method.value
    if trial.refused is not None:
        assert trial.refused == "local_layers_would_change", trial.refused
        return f"({name} [1])"
    return f"{name} + swa" if "rope.freq_base_swa" in trial.edits else name


def _methods(trial: Trial) -> str:
    if not any(layer.moves for layer in trial.facts.layers):
        return "[2]"
    return ", ".join(_method(each) for each in trial.methods)


def page(trial_of: Callable[[str], Trial]) -> str:
    """Compose the page.

    Parameters
    ----------
    trial_of : callable
        The trial of a verified architecture by its name.
    """
    entries = [architecture(name) for name in architecture_names()]
    verified = [entry for entry in entries if entry.support is Support.VERIFIED]
    rotating = [entry for entry in entries if entry.positions is Positions.ROPE]
    models = [entry for entry in rotating if entry.kind == "language_model"]
    read = [entry for entry in models if entry.support is Support.READ]
    lines = [
        _INTRODUCTION.format(version=llama_cpp_version()),
        f"## Verified: {len(verified)}",
        "",
        _COLUMNS,
        "| architecture | pairs | layers | methods | note |",
        "|---|---|---|---|---|",
    ]
    for entry in sorted(verified, key=lambda entry: entry.name):
        trial = trial_of(entry.name)
        lines.append(
            f"| {entry.name} | {entry.layout.value} | {layers(trial.facts.layers)} | "
            f"{_methods(trial)} | {caveats(entry)} |"
        )
    lines += [
        "",
        "`+ swa`: writes `rope.freq_base_swa` as well, which keeps the local layers as trained.",
        "",
        _REASONS,
        f"## Read, not tried: {len(read)}",
        "",
        "| architecture | pairs | note |",
        "|---|---|---|",
        *(
            f"| {entry.name} | {entry.layout.value} | {caveats(entry)} |"
            for entry in sorted(read, key=lambda entry: entry.name)
        ),
        "",
        "## Nothing to extend, refused by name",
        "",
        *_refused(entries),
    ]
    return "\n".join(lines) + "\n"


def _refused(entries: Iterable[Architecture]) -> Iterator[str]:
    language = [entry for entry in entries if entry.kind == "language_model"]
    yield _row("`no_rope`, without rotation", _with(language, Positions.NONE))
    yield _row(
        "`learned_positions`, a table with a row a token", _with(language, Positions.LEARNED)
    )
    others = sorted((entry for entry in entries if entry not in language), key=lambda e: e.kind)
    for kind, group in groupby(others, key=lambda entry: entry.kind):
        yield _row(f"`not_a_language_model`, {kind.replace('_', '-')}", list(group))
    unknown = [entry for entry in language if entry.support is Support.UNKNOWN]
    yield _row("unknown: named in llama.cpp, but not loadable there", unknown)


def _with(entries: Iterable[Architecture], positions: Positions) -> list[Architecture]:
    return [
        entry
        for entry in entries
        if entry.positions is positions and entry.support is not Support.UNKNOWN
    ]


def _row(reason: str, entries: Sequence[Architecture]) -> str:
    return f"- {reason}: {', '.join(sorted(entry.name for entry in entries))}"


def main() -> int:
    trials: dict[str, Trial] = {}
    with tempfile.TemporaryDirectory() as folder, LlamaProcess() as process:
        for name in (*ARCHITECTURES, *TINY):
            path = write_random_model(Path(folder) / f"{name}.gguf", name)
            trials[name] = try_architecture(path, process=process)
            path.unlink()
            for disagreement in trials[name].disagreements:
                print(f"{name}: {disagreement}")
    if any(trial.disagreements for trial in trials.values()):
        return 1
    PAGE.write_text(page(trials.__getitem__), encoding="utf-8")
    print(f"{PAGE}: {len(trials)} architectures, {len(METHODS)} methods")
    return 0


if __name__ == "__main__":
    sys.exit(main())
