"""How long until our YouTubeDNN is as good as torch-rechub's becomes in ten epochs? And what does speed cost?

    python benchmarks/time_to_quality.py [--data MOVIELENS_1M] [--epochs 10] [--repeats 3] [--threads N]
                                         [--part peer|reference|all]

MOVIELENS_1M: a folder or archive that `zhiyin data movielens-1m --data` takes. Both learn from the same training events
of one leave-last-out split, history 50, width 64, and are measured by one exact recall@50 on the validation events, the
whole catalogue ranked, seen items removed. torch-rechub 0.9.0 trains as its own example does (YoutubeDNN, three uniform
negatives, list-wise softmax over τ = 0.02, Adam; of the rates 1e-4 and 1e-3 the better one); neither preparation nor
evaluation counts for it. Ours stops at the first look (four an epoch) that passes its best; our looks count.

The reference is plain: every example shuffled for itself, softmax over the whole catalogue, and with it dense Adam
(lazy Adam is dense where every row has a gradient), at our default rates or at Adam's own 0.001, whichever one seed
finds better on validation. Eight epochs of falling rates each, the best on validation; the fast path must come to the
same recall on the test. Writes benchmarks/results/time_to_quality.json; a part that was not asked for stays in it as
it was.
"""

import argparse
import json
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # both as the command line does

import statistics
import subprocess
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine, printed
from numpy.typing import NDArray
from prepare import peer_python

from zhiyin.data import datasets
from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.sources import prepare
from zhiyin.data.splits import LeaveLastOut, Split
from zhiyin.evaluation.report import evaluate
from zhiyin.features.schema import Schema
from zhiyin.learning.fit import Fitted, Plan, Progress, Training, fit
from zhiyin.learning.losses import FullSoftmax, SampledSoftmax
from zhiyin.learning.negatives import Popularity, WholeCatalogue
from zhiyin.learning.optimizers import Optimizer
from zhiyin.models.youtube_dnn import YouTubeDNN

RESULTS = Path(__file__).parent / "results" / "time_to_quality.json"
LENGTH, K = 50, 50
FAST = Plan(
    YouTubeDNN(hidden=(256, 128)),
    Popularity(512, power=1.0),
    SampledSoftmax(),
    training=Training(batch_size=1024, validate_every=0.25, patience=0),
)


REFERENCE = Plan(
    YouTubeDNN(hidden=(256, 128)),
    WholeCatalogue(),
    FullSoftmax(),
    training=Training(batch_size=1024, run_length=1, epochs=8, patience=0, measure=K),
)
ADAM = Optimizer(lr=0.001, table_lr=0.001)


class Passed(Exception):  # noqa: N818 – no error: the goal is reached
    """Raised out of training when its recall has passed the goal."""


def movielens(data: Path | None, folder: Path) -> tuple[Prepared, Split]:
    """MovieLens-1M, prepared in `folder` and split; fetched from its publisher without `data`."""
    source = datasets.load("movielens-1m", data=data, cache=datasets.default_cache(), out=folder / "tidy")
    prepare(source, folder / "prepared")
    prepared = Prepared.open(folder / "prepared")
    return prepared, LeaveLastOut().split(prepared.events, prepared.clock)


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--data", type=Path, help="MovieLens-1M; fetched from its publisher when left out")
    read.add_argument("--epochs", type=int, default=10)
    read.add_argument("--repeats", type=int, default=3)
    read.add_argument("--part", choices=["peer", "reference", "all"], default="all")
    read.add_argument("--threads", type=int, default=0, help="torch's threads; all cores when left out")
    given = read.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    told: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    told |= {"machine": machine()}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        data, split = movielens(given.data, folder)
        if given.part != "reference":
            told |= against_peer(data, split, folder, given.epochs, given.repeats)
        if given.part != "peer":
            told |= against_reference(data, split, folder, given.repeats)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(told, indent=2) + "\n")


def against_peer(data: Prepared, split: Split, folder: Path, epochs: int, repeats: int) -> dict[str, Any]:
    theirs = max(
        (peer(data, split, folder / str(lr), epochs, lr) for lr in (1e-4, 1e-3)), key=lambda one: one["recall"]
    )
    ours = [time_until(data, split, folder / f"run-{at}", theirs["recall"], seed=at) for at in range(repeats)]
    seconds = statistics.median(ours)
    faster = round(theirs["seconds"] / seconds, 1)
    printed(
        [
            {"": "torch-rechub 0.9.0", "recall@50": theirs["recall"], "seconds": theirs["seconds"]},
            {"": "zhiyin, until it passes that", "recall@50": theirs["recall"], "seconds": round(seconds, 1)},
        ]
    )
    print(f"{faster} times faster\n")
    return {
        "epochs of torch-rechub": epochs,
        "torch-rechub": theirs,
        "zhiyin seconds": [round(one, 1) for one in ours],
        "times faster": faster,
    }


def against_reference(data: Prepared, split: Split, folder: Path, repeats: int) -> dict[str, Any]:
    def fitted(plan: Plan, seed: int, name: str) -> Fitted:
        plan = replace(plan, training=replace(plan.training, seed=seed))
        return fit(plan, data, split, schema_of(data, split), folder / f"{name}-{seed}")

    tried = {
        name: fitted(replace(REFERENCE, optimizer=rates), 100, f"{name}-tried").recall
        for name, rates in (("our rates", Optimizer()), ("Adam's rates", ADAM))
    }
    print(f"the reference's validation recall@{K}: {tried}", flush=True)
    rates = Optimizer() if tried["our rates"] >= tried["Adam's rates"] else ADAM
    plans = {
        "fast": replace(FAST, training=replace(REFERENCE.training, run_length=0)),
        "reference": replace(REFERENCE, optimizer=rates),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in plans}
    for seed in range(repeats):
        for name, plan in plans.items():
            started = time.perf_counter()
            model = fitted(plan, seed, name)
            seconds = time.perf_counter() - started
            recall = evaluate({name: model.scorer(data)}, data, split.test, ks=(K,)).value(name, f"recall@{K}")
            found[name].append((recall, seconds))
            print(f"{name}, seed {seed}: recall@{K} {recall:.4f}, {seconds:.0f} s", flush=True)
    rows = []
    for name, pairs in found.items():
        recalls = [recall for recall, _ in pairs]
        row: dict[str, Any] = {"path": name, "recall@50": round(statistics.mean(recalls), 4)}
        row["sd"] = round(statistics.pstdev(recalls), 4)
        rows.append(row | {"seconds": round(statistics.median(seconds for _, seconds in pairs), 1)})
    printed(rows)
    return {"against a reference": rows, "the reference's rates": {**tried, "taken": asdict(rates)}}


def time_until(data: Prepared, split: Split, folder: Path, goal: float, seed: int) -> float:
    """Seconds until validation recall@50 passes the goal, looks included."""
    started = time.perf_counter()

    def watch(progress: Progress) -> None:
        if progress.validated and progress.recall is not None and progress.recall > goal:
            raise Passed

    plan = replace(FAST, training=replace(FAST.training, seed=seed))
    try:
        fit(plan, data, split, schema_of(data, split), folder, watch)
    except Passed:
        return time.perf_counter() - started
    raise SystemExit(f"recall@50 {goal} was not passed in {FAST.training.epochs} epochs")


def schema_of(data: Prepared, split: Split) -> Schema:
    return Schema(history_length=LENGTH).fit(data, split)


def peer(data: Prepared, split: Split, folder: Path, epochs: int, lr: float) -> dict[str, float]:
    """torch-rechub's best recall@50 over its epochs, and the seconds of training until then."""
    python = peer_python()
    if isinstance(python, str):
        raise SystemExit(python)
    folder.mkdir()
    log, held = data.events, split.validation.starts
    kept = split.train[split.train > log.offsets[log.users[split.train]]]
    np.savez(
        folder / "in.npz",
        history=log.histories(kept, LENGTH) + 1,
        positive=log.items[kept] + 1,
        negatives=np.random.default_rng(0).integers(1, len(data.items) + 1, (len(kept), 3)),
        asked=log.histories(held, LENGTH) + 1,
    )
    command = [str(python), "-c", PEER_SCRIPT, str(folder), str(epochs), str(len(data.items)), str(lr)]
    subprocess.run(command, check=True, capture_output=True)
    best = {"recall": 0.0, "seconds": 0.0, "learning rate": lr}
    for epoch in range(epochs):
        found = np.load(folder / f"{epoch}.npz")
        scorer = Vectors({int(event): at for at, event in enumerate(held)}, found["users"], found["items"])
        recall = evaluate({"peer": scorer}, data, split.validation, ks=(K,)).value("peer", f"recall@{K}")
        if recall > best["recall"]:
            best |= {"recall": recall, "seconds": round(float(found["seconds"]), 1)}
    return best


class Vectors:
    """Scores by users' and items' vectors that are known."""

    def __init__(self, places: dict[int, int], users: NDArray[np.float32], items: NDArray[np.float32]) -> None:
        self._places, self._users, self._items = places, users, items

    def scores(self, events: Events) -> torch.Tensor:
        users = self._users[[self._places[int(event)] for event in events]]
        return torch.from_numpy(users @ self._items.T)


PEER_SCRIPT = """
import sys, time
import numpy as np
import torch
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.matching import YoutubeDNN
from torch_rechub.trainers import MatchTrainer
from torch_rechub.utils.data import MatchDataGenerator

folder, epochs, items, lr = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
torch.manual_seed(0)
given = np.load(folder + "/in.npz")
train = {"history": given["history"], "item": given["positive"], "negatives": given["negatives"]}
train = {name: values.astype(np.int64) for name, values in train.items()}
catalogue = {"item": np.arange(1, items + 1)}
asked = {"history": given["asked"].astype(np.int64)}
size = dict(vocab_size=items + 1, embed_dim=64)
users = [SequenceFeature("history", pooling="mean", shared_with="item", padding_idx=0, **size)]
item = [SparseFeature("item", **size)]
negatives = [SequenceFeature("negatives", pooling="concat", shared_with="item", **size)]
model = YoutubeDNN(users, item, negatives, user_params={"dims": [256, 128, 64]}, temperature=0.02)
adam = {"lr": lr, "weight_decay": 1e-6}
trainer = MatchTrainer(model, mode=2, optimizer_params=adam, n_epoch=epochs, model_path=folder)
data = MatchDataGenerator(x=train, y=np.zeros(len(train["item"]), np.int64))
loader, asking, listing = data.generate_dataloader(asked, catalogue, batch_size=1024, num_workers=0)
spent = 0.0
for epoch in range(epochs):
    started = time.perf_counter()
    trainer.train_one_epoch(loader)
    spent += time.perf_counter() - started
    torch.save(model.state_dict(), folder + "/model.pth")
    found = {
        mode + "s": trainer.inference_embedding(model, mode, source, folder).cpu().numpy()
        for mode, source in (("user", asking), ("item", listing))
    }
    model.mode = None
    model.train()
    np.savez(folder + "/" + str(epoch) + ".npz", seconds=spent, **found)
"""


if __name__ == "__main__":
    main()
