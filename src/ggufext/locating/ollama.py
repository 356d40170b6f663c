"""Models that Ollama keeps: from a name through its manifest to the blob that is the GGUF file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ggufext.errors import LocationError

if TYPE_CHECKING:
    from collections.abc import Iterator


_DEFAULT_HOST, _DEFAULT_NAMESPACE, _DEFAULT_TAG = "registry.ollama.ai", "library", "latest"

#: Where the service of Linux packages keeps models.
_SERVICE_FOLDER = Path("/usr/share/ollama/.ollama/models")

#: Media types of manifest layers (the last part of application/vnd.ollama.image.…).
_MEDIA_TYPE = "application/vnd.ollama.image."
_MODEL = "model"

#: A part of a name; none begins with a dot, so none leads out of the folder.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")

#: Longest manifest and longest small layer (template, parameters) taken for real, bytes.
_LARGEST_TEXT = 1 << 20

#: What a long text of a Modelfile stands between.
_QUOTES = '"""'

#: Names shown where the one asked for is not there.
_SHOWN_NAMES = 8


class OllamaName(NamedTuple):
    """A model's full name: host/namespace/model:tag."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> OllamaName:
        """A name as people write it, with Ollama's defaults for what is left out.

        Parameters
        ----------
        text : str
            ``[[host/]namespace/]model[:tag]``, without the leading ``ollama:``.

        Raises
        ------
        LocationError
            ``ollama_name``.
        """
        front, _, last = text.rpartition("/")
        model, _, tag = last.partition(":")
        host, _, namespace = front.rpartition("/")
        name = cls(
            host or _DEFAULT_HOST, namespace or _DEFAULT_NAMESPACE, model, tag or _DEFAULT_TAG
        )
        parts = (name.namespace, name.model, name.tag)
        if not _HOST.fullmatch(name.host) or not all(_PART.fullmatch(part) for part in parts):
            raise LocationError(
                code="ollama_name",
                message="is no name of an Ollama model; expected ollama:NAME or ollama:NAME:TAG as "
                "`ollama list` shows them",
            )
        return name

    def __str__(self) -> str:
        """As short as `ollama list` shows it."""
        shown = f"{self.model}:{self.tag}"
        if self.namespace != _DEFAULT_NAMESPACE or self.host != _DEFAULT_HOST:
            shown = f"{self.namespace}/{shown}"
        return shown if self.host == _DEFAULT_HOST else f"{self.host}/{shown}"


class OllamaModel(NamedTuple):
    """A model's name, the blob that is its GGUF file, and its other layers by kind.

    Attributes
    ----------
    name : OllamaName
    blob : Path
        The file; it may be missing.
    layers : tuple of (str, Path)
        Kind (``"template"``, ``"params"``, ``"projector"`` …) and blob.
    """

    name: OllamaName
    blob: Path
    layers: tuple[tuple[str, Path], ...]

    def text(self, kind: str) -> str | None:
        """Content of a small text layer, None where there is none."""
        for found, blob in self.layers:
            if found == kind:
                return _small_text(blob)
        return None


def folders() -> tuple[Path, ...]:
    """The folders of Ollama models that are here: the user's choice, the user's, the service's."""
    chosen = os.environ.get("OLLAMA_MODELS")
    home = Path(os.path.expanduser("~/.ollama/models"))  # noqa: PTH111 - never raises
    candidates = (*((Path(chosen),) if chosen else ()), home, _SERVICE_FOLDER)
    return tuple(dict.fromkeys(folder for folder in candidates if is_folder(folder)))


def is_folder(folder: Path) -> bool:
    """Whether Ollama keeps models in this folder."""
    try:
        return (folder / "manifests").is_dir() and (folder / "blobs").is_dir()
    except OSError:
        return False


def is_blob(path: Path) -> bool:
    """Whether a path is a blob in a folder of Ollama models."""
    target = path.resolve()
    return target.parent.name == "blobs" and target.name.startswith("sha256-")


def find(text: str) -> OllamaModel:
    """The model of a name such as ``llama3.2`` or ``hf.co/owner/repo:Q4_K_M``.

    Parameters
    ----------
    text : str
        As for `OllamaName.parse`.

    Raises
    ------
    LocationError
        ``ollama_name``, ``ollama_missing`` (no folder, no such name, no GGUF file behind it, or a
        manifest that cannot be understood).
    """
    name = OllamaName.parse(text)
    here = folders()
    for folder in here:
        manifest = folder / "manifests" / name.host / name.namespace / name.model / name.tag
        if manifest.is_file():
            model = _model(folder, manifest, name)
            if not model.blob.is_file():
                raise LocationError(
                    code="ollama_missing",
                    message=f"is in the manifest {manifest}, but its file {model.blob} is not "
                    f"there or not readable for you; `ollama pull {name}` gets it",
                )
            return model
    known = sorted(str(model.name) for folder in here for model in models(folder))
    service = _SERVICE_FOLDER.parents[1]
    if not here and service.is_dir() and not os.access(service, os.R_OK | os.X_OK):
        why = f"the models of the Ollama service lie in {service}, which is not readable for you"
    elif not here:
        why = "Ollama keeps no models here; where they lie elsewhere, say so with OLLAMA_MODELS"
    elif known:
        more = f" and {len(known) - _SHOWN_NAMES} more" if len(known) > _SHOWN_NAMES else ""
        why = f"there is no such model; there are {', '.join(known[:_SHOWN_NAMES])}{more}"
    else:
        why = f"there is no model in {here[0]}; `ollama pull {name}` gets it"
    raise LocationError(code="ollama_missing", message=why)


def models(folder: Path) -> Iterator[OllamaModel]:
    """The models of a folder that have a GGUF file, by name; damaged manifests are left out."""
    for manifest in sorted((folder / "manifests").glob("*/*/*/*")):
        try:
            host, namespace, model, tag = manifest.parts[-4:]
            name = OllamaName.parse(f"{host}/{namespace}/{model}:{tag}")
            yield _model(folder, manifest, name)
        except LocationError:
            continue


def modelfile(file: Path, *, context_length: int | None, model: OllamaModel | None = None) -> str:
    """Text of a Modelfile: the new file with everything else of the model it was made from.

    Parameters
    ----------
    file : Path
        The new GGUF file.
    context_length : int or None
        Tokens; Ollama uses a few thousand unless num_ctx says otherwise. None: what the model says.
    model : OllamaModel, optional
        Gives projector, adapter, template, system prompt and parameters.

    Source: docs/modelfile.mdx and parser/parser.go of Ollama.
    """
    lines = [f"FROM {file.resolve()}"]
    if model is not None:
        lines += [f"FROM {blob}" for kind, blob in model.layers if kind == "projector"]
        lines += [f"ADAPTER {blob}" for kind, blob in model.layers if kind == "adapter"]
        for kind in ("template", "system"):
            text = model.text(kind)
            if text is not None:
                lines.append(_line(kind.upper(), text))
        dropped = None if context_length is None else "num_ctx"
        lines += _parameters(model.text("params"), dropped)
    if context_length is not None:
        lines.append(f"PARAMETER num_ctx {context_length}")
    return "\n".join([*lines, ""])


def _model(folder: Path, manifest: Path, name: OllamaName) -> OllamaModel:
    def refuse(why: str) -> LocationError:
        return LocationError(code="ollama_missing", path=manifest, message=why)

    text = _small_text(manifest)
    if text is None:
        raise refuse("is no manifest of an Ollama model: too long, unreadable or no text")
    try:
        listed = json.loads(text)["layers"]
        kinds = [(str(layer["mediaType"]), str(layer["digest"])) for layer in listed]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise refuse(
            f"is no manifest of an Ollama model ({type(error).__name__} in its layers); "
            f"`ollama pull {name}` gets it again"
        ) from error
    layers = []
    for media_type, digest in kinds:
        match = _DIGEST.fullmatch(digest)
        if media_type.startswith(_MEDIA_TYPE) and match is not None:
            kind = media_type.removeprefix(_MEDIA_TYPE)
            layers.append((kind, folder / "blobs" / f"sha256-{match[1]}"))
    files = [blob for kind, blob in layers if kind == _MODEL]
    if not files:
        raise refuse("names no GGUF file: the model runs elsewhere, or lies here in another format")
    others = tuple(layer for layer in layers if layer[0] != _MODEL)
    return OllamaModel(name, files[0], others)


def _small_text(path: Path) -> str | None:
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_TEXT:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _parameters(params: str | None, dropped: str | None) -> list[str]:
    try:
        values = json.loads(params or "{}")
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        return ["# the parameters of the old model could not be read"]
    lines = []
    for name, value in values.items():
        if name == dropped or not name.replace("_", "").isalnum():
            continue
        for one in value if isinstance(value, list) else [value]:
            text = one if isinstance(one, str) else json.dumps(one)
            lines.append(_line(f"PARAMETER {name}", text))
    return lines


def _line(head: str, text: str) -> str:
    """One instruction; a Modelfile has no escapes, so some texts cannot be written in one."""
    if _QUOTES in text or not all(c.isprintable() or c in "\n\t" for c in text):
        return f"# {head} of the old model has characters that a Modelfile cannot hold"
    plain = text.replace(".", "").replace("-", "").isalnum()
    return f"{head} {text}" if plain else f"{head} {_QUOTES}{text}{_QUOTES}"
