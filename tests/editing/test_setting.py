"""Keys set and deleted in files: what they hold then, what stays, and how it is taken back."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_bytes import (
    F32,
    SMALLEST_LLAMA,
    SMALLEST_TENSORS,
    U32,
    Array,
    Tensor,
    gguf_bytes,
)
from ggufext.editing.rewrite import rewrite, undo
from ggufext.editing.setting import set_keys
from ggufext.errors import EditError, GgufextError
from ggufext.header.frequencies import inverse_frequencies, llama3_factors
from ggufext.header.header import ValueType, read_header
from ggufext.opened import strategies
from ggufext.opened.inspection import inspect
from ggufext.opened.model import facts_of
from ggufext.opened.patch import GAP_KEY
from ggufext.opened.strategies import Strategy
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from random_model import write_random_model
from split_model import split_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}" * 330

#: Tokens with texts, of which two stand for bytes.
WORDS = ["<unk>", "<s>", "</s>", "<0x0A>", "<0x0B>", *(f"word{i}" for i in range(395))]
VOCABULARY: dict[str, object] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": WORDS,
    "tokenizer.ggml.scores": [0.5] * 400,
    "tokenizer.ggml.token_type": Array(5, [1] * 400),
    "tokenizer.ggml.merges": ["w ord"],
    "tokenizer.ggml.eos_token_id": U32(2),
    "tokenizer.chat_template": "old",
}


def model_file(path: Path, keys: dict[str, object] | None = None) -> Path:
    path.write_bytes(gguf_bytes({**SMALLEST_LLAMA, **(keys or {})}, SMALLEST_TENSORS))
    return path


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """The smallest model with texts for its tokens."""
    return model_file(tmp_path / "words.gguf", VOCABULARY)


def value(path: Path, key: str) -> object:
    return read_header(path).value(key)


def refusal(path: Path, values: dict[str, Any], **how: Any) -> EditError:
    """Why keys are not set; nothing was written."""
    content, names = path.read_bytes(), set(path.parent.iterdir())
    with pytest.raises(EditError) as caught:
        set_keys(path, values, **how)
    assert path.read_bytes() == content
    assert set(path.parent.iterdir()) == names
    return caught.value


def test_several_edits_are_one_and_are_taken_back_to_the_byte(words: Path) -> None:
    original = words.read_bytes()
    done = set_keys(
        words,
        {"tokenizer.chat_template": TEMPLATE, "my.list:u16[]": [1, 2], "general.name": "new"},
        delete=("tokenizer.ggml.eos_token_id",),
    )
    assert done.receipt.undo is not None
    assert value(words, "tokenizer.chat_template") == TEMPLATE
    assert value(words, "my.list") == (1, 2)
    assert "tokenizer.ggml.eos_token_id" not in read_header(words).keys
    assert [(each.key, each.before is None, each.after is None) for each in done.changes] == [
        ("tokenizer.chat_template", False, False),
        ("my.list", True, False),
        ("general.name", True, False),
        ("tokenizer.ggml.eos_token_id", False, True),
    ]
    undo(words)
    assert words.read_bytes() == original


def test_a_key_keeps_its_type_and_another_one_can_be_said(llama: Path) -> None:
    set_keys(llama, {"general.quantized:u8": 1, "llama.context_length": "4096"})
    set_keys(llama, {"general.quantized": "7"})
    header = read_header(llama)
    assert header.keys["general.quantized"].type is ValueType.UINT8
    assert header.keys["llama.context_length"].type is ValueType.UINT32
    set_keys(llama, {"general.quantized:str": "seven"})
    assert value(llama, "general.quantized") == "seven"


@pytest.mark.parametrize(
    ("key", "given_value", "kind"),
    [
        ("llama.rope.freq_base", 20000, ValueType.FLOAT32),
        ("llama.rope.scaling.type", "none", ValueType.STRING),
        ("llama.expert_weights_scale", 1.5, None),
        ("tokenizer.chat_template", "new", ValueType.STRING),
        ("tokenizer.ggml.add_bos_token", True, ValueType.BOOL),
        ("tokenizer.ggml.padding_token_id", 0, ValueType.UINT32),
    ],
)
def test_a_new_key_gets_the_type_that_llama_cpp_asks_for_where_that_is_known(
    llama: Path, key: str, given_value: object, kind: ValueType | None
) -> None:
    if kind is None:
        assert refusal(llama, {key: given_value}).code == "missing_key"
        return
    set_keys(llama, {key: given_value})
    assert read_header(llama).keys[key].type is kind


def test_a_value_that_is_there_already_is_not_written(llama: Path) -> None:
    before = llama.read_bytes()
    done = set_keys(llama, {"llama.block_count": 2, "llama.context_length": 2048})
    assert (done.receipt.strategy, done.changes) == (None, ())
    assert llama.read_bytes() == before


def test_a_value_of_the_same_size_is_written_where_it_stands(words: Path) -> None:
    end = read_header(words).keys["tokenizer.ggml.eos_token_id"].end
    set_keys(words, {"general.name": "x"})
    receipt = set_keys(words, {"tokenizer.ggml.eos_token_id": 1}).receipt
    assert receipt.strategy is Strategy.OVERWRITE
    assert value(words, "tokenizer.ggml.eos_token_id") == 1
    assert receipt.bytes_written < end + 4096


def test_a_text_behind_the_tokenizer_is_set_without_writing_that(tmp_path: Path) -> None:
    vocabulary = VOCABULARY | {"tokenizer.ggml.merges": [f"w o{i}" for i in range(20_000)]}
    path = model_file(tmp_path / "m.gguf", vocabulary | {"tokenizer.late": "x" * 100})
    original, arrays = path.read_bytes(), read_header(path).keys["tokenizer.ggml.tokens"].start
    receipt = set_keys(path, {"tokenizer.chat_template": TEMPLATE}).receipt
    assert receipt.bytes_written < arrays + len(TEMPLATE) + 8192
    header = read_header(path)
    assert header.value("tokenizer.chat_template") == TEMPLATE
    assert set(str(header.value(GAP_KEY))) <= {" "}
    # There is one gap: a second text has all written that stands before it.
    set_keys(path, {"tokenizer.late": "y" * 50, "tokenizer.chat_template": TEMPLATE * 2})
    assert value(path, "tokenizer.late") == "y" * 50
    output = path.with_name("new.gguf")
    set_keys(path, {"general.name": "new"}, output=output, keep_history=False)
    assert not [key for key in read_header(output).keys if key.startswith("ggufext")]
    undo(path)
    assert path.read_bytes() == original


@pytest.mark.parametrize("method", [Method.YARN, Method.LLAMA3], ids=lambda m: m.value)
def test_a_gap_and_an_extension_go_together(tmp_path: Path, method: Method) -> None:
    path = model_file(tmp_path / "m.gguf", VOCABULARY)
    original = path.read_bytes()
    for _ in range(2):
        set_keys(path, {"tokenizer.chat_template": TEMPLATE})
        rewrite(path, PlanRequest(target_length=4096, method=method))
        set_keys(path, {}, delete=("tokenizer.chat_template",))
        rewrite(path, PlanRequest(target_length=8192, method=Method.GAMMA))
        undo(path)
        assert path.read_bytes() == original


def test_dry_run_writes_nothing_and_says_what_would_be(llama: Path) -> None:
    before = llama.read_bytes()
    done = set_keys(llama, {"general.name": "new"}, dry_run=True)
    assert done.receipt.ranges
    assert [each.key for each in done.changes] == ["general.name"]
    assert llama.read_bytes() == before


def test_output_leaves_the_source_alone_and_can_be_undone(llama: Path) -> None:
    source, output = llama.read_bytes(), llama.with_name("new.gguf")
    set_keys(llama, {"general.name": "new"}, output=output)
    assert llama.read_bytes() == source
    assert value(output, "general.name") == "new"
    undo(output)
    assert output.read_bytes() == source


def test_without_history_a_new_file_carries_no_trace(llama: Path) -> None:
    output = llama.with_name("new.gguf")
    receipt = set_keys(llama, {"general.name": "n"}, output=output, keep_history=False).receipt
    assert receipt.undo is None
    assert not [key for key in read_header(output).keys if key.startswith("ggufext")]


def test_a_text_is_taken_from_a_file_to_the_last_byte(llama: Path, tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_bytes("é\r\n last line\n".encode())
    set_keys(llama, {"tokenizer.chat_template": file})
    assert value(llama, "tokenizer.chat_template") == "é\r\n last line\n"
    file.write_text(" [1, 2]\n", encoding="utf-8")
    set_keys(llama, {"my.list:u8[]": file})
    assert value(llama, "my.list") == (1, 2)


# Records of an extension and of keys that were set


def test_an_extension_stays_when_keys_are_set_and_the_reverse(llama: Path) -> None:
    original = llama.read_bytes()
    rewrite(llama, PlanRequest(target_length=8192, method=Method.YARN))
    set_keys(llama, {"general.name": "new"})
    assert value(llama, "llama.context_length") == 8192
    found = inspect(llama).history
    assert found is not None
    assert (found.method, found.target_length, found.set_keys) == ("yarn", 8192, ("general.name",))
    rewrite(llama, PlanRequest(target_length=4096, method=Method.LINEAR))
    assert value(llama, "general.name") == "new"
    found = inspect(llama).history
    assert found is not None
    assert (found.method, found.set_keys) == ("linear", ("general.name",))
    undo(llama)
    assert llama.read_bytes() == original
    with pytest.raises(EditError) as caught:
        undo(llama)
    assert caught.value.code == "nothing_to_undo"


def test_undo_takes_everything_back_that_was_set_twice(llama: Path) -> None:
    original = llama.read_bytes()
    for name in ("one", "two" * 5000, "three"):
        set_keys(llama, {"general.name": name, "a.key:str": name})
    set_keys(llama, {}, delete=("a.key",))
    found = inspect(llama).history
    assert found is not None
    assert (found.method, found.set_keys) == (None, ("general.name",))
    undo(llama)
    assert llama.read_bytes() == original


@pytest.mark.parametrize(
    "method", [Method.GAMMA, Method.YARN, Method.LLAMA3], ids=lambda m: m.value
)
def test_a_plan_starts_from_the_rotation_that_was_set(llama: Path, method: Method) -> None:
    original = llama.read_bytes()
    set_keys(llama, {"llama.rope.freq_base": 50_000.0, "llama.context_length": 1024})
    expected = rewrite(
        llama, PlanRequest(target_length=4096, method=method), output=llama.with_name("x.gguf")
    ).plan
    assert (expected.train_length.value, expected.freq_base.before) == (1024, 50_000.0)
    for _ in range(2):
        rewrite(llama, PlanRequest(target_length=8192, method=Method.YARN))
        made = rewrite(llama, PlanRequest(target_length=4096, method=method)).plan
        assert (made.train_length.value, made.freq_base.before) == (1024, 50_000.0)
    set_keys(llama, {"general.name": "new"})
    assert facts_of(llama).freq_base == 50_000.0
    found = inspect(llama).history
    assert found is not None
    assert found.set_keys == ("general.name", "llama.context_length", "llama.rope.freq_base")
    undo(llama)
    assert llama.read_bytes() == original


def test_what_a_plan_no_longer_writes_goes_back_to_what_was_set(llama: Path) -> None:
    set_keys(llama, {"llama.rope.scaling.type": "none", "llama.rope.freq_base": 50_000.0})
    rewrite(llama, PlanRequest(target_length=8192, method=Method.GAMMA))
    assert value(llama, "llama.rope.freq_base") != 50_000.0
    rewrite(llama, PlanRequest(target_length=8192, method=Method.YARN))
    assert value(llama, "llama.rope.freq_base") == 50_000.0


def test_keys_of_an_extension_are_left_to_rewrite(llama: Path) -> None:
    rewrite(llama, PlanRequest(target_length=8192))
    error = refusal(llama, {"llama.rope.freq_base": 1000.0})
    assert error.code == "fixed_key"
    assert "8,192" in error.message
    assert "ggufext undo" in error.message
    assert refusal(llama, {}, delete=("llama.context_length",)).code == "fixed_key"


def test_tensors_of_an_extension_stay(tmp_path: Path) -> None:
    native = llama3_factors(inverse_frequencies(10_000.0, 32), 4.0, 512)
    factors = {"rope_freqs.weight": np.array(native, dtype=np.float32)}
    path = write_random_model(tmp_path / "m.gguf", tensors=factors)
    plain = write_random_model(tmp_path / "plain.gguf")
    for each in (path, plain):
        original = each.read_bytes()
        rewrite(each, PlanRequest(target_length=8192, method=Method.LLAMA3))
        factors_before = facts_of(each).factors, read_header(each).tensors[-1].name
        set_keys(each, {"general.name": "x" * 9000})
        assert (facts_of(each).factors, read_header(each).tensors[-1].name) == factors_before
        undo(each)
        assert each.read_bytes() == original


def test_a_copied_extension_is_still_planned_from_before_after_a_key_was_set(llama: Path) -> None:
    rewrite(llama, PlanRequest(target_length=8192, method=Method.YARN))
    renamed = llama.read_bytes().replace(b"general.name", b"general.NAME")
    llama.write_bytes(renamed)  # as another program copies it: the record does not fit any more
    before = facts_of(llama)
    assert before.earlier_extension is not None
    assert refusal(llama, {"llama.context_length": 4096}).code == "fixed_key"
    set_keys(llama, {"general.description:str": "x"})
    assert facts_of(llama) == before
    assert rewrite(llama, PlanRequest(target_length=4096)).plan.train_length.value == 2048
    undo(llama)
    assert llama.read_bytes() == renamed


def test_the_record_lies_beside_a_file_that_cannot_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategies, "insert_block", lambda *_: None)
    path = model_file(tmp_path / "m.gguf", {"general.name": "old", "x": F32(1.0)})
    original = path.read_bytes()
    receipt = set_keys(path, {"general.name": "new", "x": 2.0}).receipt
    assert receipt.strategy is Strategy.OVERWRITE
    found = inspect(path).history
    assert found is not None
    assert found.set_keys == ("general.name", "x")
    undo(path)
    assert path.read_bytes() == original


@pytest.mark.parametrize("metadata_first", [False, True])
def test_a_split_model_is_set_in_its_first_part(llama: Path, metadata_first: bool) -> None:
    parts = split_model(llama, llama.with_name("split"), parts=3, metadata_first=metadata_first)
    original = [part.read_bytes() for part in parts]
    set_keys(parts[2], {"general.name": "x" * 5000})
    assert value(parts[0], "general.name") == "x" * 5000
    assert [part.read_bytes() for part in parts[1:]] == original[1:]
    assert refusal(parts[0], {"split.count": 4}).code == "fixed_key"
    folder = llama.parent / "new"
    folder.mkdir()
    set_keys(parts[0], {"general.name": "other"}, output=folder / parts[0].name)
    assert [(folder / part.name).read_bytes() for part in parts[1:]] == original[1:]
    undo(parts[0])
    assert [part.read_bytes() for part in parts] == original


# What is refused


@pytest.mark.parametrize(
    "key",
    [
        "general.alignment:u32", "general.architecture", "general.type:str", "split.no:u16",
        "general.quantization_version:u32", "general.tensor_extra.name:str[]", "ggufext.history",
        "ggufext.anything:u8", "tokenizer.ggml.model", "adapter.type:str",
    ],
)  # fmt: skip
def test_a_key_that_the_whole_file_depends_on_stays(words: Path, key: str) -> None:
    error = refusal(words, {key: "x"}, force=True)
    assert (error.code, error.field) == ("fixed_key", key.partition(":")[0])


#: Every number of an architecture that says something of its tensors.
NUMBERS = (
    "block_count", "embedding_length", "feed_forward_length", "attention.head_count", "vocab_size",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "expert_count",
    "rope.dimension_count", "nextn_predict_layers", "leading_dense_block_count", "ssm.inner_size",
    "full_attention_interval", "expert_shared_count", "attention.shared_kv_layers", "anything",
)  # fmt: skip


@pytest.mark.parametrize("suffix", NUMBERS)
def test_a_number_that_tensors_were_made_for_stays(words: Path, suffix: str) -> None:
    assert refusal(words, {f"llama.{suffix}:u32": 4}, force=True).code == "fixed_key"
    assert refusal(words, {f"llama.{suffix}:i32[]": [4, 4]}, force=True).code == "fixed_key"


def test_a_number_of_tensors_is_not_deleted_nor_given_another_type(words: Path) -> None:
    assert refusal(words, {}, delete=("llama.block_count",)).code == "fixed_key"
    assert refusal(words, {"llama.block_count:f32": 1.0}).code == "fixed_key"


def test_rows_of_a_table_of_positions_stay(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "m.gguf", metadata={"general.architecture": "gpt2"})
    assert refusal(path, {"gpt2.context_length:u32": 4096}, force=True).code == "fixed_key"


@pytest.mark.parametrize("name", ["tokens", "scores", "token_type"])
def test_a_list_with_an_element_a_token_keeps_its_length(words: Path, name: str) -> None:
    key = f"tokenizer.ggml.{name}"
    before = read_header(words).value(key)
    assert isinstance(before, tuple)
    for wrong in ([*before, before[-1]], list(before[:-1]), []):
        assert refusal(words, {key: wrong}).code == "fixed_key"
    assert refusal(words, {}, delete=(key,)).code == "fixed_key"
    changed = [*before[:-1], "another" if name == "tokens" else 2]
    set_keys(words, {key: changed})
    assert value(words, key) == tuple(changed)


def test_a_list_that_is_new_beside_the_tokens_has_their_length(tmp_path: Path) -> None:
    keys = {k: v for k, v in VOCABULARY.items() if k != "tokenizer.ggml.scores"}
    path = model_file(tmp_path / "m.gguf", keys)
    assert refusal(path, {"tokenizer.ggml.scores": [1.0] * 399}).code == "would_not_load"
    assert refusal(path, {"tokenizer.ggml.scores:str[]": ["a"] * 400}).code == "would_not_load"
    set_keys(path, {"tokenizer.ggml.scores": [1.0] * 400})


def test_a_list_of_another_length_may_change_it(words: Path) -> None:
    set_keys(words, {"tokenizer.ggml.merges": ["w o", "o r"]})
    assert value(words, "tokenizer.ggml.merges") == ("w o", "o r")


def test_tokens_stay_different_and_keep_their_bytes(words: Path) -> None:
    twice = [*WORDS[:-1], WORDS[5]]
    error = refusal(words, {"tokenizer.ggml.tokens": twice})
    assert (error.code, "5 and 399" in error.message) == ("nonsense_value", True)
    without_newline = ["x" if word == "<0x0A>" else word for word in WORDS]
    assert refusal(words, {"tokenizer.ggml.tokens": without_newline}).code == "fixed_key"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"llama.context_length": "1.5"}, "wrong_type"),
        ({"llama.context_length": "nan"}, "wrong_type"),
        ({"llama.context_length": "inf"}, "wrong_type"),
        ({"llama.context_length": "4k"}, "wrong_type"),
        ({"llama.context_length": ""}, "wrong_type"),
        ({"llama.context_length": "٤٢"}, "wrong_type"),
        ({"llama.context_length": "9" * 5000}, "wrong_type"),
        ({"llama.context_length": 1.0}, "wrong_type"),
        ({"llama.context_length": True}, "wrong_type"),
        ({"llama.context_length": [1]}, "wrong_type"),
        ({"llama.context_length": None}, "wrong_type"),
        ({"llama.context_length": -1}, "nonsense_value"),
        ({"llama.context_length": 2**32}, "nonsense_value"),
        ({"llama.context_length": 0}, "nonsense_value"),
        ({"llama.context_length:f32": 4096}, "wrong_type"),
        ({"llama.attention.layer_norm_rms_epsilon": "nan"}, "nonsense_value"),
        ({"llama.attention.layer_norm_rms_epsilon": -1}, "nonsense_value"),
        ({"llama.attention.layer_norm_rms_epsilon:f64": 1e-5}, "would_not_load"),
        ({"llama.rope.freq_base": 0.5}, "nonsense_value"),
        ({"llama.attention.sliding_window:u32": 0}, "nonsense_value"),
        ({"llama.rope.scaling.type": "cubic"}, "nonsense_value"),
        ({"general.name:u32": 1}, "would_not_load"),
        ({"general.name": 5}, "wrong_type"),
        ({"general.name": "\udcff"}, "bad_text"),
        ({"a:str[]": ["\udcff"]}, "bad_text"),
        ({"tokenizer.ggml.eos_token_id": 400}, "nonsense_value"),
        ({"tokenizer.ggml.add_bos_token": "yes"}, "wrong_type"),
        ({"tokenizer.ggml.add_bos_token:u8": 1}, "would_not_load"),
        ({"tokenizer.ggml.pre": "no such thing"}, "would_not_load"),
        ({"a:f32": 1e39}, "nonsense_value"),
        ({"a:f64": "1e999"}, "nonsense_value"),
        ({"a:f32": 10**400}, "nonsense_value"),
        ({"a:f32[]": [float("inf")]}, "nonsense_value"),
        ({"a:u8[]": [1, 256]}, "nonsense_value"),
        ({"a:u8[]": "[1, true]"}, "wrong_type"),
        ({"a:u8[]": "[[1]]"}, "wrong_type"),
        ({"a:u8[]": "1, 2"}, "wrong_type"),
        ({"a:u8[]": '{"a": 1}'}, "wrong_type"),
        ({"a:str[]": "[1]"}, "wrong_type"),
        ({"a": 1}, "missing_key"),
        ({"a:int": 1}, "bad_value_type"),
        ({"a:": 1}, "bad_value_type"),
        ({"a:u8[][]": [1]}, "bad_value_type"),
        ({"": 1}, "empty_key"),
        ({":u8": 1}, "empty_key"),
        ({"a\0b:u8": 1}, "key_has_nul"),
        ({"general.name": "a", "general.name:str": "b"}, "duplicate_key"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_nothing_is_written(
    words: Path, values: dict[str, Any], code: str
) -> None:
    with pytest.raises(GgufextError) as caught:
        set_keys(words, values)
    assert caught.value.code == code
    assert words.read_bytes() == gguf_bytes({**SMALLEST_LLAMA, **VOCABULARY}, SMALLEST_TENSORS)
    assert list(words.parent.iterdir()) == [words]


def test_a_key_that_is_not_there_or_is_needed_is_not_deleted(words: Path) -> None:
    assert refusal(words, {}, delete=("general.name",)).code == "missing_key"
    assert refusal(words, {}, delete=("llama.context_length",)).code == "missing_key"
    epsilon = "llama.attention.layer_norm_rms_epsilon"
    assert refusal(words, {}, delete=(epsilon,)).code == "would_not_load"
    twice = {"tokenizer.chat_template": "x"}
    assert refusal(words, twice, delete=("tokenizer.chat_template",)).code == "duplicate_key"


def test_a_file_of_a_text_that_is_none_is_named(words: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jinja"
    bad.write_bytes(b"fine \xff")
    error = refusal(words, {"tokenizer.chat_template": bad})
    assert (error.code, error.path, error.offset) == ("bad_text", bad, 5)
    absent = refusal(words, {"tokenizer.chat_template": tmp_path / "absent"})
    assert (absent.code, absent.path) == ("unreadable", tmp_path / "absent")


def test_an_unknown_pre_tokenizer_can_be_forced_and_a_known_one_need_not(words: Path) -> None:
    set_keys(words, {"tokenizer.ggml.pre": "llama-bpe"})
    set_keys(words, {"tokenizer.ggml.pre": "of a later version"}, force=True)


def test_keys_of_an_architecture_that_is_not_verified_are_forced_only(tmp_path: Path) -> None:
    keys = {"general.architecture": "clip", "clip.use_gelu": True, "general.name": "old"}
    path = tmp_path / "mmproj.gguf"
    path.write_bytes(gguf_bytes(keys, [Tensor("v.weight", (32,))]))
    original = path.read_bytes()
    assert refusal(path, {"clip.use_gelu": False}).code == "unverified_architecture"
    set_keys(path, {"clip.use_gelu": False}, force=True)
    set_keys(path, {"general.name": "new"})
    undo(path)
    assert path.read_bytes() == original


def test_two_faults_of_a_file_are_mended_in_one_edit(tmp_path: Path) -> None:
    broken = {"llama.context_length": U32(0), "llama.rope.scaling.type": "cubic"}
    path = model_file(tmp_path / "m.gguf", broken)
    assert refusal(path, {"general.name": "x"}).code == "nonsense_value"
    set_keys(path, {"llama.context_length": 2048, "llama.rope.scaling.type": "none"})
    assert facts_of(path).context_length == 2048


# Any values

FORMATS = {
    "u8": "<B", "i8": "<b", "u16": "<H", "i16": "<h", "u32": "<I", "i32": "<i", "u64": "<Q",
    "i64": "<q",
}  # fmt: skip


def _of_type(name: str) -> st.SearchStrategy[Any]:
    if name in FORMATS:
        bits = 8 * struct.calcsize(FORMATS[name])
        low = 0 if name[0] == "u" else -(2 ** (bits - 1))
        return st.integers(low, low + 2**bits - 1)
    return {
        "f32": st.floats(width=32, allow_nan=False, allow_infinity=False),
        "f64": st.floats(allow_nan=False, allow_infinity=False),
        "bool": st.booleans(),
        "str": st.text(max_size=300),
    }[name]


@st.composite
def typed_values(draw: Callable[[Any], Any]) -> tuple[str, Any]:
    name = draw(st.sampled_from([*FORMATS, "f32", "f64", "bool", "str"]))
    if draw(st.booleans()):
        return f"{name}[]", draw(st.lists(_of_type(name), max_size=50))
    return name, draw(_of_type(name))


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0:"), min_size=1, max_size=30)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    first=st.dictionaries(KEYS.map("x.{}".format), typed_values(), min_size=1, max_size=4),
    second=st.dictionaries(KEYS.map("x.{}".format), typed_values(), max_size=4),
    late=st.booleans(),
    data=st.data(),
)
def test_any_values_are_read_back_and_undone_to_the_byte(
    tmp_path: Path,
    first: dict[str, tuple[str, Any]],
    second: dict[str, tuple[str, Any]],
    late: bool,
    data: st.DataObject,
) -> None:
    path = model_file(tmp_path / "any.gguf", VOCABULARY if late else None)
    original = path.read_bytes()
    alone = sorted(set(first) - set(second))
    gone = tuple(data.draw(st.lists(st.sampled_from(alone), unique=True))) if alone else ()
    set_keys(path, {f"{key}:{kind}": made for key, (kind, made) in first.items()})
    set_keys(path, {f"{key}:{kind}": made for key, (kind, made) in second.items()}, delete=gone)
    header = read_header(path)
    for key, (kind, made) in {**first, **second}.items():
        if key not in gone:
            wanted = tuple(made) if kind.endswith("[]") else made
            assert header.value(key) == wanted
    assert not set(gone) & set(header.keys)
    undo(path)
    assert path.read_bytes() == original
