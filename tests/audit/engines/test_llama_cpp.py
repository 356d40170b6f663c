from __future__ import annotations

import math
import os
import random
import re
import signal
import subprocess
import sys
from array import array
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.audit.task import wording
from ggufext.audit.task.answers import stop_rule
from ggufext.audit.task.templates import Frame
from ggufext.errors import EngineError
from ggufext.llama.settings import ContextSettings, LoadRequest, SelfExtend
from llama_here import child_of, needs_llama_cpp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


UBATCH = 16
SETTINGS = ContextSettings(n_ctx=512, n_batch=64, n_ubatch=UBATCH, swa_full=True)


def filler(sentences: int) -> list[str]:
    rng = random.Random(0)
    return [wording.sentence(rng) for _ in range(sentences)]


def prompts() -> list[list[str]]:
    """Prompts that share starts of different lengths with the one before."""
    text, ask = filler(30), [wording.QUESTION, wording.ANSWER_START]
    line = [wording.key_line("48213")]
    return [[*text[:at], *line, *text[at:], *ask] for at in (30, 22, 15, 3)]


@pytest.fixture
def load(passkey_model: Path) -> LoadRequest:
    return LoadRequest(path=passkey_model, context=SETTINGS)


@pytest.fixture
def engine(load: LoadRequest) -> Iterator[LlamaCpp]:
    engine = LlamaCpp(load.path)
    engine.open(load)
    yield engine
    engine.close()


@pytest.fixture
def recurrent(random_models: Callable[[str], Path]) -> LoadRequest:
    """A model whose memory is one state, which cannot forget a part of a text."""
    needs_llama_cpp()
    return LoadRequest(path=random_models("lfm2"), context=replace(SETTINGS, n_ctx=2048))


def test_recurrent_models_reuse_nothing_and_say_so(recurrent: LoadRequest) -> None:
    engine = LlamaCpp(recurrent.path)
    engine.open(recurrent)
    for prompt in prompts()[:2]:
        answer = engine.ask(prompt[-12:], stop=stop_rule("48213"), tokens=2)
        assert answer.evaluated == answer.naive
    assert [warning.code for warning in engine.warnings()] == ["no_reuse"]
    engine.close()


def test_self_extend_is_refused_where_positions_cannot_move(recurrent: LoadRequest) -> None:
    engine = LlamaCpp(recurrent.path)
    with pytest.raises(EngineError, match="Self-Extend") as refused:
        engine.open(replace(recurrent, self_extend=SelfExtend(group=2, window=128)))
    assert refused.value.code == "bad_condition"
    engine.close()


def test_reuse_computes_only_what_follows_the_last_shared_micro_batch(engine: LlamaCpp) -> None:
    first, second = prompts()[:2]
    engine.ask(first, stop=stop_rule("48213"), tokens=6)
    answer = engine.ask(second, stop=stop_rule("48213"), tokens=6)
    shared = 1 + sum(engine.counts(second[:22]))
    assert answer.naive - answer.evaluated == shared // UBATCH * UBATCH


def logits(engine: LlamaCpp, parts: Sequence[str]) -> bytes:
    """Float32, behind a prompt."""
    asked = {"tokens": 0, "hidden": "", "stop": ""}
    prompt = engine._prompt(parts).tobytes()
    _, found = engine._process.request(engine._path, "ask", prompt, **asked)  # type: ignore[arg-type]
    return found


def scored_by_hand(engine: LlamaCpp, text: Sequence[str], rows: Sequence[int]) -> list[list[float]]:
    """Log-probabilities of the whole vocabulary behind rows, each from a prompt of its own."""
    # Words of the shipped model are single tokens, so a text can be cut behind any of them.
    words = [word for part in text for word in re.findall(r" \w+|\.", part)]
    found = []
    for row in rows:
        prompt = ["".join(words[:row])] if row else []
        values = [float(x) for x in array("f", logits(engine, prompt))]
        top = max(values)
        total = math.log(math.fsum(math.exp(x - top) for x in values)) + top
        found.append([x - total for x in values])
    return found


ROWS = (0, 1, 15, 16, 17, 40, 63, 64, 100)


def test_scores_are_those_of_a_float64_softmax_over_single_prompts(engine: LlamaCpp) -> None:
    text = filler(20)
    scores = engine.score(text, rows=ROWS, distributions=ROWS[3:])
    expected = scored_by_hand(engine, text, ROWS)
    whole = array("f", scores.distributions)
    for index, each in enumerate(expected[3:]):
        found = whole[index * engine.n_vocab : (index + 1) * engine.n_vocab]
        # Prompts of another length are cut into other micro-batches: more than float32 rounding.
        assert found == pytest.approx(each, abs=2e-3)
        assert math.fsum(map(math.exp, found)) == pytest.approx(1, abs=1e-5)
    tokens = engine._prompt(text)
    for row, follows, each in zip(ROWS, scores.log_probabilities, expected, strict=True):
        assert follows == pytest.approx(each[tokens[row + 1]], abs=2e-3)


@pytest.mark.parametrize("flash_attn_type", [0, 1])
def test_questions_behind_a_scored_text_get_the_same_logits_as_alone(
    engine: LlamaCpp, load: LoadRequest, flash_attn_type: int
) -> None:
    load = replace(load, context=replace(SETTINGS, flash_attn_type=flash_attn_type))
    engine.open(load)
    text, line = filler(40), wording.key_line("48213")
    text.insert(9, line)
    parts = [*text, wording.QUESTION, wording.ANSWER_START]
    alone = logits(engine, parts)
    half = text[:20]
    for known, rows in ((half, range(0, 60, 3)), (text, range(200, 240))):
        engine.score(known, rows=list(rows), distributions=[])
        asked = [*known, wording.QUESTION, wording.ANSWER_START]
        behind = logits(engine, asked)
        engine.open(load)  # forgets
        assert behind == logits(engine, asked)
        engine.score(known, rows=[0], distributions=[])
    assert behind == alone


def test_a_longer_text_is_scored_as_at_once_and_computes_only_the_rest(engine: LlamaCpp) -> None:
    text, late = filler(40), list(range(200, 240))
    whole = engine.score(text, rows=late, distributions=late[:2])
    assert (whole.evaluated, whole.naive) == (whole.naive, 1 + sum(engine.counts(text)))
    engine.ask(text[:3], stop=stop_rule("1"), tokens=1)
    engine.score(text[:20], rows=[3], distributions=[])
    engine.ask([*text[:20], wording.QUESTION], stop=stop_rule("1"), tokens=2)
    known = 1 + sum(engine.counts(text[:20]))
    rest = engine.score(text, rows=late, distributions=late[:2])
    assert rest.log_probabilities == whole.log_probabilities
    assert rest.distributions == whole.distributions
    assert rest.naive - rest.evaluated == known // UBATCH * UBATCH


def test_cells_before_the_first_row_alone_are_reused(engine: LlamaCpp) -> None:
    text = filler(20)
    engine.score(text, rows=[], distributions=[])
    again = engine.score(text, rows=[40], distributions=[])
    assert again.naive - again.evaluated == 32


def test_a_text_is_not_scored_with_self_extend(engine: LlamaCpp, load: LoadRequest) -> None:
    engine.open(replace(load, self_extend=SelfExtend(group=2, window=128)))
    with pytest.raises(EngineError) as refused:
        engine.score(filler(3), rows=[1], distributions=[])
    assert refused.value.code == "bad_condition"


def test_recurrent_models_are_scored_from_the_beginning(recurrent: LoadRequest) -> None:
    engine = LlamaCpp(recurrent.path)
    engine.open(recurrent)
    text = filler(3)
    first = engine.score(text, rows=[5, 9], distributions=[9])
    engine.ask([" the"], stop=stop_rule("1"), tokens=2)
    assert engine.score(text, rows=[5, 9], distributions=[9]) == first
    engine.close()


def test_same_question_twice_gives_the_same_answer(engine: LlamaCpp) -> None:
    answers = {engine.ask(prompts()[0], stop=stop_rule("48213"), tokens=6).text for _ in range(3)}
    assert answers == {" 48213"}


def test_frame_is_put_around_every_prompt(engine: LlamaCpp) -> None:
    assert engine.frame(Frame()) == (1, 0)  # BOS
    lead, trail = engine.frame(Frame(before="<s> the", behind=" is", chat=True))
    assert (lead, trail) == (2, 1)
    answer = engine.ask([" key"], stop=stop_rule("1"), tokens=1)
    assert answer.naive == 4


def test_self_extend_finds_keys_beyond_the_training_length(
    engine: LlamaCpp, load: LoadRequest
) -> None:
    text, found = filler(60)[:34], {}
    asked = [
        [*text[:at], wording.key_line("48213"), *text[at:], wording.QUESTION, wording.ANSWER_START]
        for at in range(0, 12, 2)
    ]
    for extend in (None, SelfExtend(group=2, window=128)):
        engine.open(replace(load, self_extend=extend))
        answers = [engine.ask(parts, stop=stop_rule("48213"), tokens=6).text for parts in asked]
        found[extend] = answers.count(" 48213")
    assert found[SelfExtend(group=2, window=128)] > found[None]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_death_of_the_child_is_an_engine_error_with_its_last_words(
    engine: LlamaCpp, number: signal.Signals
) -> None:
    os.kill(child_of(engine._process), number)
    with pytest.raises(EngineError, match=rf"{number.name}.*last line first: \w") as died:
        engine.ask([" the"], stop=stop_rule("1"), tokens=1)
    assert died.value.code == "engine_died"


def test_failed_assertion_of_llama_cpp_is_an_engine_error(
    engine: LlamaCpp, load: LoadRequest
) -> None:
    # Any string but the four known types is an assertion in llama.cpp.
    with pytest.raises(EngineError) as died:
        engine.open(replace(load, kv_overrides={"llama.rope.scaling.type": "magic"}))
    assert died.value.code == "engine_died"
    assert "GGML_ASSERT" in died.value.message


def test_context_that_cannot_be_created_is_an_engine_error(
    engine: LlamaCpp, load: LoadRequest
) -> None:
    context = replace(SETTINGS, type_k="q8_0", type_v="q8_0", flash_attn_type=0)
    with pytest.raises(EngineError) as refused:
        engine.open(replace(load, context=context))
    assert refused.value.code == "context_not_created"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS")
def test_allocation_beyond_a_memory_limit_is_an_engine_error(passkey_model: Path) -> None:
    program = f"""
import resource, sys
sys.path[:] = {sys.path!r}
from pathlib import Path
from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.audit.task.answers import stop_rule
from ggufext.errors import EngineError
from ggufext.llama.settings import ContextSettings, LoadRequest
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
path = Path({str(passkey_model)!r})
engine = LlamaCpp(path)
try:
    engine.open(LoadRequest(path=path, context=ContextSettings(n_ctx=1 << 22)))
except EngineError as error:
    print(error.code)
engine.close()
"""
    child = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert child.stdout.strip() in {"out_of_memory", "context_not_created"}


def test_file_without_a_text_vocabulary_is_refused_by_name(tmp_path: Path) -> None:
    needs_llama_cpp()
    from random_model import write_random_model

    path = write_random_model(
        tmp_path / "model.gguf",
        metadata={
            "tokenizer.ggml.model": "no_vocab",
            "tokenizer.ggml.tokens": None,
            "tokenizer.ggml.token_type": None,
            "tokenizer.ggml.merges": None,
            "llama.vocab_size": 512,
        },
    )
    with pytest.raises(EngineError) as refused:
        LlamaCpp(path)
    assert refused.value.code == "cannot_be_audited"


def test_a_piece_of_a_text_that_begins_within_a_word_keeps_its_tokens(tmp_path: Path) -> None:
    needs_llama_cpp()
    from random_model import random_vocabulary, write_random_model

    plain = random_vocabulary(512)
    tokens = [".=" if index == 300 else token for index, token in enumerate(plain.tokens)]
    path = write_random_model(
        tmp_path / "model.gguf",
        metadata={
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.merges": [". ="],  # as vocabularies of source code have
        },
    )
    engine = LlamaCpp(path)
    try:
        assert engine.pieces(["=.x", " x"]) == [[b"=", b".", b"x"], [b" ", b"x"]]
    finally:
        engine.close()


def test_rpc_without_support_names_the_build_option(engine: LlamaCpp, passkey_model: Path) -> None:
    if engine.hello.rpc:
        pytest.skip("this llama.cpp was built with RPC")
    with pytest.raises(EngineError, match="GGML_RPC=ON"):
        LlamaCpp(passkey_model, rpc=("127.0.0.1:50052",))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_a_condition_gives_its_memory_back_before_the_next_is_opened(
    engine: LlamaCpp, load: LoadRequest
) -> None:
    def resident() -> int:
        pages = Path(f"/proc/{child_of(engine._process)}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    # 4 layers, 4 heads of 32, keys and values of 2 bytes: 128 MiB.
    large = replace(load, context=replace(SETTINGS, n_ctx=65_536, flash_attn_type=1))
    cache = 4 * 4 * 32 * 2 * 2 * 65_536
    before = resident()
    used = []
    for base in (500.0, 600.0, 700.0, 800.0):
        engine.open(replace(large, kv_overrides={"llama.rope.freq_base": base}))
        used.append(resident())
    assert used[0] - before > cache // 2
    assert max(used) - min(used) < cache // 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_a_context_that_is_refused_leaves_nothing_behind(
    engine: LlamaCpp, load: LoadRequest
) -> None:
    def mapped() -> int:
        maps = Path(f"/proc/{child_of(engine._process)}/maps").read_text()
        return maps.count("passkey-Q8_0.gguf")

    before = mapped()
    for _ in range(3):
        with pytest.raises(EngineError, match="knows no"):
            engine.open(replace(load, context=ContextSettings(type_k="none")))
    assert mapped() <= before


def test_tokens_of_a_prompt_are_told_batch_by_batch(load: LoadRequest) -> None:
    heard: list[int] = []
    engine = LlamaCpp(load.path, computed=heard.append)
    engine.open(load)
    first, second = prompts()[:2]
    answer = engine.ask(first, stop=stop_rule("48213"), tokens=1)
    assert heard == [*range(64, answer.evaluated, 64), answer.evaluated]
    heard.clear()
    answer = engine.ask(second, stop=stop_rule("48213"), tokens=1)
    assert heard[-1] == answer.evaluated < answer.naive
    heard.clear()
    engine.open(replace(load, self_extend=SelfExtend(group=2, window=128)))
    answer = engine.ask(first, stop=stop_rule("48213"), tokens=1)
    assert heard == [*range(128, answer.evaluated, 128), answer.evaluated]
    engine.close()
