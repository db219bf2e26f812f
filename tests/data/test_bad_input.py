"""From a recipe to prepared, split and fitted data: what a person may get wrong on the way, and what they read then."""

from pathlib import Path

import numpy as np
import pytest

from zhiyin import pipeline
from zhiyin.errors import UserError
from zhiyin.features.schema import Schema, encode
from zhiyin.recipe import Recipe

GOOD = "user,item,time,price,device\nu,a,1,2.5,tv\nu,b,2,3,tv\nu,c,3,4,pc\nv,a,1,5,pc\n"


def fitted(folder: Path, log: str, recipe: str = "", data: str = "") -> Schema:
    """Prepare, split and fit the features of a recipe about `log.csv`."""
    (folder / "log.csv").write_text(log)
    text = f'[data]\nevents = "log.csv"\ntime_unit = "ms"\ntime = "time"\n{data}\n{recipe}'
    (folder / "r.toml").write_text(text.replace('time_unit = "ms"', "") if "time_unit" in data else text)
    read = Recipe.read(folder / "r.toml")
    pipeline.prepare(read)
    prepared, split = pipeline.opened(read)
    return read.schema.fit(prepared, split)


CLOCK = 1_700_000_000_000
POSITIONS = 'time_unit = "position"'
PRICE = 'columns = ["price"]\n' + POSITIONS
NUMERIC = '[features]\nevent = [{ use = "numeric:Numeric", name = "price" }]'

BAD: dict[str, tuple[str, str, str, str]] = {
    "a column of the log that is not there": (
        GOOD,
        "",
        'columns = ["prise"]\n' + POSITIONS,
        "log.csv: there is no column 'prise' (did you mean 'price'?); expected one of user, item, time, price, device. "
        "Set data.columns to the column's name.",
    ),
    "a feature of a column that was not kept": (
        GOOD,
        NUMERIC,
        POSITIONS,
        "events: feature 'price' reads the column 'price', which is not there; expected a table with columns (there is "
        "none). Add it to data.columns, and prepare again.",
    ),
    "text where numbers are": (
        GOOD.replace("2.5", "cheap"),
        NUMERIC,
        PRICE,
        "feature 'price': 'cheap' is no number; expected finite numbers, or missing ones. "
        "Clean the column, or make it a categorical:Categorical.",
    ),
    "an infinite number": (
        GOOD.replace("2.5", "inf"),
        NUMERIC,
        PRICE,
        "log.csv, row 1: column 'price' holds inf; expected finite numbers. "
        "Leave the value empty where it is not known.",
    ),
    "a number that is too large": (
        GOOD.replace("2.5", "1e200"),
        NUMERIC,
        PRICE,
        "feature 'price': 1e+200 is too large; expected finite numbers, or missing ones. ",
    ),
    "a null id": (
        GOOD + ",a,1,1,tv\n",
        "",
        POSITIONS,
        "log.csv, row 5: column 'user' has no id; expected an id in every row. Remove those rows, or give them ids.",
    ),
    "a negative time": (
        GOOD + "v,b,-1,1,tv\n",
        "",
        POSITIONS,
        "log.csv, row 5: column 'time' is negative (-1); expected positions from 0 on. Remove or correct those rows.",
    ),
    "an empty log": (
        "user,item,time\n",
        "",
        POSITIONS,
        "log.csv: the log has no events; expected at least one row",
    ),
    "users with one event each": (
        "user,item,time\nu,a,1\nv,b,2\n",
        "",
        POSITIONS,
        "split LeaveLastOut: no user has three events; expected a last event to test, one before it to validate, and "
        "one to learn from. Give a longer log, or use TimeCut.",
    ),
    "a cut in time without a clock": (
        GOOD,
        '[split]\nuse = "splits:TimeCut"',
        POSITIONS,
        "split TimeCut: this log has no clock times. Use LeaveLastOut, or set data.time_unit.",
    ),
    "an hour without a clock": (
        GOOD,
        '[features]\ncontext = [{ use = "time:Hour" }]',
        POSITIONS,
        "context feature 'hour' needs clock times, and this log has only positions. "
        "Remove the feature, or set data.time_unit.",
    ),
    "a log of one moment": (
        f"user,item,time\nu,a,{CLOCK}\nu,b,{CLOCK}\nu,c,{CLOCK}\n",
        '[split]\nuse = "splits:TimeCut"',
        "",
        "split TimeCut: the cut leaves no training events. Change test or validation.",
    ),
    "an item table that is not there": (
        GOOD,
        "",
        'items = "films.csv"\n' + POSITIONS,
        "films.csv: there is no such file",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_with_its_place_and_the_way_out(tmp_path: Path, case: str) -> None:
    log, recipe, data, words = BAD[case]
    with pytest.raises(UserError) as caught:
        fitted(tmp_path, log, recipe, data)
    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(words)
    assert not list(tmp_path.rglob(".building*")), "nothing is half-written"


def test_a_number_that_is_nan_or_empty_is_missing_and_encoded_as_the_mean(tmp_path: Path) -> None:
    log = "user,item,time,price\nu,a,1,2\nu,b,2,nan\nu,c,3,4\nu,d,4,\nu,e,5,9\n"
    schema = fitted(tmp_path, log, NUMERIC, PRICE)
    data, _ = pipeline.opened(Recipe.read(tmp_path / "r.toml"))
    found = encode(schema.event, data.events.columns, "events")["price"].ravel()
    np.testing.assert_allclose(found, [-1, 0, 1, 0, 6], err_msg="fitted on 2 and 4, the training events that have one")


def test_a_catalogue_of_one_item_and_a_user_of_one_event_are_learned_from(tmp_path: Path) -> None:
    fitted(tmp_path, "user,item,time\nu,a,1\nu,a,2\nu,a,3\nv,a,1\n", data=POSITIONS)
    data, split = pipeline.opened(Recipe.read(tmp_path / "r.toml"))
    assert len(data.items) == 1
    assert split.train.tolist() == [0, 3]
    assert data.events.history(int(split.test.starts[0])).tolist() == [0, 0]
