"""Real measurements: conditions, groups of layers, texts, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ggufext.attention.measure import measure
from ggufext.attention.request import MeasureRequest
from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.editing.rewrite import rewrite
from ggufext.errors import EngineError, GgufextError
from ggufext.planning.gamma import gamma_pade
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from llama_here import needs_llama_cpp
from random_model import write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ggufext.attention.results import LayerGroup, MeasureResult

needs_llama_cpp()

REQUEST = MeasureRequest(length=256)


def only_group(result: MeasureResult, condition: int = 0) -> LayerGroup:
    (group,) = result.conditions[condition].groups
    return group


def refusal(path: Path, request: MeasureRequest, **how: Any) -> GgufextError:
    with pytest.raises(GgufextError) as refused:
        measure(path, request, **how)
    return refused.value


def test_attention_of_every_layer_and_head_is_measured(measured: MeasureResult) -> None:
    assert measured.run.complete
    assert [condition.name for condition in measured.conditions] == ["file", "planned:gamma"]
    assert measured.request.distance == 160
    group = only_group(measured)
    assert group.edges[-1] == 161
    assert [layer.layer for layer in group.layers] == [0, 1, 2, 3]
    assert {len(layer.heads) for layer in group.layers} == {4}
    widths = [b - a for a, b in zip(group.edges, group.edges[1:], strict=False)]
    for curve in (group.curve, *(head for layer in group.layers for head in layer.heads)):
        inside = sum(a * w for a, w in zip(curve.attention, widths, strict=True))
        # A softmax is whole: every share of it is in one of the fields.
        assert inside + curve.itself + curve.beyond + curve.sink == pytest.approx(1, abs=1e-4)


def test_the_formula_is_that_of_what_each_condition_rotates_with(measured: MeasureResult) -> None:
    assert only_group(measured).gamma_pade == pytest.approx(gamma_pade(500, 320))
    assert only_group(measured, 1).gamma_pade == pytest.approx(gamma_pade(2000, 320))


def test_conditions_read_the_same_text_and_attend_differently(measured: MeasureResult) -> None:
    one, two = only_group(measured), only_group(measured, 1)
    assert one.edges == two.edges
    assert one.curve.attention != two.curve.attention


@pytest.mark.parametrize("method", ["linear", "yarn"])
def test_scaled_angles_count_as_a_shorter_text(method: str, passkey_model: Path) -> None:
    request = replace(REQUEST, conditions=(f"planned:{method}",), target_length=1024)
    assert only_group(measure(passkey_model, request)).gamma_pade == pytest.approx(
        gamma_pade(500, 64)
    )


def test_no_formula_is_given_with_factors(passkey_model: Path) -> None:
    request = replace(REQUEST, conditions=("planned:llama3",), target_length=1024)
    assert only_group(measure(passkey_model, request, allow_copy=lambda _: True)).gamma_pade is None


@pytest.mark.parametrize("length", [256, 512])
def test_a_copy_that_keeps_short_contexts_is_native_up_to_the_training_length(
    length: int, passkey_model: Path
) -> None:
    conditions = ("file", "planned:ntk+keep-short")
    request = MeasureRequest(length=length, conditions=conditions, target_length=1024)
    result = measure(passkey_model, request, allow_copy=lambda _: True)
    native, kept = only_group(result), only_group(result, 1)
    assert (kept.curve.attention == native.curve.attention) == (length == 256)


def test_native_of_a_rewritten_file_is_the_original(
    passkey_model: Path, passkey_copy: Path
) -> None:
    rewrite(passkey_copy, PlanRequest(target_length=1024, method=Method.YARN))
    native = measure(passkey_copy, replace(REQUEST, conditions=("native",)))
    assert only_group(native) == only_group(measure(passkey_model, REQUEST))


def test_a_run_is_repeatable_and_the_seed_changes_the_text(passkey_model: Path) -> None:
    found = [measure(passkey_model, replace(REQUEST, seed=seed)).conditions for seed in (3, 3, 4)]
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_without_a_length_it_is_the_training_length(passkey_model: Path) -> None:
    result = measure(passkey_model, MeasureRequest())
    assert (result.request.length, result.request.distance) == (256, 128)
    assert result.run.rows[-1] == 255


def test_local_layers_are_a_group_of_their_own(tmp_path: Path) -> None:
    path = write_random_model(
        tmp_path / "gemma3.gguf", "gemma3", metadata={"gemma3.attention.sliding_window": 64}
    )
    (condition,) = measure(path, MeasureRequest(length=512)).conditions
    found = {group.window: group for group in condition.groups}
    assert list(found) == [None, 64]
    local, far = found[64], found[None]
    assert [layer.layer for layer in local.layers] == [0, 1, 2, 3, 4]
    assert [layer.layer for layer in far.layers] == [5]
    assert (local.edges[-1], far.edges[-1]) == (64, 257)
    # The farthest token that a window holds is seen, none behind it.
    assert local.curve.attention[-1] > 0
    assert (local.curve.beyond, local.curve.sink) == (0, 0)
    assert local.gamma_pade != far.gamma_pade
    assert far.gamma_pade == pytest.approx(gamma_pade(1_000_000, 512))


def test_layers_without_rotation_are_a_group_without_a_formula(
    random_models: Callable[[str], Path],
) -> None:
    (condition,) = measure(random_models("smollm3"), MeasureRequest(length=128)).conditions
    rotating, others = condition.groups
    assert (rotating.rotates, others.rotates) == (True, False)
    assert [layer.layer for layer in others.layers] == [3]
    assert rotating.gamma_pade == pytest.approx(gamma_pade(50_000, 128))
    assert others.gamma_pade is None


def test_recurrent_layers_are_named_as_unseen(random_models: Callable[[str], Path]) -> None:
    (condition,) = measure(random_models("lfm2"), MeasureRequest(length=128)).conditions
    assert [layer.layer for group in condition.groups for layer in group.layers] == [1]
    assert condition.unseen == (0, 2)


def test_a_text_of_the_user_is_read(passkey_model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n The cat sat near the old door." * 60, encoding="utf-8")
    once = measure(passkey_model, replace(REQUEST, text=text)).conditions
    assert once != measure(passkey_model, REQUEST).conditions
    # What stands behind the length is not read.
    text.write_text("\n The cat sat near the old door." * 60 + " A dog." * 999, encoding="utf-8")
    assert once == measure(passkey_model, replace(REQUEST, text=text)).conditions


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"The cat sat. " * 5, "text_too_short", "holds 20 tokens of this model, and 256 are read"),
        (b"", "bad_text", "is empty"),
        (b"The caf\xe9 sat. " * 500, "bad_text", "is not UTF-8"),
    ],
)
def test_a_text_that_cannot_be_read_to_the_length_is_refused(
    content: bytes, code: str, message: str, passkey_model: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(content)
    refused = refusal(passkey_model, replace(REQUEST, text=text))
    assert (refused.code, refused.path) == (code, text)
    assert message in refused.message


def test_a_text_that_is_not_there_is_named(passkey_model: Path, tmp_path: Path) -> None:
    refused = refusal(passkey_model, replace(REQUEST, text=tmp_path / "absent.txt"))
    assert (refused.code, refused.path) == ("unreadable", tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"conditions": ("self-extend:g=2,w=64",)}, "bad_condition", "Self-Extend moves positions"),
        ({"conditions": ("planned:magic",)}, "bad_condition", "the methods are"),
        ({"conditions": ("planned:gamma",)}, "request_absurd", "say with --target how far"),
        ({"conditions": ("planned:llama3",), "target_length": 512}, "copy_not_allowed", "--yes"),
        ({"distance": 240}, "request_absurd", "distances go from 1 to 235"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    changes: dict[str, Any], code: str, message: str, passkey_model: Path
) -> None:
    refused = refusal(passkey_model, replace(REQUEST, **changes))
    assert refused.code == code
    assert message in refused.message


def test_a_length_beyond_memory_is_refused_with_one_that_fits(
    passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = LlamaCpp.__init__

    def with_little_memory(engine: LlamaCpp, *args: Any, **how: Any) -> None:
        begin(engine, *args, **how)
        engine.hello = replace(engine.hello, available=100 << 20)

    monkeypatch.setattr(LlamaCpp, "__init__", with_little_memory)
    refused = refusal(passkey_model, MeasureRequest(length=65_536))
    assert refused.code == "out_of_memory"
    assert "length 65,536 does not fit" in refused.message
    assert "--length 8192 fits" in refused.message
    assert measure(passkey_model, MeasureRequest(length=8192, rows=16)).run.memory_plan.steps


def test_a_model_that_shows_no_softmax_is_refused_by_name(
    passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaCpp, "attention", lambda *_, **__: iter([(256, [], b"")]))
    refused = refusal(passkey_model, REQUEST)
    assert refused.code == "no_attention"
    assert "no softmax" in refused.message


def test_an_embedding_model_is_refused(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "m.gguf", metadata={"llama.pooling_type": 1})
    assert refusal(path, REQUEST).code == "cannot_be_audited"


def stopping(monkeypatch: pytest.MonkeyPatch, error: BaseException, after: int) -> None:
    """Let so many conditions be measured, and the next one raise."""
    read, opened = LlamaCpp.attention, iter(range(99))

    def attention(engine: LlamaCpp, *args: Any, **how: Any) -> Iterator[Any]:
        if next(opened) == after:
            raise error
        yield from read(engine, *args, **how)

    monkeypatch.setattr(LlamaCpp, "attention", attention)


STOPS: dict[str, BaseException] = {
    "interrupted": KeyboardInterrupt(),
    "engine_died": EngineError(code="engine_died", message="ended by a test"),
}


@pytest.mark.parametrize("code", STOPS)
def test_conditions_that_were_measured_survive_the_end_of_a_run(
    code: str, passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping(monkeypatch, STOPS[code], after=1)
    request = replace(REQUEST, conditions=("file", "planned:yarn"), target_length=1024)
    result = measure(passkey_model, request)
    assert [condition.name for condition in result.conditions] == ["file"]
    assert not result.run.complete
    assert result.run.stop is not None
    assert result.run.stop.code == code


@pytest.mark.parametrize("code", STOPS)
def test_a_run_that_ends_before_its_first_condition_has_no_result(
    code: str, passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping(monkeypatch, STOPS[code], after=0)
    with pytest.raises(type(STOPS[code])):
        measure(passkey_model, REQUEST)


def test_progress_counts_the_tokens_of_all_conditions(passkey_model: Path) -> None:
    said: list[tuple[str, int, int]] = []
    request = replace(REQUEST, length=1024, conditions=("file", "planned:yarn"), target_length=2048)
    measure(
        passkey_model,
        request,
        notify=lambda event: said.append((event.condition, event.tokens, event.total)),
    )
    end = said[1][1]
    assert said == [
        ("file", 512, 2 * end),
        ("file", end, 2 * end),
        ("planned:yarn", end + 512, 2 * end),
        ("planned:yarn", 2 * end, 2 * end),
    ]
