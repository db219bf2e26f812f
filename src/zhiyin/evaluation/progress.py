"""A training run's log, thinned for a plot."""

import json
from pathlib import Path
from typing import Any

MOST = 300
"""Points of the loss."""


def progress(log: Path, measure: str) -> dict[str, Any] | None:
    """Loss and validation by epoch, of the last run in a log of one JSON object a line; None where there is none.

    A run that was resumed goes on in the same log; one that began anew starts over at a smaller epoch, and what stood
    before it is left out.
    """
    if not log.exists():
        return None
    lines: list[dict[str, Any]] = []
    for text in log.read_text().splitlines():
        line = json.loads(text)
        lines = [before for before in lines if before["epoch"] < line["epoch"]]
        lines.append(line)
    losses = [[line["epoch"], line["loss"]] for line in lines]
    step = max(1, -(-len(losses) // MOST))
    validation = [
        [line["epoch"], line["recall"]]
        for before, line in zip([None, *lines], lines, strict=False)
        if line["recall"] is not None and (before is None or line["recall"] != before["recall"])
    ]
    return {"measure": measure, "loss": losses[::step], "validation": validation}
