"""What llama.cpp demands of a file before it loads it, and what is not judged."""

from __future__ import annotations

import pytest

from gguf_bytes import F32, SMALLEST_LLAMA, SMALLEST_TENSORS, U16, U32, Tensor, gguf_bytes
from ggufext.errors import HeaderError
from ggufext.header.facts import model_facts
from ggufext.header.header import parse_header
from ggufext.header.lint import lint
from ggufext.header.loading import refuse_unloadable


def refusal(
    keys: dict[str, object] | None = None,
    *,
    without: str | None = None,
    added: tuple[Tensor, ...] = (),
) -> HeaderError | None:
    """Why the smallest llama, so changed, would not load."""
    found: HeaderError | None = None
    tensors = (*(each for each in SMALLEST_TENSORS if each.name != without), *added)
    changed = {**SMALLEST_LLAMA, **{f"llama.{key}": value for key, value in (keys or {}).items()}}
    kept = {key: value for key, value in changed.items() if value is not None}
    data = gguf_bytes(kept, tensors)
    header = parse_header(data, file_size=len(data))
    facts = model_facts(header)
    try:
        refuse_unloadable(header, facts)
    except HeaderError as error:
        found = error
    code = "would_not_load"
    assert found is None or found.code == code
    assert (code in {each.code for each in lint(header, facts)}) == (found is not None)
    return found


def test_the_smallest_model_loads() -> None:
    assert refusal() is None


@pytest.mark.parametrize(
    ("keys", "field", "said"),
    [
        ({"attention.layer_norm_rms_epsilon": None}, "attention.layer_norm_rms_epsilon", "needed"),
        (
            {"attention.layer_norm_rms_epsilon": U32(1)},
            "attention.layer_norm_rms_epsilon",
            "UINT32",
        ),
        ({"rope.dimension_count": U32(16)}, "rope.dimension_count", "16 rotated dimensions"),
        ({"attention.value_length": U32(16)}, "attention.value_length", "keys of 32"),
        ({"attention.head_count": [U32(1), U32(1)]}, "attention.head_count", "2 elements"),
        ({"expert_count": U32(4)}, "expert_used_count", "0 experts used of 4"),
        ({"expert_used_count": U32(2)}, "expert_used_count", "2 experts used of 0"),
        ({"feed_forward_length": F32(32.0)}, "feed_forward_length", "FLOAT32"),
    ],
)
def test_a_key_that_llama_cpp_refuses_is_named(
    keys: dict[str, object], field: str, said: str
) -> None:
    error = refusal(keys)
    assert error is not None
    assert error.field == f"llama.{field}"
    assert said in error.message


@pytest.mark.parametrize(
    ("keys", "field"),
    [
        ({"block_count": U32(2)}, "blk.1.attn_norm.weight"),
        ({"attention.head_count": U32(2), "attention.key_length": U32(32),
          "attention.value_length": U32(32)}, "blk.0.attn_q.weight"),
        ({"attention.head_count_kv": U32(0)}, "blk.0.attn_k.weight"),
        ({"feed_forward_length": U32(64)}, "blk.0.ffn_gate.weight"),
        ({"embedding_length": U32(64), "attention.key_length": U32(32),
          "attention.value_length": U32(32)}, "token_embd.weight"),
        ({"vocab_size": U32(401)}, "token_embd.weight"),
    ],
)  # fmt: skip
def test_a_tensor_that_the_keys_contradict_is_named(keys: dict[str, object], field: str) -> None:
    error = refusal(keys)
    assert error is not None
    assert error.field == field


@pytest.mark.parametrize("tensor", [each.name for each in SMALLEST_TENSORS])
def test_a_missing_tensor_is_named(tensor: str) -> None:
    error = refusal(without=tensor)
    assert error is not None
    assert error.field == tensor


@pytest.mark.parametrize("name", ["strange.weight", "blk.0.strange.weight", "blk.1.attn_q.weight"])
def test_a_tensor_too_many_is_named(name: str) -> None:
    error = refusal(added=(Tensor(name, (32, 32)),))
    assert error is not None
    assert error.field == name


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("output.weight", (32, 400)),
        Tensor("rope_freqs.weight", (16,)),
        Tensor("blk.0.attn_q.bias", (32,)),
        Tensor("blk.0.attn_q.scale", (1,)),
        Tensor("blk.0.ffn_up.input_scale", (1,)),
    ],
    ids=lambda tensor: tensor.name,
)
def test_a_tensor_that_may_be_there_is_no_fault(tensor: Tensor) -> None:
    assert refusal(added=(tensor,)) is None


def test_one_tensor_may_stand_for_queries_keys_and_values() -> None:
    fused = Tensor("blk.0.attn_qkv.weight", (32, 96))
    assert refusal(without="blk.0.attn_q.weight", added=(fused,)) is None


def test_a_name_that_says_phi_3_asks_for_its_tokens() -> None:
    def verdict(name: str, tokens: list[str]) -> str | None:
        keys = {
            **SMALLEST_LLAMA,
            "general.name": name,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.merges": ["a b"],
        }
        data = gguf_bytes(keys, (Tensor("token_embd.weight", (32, 4)), *SMALLEST_TENSORS[1:]))
        header = parse_header(data, file_size=len(data))
        try:
            refuse_unloadable(header, model_facts(header))
        except HeaderError as error:
            return error.field
        return None

    tokens = ["<unk>", "<s>", "</s>", "<|endoftext|>"]
    assert verdict("My Phi-3 mini", tokens) is None
    assert verdict("My Phi-3 mini", ["a", *tokens[1:]]) == "general.name"
    assert verdict("mine", ["a", *tokens[1:]]) is None


def test_a_tokenizer_of_merges_needs_them() -> None:
    keys = {**SMALLEST_LLAMA, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"] * 400}
    with pytest.raises(HeaderError) as caught:
        judged(gguf_bytes(keys, SMALLEST_TENSORS))
    assert caught.value.field == "tokenizer.ggml.merges"
    judged(gguf_bytes(keys | {"tokenizer.ggml.merges": ["a b"]}, SMALLEST_TENSORS))


def judged(data: bytes) -> None:
    header = parse_header(data, file_size=len(data))
    refuse_unloadable(header, model_facts(header))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("general.name", U32(1), "UINT32, expected STRING"),
        ("general.file_type", F32(1.0), "FLOAT32, expected UINT32"),
        ("tokenizer.ggml.tokens", [U32(1)] * 400, "is no ARRAY of STRING"),
        ("tokenizer.ggml.add_bos_token", U32(1), "UINT32, expected BOOL"),
        ("tokenizer.ggml.eos_token_id", [U32(1)], "ARRAY of UINT32, expected UINT32"),
        ("tokenizer.ggml.scores", [1.0] * 399, "399 elements for 400 tokens"),
        ("tokenizer.ggml.scores", ["a"] * 400, "is no ARRAY of FLOAT32 or INT32"),
        ("tokenizer.ggml.token_type", [1.0] * 400, "is no ARRAY of INT32"),
    ],
)
def test_a_key_of_the_tokenizer_that_llama_cpp_refuses_is_named(
    key: str, value: object, said: str
) -> None:
    vocabulary: dict[str, object] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [f"word{i}" for i in range(400)],
    }
    data = gguf_bytes({**SMALLEST_LLAMA, **vocabulary, key: value}, SMALLEST_TENSORS)
    header = parse_header(data, file_size=len(data))
    with pytest.raises(HeaderError, match=said) as caught:
        refuse_unloadable(header, model_facts(header))
    assert (caught.value.code, caught.value.field) == ("would_not_load", key)


def test_a_vocabulary_is_not_judged() -> None:
    keys = {key: value for key, value in SMALLEST_LLAMA.items() if "epsilon" not in key}
    data = gguf_bytes(keys)
    judged(data)
    assert not model_facts(parse_header(data, file_size=len(data))).has_tensors


def test_an_architecture_that_is_not_verified_is_not_judged() -> None:
    keys = {key.replace("llama", "plm"): value for key, value in SMALLEST_LLAMA.items()}
    judged(gguf_bytes(keys | {"general.architecture": "plm"}, [Tensor("strange.weight", (32,))]))


def test_tensors_are_judged_with_all_parts_only() -> None:
    keys = {**SMALLEST_LLAMA, "split.no": U16(0), "split.count": U16(2)}
    judged(gguf_bytes(keys, SMALLEST_TENSORS[:3]))
    wrong = {**keys, "llama.rope.dimension_count": U32(16)}
    with pytest.raises(HeaderError):
        judged(gguf_bytes(wrong, SMALLEST_TENSORS[:3]))
