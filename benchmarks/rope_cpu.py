"""RoPE on the CPU: ggufext against the memory limit, ggml and PyTorch, as ratios in one run.

Everybody works in place on the same bytes, in turn. PyTorch gets its cosines and sines computed
beforehand; ggufext and ggml compute them in every call.

    python benchmarks/rope_cpu.py [--rounds 15] [--no-compile] [--write docs/rope.md]
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import math
import shutil
import statistics
import subprocess
import tempfile
import timeit
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ggml_rope import NEOX, NORM, GgmlRope, library
from ggufext import _core
from ggufext.rope import reference, rotate
from tables import interleave, markdown, ratio, replace_section

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (4096, 32, 128)
INV_FREQ = 10_000.0 ** (-np.arange(SHAPE[2] // 2) / (SHAPE[2] // 2))
SWEEPS = 3
LAYOUTS = {"interleaved": NORM, "half": NEOX}
Rivals = dict[str, "Callable[[], object]"]


@dataclass
class Result:
    """One row of the table: times of everybody for a type, layout and number of threads."""

    dtype: str
    layout: str
    threads: int
    bytes: int
    times: dict[str, list[float]] = field(default_factory=dict)

    def speed(self, name: str) -> str:
        """GB/s read and written, median."""
        return f"{2 * self.bytes / statistics.median(self.times[name]) / 1e9:.1f}"

    def against(self, name: str) -> str:
        """How many times longer `name` took than ggufext; a dash where it has no kernel."""
        return f"{ratio(self.times, name, 'ggufext'):.2f}" if name in self.times else "–"


def build_stream() -> Any:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise SystemExit("the memory limit is measured by a C++ program: no compiler found")
    folder = tempfile.mkdtemp()
    library = Path(folder) / "stream.so"
    source = Path(__file__).with_name("stream.cpp")
    flags = ["-O3", "-march=native", "-shared", "-fPIC", "-pthread"]
    subprocess.run([compiler, *flags, "-o", str(library), str(source)], check=True)
    return ctypes.CDLL(str(library)).stream_in_place


def half_eager(x: Any, cos: Any, sin: Any) -> Any:
    """Hugging Face's formulation: x·cos + rotate_half(x)·sin with tables of head_dim columns."""
    import torch

    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def torch_in_place(first: Any, second: Any, cos: Any, sin: Any, spare: Any) -> None:
    """Rotate in the fewest passes eager PyTorch can make, in memory that is there already."""
    import torch

    width = first.shape[-1]
    old, product = spare
    old.copy_(first)
    torch.mul(second, sin[..., :width], out=product)
    first.mul_(cos[..., :width]).sub_(product)
    second.mul_(cos[..., :width]).addcmul_(old, sin[..., :width])


def torch_rivals(data: Any, dtype: str, layout: str, threads: int, compile_: bool) -> Rivals:
    """PyTorch's usual formulations on the same memory; float32 only where it has no other."""
    import torch

    torch.set_num_threads(threads)
    x = torch.from_numpy(data.view(np.int16) if dtype == "bfloat16" else data)
    x = x.view(torch.bfloat16) if dtype == "bfloat16" else x
    angles = torch.arange(SHAPE[0], dtype=torch.float64)[:, None] * torch.from_numpy(INV_FREQ)
    doubled = torch.cat((angles, angles), dim=-1)[:, None, :]
    cos, sin = doubled.cos().to(x.dtype), doubled.sin().to(x.dtype)
    spare = tuple(torch.empty((*SHAPE[:2], SHAPE[2] // 2), dtype=x.dtype) for _ in range(2))
    rivals: Rivals = {}
    if layout == "interleaved":
        even, odd = x[..., 0::2], x[..., 1::2]
        rivals["torch in place"] = lambda: torch_in_place(even, odd, cos, sin, spare)
        if dtype == "float32":
            pairs = torch.view_as_complex(x.view(*SHAPE[:2], -1, 2))
            turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)[:, None, :]
            rivals["torch complex in place"] = lambda: torch.mul(pairs, turns, out=pairs)
            rivals["torch complex"] = lambda: pairs * turns
        return rivals
    lower, upper = x.chunk(2, dim=-1)
    rivals["torch in place"] = lambda: torch_in_place(lower, upper, cos, sin, spare)
    rivals["Hugging Face"] = lambda: half_eager(x, cos, sin)
    if compile_:
        compiled = torch.compile(half_eager, dynamic=False)
        try:
            compiled(x, cos, sin)
        except Exception as error:
            print(f"torch.compile does not work here: {type(error).__name__}")
        else:
            rivals["torch.compile"] = lambda: compiled(x, cos, sin)
    return rivals


def measure(
    dtype: str, layout: str, threads: int, *, rounds: int, stream: Any, compile_: bool
) -> Result:
    kind = np.dtype("bfloat16" if dtype == "bfloat16" else dtype)
    theirs = None
    if library() is not None:
        theirs_type = np.float32 if dtype == "float32" else np.float16
        theirs = GgmlRope(SHAPE, theirs_type, mode=LAYOUTS[layout], threads=threads)
        theirs.positions[...] = np.arange(SHAPE[0])
    data = theirs.data.view(kind) if theirs and dtype != "bfloat16" else np.empty(SHAPE, kind)
    values = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    data[...] = values.astype(kind)
    if theirs and dtype == "bfloat16":
        theirs.data[...] = values.astype(np.float16)
    positions = np.arange(SHAPE[0])
    check(data, positions, layout)
    result = Result(dtype, layout, threads, data.nbytes)
    address, size = ctypes.c_void_p(data.ctypes.data), ctypes.c_int64(data.nbytes)
    calls: Rivals = {
        # An even number of sweeps leaves the data as they were.
        "limit": lambda: stream(address, size, threads, 2 * SWEEPS),
        "ggufext": lambda: [
            rotate(data, positions, inv_freq=INV_FREQ, layout=layout, out=data, threads=threads)  # type: ignore[arg-type]
            for _ in range(SWEEPS)
        ],
    }
    if theirs:
        calls["ggml"] = theirs.run
    if find_spec("torch"):
        calls |= torch_rivals(data, dtype, layout, threads, compile_)
    result.times = interleave(calls, rounds=rounds)
    for name, passes in (("limit", 2 * SWEEPS), ("ggufext", SWEEPS)):
        result.times[name] = [seconds / passes for seconds in result.times[name]]
    if theirs:
        theirs.close()
    return result


def check(data: Any, positions: Any, layout: str) -> None:
    """Compare the first and last tokens with float64, so that nothing wrong is timed."""
    for part in (slice(0, 8), slice(-8, None)):
        x, p = data[part], positions[part]
        exact = reference.rotate(x.astype(np.float64), p, inv_freq=INV_FREQ, layout=layout)
        found = rotate(x, p, inv_freq=INV_FREQ, layout=layout)  # type: ignore[arg-type]
        unit = {4: 3e-7, 2: 2.0**-8}[data.itemsize]
        if np.abs(found.astype(np.float64) - exact).max() > unit * np.abs(exact).max():
            raise SystemExit("wrong result: not timed")


def table(results: list[Result]) -> str:
    header = ["type", "layout", "threads", "limit GB/s", "ggufext GB/s", "of the limit"]
    rivals = [
        "ggml",
        "torch complex in place",
        "torch complex",
        "torch in place",
        "Hugging Face",
        "torch.compile",
    ]
    rows = []
    for r in results:
        share = ratio(r.times, "limit", "ggufext")
        row = [r.dtype, r.layout, str(r.threads), r.speed("limit"), r.speed("ggufext")]
        rows.append([*row, f"{share:.2f}", *(r.against(name) for name in rivals)])
    return markdown([*header, *(f"× {name}" for name in rivals)], rows)


def small_calls() -> str:
    """Best of 15: what a call of one token costs over a call of none, and what that one costs."""
    rows = []
    for dtype in types():
        row = [dtype]
        for layout in LAYOUTS:
            seconds = []
            for tokens in (1, 0):
                x = np.ones((tokens, 32, 128), np.dtype(dtype))
                positions, inv_freq = np.full(tokens, 1000), tuple(INV_FREQ.tolist())
                options: Any = {"inv_freq": inv_freq, "layout": layout, "out": x}
                call = functools.partial(rotate, x, positions, **options)
                timer = timeit.Timer(call)
                seconds.append(min(timer.repeat(15, 2000)) / 2000)
            row += [f"{(seconds[0] - seconds[1]) * 1e6:.2f}", f"{seconds[1] * 1e6:.2f}"]
        rows.append(row)
    header = ["type", "interleaved: kernel µs", "call µs", "half: kernel µs", "call µs"]
    return markdown(header, rows)


def accuracy() -> str:
    """Largest error of cos and sin at position 1 000 000."""
    position = 1_000_000
    angle = [math.fmod(position * w, 2 * math.pi) for w in INV_FREQ]
    exact = np.array([[math.cos(a) for a in angle], [math.sin(a) for a in angle]])
    x = np.zeros((1, 1, 128), np.float32)
    x[..., :64] = 1
    ours = rotate(x, [position], inv_freq=INV_FREQ, layout="half")
    narrow = np.float32(position) * INV_FREQ.astype(np.float32)
    rows = [["ggufext", ours.reshape(2, 64)]]
    rows.append(["float32 angles (Hugging Face)", np.stack([np.cos(narrow), np.sin(narrow)])])
    if library() is not None:
        theirs = GgmlRope((1, 1, 128), np.float32, mode=NEOX)
        theirs.data[...] = x
        theirs.positions[...] = position
        theirs.run()
        rows.append(["ggml", theirs.data.reshape(2, 64).copy()])
        theirs.close()
    cells = [[name, f"{np.abs(found - exact).max():.1e}"] for name, found in rows]
    return markdown(["program", "largest error of cos and sin at position 1 000 000"], cells)


def types() -> list[str]:
    if find_spec("ml_dtypes") is None:
        return ["float32", "float16"]
    import ml_dtypes  # noqa: F401  registers bfloat16 with NumPy

    return ["float32", "float16", "bfloat16"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--write", type=Path, help="document whose tables are replaced")
    options = parser.parse_args()
    stream = build_stream()
    results = [
        measure(
            dtype,
            layout,
            threads,
            rounds=options.rounds,
            stream=stream,
            compile_=not options.no_compile,
        )
        for dtype in types()
        for layout in LAYOUTS
        for threads in options.threads
    ]
    sections = {
        "rope-cpu-speed": table(results),
        "rope-cpu-calls": small_calls(),
        "rope-cpu-accuracy": accuracy(),
    }
    print(f"instruction set: {_core.rope_instruction_set()}, tensor {list(SHAPE)}")
    for name, text in sections.items():
        print(f"\n{text}")
        if options.write:
            replace_section(options.write, name, text)


if __name__ == "__main__":
    main()
