"""Recipes: every table read, paths beside the recipe, and each mistake told with the file and the key."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from zhiyin import spec
from zhiyin.channels.listed import Listed
from zhiyin.channels.merge import RRF, Quota
from zhiyin.channels.online import Online
from zhiyin.channels.popular import Popular
from zhiyin.data.sources import Source
from zhiyin.data.splits import LeaveLastOut, TimeCut
from zhiyin.errors import SpecError
from zhiyin.features.bag import Bag
from zhiyin.features.categorical import Categorical
from zhiyin.features.schema import Schema
from zhiyin.features.time import ExampleAge
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.hnsw import HNSW
from zhiyin.learning.fit import Plan, Training
from zhiyin.learning.losses import FullSoftmax, SampledSoftmax
from zhiyin.learning.negatives import Mixed, WholeCatalogue
from zhiyin.learning.optimizers import Optimizer
from zhiyin.models.dssm import DSSM
from zhiyin.models.youtube_dnn import YouTubeDNN
from zhiyin.publish import Promise
from zhiyin.ranges import Choice, Range
from zhiyin.recipe import TABLES, Recipe
from zhiyin.releases import Releases
from zhiyin.service.app import Service
from zhiyin.service.stream import Stream
from zhiyin.stores.lmdb import LMDB
from zhiyin.stores.memory import Memory

LEAST = '[data]\nevents = "log.csv"\n'

FULL = """
home = "made/here"

[data]
events = "logs/*.parquet"
items = "/elsewhere/items.csv"
users = "users.csv"
user = "u"
item = "i"
time = "t"
time_unit = "ms"
columns = ["device"]
duplicates = "keep"

[features]
history_length = 20
user = [{ use = "categorical:Categorical", name = "country", dim = 4 }]
item = [{ use = "bag:Bag", name = "genres" }]
context = [{ use = "time:ExampleAge" }]

[split]
use = "splits:TimeCut"
test = 7
validation = 7
unit = "days"

[model]
use = "dssm:DSSM"
dim = 32

[negatives]
use = "negatives:WholeCatalogue"

[loss]
use = "losses:FullSoftmax"

[optimizer]

[training]
epochs = 3

[sweep]
model.dim = [16, 32]
optimizer.lr = { low = 1e-4, high = 1e-2, log = true }

[index]
use = "exact:Exact"

[promise]
overlap = 0.9

[releases]
root = "s3://bucket/films"

[store]
use = "memory:Memory"
keep = 9

[online]
ask = ["deep", "trending"]
merge = { use = "merge:Quota", shares = { deep = 9, trending = 1 } }
cold = "welcome"
deadline_ms = 30

[online.channels.trending]
use = "popular:Popular"
half_life = 7

[online.channels.welcome]
use = "listed:Listed"
items = ["i1", "i2"]

[stream]
batch = 9

[service]
port = 9000
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def planned(path: Path) -> Plan:
    return Recipe.read(path).plan


def refusal(folder: Path, text: str) -> str:
    """What reading it, or asking for the plan, says; without the folder."""
    with pytest.raises(SpecError) as caught:
        planned(written(folder, text))
    return str(caught.value).replace(f"{folder}/", "")


def test_every_table_is_read(tmp_path: Path) -> None:
    recipe = Recipe.read(written(tmp_path, FULL))
    assert set(recipe.tables) == set(TABLES)
    assert recipe.home == tmp_path / "made" / "here"
    assert recipe.source == Source(
        tmp_path / "logs" / "*.parquet", Path("/elsewhere/items.csv"), tmp_path / "users.csv",
        user="u", item="i", time="t", time_unit="ms", columns=("device",), duplicates="keep",
    )  # fmt: skip
    assert recipe.schema == Schema(
        user=(Categorical("country", dim=4),), item=(Bag("genres"),), context=(ExampleAge(),), history_length=20
    )
    assert recipe.splitter == TimeCut(7.0, 7.0, "days")
    assert recipe.plan == Plan(DSSM(dim=32), WholeCatalogue(), FullSoftmax(), Optimizer(), Training(epochs=3))
    assert recipe.ranges == {"model.dim": Choice((16, 32)), "optimizer.lr": Range(1e-4, 1e-2, log=True)}
    assert recipe.index == Exact()
    assert recipe.promise == Promise(overlap=0.9)
    assert recipe.releases == Releases(recipe.home / "releases", "s3://bucket/films")
    assert recipe.store == Memory(keep=9)
    assert recipe.online == Online(
        ("deep", "trending"), Quota({"deep": 9, "trending": 1}), "welcome", 30.0,
        {"trending": Popular(half_life=7), "welcome": Listed(("i1", "i2"))},
    )  # fmt: skip
    assert recipe.stream == Stream(batch=9)
    assert recipe.service == Service(port=9000)


def test_what_is_not_said_has_a_default(tmp_path: Path) -> None:
    recipe = Recipe.read(written(tmp_path, LEAST))
    assert recipe.home == tmp_path / "recipe"
    assert recipe.source == Source(tmp_path / "log.csv")
    assert recipe.schema == Schema()
    assert recipe.splitter == LeaveLastOut()
    assert recipe.ranges == {}
    assert recipe.index == HNSW()
    assert recipe.promise == Promise()
    assert recipe.store == LMDB(path=tmp_path / "recipe" / "store")
    assert recipe.online == Online(("deep",), RRF(60), "popular", 0.0, {})
    assert recipe.stream == Stream()
    assert recipe.service == Service()
    plan = Recipe.read(written(tmp_path, LEAST + '[model]\nuse = "youtube_dnn:YouTubeDNN"\n')).plan
    assert plan == Plan(YouTubeDNN(), Mixed(), SampledSoftmax(), Optimizer(), Training())


def test_what_is_made_lies_in_home(tmp_path: Path) -> None:
    recipe = Recipe.read(written(tmp_path, f'home = "{tmp_path}/out"\n{LEAST}'))
    assert (recipe.prepared, recipe.run, recipe.releases.root) == tuple(
        tmp_path / "out" / name for name in ("prepared", "run", "releases")
    )


def test_releases_are_where_the_recipe_says(tmp_path: Path) -> None:
    def releases(table: str) -> Releases:
        return Recipe.read(written(tmp_path, f"{LEAST}\n[releases]\n{table}\n")).releases

    home = tmp_path / "recipe" / "releases"
    assert releases("") == Releases(home)
    assert releases('root = "shared"') == Releases(tmp_path / "shared")
    assert releases('root = "/mnt/shared"') == Releases(Path("/mnt/shared"))
    assert releases('root = "s3://bucket/films"') == Releases(home, "s3://bucket/films")
    assert releases('sign = "a.key"\ntrust = ["a.pub", "/b.pub"]') == Releases(
        home, "", tmp_path / "a.key", (tmp_path / "a.pub", Path("/b.pub"))
    )
    with pytest.raises(SpecError, match=r"recipe\.toml releases\.root: 's3://'; expected a folder, or a URL such as"):
        releases('root = "s3://"')


def test_paths_are_beside_the_recipe_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, LEAST)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = Recipe.read("../recipe.toml")
    assert recipe.source.events.resolve() == tmp_path / "log.csv"
    assert recipe.home.resolve() == tmp_path / "recipe"
    monkeypatch.chdir("/")
    assert recipe.source.events.resolve() == tmp_path / "log.csv"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    text = 'home = "~/out"\n[data]\nevents = "~/logs/*.csv"\nitems = "~/items.csv"\nusers = "a~b.csv"\n'
    recipe = Recipe.read(written(tmp_path, text + '[store]\nuse = "lmdb:LMDB"\npath = "~/kept"\n'))
    ada = Path("/home/ada")
    assert (recipe.home, recipe.source.events, recipe.source.items) == (
        ada / "out", ada / "logs" / "*.csv", ada / "items.csv"
    )  # fmt: skip
    assert recipe.source.users == tmp_path / "a~b.csv"
    assert isinstance(recipe.store, LMDB)
    assert recipe.store.path == ada / "kept"
    assert refusal(tmp_path, '[data]\nevents = "~nobody-of-that-name/log.csv"\n') == (
        "recipe.toml: there is no home folder ~nobody-of-that-name"
    )


@pytest.mark.parametrize(
    ("store", "path"), [("", "recipe/store"), ('path = "kept"', "kept"), ('path = "/kept"', "/kept")]
)
def test_an_lmdb_store_lies_in_home_or_beside_the_recipe(tmp_path: Path, store: str, path: str) -> None:
    recipe = Recipe.read(written(tmp_path, f'{LEAST}[store]\nuse = "lmdb:LMDB"\nkeep = 5\n{store}\n'))
    assert recipe.store == LMDB(path=tmp_path / path, keep=5)


def test_a_recipe_is_utf8_with_or_without_a_mark(tmp_path: Path) -> None:
    for mark in ("", "\ufeff"):
        recipe = Recipe.read(written(tmp_path, f'{mark}[data]\nevents = "日志.csv"\nuser = "用户"\n'))
        assert recipe.source == Source(tmp_path / "日志.csv", user="用户")


def mistakes() -> list[tuple[str, str]]:
    tables = ", ".join(TABLES)
    model = f'{LEAST}[model]\nuse = "youtube_dnn:YouTubeDNN"\n'
    return [
        ("", "recipe.toml: the table [data] is missing. Add it, with events = …"),
        ("[data]\n", "recipe.toml data: 'events' is missing. Add it: events = …"),
        (f"{LEAST}[modle]\n", f"recipe.toml: unknown key 'modle' (did you mean 'model'?); expected one of {tables}"),
        (f"hone = 'x'\n{LEAST}", f"recipe.toml: unknown key 'hone' (did you mean 'home'?); expected one of {tables}"),
        (f"home = 3\n{LEAST}", "recipe.toml: home = 3; expected a path in quotes"),
        ("data = 'log.csv'", "recipe.toml: data = 'log.csv'; expected a table: [data]"),
        (f"index = 'hnsw'\n{LEAST}", "recipe.toml: index = 'hnsw'; expected a table: [index]"),
        (f"service = 1\n{LEAST}", "recipe.toml: service = 1; expected a table: [service]"),
        (
            f"{LEAST}tiem = 't'\n",
            "recipe.toml data: unknown key 'tiem' (did you mean 'time'?); expected one of events, items, users, ",
        ),
        (f"{LEAST}time_unit = 'sec'\n", "recipe.toml data.time_unit: 'sec'"),
        (f"{LEAST}columns = 'device'\n", "recipe.toml data.columns: 'device' is a string; expected a list"),
        (f"{LEAST}time = ''\n", "recipe.toml data.time: time = \"\" with time_unit = \"s\"; expected time_unit = "),
        (
            f"{LEAST}[features]\nhistory_lenght = 5\n",
            "recipe.toml features: unknown key 'history_lenght' (did you mean 'history_length'?)",
        ),
        (
            f'{LEAST}[online]\nask = ["deep", "trendy"]\n',
            "recipe.toml online.ask[1]: there is no channel 'trendy'; expected one of deep, popular, item_to_item, ",
        ),
        (
            f'{LEAST}[online]\nmerge = {{ use = "merge:Quota", shares = {{ deep = 0 }} }}\n',
            "recipe.toml online.merge.shares: the shares add up to 0; expected a share above 0 for some channel",
        ),
        (
            f'{LEAST}[online.channels.new]\nuse = "fesh:Fresh"\n',
            "recipe.toml online.channels.new: use = 'fesh:Fresh' is unknown (did you mean 'fresh:Fresh'?); expected ",
        ),
        (
            f'{LEAST}[online.channels.new]\nuse = "merge:RRF"\n',
            "recipe.toml online.channels.new: use = 'merge:RRF' is no Channel: it has no tables and no knows ",
        ),
        (
            f'{LEAST}[online]\nmerge = {{ use = "deep:Deep" }}\n',
            "recipe.toml online.merge: use = 'deep:Deep' is no Merge: it has no merge; expected one of merge:RRF, ",
        ),
        (f"{LEAST}[features]\nhistory_length = 0\n", "recipe.toml features.history_length: 0; expected at least 1"),
        (
            f'{LEAST}[features]\nitem = [{{ use = "bagg:Bag", name = "x" }}]\n',
            "recipe.toml features.item[0]: use = 'bagg:Bag' is unknown (did you mean 'bag:Bag'?); expected one of ",
        ),
        (f"{LEAST}[split]\ntest = 0.1\n", "recipe.toml split: 'use' is missing; expected module:Class, such as "),
        (
            f'{LEAST}[split]\nuse = "splits:TimeCut"\ntest = -1\n',
            "recipe.toml split: test = -1.0, validation = 0.1; expected both above 0, and finite",
        ),
        (
            f'{LEAST}[index]\nuse = "hsnw:HNSW"\n',
            "recipe.toml index: use = 'hsnw:HNSW' is unknown (did you mean 'hnsw:HNSW'?); expected one of ",
        ),
        (
            f'{LEAST}[store]\nuse = "lmbd:LMDB"\n',
            "recipe.toml store: use = 'lmbd:LMDB' is unknown (did you mean 'lmdb:LMDB'?); expected one of ",
        ),
        (
            f'{LEAST}[service]\nprot = 8000\n',
            "recipe.toml service: unknown key 'prot' (did you mean 'port'?); expected one of host, port, ",
        ),
        (f"{LEAST}[service]\nport = 70000\n", "recipe.toml service.port: 70000; expected 0 to 65535"),
        (LEAST, 'recipe.toml: the table [model] is missing. Add it, with use = "youtube_dnn:YouTubeDNN".'),
        (
            f'{LEAST}[model]\nuse = "youtube_dnn:YoutubeDNN"\n',
            "recipe.toml model: use = 'youtube_dnn:YoutubeDNN' is unknown (did you mean 'youtube_dnn:YouTubeDNN'?); "
            "expected one of ",
        ),
        (f"{LEAST}[model]\nuse = 'bert:BERT'\n", "recipe.toml model: use = 'bert:BERT' is unknown"),
        (f"{LEAST}[model]\ndim = 64\n", "recipe.toml model: 'use' is missing; expected module:Class, such as "),
        (f"model = 'dssm'\n{LEAST}", "recipe.toml model: 'dssm' is a string; expected a table with a 'use' key"),
        (f"{model}dims = 3\n", "recipe.toml model: unknown key 'dims' (did you mean 'dim'?); expected one of dim, "),
        (f"{model}temperature = nan\n", "recipe.toml model.temperature: nan is no number; expected a number"),
        (
            f"{model}[training]\nepoch = 3\n",
            "recipe.toml training: unknown key 'epoch' (did you mean 'epochs'?); expected one of epochs, ",
        ),
        (f"{model}[training]\nepochs = 0\n", "recipe.toml training.epochs: 0; expected at least 1"),
        (
            f"{model}[loss]\nuse = 'negatives:InBatch'\n",
            "recipe.toml loss: use = 'negatives:InBatch' is no Loss: it has no whole_catalogue and no __call__; "
            "expected one of losses:",
        ),
        (
            f"{model}[negatives]\nuse = 'losses:BPR'\n",
            "recipe.toml negatives: use = 'losses:BPR' is no NegativesSpec: it has no remembers and no mines and no "
            "size and no build; expected one of ",
        ),
        (
            f"{model}[loss]\nuse = 'losses:FullSoftmax'\n",
            "recipe.toml loss: FullSoftmax needs every item as a negative, not Mixed. "
            'Set [negatives] use = "negatives:WholeCatalogue", or [loss] use = "losses:SampledSoftmax".',
        ),
        (
            f"{model}[optimizer]\nlearning_rates = 1\n",
            "recipe.toml optimizer: unknown key 'learning_rates'",
        ),
        (
            f"{model}[promise]\noverlop = 0.9\n",
            "recipe.toml promise: unknown key 'overlop' (did you mean 'overlap'?); expected one of overlap, k, queries",
        ),
        ("data = [", "recipe.toml: not TOML: "),
        ("[data]\n[data]\n", "recipe.toml: not TOML: "),
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), mistakes(), ids=[text[:70] for text, _ in mistakes()])
def test_a_mistake_is_told_with_the_file_and_the_key(tmp_path: Path, text: str, words: str) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(words)
    assert list(tmp_path.iterdir()) == [tmp_path / "recipe.toml"], "reading makes nothing"


def test_most_mistakes_are_told_as_soon_as_it_is_read(tmp_path: Path) -> None:
    for table in ("data", "features", "service"):
        with pytest.raises(SpecError, match=rf"^r\.toml {table}: unknown key 'wrong'"):
            Recipe.of({"data": {"events": "log.csv"}, table: {"wrong": 1}}, tmp_path / "r.toml")


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        Recipe.read(tmp_path / "recipe.toml")
    assert str(caught.value) == (
        f"{tmp_path}/recipe.toml: there is no such recipe. `zhiyin init EVENTS` writes one from your own files."
    )
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match=r"binary\.toml: not TOML: 'utf-8' codec can't decode"):
        Recipe.read(tmp_path / "binary.toml")
    with pytest.raises(SpecError, match="the recipe cannot be read: Is a directory"):
        Recipe.read(tmp_path)


def test_every_spec_of_the_house_can_stand_in_its_table(tmp_path: Path) -> None:
    places = {"split": "zhiyin.data", "index": "zhiyin.indexes", "store": "zhiyin.stores", "model": "zhiyin.models"}
    for name, package in places.items():
        for example in spec.examples(package):
            if name == "store" and isinstance(example, LMDB):
                example = dataclasses.replace(example, path=Path("/kept"))
            tables = {"data": {"events": "log.csv"}, "model": {"use": "dssm:DSSM"}}
            recipe = Recipe.of({**tables, name: spec.used_table(example, package)}, tmp_path / "recipe.toml")
            found = {"split": recipe.splitter, "index": recipe.index, "store": recipe.store, "model": recipe.plan.model}
            assert found[name] == example


WITHOUT = """
import sys
sys.modules["torch"] = None
from zhiyin.errors import SpecError
from zhiyin.recipe import Recipe
recipe = Recipe.read(sys.argv[1])
print(type(recipe.index).__name__, type(recipe.store).__name__, recipe.schema.history_length)
for ask in (lambda: recipe.plan, lambda: recipe.promise):
    try:
        ask()
    except SpecError as error:
        print(error)
"""


def test_without_torch_a_recipe_serves_and_training_says_what_to_install(tmp_path: Path) -> None:
    path = written(tmp_path, FULL)
    ran = subprocess.run([sys.executable, "-c", WITHOUT, str(path)], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "Exact Memory 20",
        "recipe.toml: training needs the package 'torch', which is not installed. pip install 'zhiyin[train]'",
        "recipe.toml: publishing needs the package 'torch', which is not installed. pip install 'zhiyin[train]'",
    ]
