"""The CUDA kernels on a device; skipped without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ggufext.errors import NativeError
from ggufext.rope import reference, rotate, rotate_qk


def _why_not() -> str | None:
    try:
        from ggufext import _cuda
    except ImportError:
        return "built without CUDA: no nvcc was found"
    try:
        return None if _cuda.device_count() else "no CUDA device"
    except NativeError as error:
        return error.message


_REASON = _why_not()
pytestmark = pytest.mark.skipif(_REASON is not None, reason=_REASON or "")
INV_FREQ = 10_000.0 ** (-np.arange(64) / 64)


@pytest.fixture(params=["torch", "cupy"])
def library(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def to_device(library: Any, x: Any) -> Any:
    if library.__name__ == "cupy":
        return library.asarray(x)
    return library.from_numpy(x).cuda()


def to_host(x: Any) -> Any:
    return x.get() if hasattr(x, "get") else x.float().cpu().numpy()


@pytest.mark.parametrize("name", ["float32", "float16"])
@pytest.mark.parametrize("dim", [64, 80, 128])
def test_results_are_those_of_the_reference(
    *, name: str, dim: int, layout: Any, library: Any, draw: Any, assert_close: Any
) -> None:
    x = draw((300, 5, dim + 8), name)
    inv_freq = 10_000.0 ** (-np.arange(dim // 2) / (dim // 2))
    positions = np.arange(300) * 3000
    options: Any = {"inv_freq": inv_freq, "layout": layout, "attention_factor": 1.2}
    exact = reference.rotate(x, positions, **options)
    on_device = to_device(library, x)
    for where in (positions, to_device(library, positions)):
        assert_close(to_host(rotate(on_device, where, **options)).astype(name), exact)
    rotate(on_device, positions, out=on_device, **options)
    assert_close(to_host(on_device).astype(name), exact)


def test_bfloat16_of_torch_q_and_k_in_place(layout: Any, draw: Any) -> None:
    torch = pytest.importorskip("torch")
    q = torch.from_numpy(draw((100, 32, 128))).cuda().bfloat16()
    k = torch.from_numpy(draw((100, 8, 128))).cuda().bfloat16()
    positions = np.arange(100) + 10**6
    options: Any = {"inv_freq": INV_FREQ, "layout": layout}
    exact = [reference.rotate(x.double().cpu().numpy(), positions, **options) for x in (q, k)]
    rotate_qk(q, k, positions, out=(q, k), **options)
    for found, expected in zip((q, k), exact, strict=True):
        error = np.abs(found.double().cpu().numpy() - expected)
        assert np.all(error <= 2.0**-8 * np.abs(expected) + 2e-6)


def test_sections_are_read_from_device_and_host(layout: Any, library: Any, draw: Any) -> None:
    x = draw((2, 150, 4, 128))
    positions = np.random.default_rng(0).integers(0, 9999, (4, 2, 150))
    for order in ("blocked", "interleaved"):
        options: Any = {
            "inv_freq": INV_FREQ,
            "layout": layout,
            "sections": (24, 20, 16, 4),
            "section_order": order,
        }
        exact = reference.rotate(x, positions, **options)
        for where in (positions, to_device(library, positions)):
            found = to_host(rotate(to_device(library, x), where, **options))
            assert np.abs(found - exact).max() <= 3e-6


def test_a_bad_position_on_the_device_is_found_and_nothing_written(library: Any, draw: Any) -> None:
    x = to_device(library, draw((4, 2, 128)))
    before = to_host(x).copy()
    for bad in (-1, 2**31):
        positions = to_device(library, np.array([0, 1, bad, 3]))
        with pytest.raises(ValueError, match=f"positions: {bad} at index 2"):
            rotate(x, positions, inv_freq=INV_FREQ, out=x)
    assert np.array_equal(to_host(x), before)


def test_work_is_queued_on_the_caller_s_stream(draw: Any) -> None:
    torch = pytest.importorskip("torch")
    host = draw((2000, 32, 128))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = torch.from_numpy(host).pin_memory().cuda(non_blocking=True)
        for _ in range(20):
            x = x + 1  # work that a launch on another stream would overtake
        rotate(x, np.arange(2000), inv_freq=INV_FREQ, out=x)
    stream.synchronize()
    exact = reference.rotate(host + np.float32(20), np.arange(2000), inv_freq=INV_FREQ)
    assert np.abs(x.cpu().numpy() - exact).max() <= 2e-5


def test_a_graph_reads_positions_on_the_device_anew_and_refuses_those_of_the_host(
    draw: Any,
) -> None:
    torch = pytest.importorskip("torch")
    host = draw((300, 4, 128))
    x, out = (torch.from_numpy(host).cuda() for _ in range(2))
    positions = torch.arange(300, device="cuda")
    rotate(x, positions, inv_freq=INV_FREQ, out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        rotate(x, positions, inv_freq=INV_FREQ, out=out)
        with pytest.raises(ValueError, match="positions: are on the CPU, expected on the device"):
            rotate(x, np.arange(300)[::-1], inv_freq=INV_FREQ, out=out)
    positions += 1000
    graph.replay()
    exact = reference.rotate(host, np.arange(300) + 1000, inv_freq=INV_FREQ)
    assert np.abs(out.cpu().numpy() - exact).max() <= 3e-6
