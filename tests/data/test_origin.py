"""What a log was prepared with is remembered, and a recipe that says something else is told so before it trains."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from zhiyin import pipeline
from zhiyin.data import origin
from zhiyin.data.prepared import Prepared
from zhiyin.data.sources import Source, append, prepare
from zhiyin.errors import DataError
from zhiyin.recipe import Recipe

LOG = "user,item,time,price\nu,a,1,2\nu,b,2,3\nu,c,3,4\nv,a,1,5\n"


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "log.csv").write_text(LOG)
    source = Source(tmp_path / "log.csv", time_unit="position")
    prepare(source, tmp_path / "home" / "prepared")
    return source


def told(source: Source, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        origin.refuse_other(source, folder)
    return str(caught.value)


def test_the_same_source_is_the_same(source: Source, tmp_path: Path) -> None:
    origin.refuse_other(source, tmp_path / "home" / "prepared")
    origin.refuse_other(replace(source, events=tmp_path / "home" / ".." / "log.csv"), tmp_path / "home" / "prepared")


def test_each_thing_that_differs_is_told(source: Source, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "prepared"
    other = replace(source, events=tmp_path / "b.csv", items=tmp_path / "items.csv", duplicates="keep", time="at")
    assert told(other, folder) == (
        f"{folder}: [data] was changed since the log was prepared: duplicates was left out, and is 'keep'; events was "
        "'../log.csv', and is '../b.csv'; items was left out, and is '../items.csv'; time was left out, and is 'at'; "
        "expected the recipe that the log was prepared with. Run `zhiyin prepare RECIPE` again, and then fit with "
        "--fresh; or put [data] back."
    )
    prepare(replace(source, columns=("price",)), folder)
    assert "columns was ['price'], and is left out" in told(source, folder)


def test_what_is_appended_changes_neither_the_origin_nor_the_lineage(source: Source, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "prepared"
    before = Prepared.open(folder)
    (tmp_path / "more.csv").write_text("user,item,time,price\nw,0,5,1\n")
    append(replace(source, events=tmp_path / "more.csv"), folder)
    origin.refuse_other(source, folder)
    after = Prepared.open(folder)
    assert after.items.ids() == ["a", "b", "c", "0"]
    assert len(before.lineage) == 64
    assert after.lineage == before.lineage
    (tmp_path / "log.csv").write_text(LOG + "w,0,5,1\n")
    prepare(source, folder)
    assert Prepared.open(folder).lineage != before.lineage, "prepared anew its rows are others"


def test_a_home_that_moves_with_its_log_is_the_same_and_an_older_one_says_nothing(
    source: Source, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(tmp_path / "home", moved / "home")
    shutil.move(tmp_path / "log.csv", moved / "log.csv")
    origin.refuse_other(replace(source, events=moved / "log.csv"), moved / "home" / "prepared")
    (moved / "home" / "prepared" / origin.FILE).unlink()
    origin.refuse_other(source, moved / "home" / "prepared")


def test_fit_says_it_before_anything_is_learned(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    text = '[data]\nevents = "log.csv"\ntime_unit = "position"\n[model]\nuse = "youtube_dnn:YouTubeDNN"\n'
    (tmp_path / "r.toml").write_text(text)
    pipeline.prepare(Recipe.read(tmp_path / "r.toml"))
    (tmp_path / "r.toml").write_text(text.replace("[model]", 'duplicates = "keep"\n[model]'))
    with pytest.raises(DataError, match=r"\[data\] was changed since the log was prepared: duplicates was left out"):
        pipeline.fit(Recipe.read(tmp_path / "r.toml"))
    assert not (tmp_path / "r" / "run").exists()
