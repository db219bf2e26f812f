"""`zhiyin prepare`: a recipe's log, and files that come later."""

import json
from pathlib import Path

from typer.testing import CliRunner

from zhiyin.cli import app
from zhiyin.data.prepared import Prepared

RECIPE = """\
home = "home"
[data]
events = "log.csv"
items = "items.csv"
time_unit = "position"
"""


def test_new_files_are_appended_to_the_recipe_s_prepared_log(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "log.csv").write_text("user,item,time\nv,b,1\nu,b,2\n")
    (tmp_path / "items.csv").write_text("item,price\nb,1\na,2\n")
    (tmp_path / "later.csv").write_text("user,item,time\nu,0,1\nv,b,1\n")
    command = ["prepare", str(tmp_path / "recipe.toml"), "--json"]
    first = CliRunner().invoke(app, command)
    assert json.loads(first.stdout)["events"] == 2
    (tmp_path / "items.csv").write_text("item,price\nb,1\na,2\n0,3\n")
    second = CliRunner().invoke(app, [*command, "--append", str(tmp_path / "later.csv")])
    assert {name: json.loads(second.stdout)[name] for name in ("users", "items", "events", "duplicates")} == {
        "users": 2,
        "items": 3,
        "events": 3,
        "duplicates": 1,
    }
    assert json.loads(second.stdout)["added"] == 1
    data = Prepared.open(tmp_path / "home" / "prepared")
    assert data.items.ids() == ["a", "b", "0"]
    assert data.events.items.tolist() == [2, 1, 1]
    assert data.item_table["price"].tolist() == [2, 1, 3]


def test_preparing_anew_says_that_appended_events_are_gone(tmp_path: Path) -> None:
    recipe, later = tmp_path / "recipe.toml", tmp_path / "later.csv"
    recipe.write_text(RECIPE)
    (tmp_path / "log.csv").write_text("user,item,time\nv,b,1\nu,b,2\n")
    (tmp_path / "items.csv").write_text("item,price\nb,1\na,2\n")
    later.write_text("user,item,time\nu,a,1\nv,b,1\nv,a,2\n")
    prepare = ["prepare", str(recipe)]
    words = "what was appended is here only where data.events names its files"
    assert words not in CliRunner().invoke(app, prepare).stderr
    assert "2 of the events are new" in CliRunner().invoke(app, [*prepare, "--append", str(later)]).stderr
    assert f"2 events fewer than before: {words}" in CliRunner().invoke(app, prepare).stderr.replace("\n", " ")
    assert words not in CliRunner().invoke(app, prepare).stderr
    CliRunner().invoke(app, [*prepare, "--append", str(later)])
    recipe.write_text(RECIPE.replace("log.csv", "l*.csv"))
    assert words not in CliRunner().invoke(app, prepare).stderr
