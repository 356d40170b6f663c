"""RoPE on a CUDA device: ggufext against a device copy and other kernels, as ratios in one run.

Needs PyTorch with CUDA; flash-attn's and Liger's kernels are measured when installed. Calls are
timed on the device, behind copies that are still running, so that what they cost on the host is
hidden as it is inside a model; a second table shows that cost.

    python benchmarks/rope_cuda.py [--tokens 32768] [--write docs/rope.md]
"""

from __future__ import annotations

import argparse
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ggufext.rope import reference, rotate_qk
from tables import markdown, ratio, replace_section

if TYPE_CHECKING:
    from collections.abc import Callable

HEADS, KEY_HEADS, HEAD_DIM = 32, 8, 128
INV_FREQ = 10_000.0 ** (-np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))
TYPES = ("bfloat16", "float16", "float32")


def eager(x: Any, cos: Any, sin: Any) -> Any:
    """Hugging Face's formulation: x·cos + rotate_half(x)·sin."""
    import torch

    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def flash_attention(q: Any, k: Any, cos: Any, sin: Any, layout: str) -> Callable[[], object]:
    from flash_attn.layers.rotary import apply_rotary_emb  # type: ignore[import-not-found]

    width = HEAD_DIM // 2
    tables = (cos[:, 0, :width].contiguous(), sin[:, 0, :width].contiguous())

    def run() -> None:
        for x in (q, k):
            apply_rotary_emb(x[None], *tables, interleaved=layout == "interleaved", inplace=True)

    return run


def liger(q: Any, k: Any, cos: Any, sin: Any) -> Callable[[], object]:
    from liger_kernel.ops.rope import rope_forward  # type: ignore[import-not-found]

    heads_first = (q[None].transpose(1, 2), k[None].transpose(1, 2))
    tables = (cos[None, :, 0].contiguous(), sin[None, :, 0].contiguous())
    return lambda: rope_forward(*heads_first, *tables)


def positions_everywhere(q: Any) -> dict[str, Any]:
    """The same number of positions, by how they reach the kernel."""
    import torch

    count = q.shape[0]
    return {
        "ggufext": np.arange(count),
        "any positions": np.random.default_rng(0).permutation(count),
        "positions on the device": torch.arange(count, device=q.device),
    }


def ours(q: Any, k: Any, positions: Any, layout: str) -> Callable[[], object]:
    options: Any = {"inv_freq": INV_FREQ, "layout": layout, "out": (q, k)}
    return lambda: rotate_qk(q, k, positions, **options)


def rivals(q: Any, k: Any, layout: str) -> dict[str, Callable[[], object]]:
    import torch

    both = torch.cat((q.flatten(), k.flatten()))
    target = torch.empty_like(both)
    positions = torch.arange(q.shape[0], device=q.device)
    angles = positions[:, None].double() * torch.from_numpy(INV_FREQ).to(q.device)
    doubled = torch.cat((angles, angles), dim=-1)[:, None, :]
    cos, sin = doubled.cos().to(q.dtype), doubled.sin().to(q.dtype)
    calls: dict[str, Callable[[], object]] = {"copy": lambda: target.copy_(both)}
    for name, where in positions_everywhere(q).items():
        calls[name] = ours(q, k, where, layout)
    if find_spec("flash_attn"):
        calls["flash-attn"] = flash_attention(q, k, cos, sin, layout)
    if layout == "half":
        compiled = torch.compile(eager)
        calls["Hugging Face"] = lambda: (eager(q, cos, sin), eager(k, cos, sin))
        calls["torch.compile"] = lambda: (compiled(q, cos, sin), compiled(k, cos, sin))
        if find_spec("liger_kernel"):
            calls["Liger"] = liger(q, k, cos, sin)
    return calls


def interleave_on_device(
    calls: dict[str, Callable[[], object]], fill: Callable[[], object], rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each call between two events of the stream, measured in turn."""
    import torch

    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(rounds + 5):
        for name, call in calls.items():
            begin = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            fill()
            begin.record()
            call()
            end.record()
            end.synchronize()
            if round_ >= 5:
                times[name].append(begin.elapsed_time(end))
    return times


def filler() -> Callable[[], object]:
    """A millisecond of work for the device, which also clears its cache."""
    import torch

    buffers = torch.empty((2, 2**28), dtype=torch.uint8, device="cuda")
    return lambda: [buffers[0].copy_(buffers[1]) for _ in range(8)]


def host_microseconds(call: Callable[[], object], rounds: int) -> float:
    """Median time until a call on an idle stream returns."""
    import torch

    times = []
    for _ in range(rounds + 5):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1e6 * statistics.median(times[5:])


def check(q: Any, layout: str) -> None:
    """Compare the last tokens with float64, so that nothing wrong is timed."""
    tail, none = q[-8:].clone(), q[:8, :0].clone()
    positions = np.arange(q.shape[0] - 8, q.shape[0])
    exact = reference.rotate(
        tail.double().cpu().numpy(), positions, inv_freq=INV_FREQ, layout=layout
    )
    options: Any = {"inv_freq": INV_FREQ, "layout": layout, "out": (tail, none)}
    rotate_qk(tail, none, positions, **options)
    if np.abs(tail.double().cpu().numpy() - exact).max() > 2.0**-7 * np.abs(exact).max():
        raise SystemExit("wrong result: not timed")


def measure(dtype: str, layout: str, tokens: int, rounds: int) -> list[str]:
    q, k = tensors(dtype, tokens)
    check(q, layout)
    times = interleave_on_device(rivals(q, k, layout), filler(), rounds)
    moved = 2 * (q.numel() + k.numel()) * q.element_size()
    speed = moved / statistics.median(times["ggufext"]) / 1e6
    of_copy = [f"{ratio(times, 'copy', name):.2f}" for name in positions_everywhere(q)]
    others = ("flash-attn", "Liger", "Hugging Face", "torch.compile")
    faster = [f"{ratio(times, name, 'ggufext'):.2f}" if name in times else "–" for name in others]
    return [dtype, layout, f"{speed:.0f}", *of_copy, *faster]


def tensors(dtype: str, tokens: int) -> list[Any]:
    import torch

    kind = getattr(torch, dtype)
    shapes = ((tokens, heads, HEAD_DIM) for heads in (HEADS, KEY_HEADS))
    return [torch.randn(shape, device="cuda").to(kind) for shape in shapes]


def measure_calls(tokens: int, rounds: int) -> list[str]:
    q, k = tensors("bfloat16", tokens)
    row = [str(tokens)]
    calls = {name: ours(q, k, x, "half") for name, x in positions_everywhere(q).items()}
    kernel = interleave_on_device({"ggufext": calls["ggufext"]}, filler(), rounds)
    row.append(f"{1e3 * statistics.median(kernel['ggufext']):.1f}")
    return [*row, *(f"{host_microseconds(call, rounds):.0f}" for call in calls.values())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--write", type=Path, help="document whose table is replaced")
    options = parser.parse_args()
    if find_spec("torch") is None:
        raise SystemExit("PyTorch is not installed: nothing measured")
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device that PyTorch can use: nothing measured")
    header = ["type", "layout", "GB/s", "of the copy", "with any positions", "on the device"]
    header += ["× flash-attn", "× Liger", "× Hugging Face", "× torch.compile"]
    rows = [
        measure(dtype, layout, options.tokens, options.rounds)
        for dtype in TYPES
        for layout in ("interleaved", "half")
    ]
    calls = [measure_calls(tokens, options.rounds) for tokens in (1, 512, 4096, options.tokens)]
    columns = ["tokens", "device µs", "call µs", "with any positions", "on the device"]
    shape = f"[{options.tokens}, {HEADS} + {KEY_HEADS}, {HEAD_DIM}]"
    text = f"{torch.cuda.get_device_name()}, {shape}:\n\n{markdown(header, rows)}\n\n"
    text += f"Calls in bfloat16, half, on an idle stream:\n\n{markdown(columns, calls)}"
    print(text)
    if options.write:
        replace_section(options.write, "rope-cuda-speed", text)


if __name__ == "__main__":
    main()
