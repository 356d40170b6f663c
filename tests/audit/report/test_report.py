"""Which file is written, and what is refused before a run."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest

from ggufext.audit import report
from ggufext.audit.findings.results import CheckResult
from ggufext.audit.report import check_report_path, write_report
from ggufext.errors import GgufextError
from made_up_audits import SHARES, audit, with_run


@pytest.mark.parametrize("name", ["report.pdf", "report", "report.html.gz"])
def test_an_ending_without_a_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(GgufextError) as caught:
        check_report_path(tmp_path / name)
    assert caught.value.code == "report_path"
    assert ".html, .png, .json" in str(caught.value)


def test_a_folder_that_does_not_exist_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(GgufextError) as caught:
        check_report_path(tmp_path / "missing" / "report.html")
    assert caught.value.code == "report_path"


@pytest.mark.parametrize("missing", ["resvg_py", "font_source_sans_pro"])
def test_a_png_without_its_packages_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    installed = {"resvg_py", "font_source_sans_pro"} - {missing}
    monkeypatch.setattr(report, "find_spec", lambda name: name if name in installed else None)
    with pytest.raises(GgufextError) as caught:
        check_report_path(tmp_path / "report.png")
    assert caught.value.code == "extra_missing"
    assert "ggufext[report]" in str(caught.value)


def test_a_report_never_replaces_what_the_run_reads_or_keeps(tmp_path: Path) -> None:
    kept = tmp_path / "run.json"
    linked, twin = tmp_path / "linked.json", tmp_path / "twin.json"
    for path in (kept, tmp_path / "sub" / ".." / "run.json"):
        with pytest.raises(GgufextError) as caught:  # also before the file is there
            check_report_path(path, inputs=[tmp_path / "model.gguf", kept])
        assert caught.value.code == "report_path"
    kept.touch()
    linked.symlink_to(kept)
    os.link(kept, twin)
    for path in (linked, twin):
        with pytest.raises(GgufextError) as caught:
            check_report_path(path, inputs=[kept])
        assert caught.value.code == "report_path"
    check_report_path(tmp_path / "other.json", inputs=[kept])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no files")
def test_a_folder_that_takes_no_files_whatever_its_permissions_is_refused_before_the_run() -> None:
    with pytest.raises(GgufextError, match="takes no new files") as caught:
        check_report_path(Path("/proc/report.html"))
    assert caught.value.code == "report_path"


def test_a_folder_in_place_of_the_report_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(GgufextError) as caught:
        check_report_path(tmp_path / "report.html")
    assert caught.value.code == "report_path"


@pytest.mark.parametrize("suffix", [".html", ".png", ".json"])
def test_a_report_that_cannot_be_written_leaves_what_stood_there(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"report{suffix}"
    path.write_bytes(b"precious")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GgufextError, match="No space left") as caught:
        write_report(audit(), path)
    assert caught.value.code == "report_not_written"
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_replaces_the_file_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "report.json")
    write_report(audit(), tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "report.json").read_text())


@pytest.mark.parametrize("suffix", [".html", ".png", ".json"])
def test_any_file_name_ends_in_a_report(tmp_path: Path, suffix: str) -> None:
    name = os.fsdecode(b"model \xff\xfe \xc3.gguf")
    condition = f"planned:{name}.json"
    result = with_run(audit({condition: SHARES["file"]}), path=name, versions={"dask": name})
    path = tmp_path / (os.fsdecode(b"report \xff") + suffix)
    write_report(result, path)
    assert path.stat().st_size > 1000
    if suffix == ".json":
        assert json.loads(path.read_bytes())["run"]["path"] == name


def test_json_has_the_fields_of_the_dataclasses(tmp_path: Path) -> None:
    result = audit()
    write_report(result, tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert list(read) == [field.name for field in fields(CheckResult)]
    assert read["request"]["mode"] == "standard"
    assert read["conditions"][0]["cells"][0]["length"] == 256


def test_json_of_a_cell_that_was_not_measured_has_null_hits(tmp_path: Path) -> None:
    write_report(audit({"file": (1.0, 1.0, None)}), tmp_path / "report.json")
    cells = json.loads((tmp_path / "report.json").read_text())["conditions"][0]["cells"]
    assert {cell["hits"] for cell in cells if cell["length"] == 1024} == {None}


def test_the_ending_counts_in_capitals_too(tmp_path: Path) -> None:
    write_report(audit(), tmp_path / "REPORT.HTML")
    assert (tmp_path / "REPORT.HTML").read_text().startswith("<!DOCTYPE html>")
