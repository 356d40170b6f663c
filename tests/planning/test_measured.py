"""What a plan says was measured: on which models, at which factors, and whether it is so."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from ggufext.cli import cli
from ggufext.header.facts import ModelFacts, model_facts
from ggufext.header.header import read_header
from ggufext.planning import measured as records
from ggufext.planning.gamma import Verdict
from ggufext.planning.methods import Method
from ggufext.planning.model_records import ModelRecord, beyond_native, compared
from ggufext.planning.plan import plan
from ggufext.planning.request import PlanRequest, Recipe
from ggufext.presenting.sentences import plan_lines
from planning.facts import facts

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def passkey() -> ModelFacts:
    return model_facts(read_header(ROOT / "models" / "passkey-Q8_0.gguf"))


def rows() -> dict[tuple[Method, int], tuple[int, float, float]]:
    """Keys found at the target of each extension, as the card of the model tells them."""
    card = (ROOT / "models" / "README.md").read_text("utf-8")
    table = card.partition("### passkey-Q8_0.gguf, one key")[2].partition("###")[0]
    found = {}
    for name, length, cells in re.findall(r"^\| (\w+) to (\d+) \|(.*)\|$", table, re.M):
        last = [cell for cell in cells.split("|") if cell.strip()][-1]
        keys, low, high = re.findall(r"[\d.]+", last)
        found[Method(name), int(length)] = (int(keys), float(low), float(high))
    return found


def test_the_shipped_model_was_measured_as_its_card_says(passkey: ModelFacts) -> None:
    assert len(rows()) == 12
    for (method, length), (keys, low, high) in rows().items():
        found = plan(passkey, PlanRequest(target_length=length, method=method)).measured
        assert found is not None
        assert found.factor == length / 256
        assert found.measurement.value * 54 == pytest.approx(keys)
        assert found.measurement.interval == (low, high)
        assert (ROOT / found.source).is_file()


@pytest.mark.parametrize("method", [Method.GAMMA, Method.YARN])
def test_smollm2_was_measured_as_its_page_says(passkey: ModelFacts, method: Method) -> None:
    layer = replace(passkey.layers[0], head_count_kv=3, key_length=64, value_length=64)
    facts = replace(
        passkey, train_length=8192, freq_base=1e5, rotary_dim=64, head_dim=64, layers=(layer,) * 30
    )
    found = plan(facts, PlanRequest(target_length=10_240, method=method)).measured
    assert found is not None
    interval = found.measurement.interval
    assert interval is not None
    page = (ROOT / found.source).read_text("utf-8")
    said = f"{found.measurement.value:+.3f} ({interval[0]:+.3f} to {interval[1]:+.3f})"
    assert re.search(rf"^ planned:{method.value} +{re.escape(said)}", page, re.M)
    assert f"\n{found.measurement.n} tokens of one text were scored beyond" in page


def test_what_was_measured_to_find_nothing_is_not_called_healthy(passkey: ModelFacts) -> None:
    nothing = [where for where, (keys, _, _) in rows().items() if not keys]
    assert {method for method, _ in nothing} == {Method.LINEAR}
    for method, length in nothing:
        made = plan(passkey, PlanRequest(target_length=length, method=method))
        assert made.verdict is Verdict.NEEDS_FINETUNE


@pytest.mark.parametrize(
    "changed",
    [
        {"train_length": 512},
        {"freq_base": 10_000.0},
        {"architecture": "llama4"},
        {"layers": ()},
    ],
)
def test_nothing_is_said_of_another_model(passkey: ModelFacts, changed: dict[str, object]) -> None:
    from ggufext.planning.measured import measured

    assert measured(passkey, Method.GAMMA, 4) is not None
    assert measured(replace(passkey, **changed), Method.GAMMA, 4) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "known"),
    [
        (PlanRequest(target_length=1000), True),
        (PlanRequest(target_length=768), False),
        (PlanRequest(target_length=1024, method=Method.LLAMA3), False),
        (PlanRequest(target_length=1024, gamma=0.5), False),
        (PlanRequest(target_length=1024, keep_short=True), False),
        (PlanRequest(target_length=1024, recipe=Recipe(Method.GAMMA, freq_base=3e3)), False),
        (PlanRequest(target_length=256), False),
    ],
)
def test_nothing_is_said_of_another_plan(
    passkey: ModelFacts, request_: PlanRequest, known: bool
) -> None:
    assert (plan(passkey, request_).measured is not None) is known


SMOLLM2 = facts(train_length=8192, freq_base=1e5, layers=30, heads_kv=3, rotary_dim=64)


def known(*verdicts: tuple[str, str, str]) -> tuple[ModelRecord, ...]:
    """A record of SmolLM2 at factor 2, made up: rival, measure and what gamma is."""
    return (
        ModelRecord(
            model="SmolLM2",
            source="docs/gamma-rule.md",
            architecture="llama",
            train_length=8192,
            freq_base=1e5,
            layers=30,
            heads=(3, 64),
            found=(beyond_native(Method.YARN, 2, -2.9, (-3.0, -2.8), 4),),
            comparisons=tuple(
                compared(Method(rival), 2, verdict, f"mean_loss_{where}", 0.1, (0.0, 0.2), 4)
                for rival, where, verdict in verdicts
            ),
        ),
    )


@pytest.mark.parametrize(
    ("verdicts", "methods"),
    [
        ([("ntk", "beyond", "better"), ("yarn", "beyond", "worse")], (Method.YARN,)),
        ([("ntk", "beyond", "worse"), ("yarn", "beyond", "worse")], (Method.NTK, Method.YARN)),
        ([("ntk", "beyond", "better"), ("yarn", "beyond", "the same")], (Method.GAMMA,)),
        ([("ntk", "beyond", "better"), ("yarn", "beyond", "undecided")], None),
        ([("ntk", "beyond", "undecided"), ("yarn", "beyond", "undecided")], None),
        ([("yarn", "beyond", "worse"), ("yarn", "within", "undecided")], (Method.YARN,)),
        # Better beyond the training length and worse on short text: the record chooses nothing.
        ([("yarn", "beyond", "worse"), ("yarn", "within", "better")], None),
        ([("yarn", "beyond", "better"), ("yarn", "within", "undecided")], (Method.GAMMA,)),
        ([], None),
    ],
)
def test_a_method_is_recommended_where_the_comparisons_decide(
    monkeypatch: pytest.MonkeyPatch,
    verdicts: list[tuple[str, str, str]],
    methods: tuple[Method, ...] | None,
) -> None:
    monkeypatch.setattr(records, "_KNOWN", known(*verdicts))
    made = plan(SMOLLM2, PlanRequest(target_length=16_384))
    if methods is None:
        assert made.recommended is None
    else:
        assert made.recommended is not None
        assert made.recommended.methods == methods
        assert len(made.recommended.comparisons) == len(verdicts)
    # The default stays the default.
    assert made.method is Method.GAMMA


@pytest.mark.parametrize(
    "request_",
    [
        PlanRequest(target_length=32_768),
        PlanRequest(target_length=4096),
        PlanRequest(target_length=16_384, gamma=0.95),
        PlanRequest(target_length=16_384, method=Method.CONTEXT_LENGTH),
    ],
)
def test_nothing_is_recommended_for_what_was_not_measured(
    monkeypatch: pytest.MonkeyPatch, request_: PlanRequest
) -> None:
    monkeypatch.setattr(records, "_KNOWN", known(("yarn", "beyond", "worse")))
    assert plan(SMOLLM2, PlanRequest(target_length=16_384)).recommended is not None
    assert plan(SMOLLM2, request_).recommended is None


def test_means_over_texts_are_told_with_the_number_of_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "_KNOWN", known(("yarn", "beyond", "worse")))
    made = plan(SMOLLM2, PlanRequest(target_length=16_384, method=Method.YARN))
    lines = "\n".join(plan_lines(made))
    measure = "mean loss beyond the training length against"
    assert (
        f"measured on SmolLM2 at factor 2: {measure} native -2.900 of 4 texts (95 %: -3.000 to "
        "-2.800); docs/gamma-rule.md"
    ) in lines
    assert (
        "  recommended by what was measured on SmolLM2 at factor 2: yarn (docs/gamma-rule.md)\n"
        f"    gamma is worse by {measure} yarn +0.100 of 4 texts (95 %: +0.000 to +0.200)\n"
    ) in lines


def test_the_table_of_plan_ends_with_what_is_recommended_and_why(
    passkey: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_here = next(records._records(passkey))
    comparison = compared(Method.YARN, 4, "worse", "mean_loss_beyond", 0.1, (0.05, 0.15), 9)
    with_study = replace(measured_here, comparisons=(comparison,))
    path = str(ROOT / "models" / "passkey-Q8_0.gguf")
    asked = ["plan", path, "--target", "1024"]
    assert "recommended" not in CliRunner().invoke(cli, asked).stdout
    monkeypatch.setattr(records, "_KNOWN", (with_study,))
    told = CliRunner().invoke(cli, asked).stdout
    assert "recommended by what was measured on passkey-Q8_0.gguf at factor 4: yarn" in told
    assert "\n  gamma is worse by mean loss beyond the training length against yarn" in told
    shown = json.loads(CliRunner().invoke(cli, [*asked, "--json"]).stdout)
    said = [each["recommended"]["methods"] for each in shown["plans"]]
    assert said == [["yarn"]] * len(shown["plans"])
