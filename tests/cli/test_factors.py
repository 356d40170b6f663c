"""--recipe, --keep-short and the run-time methods, as a user meets them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from program import result, run
from random_model import write_random_model

if TYPE_CHECKING:
    from pathlib import Path

LONG = [1.0 + i / 4 for i in range(16)]


def written(folder: Path, plan: dict[str, Any], **more: Any) -> Path:
    path = folder / "result.json"
    path.write_text(json.dumps({"plan": plan, **more}))
    return path


def test_factors_are_written_as_longrope(llama: Path, tmp_path: Path) -> None:
    factors = written(tmp_path, {"long": LONG, "short": None, "attention_factor": 1.25})
    done = result("rewrite", llama, "--target", "8k", "--recipe", factors)
    assert done["method"] == "longrope"
    (tensor,) = done["tensor_edits"]
    assert tensor == {"name": "rope_factors_long.weight", "before": None, "after": LONG}
    scaling = result("inspect", llama)["rope"]["scaling"]
    assert scaling["type"] == "longrope"
    assert scaling["factor_tensors"] == ["rope_factors_long.weight"]
    assert "scaling by rope_factors_long.weight" in run("inspect", llama).stdout


def test_betas_and_attention_factor_are_written_and_told(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "model.gguf", "mistral3", context=2048)
    before = path.read_bytes()
    said = {"method": "yarn", "beta_fast": 16, "beta_slow": 2, "attention_factor": 1}
    done = result("rewrite", path, "--target", "8k", "--recipe", written(tmp_path, said))
    assert done["method"] == "yarn"
    assert done["attention_factor"] == 1.0
    scaling = result("inspect", path)["rope"]["scaling"]
    assert (scaling["beta_fast"], scaling["beta_slow"]) == (16.0, 2.0)
    assert scaling["attention_factor"] == pytest.approx(0.87825, abs=1e-5)
    told = run("inspect", path).stdout
    assert "scaling yarn by 4 with betas 16 and 2, attention times 0.8782" in told
    run("undo", path)
    assert path.read_bytes() == before


def test_from_takes_method_and_target_of_a_result(llama: Path, tmp_path: Path) -> None:
    recipe = written(tmp_path, {"method": "gamma", "target_length": 8192, "freq_base": 51234.0})
    planned = result("plan", llama, "--recipe", recipe)
    done = result("rewrite", llama, "--recipe", recipe)
    assert (
        planned["freq_base"]
        == done["freq_base"]
        == {
            "before": 10000.0,
            "after": 51234.0,
            "source": "llama.rope.freq_base",
        }
    )
    assert done["target_length"] == 8192
    again = result("rewrite", llama, "--recipe", recipe, "--target", "16k")
    assert again["target_length"] == 16384


def test_from_a_result_for_another_model_is_refused(llama: Path, tmp_path: Path) -> None:
    recipe = written(tmp_path, {"method": "ntk"}, model={"facts_hash": "sha256:0"})
    for command in ("plan", "rewrite"):
        done = run(command, llama, "--target", "8k", "--recipe", recipe, "--json")
        assert done.returncode == 1
        assert json.loads(done.stdout)["error"]["code"] == "other_model"
    assert result("plan", llama, "--target", "8k", "--recipe", recipe, "--force")["method"] == "ntk"


def test_keep_short_is_said_and_listed(llama: Path) -> None:
    done = run("rewrite", llama, "--target", "8k", "--method", "yarn", "--keep-short", "--dry-run")
    assert "contexts up to 2,048 tokens stay as they are" in done.stdout
    assert "rope_factors_long.weight: new, 16 factors" in done.stdout
    assert "tensors at the end" in done.stdout
    assert "attention factor of yarn is left out" in done.stderr
    every = result("plan", llama, "--target", "8k", "--keep-short")
    assert all(made["keep_short"] for made in every["plans"])


def test_dynamic_is_a_table_of_bases(llama: Path) -> None:
    made = result("plan", llama, "--target", "8k", "--method", "dynamic")
    assert [row["length"] for row in made["rows"]] == [2048, 4096, 8192]
    text = run("plan", llama, "--target", "8k", "--method", "dynamic").stdout
    assert text.count("--rope-freq-base") == 3


def test_self_extend_is_explained_with_llama_cpps_options(llama: Path) -> None:
    text = run("plan", llama, "--target", "8k", "--method", "self-extend").stdout
    assert "--grp-attn-n 5 --grp-attn-w 510" in text
    assert "--condition self-extend:g=5,w=510" in text


@pytest.mark.parametrize(
    ("method", "named"), [("dynamic", "--rope-freq-base"), ("self-extend", "--grp-attn-n")]
)
def test_run_time_methods_write_nothing(llama: Path, method: str, named: str) -> None:
    content = llama.read_bytes()
    done = run("rewrite", llama, "--target", "8k", "--method", method, "--json")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "run_time_method"
    assert f"`ggufext plan --target 8192 --method {method} {llama}`" in error["message"]
    assert named in error["message"]
    assert llama.read_bytes() == content


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "yarn"),
        ("--recipe", "R", "--method", "dynamic", "--target", "8k"),
        ("--recipe", "R", "--method", "yarn", "--target", "8k"),
        ("--target", "8k", "--method", "dynamic", "--keep-short"),
    ],
)
def test_options_that_contradict_each_other_are_usage_errors(
    llama: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    recipe = written(tmp_path, {"long": LONG})
    given = [str(recipe) if option == "R" else option for option in options]
    for command in ("plan", "rewrite"):
        done = run(command, llama, *given)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", ["", "{}", "\x00\xff"])
def test_a_file_that_is_no_recipe_is_named(llama: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "factors.json"
    path.write_text(content)
    done = run("rewrite", llama, "--target", "8k", "--recipe", path)
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    absent = run("rewrite", llama, "--target", "8k", "--recipe", tmp_path / "absent.json")
    assert absent.returncode == 1
    assert "Traceback" not in absent.stderr
