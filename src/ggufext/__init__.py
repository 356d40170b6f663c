"""Extend the context of GGUF models in place, and measure whether they still find anything."""

from __future__ import annotations

__version__ = "0.1.0"
