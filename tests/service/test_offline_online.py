"""Offline = online: the HTTP answer is the trained model's own top k through the same index, for exact and HNSW."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from zhiyin.data import worlds
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut, Split
from zhiyin.features.bag import Bag
from zhiyin.features.categorical import Categorical
from zhiyin.features.numeric import Numeric
from zhiyin.features.schema import Schema
from zhiyin.features.time import ExampleAge, Hour
from zhiyin.indexes.base import IndexSpec
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.hnsw import HNSW
from zhiyin.learning.examples import Examples
from zhiyin.learning.fit import Fitted, Plan, Training, fit
from zhiyin.models.youtube_dnn import YouTubeDNN
from zhiyin.publish import Promise, publish
from zhiyin.release import Release
from zhiyin.releases import Releases
from zhiyin.service.app import Service, create, running
from zhiyin.service.live import Live
from zhiyin.stores.base import Event
from zhiyin.stores.memory import Memory, MemoryStore

USERS, K = 520, 20

SCHEMA = Schema(
    user=(Categorical("country"), Numeric("age")),
    item=(Bag("tags", length=4), Numeric("price", scale="log")),
    event=(Categorical("device", dim=4),),
    context=(Hour(), ExampleAge()),
    history_length=6,
)


@pytest.fixture(scope="module")
def data() -> Prepared:
    return worlds.tastes(USERS, 400, 10, 11, seed=3).data


@pytest.fixture(scope="module")
def split(data: Prepared) -> Split:
    return LeaveLastOut().split(data.events, data.clock)


@pytest.fixture(scope="module")
def fitted(data: Prepared, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Trained for a moment: away from where it began, and quick."""
    plan = Plan(YouTubeDNN(dim=16, hidden=(32,)), training=Training(epochs=1, device="cpu"))
    return fit(plan, data, split, SCHEMA.fit(data, split), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def store(data: Prepared, split: Split) -> MemoryStore:
    """What each user had done before the held-out event, and their profiles."""
    store, log = Memory().open(), data.events
    for start in split.test.starts:
        row = int(log.users[start])
        first = int(log.offsets[row])
        values = log.columns.records(first, int(start))
        events = range(first, int(start))
        items = data.items.ids(log.items[first:start])
        store.append([Event(f"u{row}", i, int(log.times[e]), v) for e, i, v in zip(events, items, values, strict=True)])
    store.put_profiles({f"u{row}": record for row, record in enumerate(data.user_table.records(0, USERS))})
    return store


@pytest.mark.parametrize("index", [Exact(), HNSW()], ids=lambda one: type(one).__name__)
def test_the_http_answer_is_the_offline_one(
    index: IndexSpec, data: Prepared, split: Split, fitted: Fitted, store: MemoryStore, tmp_path: Path
) -> None:
    examples = Examples(data, fitted.schema, end=fitted.end, device=torch.device("cpu"))
    starts = split.test.starts[:500]
    queries = examples.queries(starts)
    release = publish(
        fitted.model,
        fitted.schema,
        data,
        sample=queries,
        popular=np.arange(len(data.items), dtype=np.int32),
        index=index,
        root=tmp_path,
        id="20260101-000000-aaaa",
        facts={},
        promise=Promise(k=K, overlap=0.9),
    )
    with torch.inference_mode():
        users = np.ascontiguousarray(fitted.model.user_vectors(queries)[:, 0].numpy())
    hits = release.index.search(users, 128)
    with Live(Releases(tmp_path)) as live, running(create(live, store, Service())) as url:
        answers = asked(url, data, starts)
    assert len(answers) == 500
    for query, (start, answer) in enumerate(zip(starts, answers, strict=True)):
        unseen = ~np.isin(hits.rows[query], data.events.history(int(start)))
        rows, scores = hits.rows[query][unseen][:K], hits.scores[query][unseen][:K]
        assert (answer["channel"], answer["history"]) == ("deep", 6)
        assert same(release, answer["candidates"], rows, scores)


def asked(url: str, data: Prepared, starts: np.ndarray) -> list[dict[str, Any]]:
    log = data.events
    requests = [{"user_id": f"u{log.users[at]}", "k": K, "time": int(log.times[at]) / 1000} for at in starts]
    answers: list[dict[str, Any]] = []
    with httpx.Client(base_url=url, timeout=30) as client:
        for first in range(0, len(requests), 100):
            body = {"requests": requests[first : first + 100]}
            answers += client.post("/v1/retrieve", json=body).raise_for_status().json()["results"]
    return answers


def same(release: Release, found: list[dict[str, Any]], rows: np.ndarray, scores: np.ndarray) -> bool:
    """Whether these are the same ids in the same order, with scores within 1e-4; neighbours whose scores differ by less
    than the two runtimes do (1e-5) may have changed places."""
    places = {item: at for at, item in enumerate(release.items.ids(rows))}
    online = np.array([candidate["score"] for candidate in found])
    order = [places[candidate["item_id"]] for candidate in found]
    return (
        sorted(order) == list(range(len(rows)))
        and bool(np.allclose(scores[order], scores, atol=1e-5))
        and bool(np.allclose(online, scores, atol=1e-4))
    )
