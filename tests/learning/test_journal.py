"""What a run leaves behind: JSON lines, and TensorBoard's files as TensorBoard itself reads them."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zhiyin.learning.fit import Progress
from zhiyin.learning.journal import Journal

LOOK = Progress(0.5, 10, 100, 2.5, 1000.0, None, -1.0, False, {})
VALIDATED = replace(LOOK, epoch=1.0, step=20, loss=1.5, recall=0.25, best=0.25, validated=True)


def board(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every scalar that TensorBoard finds in a folder."""
    read = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_a_look_is_a_line_at_once_and_tensorboard_has_the_same(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.write(LOOK)
        assert json.loads((tmp_path / "log.jsonl").read_text())["loss"] == 2.5
        journal.write(VALIDATED)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [10, 20]
    assert board(tmp_path) == {
        "loss": [(10, 2.5), (20, 1.5)],
        "examples per second": [(10, 1000.0), (20, 1000.0)],
        "validation recall": [(20, 0.25)],
    }


def test_a_resumed_run_goes_on_in_the_same_files_and_a_fresh_one_does_not(tmp_path: Path) -> None:
    for looked in (LOOK, VALIDATED):
        with Journal(tmp_path) as journal:
            journal.write(looked)
    assert board(tmp_path)["loss"] == [(10, 2.5), (20, 1.5)]
    with Journal(tmp_path, fresh=True) as journal:
        assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2, "nothing is lost before it has begun"
        journal.write(LOOK)
    assert board(tmp_path)["loss"] == [(10, 2.5)]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


def test_a_process_that_is_told_nothing_leaves_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_without_tensorboard_there_are_lines_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with Journal(tmp_path) as journal:
        journal.write(VALIDATED)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
