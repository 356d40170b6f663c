"""YaRN with the betas and the attention factor that a recipe says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ggufext.errors import PlanError
from ggufext.header.architectures import FactorSupport
from ggufext.header.facts import Scaling
from ggufext.header.frequencies import Yarn
from ggufext.header.hf_config import read_config
from ggufext.planning.emit import Engine, emit
from ggufext.planning.methods import Method
from ggufext.planning.methods import yarn as yarn_frequencies
from ggufext.planning.plan import plan
from ggufext.planning.request import PlanRequest, Recipe, YarnRecipe
from planning.facts import facts

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.header.facts import ModelFacts
    from ggufext.planning.result import Plan

T, L = 8192, 32768
MODEL = facts(architecture="mistral3", train_length=T, freq_base=1e6)
SAID = YarnRecipe(16.0, 2.0, 1.0)
USUAL = 1.0 + 0.1 * math.log(L / T)
TRAINED = replace(
    MODEL, train_length=16384, context_length=16384, scaling=Scaling("yarn", 4.0, 4096, 1.0, ())
)


def made(model: ModelFacts = MODEL, said: YarnRecipe = SAID, **rest: Any) -> Plan:
    recipe = Recipe(Method.YARN, yarn=said)
    request = PlanRequest(target_length=L, method=Method.YARN, recipe=recipe, **rest)
    return plan(model, request)


def written(found: Plan) -> dict[str, object]:
    return {edit.key.removeprefix("mistral3."): edit.after for edit in found.edits}


def refused(model: ModelFacts, said: YarnRecipe, **rest: Any) -> PlanError:
    with pytest.raises(PlanError) as caught:
        made(model, said, **rest)
    return caught.value


def test_betas_and_attention_factor_become_keys() -> None:
    found = made()
    keys = written(found)
    assert keys["rope.scaling.yarn_beta_fast"] == 16.0
    assert keys["rope.scaling.yarn_beta_slow"] == 2.0
    assert keys["rope.scaling.attn_factor"] == pytest.approx(1.0 / USUAL, rel=1e-6)
    wanted = yarn_frequencies(1e6, 128, 4.0, T, Yarn(beta_fast=16.0, beta_slow=2.0))
    assert found.inv_freq == wanted.inv_freq
    assert found.attention_factor == pytest.approx(1.0, rel=1e-6)
    assert not found.tensor_edits


@pytest.mark.parametrize("said", [YarnRecipe(), YarnRecipe(32.0, 1.0), YarnRecipe(beta_slow=1.0)])
def test_what_is_as_usual_is_not_written(said: YarnRecipe) -> None:
    plain = plan(MODEL, PlanRequest(target_length=L, method=Method.YARN))
    assert replace(made(said=said), measured=None) == replace(plain, measured=None)


def test_what_a_recipe_leaves_out_stays_as_in_the_file() -> None:
    model = replace(MODEL, scaling=replace(MODEL.scaling, yarn=Yarn(beta_fast=8.0)))
    found = made(model, YarnRecipe(beta_slow=2.0))
    assert (found.yarn.beta_fast, found.yarn.beta_slow) == (8.0, 2.0)
    assert "rope.scaling.yarn_beta_fast" not in written(found)
    assert found.attention_factor == pytest.approx(USUAL)


def test_betas_are_refused_where_they_are_not_read() -> None:
    unread = replace(MODEL, reads_betas=False)
    error = refused(unread, YarnRecipe(16.0))
    assert error.code == "rope_keys_not_read"
    assert "--keep-short" not in error.message
    assert made(unread, YarnRecipe(attention_factor=1.0)).attention_factor == pytest.approx(1.0)


def test_factors_hold_betas_that_are_not_read() -> None:
    unread = replace(MODEL, reads_betas=False, factor_support=FactorSupport.BY_TYPE)
    assert "--keep-short" in refused(unread, YarnRecipe(16.0)).message
    found = made(unread, keep_short=True)
    assert found.inv_freq == pytest.approx(made().inv_freq, rel=1e-6)
    assert not {key for key in written(found) if "beta" in key or "attn" in key}
    assert "attention_factor_dropped" not in {each.code for each in found.warnings}
    sharpened = made(unread, YarnRecipe(16.0, 2.0, 1.2), keep_short=True)
    assert "attention_factor_dropped" in {each.code for each in sharpened.warnings}
    assert sharpened.attention_factor == 1.0


def test_a_ramp_that_ends_before_it_begins_is_refused() -> None:
    error = refused(MODEL, YarnRecipe(beta_fast=0.5))
    assert (error.code, error.field) == ("bad_recipe", "plan.beta_fast")


def test_the_ramp_of_a_trained_yarn_stays() -> None:
    assert refused(TRAINED, YarnRecipe(16.0)).code == "cannot_combine"
    assert made(TRAINED, YarnRecipe(attention_factor=1.1)).attention_factor == pytest.approx(1.1)


def test_latent_attention_takes_no_other_attention_factor() -> None:
    error = refused(replace(MODEL, scales_attention=True), YarnRecipe(attention_factor=1.0))
    assert error.code == "cannot_combine"


def test_local_layers_that_an_attention_factor_reaches_are_not_changed() -> None:
    local = replace(MODEL.layers[0], window=512, moves=False)
    model = replace(MODEL, layers=(local, *MODEL.layers[1:]))
    error = refused(model, YarnRecipe(attention_factor=1.0))
    assert error.code == "local_layers_would_change"
    assert error.field == "mistral3.rope.scaling.attn_factor"
    assert made(model, YarnRecipe(attention_factor=1.0), force=True).edits
    apart = replace(model, layers=(replace(local, follows_attention=False), *MODEL.layers[1:]))
    assert made(apart, YarnRecipe(attention_factor=1.0)).edits


def test_betas_of_another_method_are_refused() -> None:
    recipe = Recipe(Method.NTK, yarn=YarnRecipe(16.0))
    with pytest.raises(PlanError) as caught:
        plan(MODEL, PlanRequest(target_length=L, method=Method.NTK, recipe=recipe))
    assert caught.value.code == "not_for_method"


def test_the_entries_of_a_config_read_back_as_what_was_planned(tmp_path: Path) -> None:
    block = json.loads(emit(made(), MODEL, Engine.HF, model="m").blocks[0].text)
    sizes = {"hidden_size": 256, "num_attention_heads": 2, "num_hidden_layers": 1}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", **sizes, **block}))
    scaling = read_config(path).facts.scaling
    assert (scaling.yarn.beta_fast, scaling.yarn.beta_slow) == (16.0, 2.0)
    assert scaling.attention_factor == pytest.approx(1.0 / USUAL, rel=1e-6)


def test_other_programs_are_told_or_refused() -> None:
    text = emit(made(), MODEL, Engine.HF, model="m").blocks[0].text
    for entry in ('"rope_type": "yarn"', '"beta_fast": 16.0', '"attention_factor": 1.0'):
        assert entry in text
    assert "attention factor" in str(emit(made(), MODEL, Engine.VLLM, model="m").not_expressible)
    assert (
        "attention_factor"
        not in emit(
            plan(MODEL, PlanRequest(target_length=L, method=Method.YARN)),
            MODEL,
            Engine.HF,
            model="m",
        )
        .blocks[0]
        .text
    )
    flags = emit(made(), MODEL, Engine.LLAMA_CPP, model="m").blocks[0].text
    assert "mistral3.rope.scaling.yarn_beta_fast=float:16" in flags
    assert "mistral3.rope.scaling.attn_factor=float:0.878" in flags
