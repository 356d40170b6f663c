"""The schemas of ``--json`` are those of the code, cover every command and explain every field.

What the commands really print is compared with them wherever a test of a command runs one: see
`schemas.check_output`.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from ggufext.cli import cli
from program import result
from schemas import check_output

if TYPE_CHECKING:
    from collections.abc import Iterator

jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema: pip install '.[dev]'")

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in (DOCS / "schemas").glob("*.json")
}
#: What a number is counted in, or that it is a ratio.
UNIT = re.compile(
    r"tokens|bytes|seconds|minutes|nats|radians|turns|\bshares?\b|\[0, 1\]|from 0|how many|elements"
    r"|dimensions|\bkeys\b|queries|trials|texts|threads|layers|equal bins|base\b|θ|γ|factor"
    r"|target over training|multiplie[sd]|divided? by|largest angle|probability|error"
    r"|\[−1, 1\]|weights of ln|in the (same unit|unit of)|no unit|tensor|what is written"
    r"|what the file holds|in \(0, 1\]|in the file",
    re.IGNORECASE,
)


def objects(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Properties of every object in a schema."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {}).items()
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part)


def test_the_schemas_are_what_the_code_says() -> None:
    pytest.importorskip("griffe", reason="needs griffe: pip install '.[dev]'")
    # A process of its own: griffe reads the sources that are found first.
    code = "import json, write_schemas; print(json.dumps(dict(write_schemas.schemas())))"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=DOCS, capture_output=True, text=True, check=True
    ).stdout
    written = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "schemas").iterdir()}
    assert written == json.loads(printed), "run: python docs/write_schemas.py"


def test_every_command_that_prints_json_has_a_schema() -> None:
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    printing = {
        name
        for name, command in commands.items()
        if command is not None
        and any("--json" in option.opts for option in command.get_params(context))
    }
    assert set(SCHEMAS) == printing


@pytest.mark.parametrize("command", SCHEMAS)
def test_a_schema_is_valid_and_knows_no_field_without_a_word(command: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[command])
    for name, schema in objects(SCHEMAS[command]):
        assert schema.get("description"), name


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_number_has_a_unit_or_says_what_it_is_a_ratio_of(command: str) -> None:
    for name, schema in objects(SCHEMAS[command]):
        said = json.dumps({key: part for key, part in schema.items() if key != "description"})
        if '"integer"' in said or "defs/Number" in said:
            assert UNIT.search(schema["description"]), f"{name}: {schema['description']}"


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_object_is_closed_and_whole(command: str) -> None:
    text = json.dumps(SCHEMAS[command])
    assert text.count('"properties"') == text.count('"additionalProperties": false')
    for name, schema in objects({"x": SCHEMAS[command]}):
        if "properties" in schema:
            assert schema["required"] == list(schema["properties"]), name


def test_a_field_that_is_not_documented_fails(llama: Path) -> None:
    plan = result("plan", llama, "--target", "8k", "--method", "yarn")
    check_output("plan", json.dumps(plan))
    for change in ({"more": 1}, {"gamma": plan["gamma"] | {"more": 1}}, {"factor": "two"}):
        with pytest.raises(AssertionError, match="plan --json"):
            check_output("plan", json.dumps(plan | change))
    for name in plan:
        less = copy.copy(plan)
        del less[name]
        with pytest.raises(AssertionError, match=name):
            check_output("plan", json.dumps(less))


def test_numbers_that_json_cannot_say_are_text(llama: Path) -> None:
    plan = result("plan", llama, "--target", "8k", "--method", "yarn")
    check_output("plan", json.dumps(plan | {"d_horizon": "Infinity"}))
    with pytest.raises(AssertionError):
        check_output("plan", json.dumps(plan | {"d_horizon": "many"}))


def test_the_page_names_every_schema() -> None:
    page = (DOCS / "json.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(schemas/(\w+)\.json\)", page)) == set(SCHEMAS)
