"""Made `channels/` beside it, once: the tables that the golden world's channels were published with, and what they
answered with the golden release of format 2. Never run it again: what was written then must be read for ever."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from zhiyin.baselines.neighbourhoods import fitted
from zhiyin.channels.fresh import Fresh
from zhiyin.channels.neighbours import Neighbours
from zhiyin.channels.online import Online
from zhiyin.channels.popular import Popular
from zhiyin.data import worlds
from zhiyin.data.splits import LeaveLastOut
from zhiyin.releases import Releases
from zhiyin.retriever import Retriever
from zhiyin.service import wire
from zhiyin.stores.memory import Memory

HERE = Path(__file__).parent
NOW = 1_767_225_600_000

ONLINE = Online(
    channels={
        "recent": Popular(days=3, segment="country"),
        "together": Neighbours({"use": "item_knn:ItemKNN", "shrinkage": 1.0, "half_life": 4}, keep=8),
    }
)

REQUESTS = tuple(
    '{"events": [{"item_id": "i3"}, {"item_id": "i7"}], "profile": {"country": "cn"}, "k": 6, "channels": '
    + names
    + "}"
    for names in ('["recent"]', '["together"]', '["fresh"]', '["recent", "together", "fresh"]')
)


def main() -> None:
    data = worlds.tastes(40, 30, 5, 6, seed=1).data
    split = LeaveLastOut().split(data.events, data.clock)
    whole = replace(split, train=np.arange(len(data.events)))
    found = {
        name: one.tables(data, lambda baseline, keep: fitted(baseline, data, whole, keep))
        for name, one in {**ONLINE.channels, "fresh": Fresh()}.items()
    }
    for name, arrays in found.items():
        (HERE / "channels" / name).mkdir(parents=True)
        for array in arrays:
            np.save(HERE / "channels" / name / f"{array}.npy", arrays[array], allow_pickle=False)
    release = replace(Releases(HERE / "format-2").open(), tables=found)
    asked = [wire.to_request(wire.decode(body.encode(), wire.Retrieve), NOW, 30, "") for body in REQUESTS]
    answers = [
        {"request": body, "items": one.items, "scores": one.scores}
        for body, one in zip(REQUESTS, Retriever(Memory().open(), online=ONLINE).retrieve(release, asked), strict=True)
    ]
    (HERE / "channels" / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
