"""The experiment behind the table of architectures: a small model, every method, llama.cpp.

What the table and the plans predict of each layer is compared with the ROPE nodes, the KV cache
and the logits of llama.cpp, before a rewrite, after it, and after its undo.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ggufext.audit.conditions import conditions
from ggufext.editing.rewrite import rewrite, undo
from ggufext.errors import PlanError
from ggufext.header.architectures import Layout, architecture
from ggufext.header.rope_keys import unread_suffixes
from ggufext.llama.expectation import differences, of_facts, of_plan
from ggufext.llama.rope_nodes import RopeMode, observe
from ggufext.llama.settings import ContextSettings
from ggufext.opened.model import facts_of, open_model
from ggufext.planning.footprint import CacheType, kv_cache_bytes
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan
from ggufext.planning.request import PlanRequest, Recipe, YarnRecipe
from observed import cache_lines, logits_array

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ggufext.header.facts import ModelFacts
    from ggufext.header.layers import LayerFacts
    from ggufext.llama.process import LlamaProcess
    from ggufext.llama.rope_nodes import Observation, RopeNode
    from ggufext.llama.settings import Override
    from ggufext.planning.result import Plan

METHODS = (Method.GAMMA, Method.NTK, Method.YARN, Method.LINEAR)

FACTOR = 4

#: More than every window of the models and than a padded local cache, so that both show.
_CONTEXT = 1024
_SETTINGS = ContextSettings(n_ctx=_CONTEXT, n_ubatch=512, swa_full=False)

#: Far apart: a changed rotation shows at any distance, an unchanged one at none.
_TOKENS = tuple((7 * i * i + 3 * i) % 250 for i in range(100))

#: Rounding of two numbers with two decimals, MiB.
_LOG_ROUNDING = 0.011

_LAYOUTS = {
    RopeMode.INTERLEAVED: Layout.INTERLEAVED,
    RopeMode.HALF: Layout.HALF,
    RopeMode.SECTIONS: Layout.SECTIONS,
    RopeMode.INTERLEAVED_SECTIONS: Layout.SECTIONS,
}


@dataclass(frozen=True, slots=True)
class MethodTrial:
    """One method on one model.

    Attributes
    ----------
    method : Method
    refused : str or None
        Code of the refusal; None where it was planned, written and undone.
    edits : tuple of str
        Keys that the plan writes, without the architecture's prefix.
    """

    method: Method
    refused: str | None
    edits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """What an experiment showed.

    Attributes
    ----------
    facts : ModelFacts
    methods : tuple of MethodTrial
    disagreements : tuple of str
        Where llama.cpp does otherwise than table and plan say, a sentence each.
    """

    facts: ModelFacts
    methods: tuple[MethodTrial, ...]
    disagreements: tuple[str, ...]


def try_architecture(path: Path, *, process: LlamaProcess) -> Trial:
    """Try every method on a model and compare each layer with what was predicted.

    YaRN is tried once more with all that a recipe can say of it.

    Parameters
    ----------
    path : Path
        A small model; rewritten and undone several times.
    process : LlamaProcess
        Runs llama.cpp.

    Returns
    -------
    Trial

    Raises
    ------
    GgufextError
        The model cannot be extended at all, or llama.cpp does not run it.
    """
    facts = facts_of(path)
    experiment = _Experiment(path, facts, process)
    found = list(experiment.of_the_file())
    trials = []
    target_length = FACTOR * facts.train_length
    requests = [PlanRequest(target_length=target_length, method=method) for method in METHODS]
    fast, slow = (16.0, 2.0) if facts.reads_betas else (None, None)
    other = Recipe(Method.YARN, yarn=YarnRecipe(fast, slow, 1.25))
    requests.append(PlanRequest(target_length=target_length, method=Method.YARN, recipe=other))
    for request in requests:
        trial, disagreements = experiment.of_request(request)
        if request.recipe is None:
            trials.append(trial)
        name = f"{request.method.value}{' of a recipe' if request.recipe else ''}"
        found += [f"{name}: {text}" for text in disagreements]
    found += experiment.of_unread_keys()
    return Trial(facts, tuple(trials), tuple(found))


class _Experiment:
    def __init__(self, path: Path, facts: ModelFacts, process: LlamaProcess) -> None:
        self._path = path
        self._facts = facts
        self._process = process
        self._hash = self._sha256()
        self._native = self._observe()

    def _observe(self, overrides: dict[str, Override] | None = None) -> Observation:
        return observe(
            self._path,
            tokens=_TOKENS,
            settings=_SETTINGS,
            kv_overrides=overrides,
            process=self._process,
        )

    def _sha256(self) -> str:
        return hashlib.sha256(self._path.read_bytes()).hexdigest()

    def of_the_file(self) -> Iterator[str]:
        """Layers, layout and cache of the file as it is."""
        if not np.isfinite(logits_array(self._native)).all():
            yield "the logits are not finite, so that they cannot be compared"
        facts, nodes = self._facts, self._native.rope_nodes
        seen = {node.layer for node in nodes}
        for number, layer in enumerate(facts.layers):
            if (number in seen) != layer.rotates:
                yield f"layer {number} {'rotates' if number in seen else 'does not rotate'}"
        yield from differences(
            nodes, [of_facts(facts, layer, is_long=False) for layer in facts.layers]
        )
        for node in nodes:
            rotary = facts.layers[node.layer].rotary_dim or facts.rotary_dim
            if node.n_dims != rotary:
                yield f"layer {node.layer} rotates {node.n_dims} dimensions, expected {rotary}"
            if _LAYOUTS.get(node.mode) is not facts.layout:
                yield f"layer {node.layer} pairs as {node.mode.name}, expected {facts.layout.name}"
        yield from _cache_differences(self._native, facts.layers)

    def of_request(self, request: PlanRequest) -> tuple[MethodTrial, list[str]]:
        """One method: the effect of what it writes, or of what it is refused for."""
        try:
            made = plan(self._facts, request)
        except PlanError as refusal:
            trial = MethodTrial(request.method, refusal.code, ())
            return trial, list(self._of_refusal(refusal, request))
        rewrite(self._path, request)
        changed = self._observe()
        found = list(self._effect(made, changed))
        with open_model(self._path) as model:
            (native,) = conditions(model, ["native"], request)
        if self._observe(dict(native.kv_overrides)).logits != self._native.logits:
            found.append("the condition `native` of the rewritten file is not the original")
        undo(self._path)
        if self._sha256() != self._hash:
            found.append("undo did not give the original bytes back")
        prefix = f"{self._facts.architecture}."
        edits = tuple(edit.key.removeprefix(prefix) for edit in made.edits)
        return MethodTrial(request.method, None, edits), found

    def _effect(self, made: Plan, changed: Observation) -> Iterator[str]:
        layers = self._facts.layers
        yield from differences(
            changed.rope_nodes, [of_plan(made, layer, is_long=False) for layer in layers]
        )
        if changed.n_ctx_train != made.target_length:
            yield f"n_ctx_train is {changed.n_ctx_train}, planned {made.target_length}"
        for number in _changed_layers(self._native.rope_nodes, changed.rope_nodes):
            if not layers[number].moves:
                yield f"layer {number} was to keep its rotation"
        yield from self._of_attention(made, changed)
        moves = any(layer.moves for layer in layers)
        if _last_logits(changed) == _last_logits(self._native) and moves:
            yield "the logits of the last token stay as they were"
        if changed.logits != self._native.logits and not moves:
            yield "logits change although no layer was to move"

    def _of_attention(self, made: Plan, changed: Observation) -> Iterator[str]:
        """Scores of attention: as before, or multiplied where the table says so."""
        expected, scaling = 1.0, self._facts.scaling
        if self._facts.scales_attention:
            mix = made.yarn.mix(made.scaling_type)
            expected = made.yarn.score_factor(made.freq_scale_factor, mix)
            expected /= scaling.yarn.score_factor(scaling.factor_in_effect, scaling.mix)
        scales = zip(self._native.attention_scales, changed.attention_scales, strict=True)
        for number, (before, after) in enumerate(scales):
            if not math.isclose(after, expected * before, rel_tol=1e-5):
                yield f"attention {number} is scaled by {after / before:g}, expected {expected:g}"
        if not changed.attention_scales:
            yield "no attention was seen"

    def _of_refusal(self, refusal: PlanError, request: PlanRequest) -> Iterator[str]:
        """A refusal for the sake of local layers is right where forcing it changes them."""
        if refusal.code != "local_layers_would_change":
            return
        forced = plan(self._facts, replace(request, force=True))
        overrides = {edit.key: edit.after for edit in forced.edits}
        changed = self._observe(overrides)  # type: ignore[arg-type]  # no plan writes an array
        layers = self._facts.layers
        yield from differences(
            changed.rope_nodes, [of_plan(forced, layer, is_long=False) for layer in layers]
        )
        moved = _changed_layers(self._native.rope_nodes, changed.rope_nodes)
        if not any(layers[number].window for number in moved):
            yield "refused, but no local layer would change"

    def of_unread_keys(self) -> Iterator[str]:
        """Keys that are called unread change nothing, neither alone nor beside YaRN."""
        name = self._facts.architecture
        unread_keys = unread_suffixes(architecture(name))
        prefix = f"{name}.rope.scaling."
        yarn: dict[str, Override] = {f"{prefix}type": "yarn", f"{prefix}factor": float(FACTOR)}
        unread: dict[str, Override] = {f"{name}.{suffix}": 0.5 for suffix in unread_keys}
        if self._observe(unread).logits != self._native.logits:
            yield f"keys that are called unread change logits: {', '.join(unread)}"
        if self._observe(yarn | unread).logits != self._observe(yarn).logits:
            yield f"keys that are called unread change logits beside yarn: {', '.join(unread)}"


def _changed_layers(before: Sequence[RopeNode], after: Sequence[RopeNode]) -> set[int]:
    """Layers whose angles differ; YaRN's mix of equal frequencies is none."""

    def rotation(node: RopeNode) -> tuple[float, float, float]:
        return node.freq_base, node.freq_scale, node.attn_factor

    return {
        node.layer
        for node, other in zip(before, after, strict=True)
        if rotation(node) != rotation(other)
    }


def _cache_differences(seen: Observation, layers: Sequence[LayerFacts]) -> Iterator[str]:
    held = sum(tensor.size for tensor in seen.cache_tensors)
    planned = kv_cache_bytes(tuple(layers), _CONTEXT, CacheType.F16)
    if held != planned:
        yield f"the KV cache takes {held} bytes, expected {planned}"
    logged = sum(line.mib_k + line.mib_v for line in cache_lines(seen))
    if abs(logged - held / 2**20) > _LOG_ROUNDING * max(1, len(cache_lines(seen))):
        yield f"llama.cpp logs a KV cache of {logged:.2f} MiB, its tensors take {held} bytes"
    keys = {tensor.layer: tensor.cells for tensor in seen.cache_tensors}
    for number, layer in enumerate(layers):
        if (number in keys) != (layer.head_count_kv > 0):
            yield f"layer {number} {'has' if number in keys else 'has no'} KV cache"


def _last_logits(seen: Observation) -> bytes:
    return seen.logits[0][-4 * seen.n_vocab :]
