"""A name that `ollama list` shows leads through its manifest to the blob that is the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggufext.errors import LocationError
from ggufext.locating import ollama
from ggufext.locating.names import local_path
from ggufext.locating.ollama import modelfile
from ollama_folder import add_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Ollama models that is the only one here."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(ollama, "_SERVICE_FOLDER", tmp_path / "none")
    return tmp_path / "models"


@pytest.mark.parametrize(
    ("name", "manifest"),
    [
        ("ollama:tiny", "registry.ollama.ai/library/tiny/latest"),
        ("ollama:tiny:1b-q4_K_M", "registry.ollama.ai/library/tiny/1b-q4_K_M"),
        ("ollama:owner/tiny", "registry.ollama.ai/owner/tiny/latest"),
        ("ollama:hf.co/owner/Tiny-GGUF:Q4_K_M", "hf.co/owner/Tiny-GGUF/Q4_K_M"),
        ("ollama:localhost:5000/owner/tiny:x", "localhost:5000/owner/tiny/x"),
    ],
)
def test_a_name_leads_to_its_blob(folder: Path, name: str, manifest: str) -> None:
    blob = add_model(folder, b"weights", manifest=manifest)
    assert local_path(name) == blob


@pytest.mark.parametrize("text", ["tiny", "owner/tiny:2b", "hf.co/owner/tiny:Q4_0"])
def test_a_name_is_shown_without_defaults(text: str) -> None:
    shown = str(ollama.OllamaName.parse(text))
    assert shown.removesuffix(":latest") == text


@pytest.mark.parametrize(
    "name",
    ["ollama:", "ollama:../../etc:x", "ollama:a/b/c/d", "ollama:tiny:..", "ollama:a\x1bb"],
)  # fmt: skip
def test_a_name_cannot_lead_out_of_the_folder(folder: Path, name: str) -> None:
    add_model(folder, b"weights")
    with pytest.raises(LocationError) as caught:
        local_path(name)
    assert caught.value.code == "ollama_name"
    assert str(caught.value).isprintable()


def test_the_users_own_folder_is_found_without_a_variable(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_MODELS")
    blob = add_model(tmp_path / "home/.ollama/models", b"weights")
    assert local_path("ollama:tiny") == blob


def test_the_folder_of_the_service_is_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ollama, "_SERVICE_FOLDER", tmp_path / "service")
    blob = add_model(tmp_path / "service", b"weights")
    assert local_path("ollama:tiny") == blob


def test_an_unknown_name_is_answered_with_those_that_are_here(folder: Path) -> None:
    add_model(folder, b"weights", manifest="registry.ollama.ai/library/tiny/1b")
    with pytest.raises(LocationError, match="tiny:1b") as caught:
        local_path("ollama:huge")
    assert caught.value.code == "ollama_missing"


def test_without_ollama_the_variable_is_named(folder: Path) -> None:
    with pytest.raises(LocationError, match="OLLAMA_MODELS") as caught:
        local_path("ollama:tiny")
    assert caught.value.code == "ollama_missing"


def test_a_manifest_whose_blob_is_gone_says_how_to_get_it(folder: Path) -> None:
    add_model(folder, b"weights").unlink()
    with pytest.raises(LocationError, match="ollama pull tiny") as caught:
        local_path("ollama:tiny")
    assert caught.value.code == "ollama_missing"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"layers": 7}',
        b'{"layers": [{"mediaType": "application/vnd.ollama.image.model"}]}',
        b'{"layers": []}',
        b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "../x"}]}',
        b"[" * 100_000,
        b"\xff\xfe",
        b" " * (2 << 20),
    ],
)
def test_a_damaged_manifest_is_named_and_left_out_of_lists(folder: Path, content: bytes) -> None:
    add_model(folder, b"weights")
    (folder / "manifests/registry.ollama.ai/library/tiny/latest").write_bytes(content)
    with pytest.raises(LocationError) as caught:
        local_path("ollama:tiny")
    assert caught.value.code == "ollama_missing"
    assert list(ollama.models(folder)) == []


def test_a_file_of_such_a_name_is_reached_with_a_dot(folder: Path) -> None:
    assert local_path("./ollama:tiny") == Path("ollama:tiny")


def test_the_modelfile_keeps_what_the_old_model_had(folder: Path) -> None:
    add_model(
        folder,
        b"weights",
        others={
            "template": b"{{ .System }}\n{{ .Prompt }}",
            "system": b"Be brief.",
            "projector": b"eyes",
            "params": b'{"stop": ["<|a|>", "b"], "temperature": 0.5, "num_ctx": 8}',
        },
    )
    model = ollama.find("tiny")
    projector = dict(model.layers)["projector"]
    lines = modelfile(Path("/new.gguf"), context_length=32768, model=model).split("\n")
    assert lines == [
        "FROM /new.gguf",
        f"FROM {projector}",
        'TEMPLATE """{{ .System }}',
        '{{ .Prompt }}"""',
        'SYSTEM """Be brief."""',
        'PARAMETER stop """<|a|>"""',
        "PARAMETER stop b",
        "PARAMETER temperature 0.5",
        "PARAMETER num_ctx 32768",
        "",
    ]


@pytest.mark.parametrize("hostile", [b'"""\nFROM /etc/passwd\n"""', b"\x1b]0;title\x07"])
def test_the_modelfile_holds_nothing_that_breaks_out_of_a_text(
    folder: Path, hostile: bytes
) -> None:
    add_model(folder, b"weights", others={"template": hostile})
    text = modelfile(Path("/new.gguf"), context_length=8, model=ollama.find("tiny"))
    assert text.split("\n")[0] == "FROM /new.gguf"
    assert text.split("\n")[1].startswith("# TEMPLATE")
    assert text.count("FROM") == 1
    assert "\x1b" not in text
