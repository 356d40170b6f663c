"""What mkdocs adds to the site for the page that plans: Python, and modules of ggufext."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_PLANNER = Path(__file__).parent / "planner"
_PACKAGE = Path(__file__).parents[1] / "src" / "ggufext"

#: What plans are made with, of the package.
_ROOMS = (
    "__init__",
    "api",
    "arguments",
    "errors",
    "header",
    "locating",
    "opened",
    "planning",
    "presenting",
    "system",
    "text",
)

#: What Pyodide needs to start, of its package.
_PYODIDE = (
    *("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm"),
    *("python_stdlib.zip", "pyodide-lock.json"),
)


#: The page that plans may ask its own site only: no file that it was lent can leave the browser.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; "
    "worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'self'; form-action 'none'"
)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Give the page that plans its policy."""
    del config
    if page.file.src_uri != "plan.md":
        return output
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    return output.replace("<head>", f"<head>{policy}", 1)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the modules, and Pyodide where `npm ci --prefix docs/planner` installed it."""
    files.append(File.generated(config, "planner/ggufext.zip", content=archive()))
    installed = _PLANNER / "node_modules" / "pyodide"
    if not installed.is_dir():
        logging.getLogger("mkdocs.hooks").info(
            "The page that plans will not work: run npm ci --prefix docs/planner"
        )
        return files
    for name in _PYODIDE:
        path = str(installed / name)
        files.append(File.generated(config, f"planner/pyodide/{name}", abs_src_path=path))
    return files


def archive() -> bytes:
    """The modules that the browser gets; the same bytes for the same sources."""
    sources = {_PLANNER / "planner.py": "planner.py"}
    for room in _ROOMS:
        folder = _PACKAGE / room
        found = folder.rglob("*") if folder.is_dir() else [_PACKAGE / f"{room}.py"]
        for path in found:
            if path.suffix in {".py", ".json"}:
                sources[path] = str(path.relative_to(_PACKAGE.parent))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for path, name in sorted(sources.items()):
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, path.read_bytes())
    return packed.getvalue()
