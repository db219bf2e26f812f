"""What does it cost to publish a million items? The item tower over all of them, a tuned index, and every check.

    python benchmarks/publish.py [--items 1000000] [--dim 64] [--work FOLDER] [--repeats 3]
                                 [--only tower]

A world like a real one, and a DSSM with three item features whose towers are not trained (what a step costs does not
depend on what the weights are), on two cores. Seconds of each phase, the publisher's peak memory, and the rate of
the item tower as it is published (features read and encoded, vectors written) beside ONNX Runtime's own for the same
tower on inputs that lie ready, in turns; then how long the release takes to open, with its checksums and without.
Writes benchmarks/results/publish.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from machine import machine, printed

RESULTS = Path(__file__).parent / "results" / "publish.json"
ID = "20260101-000000-0001"
USERS, EVENTS_AN_ITEM = 100_000, 2
TURN, TURNS = 5, 9


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--items", type=int, default=1_000_000)
    read.add_argument("--dim", type=int, default=64)
    read.add_argument("--work", type=Path, help="where the prepared world is kept for another time")
    read.add_argument("--repeats", type=int, default=3)
    read.add_argument("--only", choices=["tower"], help="measure this again, and leave the rest of the results")
    read.add_argument("--child", choices=["publish", "tower", "open"], help=argparse.SUPPRESS)
    given = read.parse_args()
    if given.child:
        child = {"publish": published, "tower": tower, "open": opened}[given.child]
        print(json.dumps(child(given.work, given.dim)))
        return
    with tempfile.TemporaryDirectory() as made:
        work = (given.work or Path(made)).absolute()
        if not (work / "prepared").exists():
            prepare(work, given.items)
        told = {"machine": machine(), "items": given.items, "dim": given.dim, "load": os.getloadavg()[0]}
        if not given.only:
            told["publish"] = asked("publish", work, given.dim)
            printed([{"phase": name, "seconds": value} for name, value in told["publish"]["seconds"].items()])
            print(f"peak {told['publish']['peak_mb']:,} MB; {told['publish']['chosen']}")
        told["tower"] = {
            **middle([asked("tower", work, given.dim) for _ in range(given.repeats)]),
            "load": told["load"],
        }
        printed([told["tower"]])
        if given.only:
            told = {**json.loads(RESULTS.read_text()), "tower": told["tower"]}
        else:
            told["open"] = middle([asked("open", work, given.dim) for _ in range(given.repeats)])
            printed([told["open"]])
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(told, indent=2) + "\n")


def asked(name: str, work: Path, dim: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", name, "--work", str(work), "--dim", str(dim)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "5000"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each number."""
    return {name: round(statistics.median(one[name] for one in runs), 3) for name in runs[0]}


def prepare(work: Path, items: int) -> None:
    from zhiyin.data.realistic import realistic
    from zhiyin.data.sources import prepare as read

    source = realistic(USERS, items, items * EVENTS_AN_ITEM, seed=0, groups=500, shown=0).write(work / "log")
    read(source, work / "prepared")


def world(work: Path, dim: int) -> tuple[Any, Any, Any, Any]:
    """Prepared data, its split, a fitted schema, and the towers."""
    import torch

    from zhiyin.data.prepared import Prepared
    from zhiyin.data.splits import LeaveLastOut
    from zhiyin.features.categorical import Categorical
    from zhiyin.features.numeric import Numeric
    from zhiyin.features.schema import Schema
    from zhiyin.models.dssm import DSSM

    data = Prepared.open(work / "prepared")
    split = LeaveLastOut().split(data.events, data.clock)
    schema = Schema(
        user=(Categorical("country"),),
        item=(Categorical("category"), Categorical("brand"), Numeric("price", scale="log")),
    ).fit(data, split)
    torch.manual_seed(0)
    return data, split, schema, DSSM(dim=dim).build(schema, len(data.items))


def published(work: Path, dim: int) -> dict[str, Any]:
    """Seconds of each phase, as publish tells of them, and the peak of this process."""
    import shutil

    import numpy as np
    import torch

    from zhiyin.indexes.auto import Auto
    from zhiyin.learning.examples import Examples
    from zhiyin.publish import publish

    data, split, schema, model = world(work, dim)
    examples = Examples(data, schema, end=split.end, device=torch.device("cpu"))
    before = resource.getrusage(resource.RUSAGE_SELF)
    shutil.rmtree(work / "releases", ignore_errors=True)
    marks: list[tuple[str, float]] = []

    def watch(words: str) -> None:
        marks.append((words, time.perf_counter()))
        print(f"{marks[-1][1] - marks[0][1]:7.1f} s  {words}", file=sys.stderr, flush=True)

    watch("queries")
    release = publish(
        model,
        schema,
        data,
        sample=examples.queries(split.test.starts[:4000]),
        popular=np.arange(len(data.items), dtype=np.int32),
        index=Auto(),
        root=work / "releases",
        id=ID,
        facts={"metrics": {}},
        watch=watch,
    )
    watch("end")
    seconds: dict[str, float] = {}
    for (words, start), (_, end) in pairwise(marks):
        phase = words.split(":")[0]
        seconds[phase] = round(seconds.get(phase, 0) + end - start, 1)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": seconds,
        "all": round(marks[-1][1] - marks[0][1], 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mb": after.ru_maxrss // 1000,
        "peak_mb_before": before.ru_maxrss // 1000,
        "proof": release.manifest["proof"],
        "chosen": release.manifest["tuning"]["chosen"],
    }


def tower(work: Path, dim: int) -> dict[str, Any]:
    """Items a second as published (read, encoded, through the tower, written), and by ONNX Runtime alone on the same
    items when they lie ready: as it comes, 8,192 or 1,024 together, and 1,024 by each of as many callers as there are
    cores, whichever is fastest. In turns of `TURN` blocks. CPU time tells the same where neighbours take the processor,
    but for what the threads of ONNX Runtime spin away then."""
    import onnxruntime

    from zhiyin.models.catalogue import BLOCK, READ, item_blocks, write_vectors
    from zhiyin.publish import export_item_tower, exported_tower
    from zhiyin.release import Tower

    data, _, schema, model = world(work, dim)
    path, file, cores = work / "item_tower.onnx", work / "vectors.npy", os.cpu_count() or 1
    path.unlink(missing_ok=True)
    export_item_tower(model.eval(), next(item_blocks(schema, data, 64)), path)
    session = onnxruntime.InferenceSession(path)
    ours, default, alone = exported_tower(path), partial(session.run, None), Tower(path)
    names = {one.name for one in session.get_inputs()}
    size, a_pass = TURN * READ, max(1, len(data.items) // (TURN * READ))
    taken: list[dict[str, tuple[float, float]]] = []
    with ThreadPoolExecutor(cores) as pool:
        for turn in range(TURNS):
            if turn % a_pass == 0:
                blocks, ready = item_blocks(schema, data), item_blocks(schema, data)
            file.unlink(missing_ok=True)
            some = list(islice(ready, TURN))
            many, few = ready_inputs(some, names, 8192), ready_inputs(some, names, BLOCK)
            taken.append(
                {
                    "published": timed(write_vectors, ours, islice(blocks, TURN), size, file, cores),
                    "8192": timed(each, default, many),
                    "1024": timed(each, default, few),
                    "callers": timed(at_once, pool, cores, alone, few),
                }
            )
    walls, cpus = ({name: statistics.median(turn[name][one] for turn in taken) for name in taken[0]} for one in (0, 1))
    rivals = ("8192", "1024", "callers")
    return {
        "published items/s": size / walls["published"],
        **{f"onnxruntime items/s, {name}": size / walls[name] for name in rivals},
        "ratio": min(statistics.median(turn[name][0] / turn["published"][0] for turn in taken) for name in rivals),
        "ratio of CPU": min(
            statistics.median(turn[name][1] / turn["published"][1] for turn in taken) for name in rivals
        ),
        "CPU µs an item": 1e6 * cpus["published"] / size,
    }


def ready_inputs(blocks: list[Any], names: set[str], size: int) -> list[dict[str, Any]]:
    """The inputs of the tower, `size` items together."""
    return [
        {name: column[start : start + size].numpy() for name, column in whole.items() if name in names}
        for whole in ({"rows": items.rows, **items.columns} for items in blocks)
        for start in range(0, len(whole["rows"]), size)
    ]


def each(call: Callable[[Any], Any], inputs: list[Any]) -> None:
    for one in inputs:
        call(one)


def at_once(pool: ThreadPoolExecutor, threads: int, call: Callable[[Any], Any], inputs: list[Any]) -> None:
    list(pool.map(partial(each, call), [inputs[start::threads] for start in range(threads)]))


def timed(work: Callable[..., Any], *given: Any) -> tuple[float, float]:
    """Seconds by the clock, and of this process's CPU time."""
    cpu, wall = time.process_time(), time.perf_counter()
    work(*given)
    return time.perf_counter() - wall, time.process_time() - cpu


def opened(work: Path, dim: int) -> dict[str, Any]:
    """Seconds until a release can be searched, after its files were read once."""
    from zhiyin import manifest as manifests
    from zhiyin import release

    folder = work / "releases" / ID
    manifest = manifests.read_manifest(folder)
    start = time.perf_counter()
    manifests.verify(folder, manifest)
    checked = time.perf_counter() - start
    start = time.perf_counter()
    found = release.Release.open(folder)
    found.index.search(found.vectors[:1], 10)
    whole = time.perf_counter() - start
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    return {"megabytes": megabytes, "checksums": checked, "opened": whole, "opened_less_checksums": whole - checked}


if __name__ == "__main__":
    main()
