"""What this machine leaves to a process."""

from __future__ import annotations

import os
from pathlib import Path


def usable_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, its control group and its limits."""
    found = [_of_machine(), _of_control_group(), _of_address_space()]
    return min((each for each in found if each is not None), default=1 << 62)


def _of_machine() -> int | None:
    fields = _fields(Path("/proc/meminfo"))
    return fields.get("MemAvailable:")


def _of_control_group() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        # Page cache is given up before anything is killed.
        cached = next(
            int(line.split()[1])
            for line in (folder / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, ValueError, StopIteration):
        return None
    return None if limit == "max" else max(0, int(limit) - used + cached)


def _of_address_space() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    used = _fields(Path("/proc/self/status")).get("VmSize:", 0)
    return max(0, limit - used)


def _fields(path: Path) -> dict[str, int]:
    """Sizes in a file of ``Name: 123 kB`` lines, in bytes."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {
        line[0]: int(line[1]) * 1024
        for line in lines
        if len(line) == 3 and line[2] == "kB" and line[1].isdigit()
    }
