"""What is guessed from a user's own files, and the recipe that says it."""

import tomllib
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from zhiyin import spec
from zhiyin.data import guess as guessing
from zhiyin.data.guess import Guess, inspect, recipe_text
from zhiyin.data.prepared import Prepared
from zhiyin.data.sources import Source, prepare
from zhiyin.errors import DataError
from zhiyin.features.schema import Schema

START = 1_700_000_000
DAY = 86_400


def write(path: Path, **columns: Any) -> Path:
    pa.parquet.write_table(pa.table(columns), path)
    return path


def log(path: Path, rows: int = 60, names: tuple[str, str, str] = ("user_id", "item_id", "timestamp")) -> Path:
    """Users come back over the whole log, every day."""
    columns = {
        names[0]: [i % 6 for i in range(rows)],
        names[1]: [f"i{i % 11}" for i in range(rows)],
        names[2]: [START + i * DAY // 2 + i for i in range(rows)],
    }
    return write(path, **columns)


def read(guess: Guess, **options: Any) -> dict[str, Any]:
    """The recipe's tables, its [data] and [features] accepted by what will read them."""
    tables = tomllib.loads(recipe_text(guess, "home", **options))
    spec.build(Source, tables["data"], "data")
    spec.build(Schema, tables["features"], "features")
    return tables


def features(guess: Guess, side: str) -> dict[str, dict[str, Any]]:
    return {feature["name"]: feature for feature in read(guess)["features"].get(side, [])}


@pytest.mark.parametrize(
    "names",
    [
        ("user_id", "item_id", "timestamp"),
        ("visitorid", "itemid", "ts"),
        ("userId", "movieId", "created_at"),
        ("reviewerID", "asin", "unixReviewTime"),
        ("Customer ID", "StockCode", "InvoiceDate"),
        ("uid", "sku", "event_time"),
        ("用户ID", "商品ID", "时间戳"),
        ("会员ID", "视频ID", "播放时间"),
    ],
)
def test_columns_are_known_by_their_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    source = inspect(log(tmp_path / "log.parquet", names=names)).source
    assert (source.user, source.item, source.time, source.time_unit) == (*names, "s")


def test_a_time_is_known_by_its_values_and_an_id_when_it_is_the_only_one_left(tmp_path: Path) -> None:
    guess = inspect(log(tmp_path / "log.parquet", names=("user", "thing", "x")))
    assert (guess.source.user, guess.source.item, guess.source.time) == ("user", "thing", "x")
    assert "the only other column that looks like an id" in recipe_text(guess, "home")


def test_an_id_is_known_by_its_table(tmp_path: Path) -> None:
    events = write(tmp_path / "log.parquet", who=[1, 1, 2], what=["a", "b", "a"], time=[1, 2, 3], code=[5, 6, 7])
    items = write(tmp_path / "items.parquet", what=["a", "b"])
    users = write(tmp_path / "users.parquet", who=[1, 2])
    source = inspect(events, items, users).source
    assert (source.user, source.item) == ("who", "what")


def test_a_tables_id_may_have_another_name(tmp_path: Path) -> None:
    events = log(tmp_path / "log.parquet")
    items = write(tmp_path / "items.parquet", rank=list(range(11)), id=[f"i{i}" for i in range(11)])
    guess = inspect(events, items)
    assert guess.source.item_id == "id"
    assert read(guess)["data"]["item_id"] == "id"
    other = write(tmp_path / "other.parquet", name=["p", "q"])
    with pytest.raises(DataError, match=r"no column holds the item ids of the log's 'item_id'.*\(there are name\)"):
        inspect(events, other)


def test_what_is_said_is_taken(tmp_path: Path) -> None:
    events = write(tmp_path / "log.parquet", user_id=[1, 1], session=[5, 6], a=["x", "y"], b=[3, 4], time=[1, 2])
    source = inspect(events, user="session", item="a", time="b", time_unit="ms").source
    assert (source.user, source.item, source.time, source.time_unit) == ("session", "a", "b", "ms")
    with pytest.raises(DataError, match=r"no column 'sesion' \(did you mean 'session'\?\).*Set --user to"):
        inspect(events, user="sesion")


def test_without_times_the_order_of_the_rows_is_taken_when_one_says_so(tmp_path: Path) -> None:
    events = write(tmp_path / "log.parquet", user_id=["b", "a", "a"], item_id=["x", "y", "z"])
    with pytest.raises(DataError) as caught:
        inspect(events)
    assert str(caught.value) == (
        f"{events}: no column looks like the time of an event; expected a name such as timestamp; the columns are "
        "user_id, item_id. Say which they are: --user COLUMN --item COLUMN --time COLUMN (--time none if the rows are "
        "in order and have no times)."
    )
    guess = inspect(events, time="none")
    assert (guess.source.time, guess.source.time_unit) == ("", "position")
    prepare(spec.build(Source, read(guess)["data"]), tmp_path / "prepared")
    assert Prepared.open(tmp_path / "prepared").events.times.tolist() == [1, 2, 0]


def test_a_time_column_with_a_few_broken_values_is_found_and_their_first_row_named(tmp_path: Path) -> None:
    days = [f"2024-03-{1 + i % 28:02}T00:00:00+08:00" for i in range(40)]
    days[7] = "yesterday"
    users, items = [f"u{i % 6}" for i in range(40)], [f"i{i % 11}" for i in range(40)]
    events = write(tmp_path / "log.parquet", user_id=users, item_id=items, seen=days)
    with pytest.raises(DataError, match=r"row 8: column 'seen' is 'yesterday'; expected a date"):
        inspect(events)
    days[7] = days[6]
    guess = inspect(write(tmp_path / "log.parquet", user_id=users, item_id=items, note=["n"] * 40, seen=days))
    assert (guess.source.time, guess.source.time_unit) == ("seen", "iso")


def test_columns_that_cannot_be_told_are_listed_with_the_flags(tmp_path: Path) -> None:
    events = write(tmp_path / "log.parquet", p=[1, 2], q=["a", "b"], time=[1, 2])
    with pytest.raises(DataError, match=r"no column looks like the user's id.*are p, q, time\. .*--user COLUMN --item"):
        inspect(events)
    assert inspect(events, user="p").source.item == "q"
    with pytest.raises(DataError, match="the log has no events"):
        inspect(write(tmp_path / "empty.parquet", user=pa.array([], pa.string())))
    with pytest.raises(DataError, match="there is no such file"):
        inspect(tmp_path / "log.csv")


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        ([START, START + 9], "s"),
        ([START * 1000, START * 1000 + 9], "ms"),
        ([START * 10**6], "us"),
        ([START * 10**9], "ns"),
        ([START + 0.5], "s"),
        ([0, 1], "position"),
        ([datetime(2024, 1, 2)], "iso"),
        (["2024-01-02T03:04:05Z"], "iso"),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_the_unit_is_known_by_size_or_type(tmp_path: Path, times: list[Any], unit: str, kind: str) -> None:
    path = tmp_path / f"log.{kind}"
    if kind == "csv":
        path.write_text("user,item,time\n" + "".join(f"u,i,{time}\n" for time in times))
    else:
        write(path, user=["u"] * len(times), item=["i"] * len(times), time=times)
    guess = inspect(path)
    assert guess.source.time_unit == unit
    assert (guess.clock is None) == (unit == "position")
    prepare(spec.build(Source, read(guess)["data"]), tmp_path / "prepared")


def test_a_date_in_another_form_is_refused_with_the_form_to_write(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,date\nu,i,12/1/2010 8:26\n")
    with pytest.raises(DataError, match=r"row 1: column 'date' is '12/1/2010 8:26'; expected a date or a timestamp"):
        inspect(tmp_path / "log.csv")


def test_what_columns_of_a_table_could_be(tmp_path: Path) -> None:
    rows = 60
    items = write(
        tmp_path / "items.parquet",
        item_id=[f"i{i}" for i in range(rows)],
        brand=[f"b{i % 12}" for i in range(rows)],
        stars=[i % 5 for i in range(rows)],
        brand_id=[i % 30 for i in range(rows)],
        weight=[i % 30 + 100 for i in range(rows)],
        price=[i + 0.5 for i in range(rows)],
        views=[10.0**6 if i == 7 else float(i % 9 + 1) for i in range(rows)],
        genres=["a|b" if i % 2 else "b|c|d" for i in range(rows)],
        tags=[["p", "q"] if i % 2 else ["r"] for i in range(rows)],
        clip=[[0.1, 0.2, float(i)] for i in range(rows)],
        odd=[[0.5] * (1 + i % 3) for i in range(rows)],
        free=[i % 2 == 0 for i in range(rows)],
        title=[f"word {i % 3}" for i in range(rows)],
        plot=[f"a long story about the number {i}" for i in range(rows)],
        barcode=[f"{i:013d}" for i in range(rows)],
        number=[1000 + i for i in range(rows)],
        released=[datetime(2020, 1, 1) + timedelta(i) for i in range(rows)],
        born=[f"2020-01-{1 + i % 28:02d}" for i in range(rows)],
        image=[f"https://example.org/{i % 9}.png" for i in range(rows)],
        shop=["one"] * rows,
        nothing=pa.nulls(rows, pa.string()),
        maker=[{"name": f"x{i}"} for i in range(rows)],
        **{"class": [f"c{i % 3}" for i in range(rows)], "rows": [f"r{i % 3}" for i in range(rows)]},
        **{"2nd-hand": [f"s{i % 3}" for i in range(rows)]},
    )
    guess = inspect(log(tmp_path / "log.parquet"), items)
    found = features(guess, "item")
    assert found == {
        "brand": {"use": "categorical:Categorical", "name": "brand", "dim": 8},
        "stars": {"use": "categorical:Categorical", "name": "stars", "dim": 4},
        "brand_id": {"use": "categorical:Categorical", "name": "brand_id", "dim": 8},
        "weight": {"use": "numeric:Numeric", "name": "weight"},
        "price": {"use": "numeric:Numeric", "name": "price"},
        "views": {"use": "numeric:Numeric", "name": "views", "scale": "log"},
        "genres": {"use": "bag:Bag", "name": "genres", "dim": 4, "length": 3},
        "tags": {"use": "bag:Bag", "name": "tags", "dim": 4, "length": 2},
        "clip": {"use": "vector:Vector", "name": "clip", "width": 3},
        "free": {"use": "categorical:Categorical", "name": "free", "dim": 4},
        "class": {"use": "categorical:Categorical", "name": "class", "dim": 4},
        "item_rows": {"use": "categorical:Categorical", "name": "item_rows", "column": "rows", "dim": 4},
        "item_2nd_hand": {"use": "categorical:Categorical", "name": "item_2nd_hand", "column": "2nd-hand", "dim": 4},
    }
    text = recipe_text(guess, "home")
    for column, reason in {
        "odd": "lists of numbers whose lengths differ",
        "title": "free text",
        "plot": "free text",
        "barcode": "60 different values in 60 rows",
        "number": "a different number in every row",
        "released": "dates",
        "born": "dates",
        "image": "web addresses",
        "shop": "the same value in every row",
        "nothing": "empty",
        "maker": "which no feature reads",
    }.items():
        assert f"# {column} is left out: " in text
        assert reason in text.partition(f"# {column} is left out: ")[2].splitlines()[0]


def test_a_guessed_recipe_prepares_and_fits_its_features(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "userId,movieId,rating,timestamp,device\n"
        + "".join(f"{i % 6},{i % 11},{i % 5},{START + i * DAY},{'tv' if i % 2 else 'phone'}\n" for i in range(90))
    )
    (tmp_path / "items.csv").write_text(
        "movieId,title,genres\n" + "".join(f'{i},"Film, {i} (1999)",{"a|b" if i % 2 else "c"}\n' for i in range(12))
    )
    (tmp_path / "users.csv").write_text("userId,age\n" + "".join(f"{i},{20 + i}\n" for i in range(6)))
    guess = inspect(tmp_path / "log.csv", tmp_path / "items.csv", tmp_path / "users.csv")
    tables = read(guess)
    assert list(features(guess, "context")) == ["example_age", "weekday", "device"]
    assert "rating: 5 whole numbers" in recipe_text(guess, "home")
    prepare(spec.build(Source, tables["data"]), tmp_path / "prepared")
    data = Prepared.open(tmp_path / "prepared")
    from zhiyin.data.splits import LeaveLastOut

    schema = spec.build(Schema, tables["features"]).fit(data, LeaveLastOut().split(data.events, data.clock))
    assert [f.name for f in schema.item] == ["genres"]
    assert [f.name for f in schema.user] == ["age"]


def test_names_that_two_features_of_a_side_would_share(tmp_path: Path) -> None:
    users = write(tmp_path / "users.parquet", user_id=[0, 1, 2], hour=["a", "b", "a"], example_age=["x", "y", "x"])
    guess = inspect(log(tmp_path / "log.parquet"), users=users)
    assert list(features(guess, "user")) == ["hour", "example_age"]
    assert features(guess, "context")["context_hour"] == {"use": "time:Hour", "name": "context_hour", "dim": 4}


def test_the_split_follows_the_clock(tmp_path: Path) -> None:
    assert read(inspect(log(tmp_path / "steady.parquet")))["split"]["use"] == "splits:TimeCut"
    bursts = {
        "user": [i // 5 for i in range(200)],
        "item": [i % 7 for i in range(200)],
        "time": [START + i // 5 * DAY + i for i in range(200)],
    }
    text = recipe_text(inspect(write(tmp_path / "bursts.parquet", **bursts)), "home")
    assert 'use = "splits:LeaveLastOut"' in text
    assert "users come in one burst each" in text
    positions = write(tmp_path / "positions.parquet", user=[1, 1], item=[1, 2], time=[0, 1])
    guess = inspect(positions)
    assert read(guess)["split"] == {"use": "splits:LeaveLastOut"}
    assert not features(guess, "context")


def test_the_size_of_the_catalogue_and_the_log_chooses_negatives_index_and_batch(tmp_path: Path) -> None:
    tables = read(inspect(log(tmp_path / "small.parquet")))
    assert tables["negatives"]["use"] == "negatives:WholeCatalogue"
    assert tables["index"]["use"] == "exact:Exact"
    assert tables["training"]["batch_size"] == 512
    items = write(tmp_path / "items.parquet", item_id=[f"i{i}" for i in range(60_000)])
    tables = read(inspect(tmp_path / "small.parquet", items))
    assert tables["negatives"]["use"] == "negatives:Mixed"
    assert tables["index"]["use"] == "hnsw:HNSW"


def test_only_a_sample_is_looked_at_but_all_items_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guessing, "SAMPLE", 10)
    guess = inspect(log(tmp_path / "log.parquet", rows=600))
    assert guess.events == 600
    assert 9 <= guess.items <= 13
    assert guess.clock
    assert guess.clock.days > 290


def test_paths_are_absolute_or_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    events, items = log(tmp_path / "in" / "log.parquet"), log(tmp_path / 'it"ems.parquet', rows=6)
    monkeypatch.chdir(tmp_path)
    guess = inspect(Path("in/log.parquet"))
    assert read(guess)["data"]["events"] == str(events)
    assert read(guess, folder=tmp_path / "in")["data"]["events"] == "log.parquet"
    assert read(guess, folder=Path())["data"]["events"] == "in/log.parquet"
    guess = inspect(events, items)
    assert read(guess, folder=tmp_path / "in")["data"]["items"] == str(items)


def test_a_recipe_has_these_tables_and_is_read_back(tmp_path: Path) -> None:
    tables = tomllib.loads(recipe_text(inspect(log(tmp_path / "log.parquet")), 'my "home"'))
    assert tables["home"] == 'my "home"'
    assert list(tables) == [
        "home", "data", "features", "split", "model", "negatives", "loss", "training", "sweep",
        "index", "store", "service",
    ]  # fmt: skip
    assert tables["service"] == {"host": "127.0.0.1", "port": 8000}


def test_what_the_recipe_sweeps_every_model_has(tmp_path: Path) -> None:
    text = recipe_text(inspect(log(tmp_path / "log.parquet")), "home")
    tables = tomllib.loads(text)
    assert "dropout" not in tables["model"], "a model of one's own may have none"
    assert tomllib.loads(text.replace("# dropout", "dropout"))["model"]["dropout"] == 0.3
    assert tables["sweep"]["model"] == {
        "dim": [32, 64, 128],
        "dropout": {"low": 0.0, "high": 0.5, "step": 0.1},
    }
    for model in spec.examples("zhiyin.models"):
        assert set(tables["sweep"]["model"]) <= {field.name for field in fields(model)}, model
