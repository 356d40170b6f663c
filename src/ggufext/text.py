"""Numbers as people read them: shares, sizes and times, written one way everywhere."""

from __future__ import annotations


def percent(share: float) -> str:
    """0.95 as ``95 %``; a value that is not whole is never shown as 0 or 100."""
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 <= share < 1:
        return ">99 %"
    return f"{100 * share:.0f} %"


def binary_size(size: int) -> str:
    """Bytes with a binary unit: ``4.00 GiB``."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{size:,} bytes" if unit == "bytes" else f"{value:,.2f} {unit}"


def duration(seconds: float) -> str:
    """80 as ``80 s``, 4,000 as ``67 min``, 90,000 as ``25 h``."""
    if seconds < 120:
        return f"{max(round(seconds), 1)} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.0f} days"
