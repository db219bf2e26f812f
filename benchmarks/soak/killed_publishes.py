"""Kill publishing at random moments, many times, while a reader opens what is live all the while.

    python benchmarks/soak/killed_publishes.py --kills 400
    python benchmarks/soak/killed_publishes.py --kills 40 --exporting

Every publish is a whole one – towers, vectors, index, proof, renames – of a small untrained model, in a process of its
own that gets SIGKILL after a random part of the time that a whole one takes. The reader, another process, must have
opened a valid release every time it looked. After the last kill a publish must succeed, and nothing may be left of the
killed ones but whole releases. What torch's exporter works out of the towers, in memory, is worked out once, before the
first process is forked: nine tenths of the time went there, and no file is touched in it. With `--exporting`, each
publish does that, too.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zhiyin.data import worlds
from zhiyin.data.splits import LeaveLastOut
from zhiyin.features.schema import Schema
from zhiyin.indexes.hnsw import HNSW
from zhiyin.learning.examples import Examples
from zhiyin.models.catalogue import items_of
from zhiyin.models.youtube_dnn import YouTubeDNN
from zhiyin.places.base import MANIFEST
from zhiyin.publish import Promise, export_item_tower, export_user_tower, publish
from zhiyin.releases import Releases


class Publisher:
    """A small world and a model of it, from which a process that was forked here publishes."""

    def __init__(self, root: Path, *, exporting: bool) -> None:
        self.root = root
        self.data = worlds.tastes(60, 50, 5, 6, seed=1).data
        split = LeaveLastOut().split(self.data.events, self.data.clock)
        examples = Examples(self.data, Schema().fit(self.data, split), end=split.end, device=torch.device("cpu"))
        self.schema = examples.schema
        self.sample = examples.queries(split.test.starts)
        self.model = YouTubeDNN(dim=8, hidden=(16,)).build(self.schema, len(self.data.items)).eval()
        if not exporting:
            self._export: Any = torch.onnx.export
            self._programs: dict[tuple[str, ...], Any] = {}
            torch.onnx.export = self._remembered  # type: ignore[assignment]
        with tempfile.TemporaryDirectory() as folder:  # what this imports and works out, every process has then
            export_user_tower(self.model, self.sample, Path(folder) / "user_tower.onnx")
            export_item_tower(self.model, items_of(self.schema, self.data, range(4)), Path(folder) / "item_tower.onnx")

    def start(self, number: int) -> int:
        """Begin to publish in a process of its own, and say which."""
        process = os.fork()
        if process == 0:
            code = 1
            try:
                self._publish(number)
                code = 0
            finally:
                os._exit(code)
        return process

    def _remembered(self, *arguments: Any, input_names: list[str], **words: Any) -> Any:
        """The exported program of the tower with these inputs: its weights and graph, in memory."""
        key = tuple(input_names)
        if key not in self._programs:
            self._programs[key] = self._export(*arguments, input_names=input_names, **words)
        return self._programs[key]

    def _publish(self, number: int) -> None:
        publish(
            self.model,
            self.schema,
            self.data,
            sample=self.sample,
            popular=np.arange(len(self.data.items), dtype=np.int32),
            index=HNSW(m=4, ef_construction=16, ef_search=32),
            root=self.root,
            id=_id(number),
            facts={"created": "2026-01-01T00:00:00+00:00", "metrics": {}},
            promise=Promise(overlap=0.5, k=10),
        )


def read(root: Path, stop: Event, out: Path) -> None:
    """Open the live release over and over; how often, how many different ones, and what went wrong."""
    seen: Counter[str] = Counter()
    trouble: list[str] = []
    while not stop.wait(0.02):
        try:
            seen[Releases(root).open().id] += 1
        except Exception as error:
            trouble.append(str(error))
    out.write_text(json.dumps({"opened": sum(seen.values()), "different": len(seen), "trouble": trouble}))


def soak(root: Path, kills: int, seed: int, minutes: float, *, exporting: bool) -> dict[str, Any]:
    """Kill `kills` publishes, or as many as `minutes` allow; where they were, and what the reader saw. Every second one
    is killed at any moment, the others between the first manifest and the end, where
    the fsyncs and the renames are."""
    draw, publisher = random.Random(seed), Publisher(root, exporting=exporting)  # noqa: S311
    _ended(publisher.start(0))  # the first loads much
    began = time.monotonic()
    assert _ended(publisher.start(1)) == 0, "a publish that nobody killed failed"
    whole = time.monotonic() - began
    stop, out = multiprocessing.Event(), root.parent / "reader.json"
    reader = multiprocessing.get_context("fork").Process(target=read, args=(root, stop, out))
    reader.start()
    killed: Counter[str] = Counter()
    moments = [0, 0]
    number, done = 1, 0
    while killed.total() < kills and time.monotonic() - began < 60 * minutes:
        number += 1
        process = publisher.start(number)
        if number % 2:
            _await(root / f".building-{_id(number)}" / MANIFEST, process)
        time.sleep(draw.uniform(0, whole * (0.12 if number % 2 else 1.0)))
        os.kill(process, signal.SIGKILL)
        if _ended(process) == 0:
            done += 1
        else:
            killed[_stage(root, number)] += 1
            moments[number % 2] += 1
    assert _ended(publisher.start(number + 1)) == 0, "the publish after the kills failed"
    stop.set()
    reader.join()
    releases = Releases(root)
    assert releases.current() == _id(number + 1)
    opened = [releases.open(id).id for id in releases.ids()]
    left = {path.name for path in root.iterdir()} - {*opened, "CURRENT", ".publish.lock", ".change.lock"}
    return {
        "killed": dict(killed),
        "killed at any moment": moments[0],
        "killed after the first manifest": moments[1],
        "too late": done,
        "seconds of a publish": round(whole, 2),
        "seconds": round(time.monotonic() - began, 1),
        "load": os.getloadavg()[0],
        "releases at the end": len(opened),
        "left": sorted(left),
        "reader": json.loads(out.read_text()),
    }


def _id(number: int) -> str:
    return f"20260101-000000-{number:04d}"


def _await(path: Path, process: int) -> None:
    """Until the file is there, or the process has ended."""
    while not path.exists() and os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.001)


def _ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _stage(root: Path, number: int) -> str:
    """Where a killed publish was."""
    if (root / f".building-{_id(number)}").exists():
        return "while it was built"
    if not (root / _id(number)).exists():
        return "before it began"
    return "when it was live" if Releases(root).current() == _id(number) else "between the two renames"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600.0, help="Stop after so long, however many there were.")
    parser.add_argument("--exporting", action="store_true", help="Run torch's exporter in every publish, too.")
    parser.add_argument("--write", type=Path, help="Also write the figures there, as JSON.")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder) / "releases", words.kills, words.seed, words.minutes, exporting=words.exporting)
    print(json.dumps(found, indent=1))
    if words.write:
        words.write.write_text(json.dumps(found, indent=1) + "\n")
    if found["reader"]["trouble"] or found["left"] or not found["reader"]["opened"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
