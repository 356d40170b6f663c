"""docs/errors.md has a row for every code of an error or a warning, and for no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ERRORS, WARNINGS = (
    set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|((?: `\w+`)+) \|", part, re.MULTILINE))))
    for part in (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").split("\n## Warnings")
)

#: What makes a warning of a code; everything else that takes one makes an error.
WARNS = {"ModelWarning", "_note"}
#: Codes of csrc that become a TypeError and a ValueError.
ARGUMENTS = {"type", "value"}


def in_python() -> Iterator[tuple[str, bool]]:
    """Every code in the sources, and whether it is one of a warning."""
    modules = [ast.parse(path.read_text("utf-8")) for path in (ROOT / "src").rglob("*.py")]
    classes = {
        node.name: place
        for module in modules
        for node in module.body
        if isinstance(node, ast.ClassDef) and (place := _place_of_code(node)) is not None
    }
    for module in modules:
        named = {
            ast.unparse(target): node.value
            for node in ast.walk(module)
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        }
        takes = classes | {
            node.name: place
            for node in ast.walk(module)
            if isinstance(node, ast.FunctionDef) and (place := _place_of_code(node)) is not None
        }
        for node in ast.walk(module):
            for value, warns in _values(node, takes, named):
                is_constant = isinstance(value, ast.Name) and value.id.isupper()
                meant = named[ast.unparse(value)] if is_constant else value
                yield from ((code, warns) for code in _texts(meant))


def _place_of_code(node: ast.ClassDef | ast.FunctionDef) -> int | None:
    """Which positional argument of a function or class is a code."""
    if isinstance(node, ast.FunctionDef):
        names = [argument.arg for argument in node.args.args if argument.arg != "self"]
    else:
        made = [each for each in node.body if isinstance(each, ast.FunctionDef)]
        init = next((each for each in made if each.name == "__init__"), None)
        if init is not None:
            return _place_of_code(init)
        fields = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
        names = [ast.unparse(field) for field in fields]
    return names.index("code") if "code" in names else None


def _values(
    node: ast.AST, takes: dict[str, int], named: dict[str, ast.expr]
) -> Iterator[tuple[ast.expr, bool]]:
    """What a piece of code uses as a code."""
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func).rpartition(".")[2]
        yield from ((each.value, name in WARNS) for each in node.keywords if each.arg == "code")
        if name in takes and len(node.args) > takes[name]:
            yield node.args[takes[name]], name in WARNS
    elif isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        yield from (
            (v, False) for k, v in pairs if isinstance(k, ast.Constant) and k.value == "code"
        )
    elif isinstance(node, ast.Assign | ast.For):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        source = node.value if isinstance(node, ast.Assign) else node.iter
        names = [ast.unparse(each) for each in getattr(target, "elts", ())]
        if "code" in names:
            tables = [named.get(ast.unparse(each), each) for each in ast.walk(source)]
            tuples = [each for table in tables for each in ast.walk(table) if _is_row(each, names)]
            yield from ((each.elts[names.index("code")], False) for each in tuples)
        elif ast.unparse(target).rpartition(".")[2] == "code":
            yield source, False


def _is_row(node: ast.AST, names: list[str]) -> TypeGuard[ast.Tuple]:
    return isinstance(node, ast.Tuple) and len(node.elts) == len(names)


def _texts(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from (*_texts(value.body), *_texts(value.orelse))


@pytest.fixture(scope="module")
def codes() -> tuple[set[str], set[str]]:
    """Codes of errors and of warnings, as the sources have them."""
    found = set(in_python())
    native = set()
    for path in (ROOT / "csrc").rglob("*.c*"):
        native |= set(re.findall(r'\berror\(\s*"(\w+)"', path.read_text("utf-8")))
    errors = {code for code, warns in found if not warns} | native - ARGUMENTS
    return errors, {code for code, warns in found if warns}


def test_every_error_is_documented_and_every_documented_error_is_raised(
    codes: tuple[set[str], set[str]],
) -> None:
    assert codes[0] == ERRORS


def test_every_warning_is_documented_and_every_documented_warning_is_given(
    codes: tuple[set[str], set[str]],
) -> None:
    assert codes[1] == WARNINGS
