from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ggufext import rewrite
from ggufext.audit.conditions import OriginalCopy, conditions, planned_request
from ggufext.errors import PlanError
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings
from ggufext.opened.model import open_model
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest, Recipe
from random_model import write_random_model

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.audit.conditions import ResolvedCondition

TARGET = 1024

#: Those that overrides can stand in for: they write no tensors.
WITHOUT_TENSORS = (Method.GAMMA, Method.NTK, Method.YARN, Method.LINEAR)


def condition(path: Path, name: str) -> ResolvedCondition:
    with open_model(path) as model:
        (found,) = conditions(model, [name], PlanRequest(target_length=TARGET))
    return found


def logits(path: Path, name: str = "file") -> tuple[bytes, ...]:
    return observe(
        path,
        tokens=tuple(range(260, 300)),
        starts=(0, 600),
        settings=ContextSettings(n_ctx=TARGET),
        kv_overrides=dict(condition(path, name).kv_overrides),
    ).logits


@pytest.mark.parametrize("method", WITHOUT_TENSORS)
def test_planned_condition_equals_the_rewritten_file(
    method: Method, passkey_model: Path, passkey_copy: Path
) -> None:
    rewrite(passkey_copy, PlanRequest(target_length=TARGET, method=method))
    assert logits(passkey_model, f"planned:{method.value}") == logits(passkey_copy)


@pytest.mark.parametrize(("name", "gamma"), [("gamma=0.5", 0.5), ("gamma=-.2", -0.2)])
def test_a_gamma_at_the_target_is_what_a_rewrite_with_it_writes(
    name: str, gamma: float, passkey_model: Path, passkey_copy: Path
) -> None:
    request = PlanRequest(target_length=TARGET, gamma=gamma, allow_lower_base=True)
    rewrite(passkey_copy, request)
    assert logits(passkey_model, f"planned:{name}") == logits(passkey_copy)


@pytest.mark.parametrize("method", WITHOUT_TENSORS)
def test_native_condition_of_a_rewritten_file_equals_the_original(
    method: Method, passkey_model: Path, passkey_copy: Path
) -> None:
    rewrite(passkey_copy, PlanRequest(target_length=TARGET, method=method))
    assert logits(passkey_copy, "native") == logits(passkey_model)


def test_planned_condition_of_a_rewritten_file_starts_from_its_original(
    passkey_model: Path, passkey_copy: Path
) -> None:
    rewrite(passkey_copy, PlanRequest(target_length=512, method=Method.YARN))
    assert logits(passkey_copy, "planned:gamma") == logits(passkey_model, "planned:gamma")


def test_native_condition_of_an_unedited_file_says_that_it_is_the_file(
    passkey_model: Path,
) -> None:
    found = condition(passkey_model, "native")
    assert found.kv_overrides == ()
    assert [warning.code for warning in found.warnings] == ["native_is_file"]


@pytest.mark.parametrize("name", ["planned:llama3", "planned:ntk+keep-short"])
def test_a_planned_condition_with_tensors_asks_for_a_copy(name: str, passkey_model: Path) -> None:
    found = condition(passkey_model, name)
    assert found.copy is not None
    assert found.kv_overrides == ()


def test_native_condition_of_a_file_that_was_given_tensors_asks_for_a_copy(
    passkey_copy: Path,
) -> None:
    rewrite(passkey_copy, PlanRequest(target_length=TARGET, keep_short=True))
    found = condition(passkey_copy, "native")
    assert found.copy == OriginalCopy()
    assert found.kv_overrides == ()


def test_a_recipe_of_another_model_is_refused(passkey_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "factors.json"
    path.write_text(Recipe(Method.GAMMA, freq_base=2000.0, facts_hash="ab" * 32).encode())
    with pytest.raises(PlanError):
        condition(passkey_model, f"planned:{path}")


def test_a_recipe_that_cannot_be_read_is_refused_with_its_path(
    passkey_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=r"nothing\.json") as refused:
        condition(passkey_model, f"planned:{tmp_path / 'nothing.json'}")
    assert refused.value.code == "unreadable"


def test_a_kept_short_file_is_expected_to_rotate_short_and_long_contexts_otherwise(
    passkey_copy: Path,
) -> None:
    made = rewrite(passkey_copy, PlanRequest(target_length=TARGET, keep_short=True)).plan
    found = condition(passkey_copy, "file")
    assert found.short_context == made.train_length.value
    assert {expected.factors for expected in found.expected} == {None}
    assert found.expected_long is not None
    assert {expected.factors for expected in found.expected_long} == {made.long_factors}


def test_what_the_publisher_documents_is_yarn_to_its_own_target(tmp_path: Path) -> None:
    path = write_random_model(
        tmp_path / "model.gguf",
        "qwen3",
        context=40_960,
        metadata={"general.basename": "Qwen3", "general.size_label": "8B"},
    )
    found = dict(condition(path, "planned:documented").kv_overrides)
    assert found["qwen3.rope.scaling.type"] == "yarn"
    assert found["qwen3.rope.scaling.factor"] == 4.0
    assert found["qwen3.context_length"] == 131_072


def test_a_model_of_which_no_scaling_is_documented_has_no_such_condition(
    passkey_model: Path,
) -> None:
    with pytest.raises(PlanError, match="documents") as refused:
        condition(passkey_model, "planned:documented")
    assert refused.value.code == "bad_condition"


def test_self_extend_names_group_and_window(passkey_model: Path) -> None:
    extend = condition(passkey_model, "self-extend:g=4,w=512").self_extend
    assert extend is not None
    assert (extend.group, extend.window) == (4, 512)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "planned",
        "planned:magic",
        "self-extend:g=4",
        "self-extend:g=1,w=8",
        "self-extend:g=3,w=8",
    ],
)
def test_unknown_condition_is_refused(name: str, passkey_model: Path) -> None:
    with pytest.raises(PlanError) as refused:
        condition(passkey_model, name)
    assert refused.value.code == "bad_condition"


def test_conditions_of_a_copy_by_another_tool_start_from_the_original(
    passkey_model: Path, passkey_copy: Path
) -> None:
    rewrite(passkey_copy, PlanRequest(target_length=512, method=Method.YARN))
    copy = passkey_copy.with_name("another.gguf")
    command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", str(passkey_copy)]
    subprocess.run([*command, str(copy), "--general-name", "X"], check=True, capture_output=True)
    assert logits(copy, "native") == logits(passkey_model)
    assert logits(copy, "planned:gamma") == logits(passkey_model, "planned:gamma")


def test_native_of_a_copy_with_a_tensor_of_ours_is_refused_by_name(passkey_copy: Path) -> None:
    rewrite(passkey_copy, PlanRequest(target_length=512, method=Method.LLAMA3))
    copy = passkey_copy.with_name("another.gguf")
    command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", str(passkey_copy)]
    subprocess.run([*command, str(copy), "--general-name", "X"], check=True, capture_output=True)
    with pytest.raises(PlanError, match="condition 'native'; the file was extended by a tensor"):
        condition(copy, "native")


def test_a_planned_condition_takes_the_base_of_the_training(
    passkey_model: Path, passkey_copy: Path
) -> None:
    rewrite(passkey_copy, PlanRequest(target_length=512), keep_history=False)
    with pytest.raises(PlanError, match="--train-freq-base"):
        condition(passkey_copy, "planned:yarn")
    request = PlanRequest(target_length=TARGET, train_freq_base=500.0)
    with open_model(passkey_copy) as model:
        (found,) = conditions(model, ["planned:yarn"], request)
    assert found.expected == condition(passkey_model, "planned:yarn").expected


@pytest.mark.parametrize("ending", ["", "+keep-short"])
@pytest.mark.parametrize("keeps", [False, True])
def test_a_recipe_that_keeps_short_contexts_is_tried_as_it_is_written(
    keeps: bool, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / "compare.json"
    path.write_text(Recipe(Method.NTK, target_length=4096, keep_short=keeps).encode())
    asked = planned_request(f"planned:{path}{ending}", PlanRequest(target_length=4096), None)
    assert asked.keep_short is (keeps or bool(ending))
    assert asked.recipe == Recipe(Method.NTK, target_length=4096, keep_short=keeps)
