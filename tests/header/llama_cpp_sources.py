"""The sources of llama.cpp, read as text: what the lists of `list_architectures` are made from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: How this program calls what llama_model_rope_type returns.
_LAYOUTS = {
    "NONE": "none",
    "NORM": "interleaved",
    "NEOX": "half",
    "MROPE": "sections",
    "IMROPE": "sections",
}


@dataclass
class Source:
    """The parts of llama.cpp that the lists are made from.

    Attributes
    ----------
    names : dict
        Enumerator of an architecture to the value of general.architecture.
    layouts : dict
        Enumerator to layout; a conditional one is the layout without rope.dimension_sections.
    sections_when_present : set
        Enumerators of those with another layout where rope.dimension_sections is there.
    classes : dict
        Enumerator to the class of its models; none for what cannot be loaded.
    parents : dict
        Class to the class that it inherits from.
    graphs : dict
        Class to the class whose graph it uses, by an alias or by inheritance.
    keys : dict
        Enumerator to key without the architecture's prefix; a leading dot marks a name that takes
        none.
    tensors : dict
        Enumerator to name.
    members : dict
        Member of llama_hparams to the type of its elements.
    zeros : set
        Members that are 0 unless a key sets them.
    common : str
        What the loader of every model does, behind its early return for vocabularies.
    vocabulary : str
        src/llama-vocab.h and .cpp.
    files : list of str
        Texts of src/models.
    """

    names: dict[str, str]
    layouts: dict[str, str]
    sections_when_present: set[str]
    classes: dict[str, str]
    parents: dict[str, str]
    graphs: dict[str, str]
    keys: dict[str, str]
    tensors: dict[str, str]
    members: dict[str, str]
    zeros: set[str]
    common: str
    vocabulary: str
    files: list[str]

    def method(self, owner: str, name: str) -> str:
        """Body of a method without comments, of the class or of the one that it inherits from."""
        while True:
            start = re.compile(rf"void {owner}::{name}\([^)]*\) \{{\n")
            for text in self.files:
                if match := start.search(text):
                    return without_comments(text[match.end() : text.index("\n}\n", match.end())])
            owner = self.parents[owner]

    def graph_owner(self, owner: str) -> str:
        """The class whose graph a class builds."""
        while owner in self.graphs:
            owner = self.graphs[owner]
        return owner


def read(sources: Path) -> Source:
    """Read a folder of llama.cpp's sources."""
    arch = (sources / "src/llama-arch.cpp").read_text()
    model = (sources / "src/llama-model.cpp").read_text()
    headers = (sources / "src/models/models.h").read_text()
    hparams = (sources / "src/llama-hparams.h").read_text()
    names_table = arch[arch.index("LLM_ARCH_NAMES") : arch.index("LLM_KV_NAMES")]
    names = dict(re.findall(r'\{ LLM_ARCH_(\w+), +"([^"]+)"', names_table))
    del names["UNKNOWN"]
    layouts, conditional = _layouts(model[model.index("llama_model_rope_type(const") :])
    declared = re.findall(
        r"^    (?:std::array<(\w+),[^>]*>|(\w+))\s+(\w+)\s*(?:=\s*([^;]*))?;", hparams, re.MULTILINE
    )
    common = model[model.index("ml.get_key(LLM_KV_CONTEXT_LENGTH") :]
    return Source(
        names=names,
        layouts=layouts,
        sections_when_present=conditional,
        classes=dict(re.findall(r"case LLM_ARCH_(\w+):\s+return new (\w+)\(", model)),
        parents=dict(re.findall(r"struct (llama_model_\w+) : public (llama_model_\w+)", headers)),
        graphs=_shared_graphs(headers),
        keys={
            name: key.removeprefix("%s.") if key.startswith("%s.") else f".{key}"
            for name, key in re.findall(r'\{ (LLM_KV_\w+), +"([^"]+)"', arch)
        },
        tensors=dict(re.findall(r'\{ (LLM_TENSOR_\w+), +"([^"]+)" +\}', arch)),
        members={f"hparams.{name}": element or plain for element, plain, name, _ in declared},
        zeros={f"hparams.{name}" for *_, name, value in declared if value == "0"},
        common=without_comments(common[: common.index("\n}\n")]),
        vocabulary=without_comments(
            (sources / "src/llama-vocab.h").read_text()
            + (sources / "src/llama-vocab.cpp").read_text()
        ),
        files=[path.read_text() for path in sorted((sources / "src/models").glob("*.cpp"))],
    )


def without_comments(text: str) -> str:
    """C++ without comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def _layouts(switch: str) -> tuple[dict[str, str], set[str]]:
    """Layouts by enumerator, and which of them are conditional."""
    layouts: dict[str, str] = {}
    conditional: set[str] = set()
    waiting: list[str] = []
    for line in switch[: switch.index("GGML_ABORT")].splitlines():
        if match := re.search(r"case LLM_ARCH_(\w+):", line):
            waiting.append(match[1])
        elif match := re.search(r"return LLAMA_ROPE_TYPE_(\w+);", line):
            if line.startswith(" " * 16):  # inside an if: what holds with sections
                conditional |= set(waiting)
                continue
            layouts |= dict.fromkeys(waiting, _LAYOUTS[match[1]])
            waiting = []
        elif match := re.search(
            r"return .*\? LLAMA_ROPE_TYPE_(\w+) +: LLAMA_ROPE_TYPE_(\w+);", line
        ):
            conditional |= set(waiting) if match[1] == "MROPE" else set()
            layouts |= dict.fromkeys(waiting, _LAYOUTS[match[2]])
            waiting = []
    return layouts, conditional


def _shared_graphs(headers: str) -> dict[str, str]:
    shared: dict[str, str] = {}
    for body in re.split(r"\n(?=struct llama_model_)", headers):
        declared = re.match(r"struct (llama_model_\w+)(?: : public (llama_model_\w+))?", body)
        if not declared:
            continue
        alias = re.search(r"using graph += (llama_model_\w+)::graph", body)
        if alias:
            shared[declared[1]] = alias[1]
        elif declared[2] and declared[2] != "llama_model_base" and "struct graph" not in body:
            shared[declared[1]] = declared[2]
    return shared
