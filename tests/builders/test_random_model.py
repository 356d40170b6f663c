"""Random models: quantized, deterministic, loadable, laid out like real files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, ReaderField
from gguf.quants import dequantize

from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings
from llama_here import needs_llama_cpp
from observed import logits_array
from random_architectures import ARCHITECTURES
from random_model import (
    FILE_TYPES,
    MetadataValue,
    Typed,
    main,
    parse_size,
    random_vocabulary,
    write_random_model,
)

if TYPE_CHECKING:
    from pathlib import Path

every_architecture = pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))


def keys(path: Path) -> dict[str, ReaderField]:
    fields = GGUFReader(path).fields
    return {name: field for name, field in fields.items() if not name.startswith("GGUF.")}


@every_architecture
@pytest.mark.parametrize("type_name", ["Q4_0", "Q8_0"])
def test_llama_cpp_gives_finite_logits_that_depend_on_the_context(
    tmp_path: Path, architecture: str, type_name: str
) -> None:
    needs_llama_cpp()
    path = write_random_model(tmp_path / "model.gguf", architecture, type=type_name)
    settings = ContextSettings(n_ctx=256)
    one, other = (
        logits_array(observe(path, tokens=(first, *range(2, 40)), settings=settings))[-1]
        for first in (0, 1)
    )
    assert np.isfinite(one).all()
    assert np.std(one) == pytest.approx(1.0, abs=0.3)
    assert np.abs(one - other).max() > 0.01


@pytest.mark.parametrize("type_name", sorted(FILE_TYPES))
def test_matrices_have_the_wanted_type_and_scale(tmp_path: Path, type_name: str) -> None:
    path = write_random_model(tmp_path / "model.gguf", type=type_name)
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    matrix, norm = tensors["blk.1.ffn_down.weight"], tensors["blk.1.ffn_norm.weight"]
    assert matrix.tensor_type.name == type_name
    assert norm.tensor_type is GGMLQuantizationType.F32
    values = dequantize(matrix.data, matrix.tensor_type)
    rows = ARCHITECTURES["llama"].geometry
    assert values.shape == (rows.embedding, rows.feed_forward)
    assert np.std(values) == pytest.approx(rows.feed_forward**-0.5, rel=0.05)


@every_architecture
def test_same_arguments_give_the_same_bytes(tmp_path: Path, architecture: str) -> None:
    one = write_random_model(tmp_path / "one.gguf", architecture).read_bytes()
    two = write_random_model(tmp_path / "two.gguf", architecture).read_bytes()
    assert one == two


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    one = GGUFReader(write_random_model(tmp_path / "one.gguf", seed=1)).tensors
    two = GGUFReader(write_random_model(tmp_path / "two.gguf", seed=2)).tensors
    assert [each.name for each in one] == [each.name for each in two]
    equal = [a.name for a, b in zip(one, two, strict=True) if np.array_equal(a.data, b.data)]
    assert equal == []


def test_metadata_does_not_touch_the_weights(tmp_path: Path) -> None:
    plain = write_random_model(tmp_path / "plain.gguf")
    changed = write_random_model(tmp_path / "changed.gguf", metadata={"llama.rope.freq_base": 5e5})
    size = sum(tensor.n_bytes for tensor in GGUFReader(plain).tensors)
    assert plain.read_bytes()[-size:] == changed.read_bytes()[-size:]


@every_architecture
def test_model_keys_lie_before_the_tokenizer(tmp_path: Path, architecture: str) -> None:
    fields = keys(write_random_model(tmp_path / "model.gguf", architecture))
    names = list(fields)
    first_array = names.index("tokenizer.ggml.tokens")
    assert all(not name.startswith(architecture) for name in names[first_array:])
    assert fields["tokenizer.ggml.tokens"].offset < 1500


def test_metadata_replaces_in_place_adds_and_leaves_out(tmp_path: Path) -> None:
    before = list(keys(write_random_model(tmp_path / "before.gguf")))
    changes: dict[str, MetadataValue] = {
        "llama.rope.freq_base": 5e5,
        "llama.rope.scaling.type": "yarn",
        "llama.attention.head_count_kv": None,
    }
    after = keys(write_random_model(tmp_path / "after.gguf", metadata=changes))
    expected = [name for name in before if name != "llama.attention.head_count_kv"]
    expected.insert(expected.index("tokenizer.ggml.model"), "llama.rope.scaling.type")
    assert list(after) == expected
    assert after["llama.rope.freq_base"].contents() == 5e5
    assert after["llama.rope.scaling.type"].contents() == "yarn"


def test_trailing_metadata_lies_behind_the_tokenizer(tmp_path: Path) -> None:
    trailing = {"llama.rope.scaling.factor": 4.0}
    names = list(keys(write_random_model(tmp_path / "model.gguf", trailing_metadata=trailing)))
    assert names[-1] == "llama.rope.scaling.factor"


@pytest.mark.parametrize(
    ("value", "types"),
    [
        (7, [GGUFValueType.UINT32]),
        (-7, [GGUFValueType.INT32]),
        (True, [GGUFValueType.BOOL]),
        (0.5, [GGUFValueType.FLOAT32]),
        ("text", [GGUFValueType.STRING]),
        ([True, False], [GGUFValueType.ARRAY, GGUFValueType.BOOL]),
        (Typed(7, GGUFValueType.UINT64), [GGUFValueType.UINT64]),
        (
            Typed((7,), GGUFValueType.ARRAY, GGUFValueType.INT64),
            [GGUFValueType.ARRAY, GGUFValueType.INT64],
        ),
    ],
)
def test_values_have_the_type_of_their_python_type_or_the_one_they_name(
    tmp_path: Path, value: MetadataValue, types: list[GGUFValueType]
) -> None:
    path = write_random_model(tmp_path / "model.gguf", metadata={"x.y": value})
    assert keys(path)["x.y"].types == types


@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_tensors_keep_the_alignment(tmp_path: Path, alignment: int) -> None:
    metadata = {"general.alignment": alignment}
    path = write_random_model(tmp_path / "model.gguf", type="Q5_0", metadata=metadata)
    offsets = [tensor.data_offset for tensor in GGUFReader(path).tensors]
    assert {offset % alignment for offset in offsets} == {0}
    assert path.stat().st_size % alignment == 0


def test_further_tensors_stand_last(tmp_path: Path) -> None:
    factors = np.linspace(1, 8, 16, dtype=np.float32)
    path = write_random_model(tmp_path / "model.gguf", tensors={"rope_freqs.weight": factors})
    last = GGUFReader(path).tensors[-1]
    assert last.name == "rope_freqs.weight"
    assert last.data.tolist() == factors.tolist()


@pytest.mark.parametrize("megabytes", [32, 96])
def test_size_is_met_within_half_a_layer(tmp_path: Path, megabytes: int) -> None:
    path = write_random_model(tmp_path / "model.gguf", type="Q4_0", size=megabytes << 20)
    sizes = {tensor.name: int(tensor.n_bytes) for tensor in GGUFReader(path).tensors}
    layer = sum(size for name, size in sizes.items() if name.startswith("blk.0."))
    assert sum(sizes.values()) == pytest.approx(megabytes << 20, abs=layer / 2)
    # Written out: a benchmark of copying must not meet holes.
    assert path.stat().st_blocks * 512 >= sum(sizes.values())


def test_vocabulary_of_128k_tokens_weighs_what_a_real_one_does() -> None:
    vocabulary = random_vocabulary(128_256)
    assert len(set(vocabulary.tokens)) == 128_256
    assert len(set(vocabulary.merges)) == pytest.approx(280_147, rel=0.01)
    texts = (*vocabulary.tokens, *vocabulary.merges)
    stored = sum(8 + len(text.encode()) for text in texts) + 4 * len(vocabulary.types)
    assert stored == pytest.approx(7_818_140, rel=0.02)


def test_every_merge_builds_a_token() -> None:
    vocabulary = random_vocabulary(2_000)
    assert {merge.replace(" ", "") for merge in vocabulary.merges} <= set(vocabulary.tokens)


def test_vocabulary_needs_room_for_bytes_one_merge_and_two_control_tokens() -> None:
    assert len(random_vocabulary(259).merges) == 1
    with pytest.raises(ValueError, match="at least 259"):
        random_vocabulary(258)


def test_command_line_writes_what_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.gguf"
    options = ["--architecture", "qwen3", "--layers", "3", "--type", "Q4_0", "--vocabulary", "300"]
    assert main([str(path), *options]) == 0
    fields = keys(path)
    assert fields["qwen3.block_count"].contents() == 3
    assert len(fields["tokenizer.ggml.tokens"].data) == 300
    assert f"{path.stat().st_size:,} bytes" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "size"), [("4G", 4 << 30), ("1.5m", 3 << 19), ("4096", 4096)])
def test_sizes_are_read_in_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size
