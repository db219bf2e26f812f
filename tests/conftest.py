"""What several test files stand on: a tiny log, and a release of an untrained model on it."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut, Split
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Vocabulary
from zhiyin.features.bag import Bag
from zhiyin.features.categorical import Categorical
from zhiyin.features.numeric import Numeric
from zhiyin.features.schema import Schema
from zhiyin.features.time import ExampleAge, Hour
from zhiyin.indexes.base import IndexSpec
from zhiyin.indexes.exact import Exact
from zhiyin.learning.examples import Examples
from zhiyin.models.youtube_dnn import YouTubeDNN
from zhiyin.publish import Promise, publish
from zhiyin.release import Release

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")

USERS, ITEMS, EVENTS_PER_USER = 40, 60, 12
START = 1_700_000_000_000

SCHEMA = Schema(
    user=(Categorical("country", dim=3), Numeric("age")),
    item=(Bag("tags", dim=4, length=3),),
    event=(Numeric("stars"),),
    context=(Hour("hour", "time"), ExampleAge("example_age", "age")),
    history_length=8,
)


@pytest.fixture(scope="session")
def data() -> Prepared:
    """40 users, 60 items, 12 events each, two of them in the same millisecond; profiles, tags, stars and a clock."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(USERS), EVENTS_PER_USER).astype(np.int32)
    items = np.concatenate([random.permutation(ITEMS)[:EVENTS_PER_USER] for _ in range(USERS)]).astype(np.int32)
    times = START + np.tile(np.arange(EVENTS_PER_USER) // 2, USERS) * 3_600_000 + users
    return Prepared(
        users=Vocabulary.of(f"u{row}" for row in range(USERS)),
        items=Vocabulary.of(f"i{row}" for row in range(ITEMS)),
        events=EventLog.of(
            users, items, times, user_count=USERS, columns=Table.of({"stars": random.integers(1, 6, len(users))})
        ),
        user_table=Table.of({"country": ["cn", "fr"] * (USERS // 2), "age": list(range(20, 20 + USERS))}),
        item_table=Table.of(
            {
                "title": [f"title {row}" for row in range(ITEMS)],
                "tags": [["a", "b"] if row % 2 else ["c"] for row in range(ITEMS)],
            }
        ),
    )


@pytest.fixture(scope="session")
def split(data: Prepared) -> Split:
    return LeaveLastOut().split(data.events, data.clock)


@pytest.fixture(scope="session")
def examples(data: Prepared, split: Split) -> Examples:
    return Examples(data, SCHEMA.fit(data, split), end=split.end, device=torch.device("cpu"))


Publisher = Callable[..., Release]


@pytest.fixture(scope="session")
def published(data: Prepared, split: Split, examples: Examples) -> Publisher:
    """published(root, id, seed=0, index=Exact()): a release of an untrained YouTubeDNN, whose seed is all its taste."""

    def make(root: Path, id: str, seed: int = 0, index: IndexSpec = Exact(), overlap: float = 0.5) -> Release:
        torch.manual_seed(seed)
        return publish(
            YouTubeDNN(dim=16, hidden=(32,)).build(examples.schema, len(data.items)),
            examples.schema,
            data,
            items=examples.items(),
            sample=examples.queries(split.test.starts),
            popular=np.arange(ITEMS, dtype=np.int32),
            index=index,
            root=root,
            id=id,
            facts={"created": "2026-01-01T00:00:00+00:00", "metrics": {}},
            promise=Promise(overlap=overlap, k=10),
        )

    return make


@pytest.fixture(scope="session")
def release(published: Publisher, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return published(tmp_path_factory.mktemp("releases"), "20260101-000000-aaaa")
