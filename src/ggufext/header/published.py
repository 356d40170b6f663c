"""What publishers document of a model, where its files say another length, or nothing of a scaling.

An entry of `PUBLISHED` is all that a documented length takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Published:
    """What the publisher of a family documents.

    Attributes
    ----------
    family : str
        Of models.
    train_length : int
        Tokens that the model was trained on.
    freq_base : float or None
        RoPE base of every file of the family, where that was seen; a hint only.
    yarn_factor : float or None
        Factor of the YaRN scaling on `train_length` that the publisher documents.
    source : str
        Address of the page that says so.
    """

    family: str
    train_length: int
    freq_base: float | None
    yarn_factor: float | None
    source: str

    @property
    def yarn_length(self) -> int | None:
        """Tokens that the documented scaling reaches; None where there is none."""
        return round(self.train_length * self.yarn_factor) if self.yarn_factor else None


class Entry(NamedTuple):
    """A family of models.

    Attributes
    ----------
    published : Published
    architectures : tuple of str
    names : tuple of str
        general.basename, with general.size_label or general.version behind it, general.name or
        general.base_model.*.name; lower case, "-" for blanks. The start of a name is enough, the
        longest one counts.
    context_lengths : tuple of int
        What GGUF files of the family say.
    """

    published: Published
    architectures: tuple[str, ...]
    names: tuple[str, ...]
    context_lengths: tuple[int, ...]


#: The comment of an entry says how it was checked on the page of its source.
PUBLISHED = (
    # Page of branch v2.0: the packed sequence length in training is 32,768, and YaRN extends
    # Qwen2-7B and 72B to 131,072. Files of base models say 131,072, which the publisher supports as
    # it stands (https://github.com/QwenLM/Qwen3/issues/679): they are left alone, here and below.
    Entry(
        Published(
            family="Qwen2",
            train_length=32_768,
            freq_base=1e6,
            yarn_factor=4.0,
            source="https://github.com/QwenLM/Qwen3/blob/v2.0/docs/source/getting_started/concepts.md",
        ),
        architectures=("qwen2",),
        names=("qwen2-7b", "qwen2-72b"),
        context_lengths=(32_768,),
    ),
    # Page of branch v2.5: packed sequence length in training 32,768; 7B, 14B, 32B and 72B reach
    # 131,072 with YaRN; docs/source/deployment/vllm.md beside it gives factor 4 on 32,768.
    Entry(
        Published(
            family="Qwen2.5",
            train_length=32_768,
            freq_base=1e6,
            yarn_factor=4.0,
            source="https://github.com/QwenLM/Qwen3/blob/v2.5/docs/source/getting_started/concepts.md",
        ),
        architectures=("qwen2",),
        names=("qwen2.5-7b", "qwen2.5-14b", "qwen2.5-32b", "qwen2.5-72b"),
        context_lengths=(32_768,),
    ),
    # README, "Processing Long Texts": 32,768 as configured, beyond it YaRN with factor 4 on 32,768.
    Entry(
        Published(
            family="Qwen2.5-Coder",
            train_length=32_768,
            freq_base=None,
            yarn_factor=4.0,
            source="https://github.com/QwenLM/Qwen2.5-Coder/blob/main/README.md",
        ),
        architectures=("qwen2",),
        names=("qwen2.5-coder-7b", "qwen2.5-coder-14b", "qwen2.5-coder-32b"),
        context_lengths=(32_768,),
    ),
    # README, "Processing Long Texts", at the release of February 2025: up to 32,768, beyond it YaRN
    # with factor 4 on 32,768, at a cost for places in time and space. Files say 128,000
    # (https://github.com/QwenLM/Qwen3-VL/issues/1251).
    Entry(
        Published(
            family="Qwen2.5-VL",
            train_length=32_768,
            freq_base=None,
            yarn_factor=4.0,
            source="https://github.com/QwenLM/Qwen2.5-VL/blob/main/README.md",
        ),
        architectures=("qwen2vl",),
        names=("qwen2.5-vl",),
        context_lengths=(128_000,),
    ),
    # Page: context in pretraining up to 32,768; YaRN with factor 4 on 32,768; 40,960 in config.json
    # is 32,768 of output and 8,192 of prompt.
    Entry(
        Published(
            family="Qwen3",
            train_length=32_768,
            freq_base=1e6,
            yarn_factor=4.0,
            source="https://github.com/QwenLM/Qwen3/blob/main/docs/source/deployment/vllm.md",
        ),
        architectures=("qwen3", "qwen3moe"),
        names=("qwen3",),
        context_lengths=(40_960,),
    ),
    # docs/source/getting_started/concepts.md beside it: extended "if mentioned in the modelcards";
    # those of the smallest models were not read, so no scaling is said of them.
    Entry(
        Published(
            family="Qwen3",
            train_length=32_768,
            freq_base=1e6,
            yarn_factor=None,
            source="https://github.com/QwenLM/Qwen3/blob/main/docs/source/deployment/vllm.md",
        ),
        architectures=("qwen3",),
        names=("qwen3-0.6b", "qwen3-1.7b"),
        context_lengths=(40_960,),
    ),
    # README: native support for 256K tokens, up to 1M with YaRN; the factor is their ratio.
    Entry(
        Published(
            family="Qwen3-Coder",
            train_length=262_144,
            freq_base=None,
            yarn_factor=4.0,
            source="https://github.com/QwenLM/Qwen3-Coder/blob/main/README.md",
        ),
        architectures=("qwen3moe",),
        names=("qwen3-coder",),
        context_lengths=(262_144,),
    ),
    # README, "Processing Long Texts": native 256K; YaRN with factor 3 on 262,144, not 4, because
    # positions of images and videos grow more slowly than tokens.
    Entry(
        Published(
            family="Qwen3-VL",
            train_length=262_144,
            freq_base=None,
            yarn_factor=3.0,
            source="https://github.com/QwenLM/Qwen3-VL/blob/main/README.md",
        ),
        architectures=("qwen3vl", "qwen3vlmoe"),
        names=("qwen3-vl",),
        context_lengths=(262_144,),
    ),
    # README, "Handling Long Context (YaRN)": native 32K, YaRN with factor 4 on 32,768.
    Entry(
        Published(
            family="GLM-4-0414",
            train_length=32_768,
            freq_base=None,
            yarn_factor=4.0,
            source="https://github.com/THUDM/GLM-4/blob/main/README.md",
        ),
        architectures=("glm4",),
        names=("glm-4", "glm-z1"),
        context_lengths=(32_768,),
    ),
    # Page, "Long Context extension": trained up to 64k, used up to 128k with YaRN, "2x extension".
    Entry(
        Published(
            family="SmolLM3",
            train_length=65_536,
            freq_base=5e6,
            yarn_factor=2.0,
            source="https://github.com/huggingface/blog/blob/main/smollm3.md",
        ),
        architectures=("smollm3",),
        names=("smollm3",),
        context_lengths=(65_536,),
    ),
    # Page, "Context window": Mistral Nemo 12B, 128k tokens. Files say 1,024,000
    # (https://github.com/ollama/ollama/issues/8277).
    Entry(
        Published(
            family="Mistral Nemo",
            train_length=131_072,
            freq_base=1e6,
            yarn_factor=None,
            source="https://github.com/mistralai/platform-docs-public/blob/main/public/resources/known-limitations.md",
        ),
        architectures=("llama",),
        names=("mistral-nemo",),
        context_lengths=(1_024_000,),
    ),
    # README, table of models: context length 128k; files say 163,840, which is YaRN's 40 times
    # 4,096.
    Entry(
        Published(
            family="DeepSeek-V2",
            train_length=131_072,
            freq_base=None,
            yarn_factor=None,
            source="https://github.com/deepseek-ai/DeepSeek-V2/blob/main/README.md",
        ),
        architectures=("deepseek2",),
        names=("deepseek-v2",),
        context_lengths=(163_840,),
    ),
    # The same table: 32k for the Lite models.
    Entry(
        Published(
            family="DeepSeek-V2-Lite",
            train_length=32_768,
            freq_base=None,
            yarn_factor=None,
            source="https://github.com/deepseek-ai/DeepSeek-V2/blob/main/README.md",
        ),
        architectures=("deepseek2",),
        names=("deepseek-v2-lite",),
        context_lengths=(163_840,),
    ),
    # README, table of models and "Context Window": 128K. Files say 163,840
    # (https://github.com/ikawrakow/ik_llama.cpp/pull/262).
    Entry(
        Published(
            family="DeepSeek-V3",
            train_length=131_072,
            freq_base=10000.0,
            yarn_factor=None,
            source="https://github.com/deepseek-ai/DeepSeek-V3/blob/main/README.md",
        ),
        architectures=("deepseek2",),
        names=("deepseek-v3",),
        context_lengths=(163_840,),
    ),
    # Page: a context window of 128K. Files say 8,192
    # (https://github.com/ollama/ollama/issues/8465).
    Entry(
        Published(
            family="Command R7B",
            train_length=131_072,
            freq_base=None,
            yarn_factor=None,
            source="https://docs.cohere.com/docs/command-r7b",
        ),
        architectures=("cohere2",),
        names=("c4ai-command-r7b", "command-r7b"),
        context_lengths=(8_192,),
    ),
)


def published(
    names: Iterable[str], *, architecture: str, context_length: int, scaled_from: int | None
) -> Published | None:
    """What is documented of a model; None where the table does not know it.

    Parameters
    ----------
    names : iterable of str
        Of the model and of what it was made from.
    architecture : str
    context_length : int
        What the file declares, or declared before an extension, tokens.
    scaled_from : int or None
        Original length of a scaling in effect. A file that scales from the documented length says
        by itself what the table would.
    """
    # With a dash behind, so that a wanted name ends where a part of the name does.
    spelled = [name.lower().replace(" ", "-").replace("_", "-") + "-" for name in names]
    best, longest = None, 0
    for entry in PUBLISHED:
        train_length = entry.published.train_length
        if (
            architecture not in entry.architectures
            or context_length not in (*entry.context_lengths, train_length)
            or scaled_from == train_length
        ):
            continue
        for wanted in entry.names:
            if len(wanted) > longest and any(name.startswith(f"{wanted}-") for name in spelled):
                best, longest = entry.published, len(wanted)
    return best
