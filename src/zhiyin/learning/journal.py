"""What a run leaves behind for those who look later: a line of JSON a look, and TensorBoard's files."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from zhiyin.learning.fit import Progress


class Journal:
    """Appends to `log.jsonl` in a folder, and to `tensorboard/` there when the package `tensorboard` is installed.
    `fresh`: what an earlier run wrote is removed. Nothing is made before there is something to write, so of several
    processes the one that is told leaves the only files."""

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._fresh = folder, fresh
        self._lines: TextIO | None = None
        self._board: Any = None

    def write(self, progress: Progress) -> None:
        """Keep one look; a reader sees it at once."""
        if self._lines is None:
            self._lines = self._opened()
        self._lines.write(json.dumps(asdict(progress)) + "\n")
        self._lines.flush()
        if self._board is None:
            return
        self._board.add_scalar("loss", progress.loss, progress.step)
        self._board.add_scalar("examples per second", progress.examples_per_second, progress.step)
        if progress.validated:
            self._board.add_scalar("validation recall", progress.recall, progress.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._lines is not None:
            self._lines.close()
        if self._board is not None:
            self._board.close()

    def _opened(self) -> TextIO:
        log, board = self._folder / "log.jsonl", self._folder / "tensorboard"
        if self._fresh:
            log.unlink(missing_ok=True)
            shutil.rmtree(board, ignore_errors=True)
        self._board = _board(board)
        return log.open("a")


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
