"""What each format wrote is read for ever, and answers what it answered then."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zhiyin.channels.base import Channel
from zhiyin.channels.neighbours import Neighbours
from zhiyin.channels.online import Online
from zhiyin.channels.popular import Popular
from zhiyin.errors import RequestError
from zhiyin.manifest import FORMAT
from zhiyin.release import Release
from zhiyin.releases import Releases
from zhiyin.retriever import Request, Retriever
from zhiyin.service import wire
from zhiyin.stores.base import Event
from zhiyin.stores.memory import Memory

FORMATS = sorted(Path(__file__).parent.glob("format-*"))
EVERYTHING = Path(__file__).parent / "everything"
"""A release with all that it may have besides: weights and tables in files of their own, and a signature."""

NOW = 1_767_225_600_000


@pytest.fixture(params=[*FORMATS, EVERYTHING], ids=lambda one: one.name)
def folder(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


@pytest.fixture
def release(folder: Path) -> Release:
    return Releases(folder).open()


def inputs(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


def test_every_format_is_there() -> None:
    assert [path.name for path in FORMATS] == [f"format-{number}" for number in range(1, FORMAT + 1)]


def test_the_towers_give_the_vectors_that_the_trained_model_gave(folder: Path, release: Release) -> None:
    golden = folder / release.id / "golden"
    users = release.user_tower(inputs(golden / "inputs"))
    np.testing.assert_allclose(users, np.load(golden / "user_vectors.npy"), atol=1e-5)
    rows = np.load(golden / "item_inputs" / "rows.npy")
    assert list(rows) == list(range(30))
    np.testing.assert_allclose(release.item_tower(inputs(golden / "item_inputs")), release.vectors[rows], atol=1e-5)


def test_it_answers_what_it_answered_then(folder: Path, release: Release) -> None:
    wanted = json.loads((folder / "answers.json").read_text())
    asked = [wire.to_request(wire.decode(one["request"].encode(), wire.Retrieve), NOW, 30, "") for one in wanted]
    for one, found in zip(wanted, Retriever(Memory().open()).retrieve(release, asked), strict=True):
        assert (found.channel, found.items) == (one["channel"], one["items"])
        np.testing.assert_allclose(found.scores, one["scores"], atol=1e-4)


def test_the_tables_of_channels_answer_what_they_answered_then() -> None:
    folder = Path(__file__).parent / "channels"
    tables = {path.name: inputs(path) for path in folder.iterdir() if path.is_dir()}
    release = replace(Releases(FORMATS[1]).open(), tables=tables)
    names: dict[str, Channel] = {"recent": Popular(days=3, segment="country"), "together": Neighbours()}
    retriever = Retriever(Memory().open(), online=Online(channels=names))
    for one in json.loads((folder / "answers.json").read_text()):
        asked = wire.to_request(wire.decode(one["request"].encode(), wire.Retrieve), NOW, 30, "")
        (found,) = retriever.retrieve(release, [asked])
        assert found.items == one["items"]
        np.testing.assert_allclose(found.scores, one["scores"], atol=1e-4)


def test_one_with_everything_is_still_signed_and_has_its_tables_and_weights() -> None:
    release = Releases(EVERYTHING, trust=(EVERYTHING / "release.pub",)).open()
    assert {"user_tower.onnx.data", "item_tower.onnx.data"} < set(release.manifest["files"])
    folders = {path.name: path for path in (Path(__file__).parent / "channels").iterdir() if path.is_dir()}
    assert set(release.tables) == set(folders)
    for name, arrays in release.tables.items():
        wanted = inputs(folders[name])
        assert set(arrays) == set(wanted)
        for one in wanted:
            np.testing.assert_array_equal(arrays[one], wanted[one])


@pytest.mark.parametrize("folder", FORMATS, ids=lambda one: one.name, indirect=True)
@pytest.mark.parametrize("name", ["fresh", "recent", "together"])
def test_a_release_from_before_there_were_channels_says_that_it_has_none(release: Release, name: str) -> None:
    online = Online(channels={"recent": Popular(days=3), "together": Neighbours()})
    request = Request(events=(Event("", "i3", NOW),), k=3, time=NOW, channels=(name,))
    with pytest.raises(
        RequestError, match=rf"^channels\[0\]: release '{release.id}' was published without this channel"
    ):
        Retriever(Memory().open(), online=online).retrieve(release, [request])


def test_it_holds_nothing_of_the_machine_that_made_it(folder: Path) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert b"site-packages" not in path.read_bytes()
        assert b'File "' not in path.read_bytes()
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 200_000
