"""What publishers document of their models: training length and scaling, with the source."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ggufext.header.header import Header
    from ggufext.header.model import ModelFacts


@dataclass(frozen=True, slots=True)
class Published:
    """One entry of ``published.toml``.

    Attributes
    ----------
    family : str
    train_length : int
        Tokens that the model was trained on.
    freq_base : float or None
        RoPE base of the family's files; None where nobody looked.
    yarn_factor : float or None
        Of the YaRN scaling on `train_length` that the publisher documents.
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


def entries() -> list[dict[str, Any]]:
    """Every entry of the table as it stands in the file."""
    text = Path(__file__).with_name("published.toml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = tomllib.loads(text)["models"]
    return found


def published(names: Iterable[str], facts: ModelFacts) -> Published | None:
    """What is documented of a model; None where the table does not know it.

    A file that scales from the documented length says by itself what the table would.

    Parameters
    ----------
    names : iterable of str
        Of the model and of what it was made from.
    facts : ModelFacts
        With the length that the file declares, or that it had before an extension.
    """
    scaling = facts.scaling
    # With a dash behind, so that a wanted name ends where a part of the name does.
    spelled = [name.lower().replace(" ", "-").replace("_", "-") + "-" for name in names]
    best, longest = None, 0
    for entry in entries():
        if (
            facts.architecture not in entry["architectures"]
            or facts.train_length not in (*entry["context_length"], entry["train_length"])
            or (scaling.in_effect and scaling.original_context_length == entry["train_length"])
        ):
            continue
        for wanted in entry["names"]:
            if len(wanted) > longest and any(name.startswith(f"{wanted}-") for name in spelled):
                best, longest = entry, len(wanted)
    if best is None:
        return None
    return Published(
        family=best["family"],
        train_length=best["train_length"],
        freq_base=best.get("freq_base"),
        yarn_factor=best.get("yarn_factor"),
        source=best["source"],
    )


def at_documented_length(facts: ModelFacts) -> ModelFacts:
    """Facts with the training length that is documented, where one is."""
    said = facts.published
    if said is None:
        return facts
    source = f"documented for {said.family}, {said.source}"
    return replace(facts, train_length=said.train_length, train_length_source=source)


def names_in(header: Header) -> Iterator[str]:
    """Names that a GGUF file gives its model and what it was made from."""

    def text(key: str) -> str:
        value = header.value(key) if key in header.keys else ""
        return value if isinstance(value, str) else ""

    basename = text("general.basename")
    if basename:
        yield basename
        for part in (text("general.size_label"), text("general.version")):
            yield f"{basename}-{part}"
    yield text("general.name")
    for key in header.keys:
        if key.startswith("general.base_model.") and key.endswith(".name"):
            yield text(key)
