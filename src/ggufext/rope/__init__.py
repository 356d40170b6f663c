"""Rotation of query and key tensors: NumPy, PyTorch and CuPy, on the CPU and on CUDA devices."""

from __future__ import annotations

from ggufext.rope.rotation import Frequencies, rebase, rotate, rotate_qk

__all__ = ["Frequencies", "rebase", "rotate", "rotate_qk"]
