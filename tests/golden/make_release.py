"""Made the golden release of each format beside it, once, when it was new: `python tests/golden/make_release.py`.

Never run it again for the same format: what was written then must be read for ever. A new format gets its own folder.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from zhiyin.data import worlds
from zhiyin.data.splits import LeaveLastOut
from zhiyin.features.bag import Bag
from zhiyin.features.categorical import Categorical
from zhiyin.features.hashed import Hashed
from zhiyin.features.numeric import Bucketed, Numeric
from zhiyin.features.schema import Schema
from zhiyin.features.time import ExampleAge, Hour, Weekday
from zhiyin.indexes.hnsw import HNSW
from zhiyin.learning.examples import Examples
from zhiyin.manifest import FORMAT
from zhiyin.models.youtube_dnn import YouTubeDNN
from zhiyin.publish import Promise, publish
from zhiyin.release import Arrays
from zhiyin.releases import Releases
from zhiyin.retriever import Retriever
from zhiyin.service import wire
from zhiyin.stores.memory import Memory

HERE = Path(__file__).parent
ID = "20260101-000000-0001"

SCHEMA = Schema(
    user=(Categorical("country", dim=3), Bucketed("age", buckets=3, dim=2)),
    item=(Bag("tags", dim=3, length=3), Numeric("price", scale="log")),
    event=(Hashed("device", buckets=7, dim=2),),
    context=(Hour(dim=2), Weekday(dim=2), ExampleAge()),
    history_length=4,
)

REQUESTS = (
    '{"events": [{"item_id": "i3", "time": 1767000000, "values": {"device": "d1"}}, {"item_id": "i7"}], "k": 5}',
    '{"profile": {"country": "cn", "age": 33}, "k": 5}',
    '{"profile": {"country": "nowhere"}, "events": [{"item_id": "i1"}, {"item_id": "no such"}], "k": 30}',
    '{"k": 3, "exclude": ["i0"]}',
)
"""Asked of the release at `NOW`, and answered in `answers.json`."""

NOW = 1_767_225_600_000


def make(releases: Releases, tables: Mapping[str, Arrays] = MappingProxyType({})) -> None:
    """Publish an untrained model of a small world, and write down what it answers."""
    data = worlds.tastes(40, 30, 5, 6, seed=1).data
    split = LeaveLastOut().split(data.events, data.clock)
    schema = SCHEMA.fit(data, split)
    examples = Examples(data, schema, end=split.end, device=torch.device("cpu"))
    torch.manual_seed(1)
    release = publish(
        YouTubeDNN(dim=8, hidden=(16,)).build(schema, len(data.items)),
        schema,
        data,
        sample=examples.queries(split.test.starts),
        popular=np.arange(len(data.items), dtype=np.int32),
        index=HNSW(m=4, ef_construction=16, ef_search=32),
        root=releases,
        id=ID,
        facts={"created": "2026-01-01T00:00:00+00:00", "metrics": {"validation recall@50": 0.5}},
        promise=Promise(k=10),
        tables=tables,
    )
    asked = [wire.to_request(wire.decode(body.encode(), wire.Retrieve), NOW, 30, "") for body in REQUESTS]
    found = Retriever(Memory().open()).retrieve(release, asked)
    answers = [
        {"request": body, "channel": one.channel, "items": one.items, "scores": one.scores}
        for body, one in zip(REQUESTS, found, strict=True)
    ]
    (releases.root / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    make(Releases(HERE / f"format-{FORMAT}"))
