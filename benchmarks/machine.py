"""What every benchmark tells beside its numbers, and how it prints them."""

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any


def machine() -> dict[str, Any]:
    """Cores, memory and versions: what a figure must be read beside."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count(),
        "memory GiB": round(memory, 1),
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": platform.machine(),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }


def printed(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of rows that have the same columns."""
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(names))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
