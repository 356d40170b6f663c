"""The split of the standard library goes by names of modules alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from standard_library import (
    SHORTEST_TEXT,
    Part,
    Source,
    digest,
    held_out_texts,
    part_of,
    sources,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_a_package_is_in_one_part_as_a_whole() -> None:
    parts: dict[str, set[Part]] = {}
    for source in sources():
        parts.setdefault(source.module, set()).add(source.part)
    assert all(len(found) == 1 for found in parts.values())


def test_the_parts_are_what_the_protocol_says() -> None:
    names = ("asyncio", "argparse", "datetime", "warnings", "json", "inspect")
    training, tuning, test = Part.TRAINING, Part.TUNING, Part.TEST
    assert [part_of(name) for name in names] == [training, training, tuning, tuning, test, test]


def test_tests_and_tables_are_left_out(tmp_path: Path) -> None:
    for name in ("a.py", "test/test_a.py", "b/tests/c.py", "encodings/cp037.py", "config-3/d.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
    assert [source.name for source in sources(tmp_path)] == ["a.py"]


def test_texts_are_the_longest_file_of_each_module_that_is_long_enough() -> None:
    long = "x" * SHORTEST_TEXT
    library = [
        Source("json/__init__.py", long),
        Source("json/decoder.py", long + "y"),
        Source("inspect.py", "short"),
        Source("argparse.py", long),
    ]
    assert [source.name for source in held_out_texts(library, Part.TEST)] == ["json/decoder.py"]


def test_the_digest_tells_names_and_texts_apart() -> None:
    first = digest([Source("a.py", "b")])
    assert first != digest([Source("a.py", "c")])
    assert first != digest([Source("b.py", "b")])
    assert first == digest([Source("a.py", "b")])
