"""torch-rechub 0.9.0's models of the same names, trained as its own examples do, in an environment of its own.

They learn from the same training events as ours, with histories of 50, and are measured by the same exact ranking: the
vectors of their towers are read, not their approximate index. As in its examples: user id, gender, age and occupation,
and the item's first genre where a model takes features; three uniform negatives a positive (four for point-wise DSSM's
binary cross-entropy), list-wise softmax, all items for NARM and STAMP, BPR on every position for SASRec; Adam. Width
64 everywhere. A limit of epochs and of seconds of training is stated with each figure; of its epochs and learning rates
the one with the best recall@50 on validation counts. SASRec's scores are flattened for its loss, which refuses them as
they come; where a model does not run, its error stands in its place. Neither preparation nor evaluation counts as
training.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from prepare import peer_python
from torch import Tensor

from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut, Split
from zhiyin.evaluation.report import evaluate

NAMES = {
    "DSSM": "DSSM",
    "FacebookDSSM": "FaceBookDSSM",
    "SENetDSSM": "SENetDSSM",
    "YouTubeSBC": "YoutubeSBC",
    "YouTubeDNN": "YoutubeDNN",
    "MIND": "MIND",
    "ComiRecDR": "ComirecDR",
    "ComiRecSA": "ComirecSA",
    "SINE": "SINE",
    "GRU4Rec": "GRU4Rec",
    "NARM": "NARM",
    "STAMP": "STAMP",
    "SASRec": "SASRec",
}
"""Our name and theirs. Its HSTU is a generative model of another task; eSASRec it does not have."""

RATES = (1e-4, 1e-3)
LENGTH, K = 50, 50


class PeerVectors:
    """A scorer of vectors that are known: users [n, h, d] of certain queries, items [m, d]."""

    def __init__(self, held: HeldOut, users: NDArray[np.float32], items: NDArray[np.float32]) -> None:
        self._places = {int(event): at for at, event in enumerate(held.starts)}
        self._users, self.items = torch.from_numpy(users), torch.from_numpy(items)

    def users(self, events: Events) -> Tensor:
        return self._users[[self._places[int(event)] for event in events]]

    def scores(self, events: Events) -> Tensor:
        return (self.users(events) @ self.items.T).amax(1)


def inputs(data: Prepared, split: Split, path: Path) -> None:
    """What their models read, written once: rows and codes from 1, histories newest last, zeros on the left."""
    log = data.events
    kept = split.train[split.train > log.offsets[log.users[split.train]]]
    arrays: dict[str, Any] = {
        "history": log.histories(kept, LENGTH) + 1,
        "item": log.items[kept] + 1,
        "user": log.users[kept] + 1,
        "genre": codes(np.array([genres[0] if len(genres) else "" for genres in data.item_table["genres"]])),
        "negatives": np.random.default_rng(0).integers(1, len(data.items) + 1, (len(kept), 3)),
    }
    for part, held in (("validation", split.validation), ("test", split.test)):
        arrays[f"{part} history"] = log.histories(held.starts, LENGTH) + 1
        arrays[f"{part} user"] = log.users[held.starts] + 1
    last = np.array([events[-1] for events in np.split(kept, np.flatnonzero(np.diff(log.users[kept])) + 1)])
    arrays["last history"], arrays["last item"] = log.histories(last, LENGTH) + 1, log.items[last] + 1
    arrays |= {name: codes(data.user_table[name]) for name in ("gender", "age", "occupation")}
    np.savez(path, **arrays)


def codes(values: Any) -> NDArray[np.int64]:
    """[n] 1 … for each distinct value."""
    return np.unique(np.array([str(value) for value in values]), return_inverse=True)[1].astype(np.int64) + 1


def measured(
    name: str, seed: int, data: Prepared, split: Split, folder: Path, epochs: int, seconds: float, ks: tuple[int, ...]
) -> dict[str, Any]:
    """One of their models: the figures of its best epoch and rate on validation; or why there are none."""
    python = peer_python()
    if isinstance(python, str):
        raise SystemExit(python)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder.parent / "inputs.npz").exists():
        inputs(data, split, folder.parent / "inputs.npz")
    best: dict[str, Any] = {"validation": -1.0}
    for rate in RATES:
        told = trained(python, NAMES[name], seed, rate, folder, epochs, seconds)
        if "failed" in told:
            return told
        for epoch, spent in enumerate(told["seconds"]):
            found = np.load(folder / f"{epoch}.npz")
            scorer = PeerVectors(split.validation, found["validation"], found["items"])
            recall = evaluate({"peer": scorer}, data, split.validation, ks=(K,)).value("peer", f"recall@{K}")
            if recall > best["validation"]:
                best = {
                    "validation": recall,
                    "vectors": (found["test"], found["items"]),
                    "training seconds": round(spent, 1),
                    "epoch": epoch + 1,
                    "cut short": told["cut short"] and epoch + 1 == len(told["seconds"]),
                    "learning rate": rate,
                }
    scorer = PeerVectors(split.test, *best.pop("vectors"))
    report = evaluate({"peer": scorer}, data, split.test, ks=ks)
    return {"seed": seed, "metrics": dict(report.rows["peer"]), **best}


def trained(
    python: Path, name: str, seed: int, rate: float, folder: Path, epochs: int, seconds: float
) -> dict[str, Any]:
    """Train in its own process; each epoch's vectors lie in `folder`. The seconds of training till each epoch's end."""
    for old in folder.glob("*.npz"):
        old.unlink()
    words = [name, str(seed), str(rate), str(folder), str(epochs), str(seconds), str(torch.get_num_threads())]
    done = subprocess.run([str(python), "-c", SCRIPT, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


SCRIPT = """
import contextlib, io, json, sys, time
import numpy as np
import torch
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.models import matching
from torch_rechub.models.matching.dssm_senet import DSSM as SENetDSSM
from torch_rechub.trainers import MatchTrainer
from torch_rechub.utils.data import MatchDataGenerator

name, seed, rate, folder = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
epochs, limit = int(sys.argv[5]), float(sys.argv[6])
torch.set_num_threads(int(sys.argv[7]))
torch.manual_seed(seed)
given = dict(np.load(folder + "/../inputs.npz"))
items, dim, length = len(given["genre"]), 64, 50
random = np.random.default_rng(seed)

def profile(users):
    return {"user": users, **{one: given[one][users - 1] for one in ("gender", "age", "occupation")}}

def item(rows):
    return {"item": rows, "genre": given["genre"][rows - 1]}

def packed(history):  # zeros on the right
    order = np.argsort(history == 0, axis=1, kind="stable")
    return np.take_along_axis(history, order, 1)

right = name in ("NARM", "STAMP", "SASRec", "SINE")
asked = {
    part: {"history": packed(given[part + " history"]) if right else given[part + " history"],
           **profile(given[part + " user"])}
    for part in ("validation", "test")
}
sparse = lambda one, size, **more: SparseFeature(one, vocab_size=size + 1, embed_dim=dim, **more)
several = lambda one, pooling, **more: SequenceFeature(
    one, vocab_size=items + 1, embed_dim=dim, pooling=pooling, padding_idx=0, **more)
users = [sparse(one, int(given[one].max())) for one in ("user", "gender", "age", "occupation")]
pooled = [several("history", "mean", shared_with="item")]
listed = [several("history", "concat", shared_with="item")]
negatives = [several("negatives", "concat", shared_with="item")]
ids = [sparse("item", items, padding_idx=0)]
features = [sparse("item", items), sparse("genre", int(given["genre"].max()))]
towers = {"user_params": {"dims": [256, 128, dim], "activation": "prelu"},
          "item_params": {"dims": [256, 128, dim], "activation": "prelu"}}
head = {"user_params": {"dims": [256, 128, dim]}}
x = {"history": given["history"], **profile(given["user"]), **item(given["item"]), "negatives": given["negatives"]}
y, mode, batch, normed = np.zeros(len(given["item"]), np.int64), 2, 1024, False
if right:
    x["history"] = packed(x["history"])

if name in ("DSSM", "SENetDSSM"):  # point-wise: a positive and three negatives, each a row of its own
    rows = np.concatenate([given["item"][:, None], given["negatives"]], 1)
    x = {one: np.repeat(values, 4, 0) for one, values in x.items() if one not in ("item", "genre", "negatives")}
    x |= item(rows.reshape(-1))
    y, mode, batch = np.tile([1, 0, 0, 0], len(rows)), 0, 4096
    # SENet counts no shared sequence among the features it weighs, so its history has a table of its own
    history = pooled if name == "DSSM" else [several("history", "mean")]
    model = (matching.DSSM if name == "DSSM" else SENetDSSM)(users + history, features, temperature=0.02, **towers)
elif name == "FaceBookDSSM":
    rows = given["negatives"][:, 0]
    x |= {"negative": rows, "negative genre": given["genre"][rows - 1]}
    against = [sparse("negative", items, shared_with="item"),
               sparse("negative genre", int(given["genre"].max()), shared_with="genre")]
    model, mode = matching.FaceBookDSSM(users + pooled, features, against, temperature=0.02, **towers), 1
    normed = True  # its item tower does not normalise where it is asked alone
elif name == "YoutubeSBC":
    counts = np.bincount(given["item"], minlength=items + 1)
    share = np.maximum(counts, 1) / counts.sum()
    x["weight"] = share[given["item"]].astype(np.float32)
    model = matching.YoutubeSBC(users + pooled, features, [DenseFeature("weight")], batch_size=batch, n_neg=3,
                                temperature=0.02, user_params={"dims": [128, dim]}, item_params={"dims": [128, dim]})
    normed = True  # trained by the cosine, and not normalised
elif name == "YoutubeDNN":
    model = matching.YoutubeDNN(users + pooled, ids, negatives, temperature=0.02, **head)
elif name == "GRU4Rec":
    model = matching.GRU4Rec(users, listed, ids, negatives, temperature=0.02, **head)
elif name in ("MIND", "ComirecDR"):
    model = getattr(matching, name)(users, listed, ids, negatives, max_length=length, temperature=0.02)
elif name == "ComirecSA":
    model = matching.ComirecSA(users, listed, ids, negatives, temperature=0.02)
elif name == "SINE":
    model = matching.SINE(["history"], ["item"], ["negatives"], items + 1, dim, 4 * dim, 50, 4, length, temperature=0.1)
elif name == "NARM":
    model, y = matching.NARM(several("history", "concat"), dim, 0.25, 0.5), given["item"].astype(np.int64)
elif name == "STAMP":
    model, y = matching.STAMP(several("history", "concat"), 0.05, 0.002), given["item"].astype(np.int64)
elif name == "SASRec":  # a row a user, all positions at once: an epoch is a pass over users, and has 20 of them
    known = packed(np.concatenate([given["last history"], given["last item"][:, None]], 1))
    x = {"seq": known[:, :-1], "pos": known[:, 1:] * (known[:, :-1] > 0)}
    x["neg"] = random.integers(1, items + 1, x["pos"].shape) * (x["pos"] > 0)
    y, mode, batch = np.zeros(len(known), np.int64), 1, 128
    model = matching.SASRec([several("seq", "concat"), several("pos", "concat", shared_with="seq"),
                             several("neg", "concat", shared_with="seq")], max_len=length, dropout_rate=0.2)
    scored = model.forward  # two-dimensional scores, which its loss refuses: flat ones it takes
    model.forward = lambda x: tuple(part.reshape(-1) for part in scored(x))
    for part in asked.values():
        part["seq"] = part.pop("history")
used = {"NARM": ["history"], "STAMP": ["history"]}.get(name, list(x))
x = {one: x[one] if x[one].dtype == np.float32 else x[one].astype(np.int64) for one in used}

trainer = MatchTrainer(model, mode=mode, optimizer_params={"lr": rate, "weight_decay": 1e-6}, n_epoch=epochs)
data = MatchDataGenerator(x=x, y=y)
loader = data.generate_dataloader({"user": np.arange(2)}, {"item": np.arange(2)}, batch_size=batch, num_workers=0)[0]
spent, passes, cut = 0.0, 20 if name == "SASRec" else 1, False

def trimmed(x):  # NARM wants a batch as wide as its longest history
    if name in ("NARM", "STAMP") and "history" in x:
        x["history"] = x["history"][:, : int((x["history"] > 0).sum(1).max())]
    return x

def within(deadline):
    global cut
    for one, label in loader:
        yield trimmed(one), label
        if time.perf_counter() > deadline:
            cut = True
            return

@torch.no_grad()
def vectors(tower, inputs):
    model.eval()
    model.mode = tower
    count, parts = len(next(iter(inputs.values()))), []
    for start in range(0, count, 512):
        part = {one: torch.from_numpy(values[start : start + 512].astype(np.int64)) for one, values in inputs.items()}
        found = getattr(model, tower + "_tower")(trimmed(part))
        parts.append(found[0] if isinstance(found, tuple) else found)
    model.mode = None
    found = torch.cat(parts)
    if normed:
        found = torch.nn.functional.normalize(found, dim=-1)
    return found.reshape(count, -1, dim).numpy() if tower == "user" else found.reshape(count, dim).numpy()

def of_items():
    with torch.no_grad():
        if name in ("NARM", "STAMP"):
            return model.item_emb.weight[1:].numpy()
        if name == "SASRec":
            return model.item_emb.embed_dict["seq"].weight[1:].numpy()
        return vectors("item", item(np.arange(1, items + 1)))

seconds = []
for epoch in range(epochs):
    started = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        for _ in range(passes):
            if not cut:
                trainer.train_one_epoch(within(started + limit - spent))
    spent += time.perf_counter() - started
    seconds.append(spent)
    np.savez(folder + "/" + str(epoch) + ".npz", items=of_items(),
             **{part: vectors("user", inputs) for part, inputs in asked.items()})
    if cut:
        break
print(json.dumps({"seconds": seconds, "cut short": cut}))
"""
