"""The schema: names, columns, what it is fitted on, and the context that zhiyin itself provides."""

from dataclasses import replace

import numpy as np
import pytest

from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut, Split, TimeCut
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import UNKNOWN, Vocabulary
from zhiyin.errors import SpecError
from zhiyin.features.bag import Bag
from zhiyin.features.base import Feature
from zhiyin.features.categorical import Categorical
from zhiyin.features.numeric import Numeric
from zhiyin.features.schema import Schema, column, encode, encode_records
from zhiyin.features.time import ExampleAge, Hour, Weekday

START = 1_700_000_000_000
HOUR = 3_600_000


def world(clock: bool = True) -> Prepared:
    """Users u0 … u3 with 4, 4, 1 and 3 events; u3's profile and each user's last two events are told apart by value."""
    counts = [4, 4, 1, 3]
    users = np.repeat(np.arange(4), counts).astype(np.int32)
    steps = np.concatenate([np.arange(count) for count in counts])
    devices = [f"step {step}" for step in steps]
    return Prepared(
        users=Vocabulary.of(f"u{row}" for row in range(4)),
        items=Vocabulary.of(f"i{row}" for row in range(5)),
        events=EventLog.of(
            users,
            (steps % 5).astype(np.int32),
            START + steps * HOUR,
            user_count=4,
            columns=Table.of({"device": devices, "stars": steps.astype(np.float64)}),
        ),
        user_table=Table.of({"country": ["cn", "fr", "br", "ke"], "age": [20, 30, 40, 70]}),
        item_table=Table.of({"tags": [["a"], ["b"], ["a", "b"], [], ["only i4"]]}),
        clock=clock,
    )


def by_name(features: tuple[Feature, ...], name: str) -> Feature:
    return next(f for f in features if f.name == name)


def test_only_training_events_and_their_users_are_learned_from() -> None:
    data = world()
    train = np.array([0, 1, 4, 5])  # the first two events of u0 and u1
    usual = LeaveLastOut().split(data.events, True)
    split = replace(usual, train=train, end=int(data.events.times[train].max()))
    schema = Schema(
        user=(Categorical("country"), Numeric("age")),
        event=(Categorical("device"), Numeric("stars")),
        context=(Categorical("where", column="device"), ExampleAge()),
        item=(Bag("tags"),),
    ).fit(data, split)
    country = by_name(schema.user, "country")
    assert country.encode(data.user_table["country"]).tolist() == [0, 1, UNKNOWN, UNKNOWN]
    assert by_name(schema.user, "age") == Numeric("age", mean=25.0, deviation=5.0)
    for feature in (schema.event[0], schema.context[0]):
        codes = feature.encode(data.events.columns["device"])
        assert codes.tolist() == [0, 1, -1, -1, 0, 1, -1, -1, 0, 0, 1, -1]
    assert by_name(schema.event, "stars") == Numeric("stars", mean=0.5, deviation=0.5)
    assert by_name(schema.context, "example_age") == ExampleAge(span=float(HOUR))
    assert schema.item[0].encode(data.item_table["tags"])[4, 0] >= 0, "the catalogue is known when training ends"


def test_a_value_of_the_test_alone_is_unknown_under_both_splits() -> None:
    data = world()
    for split in (LeaveLastOut().split(data.events, True), TimeCut(0.1, 0.3).split(data.events, True)):
        fitted = Schema(event=(Categorical("device"),)).fit(data, split)
        codes = fitted.event[0].encode(data.events.columns["device"])
        learned = {data.events.columns["device"][event] for event in split.train}
        for device, code in zip(data.events.columns["device"], codes, strict=True):
            assert (code >= 0) == (device in learned)
        assert (codes == UNKNOWN).any()


def test_fitting_changes_nothing_else() -> None:
    data = world()
    schema = Schema(user=(Categorical("country"),), history_length=7)
    fitted = schema.fit(data, LeaveLastOut().split(data.events, True))
    assert schema.user[0].encoding.cardinality == 0  # type: ignore[union-attr]
    assert fitted.history_length == 7
    assert (fitted.item, fitted.event, fitted.context) == ((), (), ())


# context


@pytest.fixture
def timed() -> tuple[Prepared, Split, Schema]:
    data = world()
    split = LeaveLastOut().split(data.events, True)
    schema = Schema(context=(Hour(), Weekday(), ExampleAge(), Categorical("device")))
    return data, split, schema.fit(data, split)


def test_an_example_has_its_age_and_a_request_none(timed: tuple[Prepared, Split, Schema]) -> None:
    data, split, schema = timed
    training = schema.encode_context(data, split.train, split.end)
    ages = (split.end - data.events.times[split.train]) / (split.end - START)
    np.testing.assert_allclose(training["example_age"], np.stack([ages, np.sqrt(ages)], 1), rtol=1e-6)
    assert training["example_age"].max() == 1
    serving = schema.encode_context(data, split.test.starts, None)
    assert serving["example_age"].tolist() == [[0, 0]] * len(split.test)


def test_an_event_after_training_is_no_younger_than_0(timed: tuple[Prepared, Split, Schema]) -> None:
    data, split, _ = timed
    schema = Schema(context=(ExampleAge(), Numeric("milliseconds", column="age", scale="none")))
    later = schema.encode_context(data, split.test.starts, split.end)
    assert (data.events.times[split.test.starts] > split.end).any()
    assert later["example_age"].min() == later["milliseconds"].min() == 0


def test_the_context_of_an_event_is_that_of_the_same_request_online(timed: tuple[Prepared, Split, Schema]) -> None:
    data, split, schema = timed
    offline = schema.encode_context(data, split.test.starts, None)
    requests = [
        {"time": int(data.events.times[event]), "age": 0, "device": data.events.columns["device"][event]}
        for event in split.test.starts
    ]
    online = encode_records(schema.context, list(requests))
    assert online.keys() == offline.keys()
    for name in offline:
        np.testing.assert_array_equal(online[name], offline[name])


def test_a_log_without_a_clock_has_no_time_features() -> None:
    data = world(clock=False)
    split = LeaveLastOut().split(data.events, False)
    for feature in (Hour(), ExampleAge("old")):
        with pytest.raises(SpecError) as caught:
            Schema(context=(feature,)).fit(data, split)
        assert str(caught.value) == (
            f"context feature '{feature.name}' needs clock times, and this log has only positions. "
            "Remove the feature, or set data.time_unit."
        )
    assert Schema(context=(Categorical("device"),)).fit(data, split).context


def test_a_column_named_age_is_not_taken_for_the_examples_age() -> None:
    data = world()
    log = data.events
    data = replace(data, events=replace(log, columns=Table.of({"age": list(range(len(log)))})))
    with pytest.raises(SpecError) as caught:
        Schema(context=(Numeric("years", column="age"),)).fit(data, LeaveLastOut().split(log, True))
    assert str(caught.value) == (
        "context feature 'years' reads 'age', and the log has such a column too; expected the age of the training "
        "example, which zhiyin provides. Give the log's column 'age' another name in the file."
    )


# names and columns


def refusal(**sides: tuple[Feature, ...]) -> str:
    with pytest.raises(SpecError) as caught:
        Schema(**sides)  # type: ignore[arg-type]
    return str(caught.value)


def test_names_are_unique_on_a_side_of_the_towers() -> None:
    twice = (
        "two features of the user / event / context side are named 'x'; expected names that are unique on a side. "
        "Rename one; `column` says where its values stand."
    )
    assert refusal(user=(Categorical("x"), Numeric("x", column="y"))) == twice
    assert refusal(user=(Categorical("x"),), context=(Numeric("x"),)) == twice
    assert refusal(user=(Categorical("x"),), event=(Numeric("x"),)) == twice
    assert "of the item side are named 'x'" in refusal(item=(Categorical("x"), Numeric("x")))
    assert Schema(user=(Categorical("x"),), item=(Categorical("x"),)), "the towers meet only in the end"


@pytest.mark.parametrize("name", ["history", "rows", "", "two words", "1st", "a-b"])
def test_a_name_is_an_identifier_and_none_of_the_towers_own(name: str) -> None:
    for side in ("user", "item", "event", "context"):
        assert refusal(**{side: (Categorical(name, column="c"),)}) == (
            f"a feature is named {name!r}; expected letters, digits and _ (not a digit first), and none of history, "
            "rows. Rename it; `column` says where its values stand."
        )


def test_a_history_has_a_length() -> None:
    with pytest.raises(SpecError, match=r"^\.history_length: 0; expected at least 1$"):
        Schema(history_length=0)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (
            Schema(user=(Categorical("contry"),)),
            "users: feature 'contry' reads the column 'contry', which is not there (did you mean 'country'?); "
            "expected one of country, age",
        ),
        (
            Schema(item=(Bag("t", column="tag"),)),
            "items: feature 't' reads the column 'tag', which is not there (did you mean 'tags'?); expected one of "
            "tags",
        ),
        (
            Schema(event=(Numeric("star"),)),
            "events: feature 'star' reads the column 'star', which is not there (did you mean 'stars'?); expected one "
            "of device, stars. Add it to data.columns, and prepare again.",
        ),
        (
            Schema(context=(Categorical("page"),)),
            "events: feature 'page' reads the column 'page', which is not there; expected one of device, stars. "
            "Add it to data.columns, and prepare again.",
        ),
    ],
)
def test_a_missing_column_is_named_with_the_nearest(schema: Schema, words: str) -> None:
    data = world()
    with pytest.raises(SpecError) as caught:
        schema.fit(data, LeaveLastOut().split(data.events, True))
    assert str(caught.value) == words


def test_a_table_without_columns_says_so() -> None:
    with pytest.raises(SpecError, match=r"expected a table with columns \(there is none\)$"):
        column(Table.of({}, 3), Categorical("country"), "users")


def test_two_features_may_read_one_column() -> None:
    data = world()
    schema = Schema(user=(Categorical("exact", column="age"), Numeric("years", column="age")))
    fitted = schema.fit(data, LeaveLastOut().split(data.events, True))
    encoded = encode(fitted.user, data.user_table, "users")
    assert encoded["exact"].tolist() == [0, 1, 2, 3]
    assert encoded["years"].ravel()[0] < 0 < encoded["years"].ravel()[3]
