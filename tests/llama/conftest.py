"""Random models, run by llama.cpp in a child process."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from experiment import try_architecture
from ggufext.llama.process import LlamaProcess
from ggufext.llama.rope_nodes import Observation, observe
from ggufext.llama.settings import ContextSettings
from llama_here import needs_llama_cpp
from random_model import MetadataValue, write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from experiment import Trial
    from ggufext.llama.settings import Override

#: Enough tokens to reach beyond every window and to tell two rotations apart.
TOKENS = tuple((7 * i * i + 3 * i) % 250 for i in range(300))

SETTINGS = ContextSettings(n_ctx=512)


@pytest.fixture(scope="session")
def run_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Observation]:
    """Write a random model, run it, and say what happened; the same request runs once."""
    needs_llama_cpp()
    folder = tmp_path_factory.mktemp("random models")
    seen: dict[str, Observation] = {}

    def run(
        architecture: str,
        keys: Mapping[str, MetadataValue] | None = None,
        *,
        settings: ContextSettings = SETTINGS,
        overrides: Mapping[str, Override] | None = None,
        tensors: Mapping[str, Any] | None = None,
    ) -> Observation:
        """Run; `keys` and `overrides` go without the architecture's prefix."""
        request = repr((architecture, keys, settings, overrides, tensors))
        if request not in seen:
            metadata = {f"{architecture}.{key}": value for key, value in (keys or {}).items()}
            path: Path = folder / f"{architecture}.gguf"
            write_random_model(path, architecture, metadata=metadata, tensors=tensors)
            seen[request] = observe(
                path,
                tokens=TOKENS,
                settings=settings,
                kv_overrides={f"{architecture}.{key}": v for key, v in (overrides or {}).items()},
            )
            path.unlink()
        return seen[request]

    return run


@pytest.fixture(scope="session")
def probe() -> Iterator[LlamaProcess]:
    """One process that runs many small models."""
    with LlamaProcess() as process:
        yield process


@pytest.fixture(scope="session")
def trial(probe: LlamaProcess, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trial]:
    """Every method tried on the smallest model of an architecture, once."""
    folder = tmp_path_factory.mktemp("tiny models")

    @cache
    def run(name: str) -> Trial:
        path = write_random_model(folder / f"{name}.gguf", name)
        return try_architecture(path, process=probe)

    return run
