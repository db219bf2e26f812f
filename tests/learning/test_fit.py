"""Training: it learns, it resumes to the bit, several processes are one, and what cannot be is refused."""

import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from zhiyin import spec
from zhiyin.data import worlds
from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut, LeaveLastOut, Split, TimeCut
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Vocabulary
from zhiyin.errors import DataError, SpecError, TrainingError
from zhiyin.evaluation.report import evaluate
from zhiyin.features.schema import Schema
from zhiyin.features.time import ExampleAge
from zhiyin.learning import checkpoint
from zhiyin.learning.distributed import ALONE
from zhiyin.learning.fit import RUN_LENGTH, Fitted, Plan, Progress, Training, TrainingRun, choose_device, fit, learnable
from zhiyin.learning.hard import Impressions, Mined
from zhiyin.learning.losses import FullSoftmax, SampledSoftmax
from zhiyin.learning.negatives import CrossBatch, InBatch, Uniform, WholeCatalogue
from zhiyin.learning.optimizers import Optimizer
from zhiyin.learning.streaming import Streaming
from zhiyin.models.dssm import DSSM
from zhiyin.models.mind import MIND
from zhiyin.models.sasrec import SASRec
from zhiyin.models.youtube_dnn import YouTubeDNN
from zhiyin.models.youtube_sbc import YouTubeSBC

SMALL = YouTubeDNN(dim=16, hidden=(32,), dropout=0.1)
FAST = Optimizer(lr=0.01, table_lr=0.02)
SCHEMA = Schema(history_length=10)


@pytest.fixture(scope="module")
def ring() -> tuple[Prepared, Split]:
    data = worlds.ring(300, 60, 14, 0.1, seed=0)
    return data, LeaveLastOut().split(data.events, data.clock)


def plan(training: Training = Training(epochs=4, batch_size=256, measure=5), **parts: object) -> Plan:
    return replace(Plan(SMALL, Uniform(32), SampledSoftmax(), FAST, training), **parts)  # type: ignore[arg-type]


def train(
    world: tuple[Prepared, Split], folder: Path, made: Plan, schema: Schema = SCHEMA
) -> tuple[Fitted, list[Progress]]:
    told: list[Progress] = []
    data, split = world
    return fit(made, data, split, schema.fit(data, split), folder, told.append), told


def test_the_best_step_is_kept_and_opens_again(ring: tuple[Prepared, Split], tmp_path: Path) -> None:
    made = plan(Training(epochs=6, batch_size=256, measure=5, validate_every=0.5))
    fitted, told = train(ring, tmp_path, made)
    recalls = {one.step: one.recall for one in told if one.recall is not None}
    assert fitted.recall == max(recalls.values())
    assert recalls[fitted.step] == fitted.recall
    assert told[-1].loss < told[0].loss
    assert repr(fitted) == f"<YouTubeDNN, step {fitted.step:,}: validation recall@5 {fitted.recall:.4f}>"
    again = Fitted.open(tmp_path, len(ring[0].items))
    for one, other in zip(fitted.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert again.plan == made


def test_training_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    data = worlds.random_world(200, 50, 8, seed=0)
    world = (data, LeaveLastOut().split(data.events, data.clock))
    _, told = train(world, tmp_path, plan(Training(epochs=40, batch_size=256, measure=5, patience=2)))
    recalls = [one.recall for one in told if one.recall is not None]
    assert len(recalls) < 40
    assert max(recalls[-2:]) <= max(recalls[:-2])


@pytest.mark.parametrize("batching", [{"run_length": 1}, {"run_length": 4, "examples_per_user": 6}, {}])
def test_a_resumed_run_ends_in_the_same_bits(
    ring: tuple[Prepared, Split], tmp_path: Path, batching: dict[str, Any]
) -> None:
    made = plan(Training(epochs=4, batch_size=200, measure=5, checkpoint_minutes=0, **batching))
    train(ring, tmp_path / "whole", made)

    class Stop(Exception):  # noqa: N818
        pass

    def stop(progress: Progress) -> None:
        if progress.epoch >= 2:
            raise Stop

    data, split = ring
    with pytest.raises(Stop):
        fit(made, data, split, SCHEMA.fit(data, split), tmp_path / "cut", stop)
    train(ring, tmp_path / "cut", made)
    for name in ("best", "last"):
        whole, cut = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "cut"))
        assert whole.keys() == cut.keys()
        assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_several_threads_give_the_same_bits(tmp_path: Path) -> None:
    """At a size where torch shares the work out: no sum may depend on which thread came first."""
    data = worlds.random_world(600, 40, 20, seed=0)
    world = (data, LeaveLastOut().split(data.events, data.clock))
    made = Plan(DSSM(dim=64), InBatch(), SampledSoftmax(), FAST, Training(epochs=1, batch_size=2048, device="cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for name in ("one", "two"):
            train(world, tmp_path / name, made)
    finally:
        torch.set_num_threads(threads)
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


SCRIPT = """
from pathlib import Path
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut
from zhiyin.features.schema import Schema
from zhiyin.learning.fit import Plan, Training, fit
from zhiyin.learning.hard import Impressions, Mined
from zhiyin.learning.losses import SampledSoftmax
from zhiyin.learning.negatives import {negatives}
from zhiyin.learning.optimizers import Optimizer
from zhiyin.models.dssm import DSSM
from zhiyin.models.youtube_dnn import YouTubeDNN
data = Prepared.open(Path({data!r}))
split = LeaveLastOut().split(data.events, data.clock)
plan = Plan(
    YouTubeDNN(dim=16, hidden=(32,)), {negatives}(32), SampledSoftmax(), Optimizer(lr=0.01, table_lr=0.02),
    Training(epochs={epochs}, batch_size=200, measure=5, checkpoint_minutes=0, patience=0, device="cpu"),
)
fit(plan, data, split, Schema(history_length=10).fit(data, split), Path({folder!r}),
    lambda p: writer and writer.send_bytes(b"%d" % p.step))
"""


def script(data: Path, folder: Path, epochs: int, negatives: str = "Uniform") -> str:
    return SCRIPT.format(data=str(data), folder=str(folder), epochs=epochs, negatives=negatives)


def test_a_run_killed_at_any_moment_ends_in_the_same_bits(ring: tuple[Prepared, Split], tmp_path: Path) -> None:
    """SIGKILL again and again at odd moments, until a run gets through."""
    ring[0].save(tmp_path / "data")
    exec(script(tmp_path / "data", tmp_path / "whole", 20), {"writer": None})  # noqa: S102
    random, killed = np.random.default_rng(0), 0
    fork = multiprocessing.get_context("forkserver")  # whose one process imports torch once
    fork.set_forkserver_preload(["zhiyin.learning.fit"])
    for _ in range(8):
        reader, writer = fork.Pipe(duplex=False)
        run = fork.Process(target=exec, args=(script(tmp_path / "data", tmp_path / "cut", 20), {"writer": writer}))
        run.start()
        writer.close()
        if killed < 2:
            reader.recv_bytes()  # it has begun to learn
            time.sleep(float(random.uniform(0, 0.3)))
            run.kill()
        run.join()
        code = run.exitcode
        reader.close()
        run.close()
        if code == 0:
            break
        killed += 1
    assert code == 0
    assert killed >= 1
    for name in ("best", "last"):
        one, other = (load_file(tmp_path / folder / f"{name}.safetensors") for folder in ("whole", "cut"))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert {path.name for path in (tmp_path / "cut").iterdir()} <= {
        "best.safetensors", "last.safetensors", ".best.safetensors.part", ".last.safetensors.part",
    }  # fmt: skip


def test_two_processes_are_one(ring: tuple[Prepared, Split], tmp_path: Path) -> None:
    """Same global batch, same negatives, same steps: the weights agree but for the order of sums."""
    ring[0].save(tmp_path / "data")
    exec(script(tmp_path / "data", tmp_path / "one", 2, "Mixed"), {"writer": None})  # noqa: S102
    path = tmp_path / "two.py"
    path.write_text("writer = None\n" + script(tmp_path / "data", tmp_path / "two", 2, "Mixed"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    ended = subprocess.run(launch, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key], two[key], atol=2e-4, rtol=1e-3)


SAMPLERS = [one for one in spec.examples("zhiyin.learning") if hasattr(one, "build")]
LOSSES = [one for one in spec.examples("zhiyin.learning") if hasattr(one, "whole_catalogue")]


@pytest.mark.parametrize("negatives", SAMPLERS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("loss", LOSSES, ids=lambda one: type(one).__name__)
def test_any_sampler_goes_with_any_loss(
    ring: tuple[Prepared, Split], tmp_path: Path, negatives: Any, loss: Any
) -> None:
    """It learns a little, or says why the two do not go together."""
    data, split = ring
    if isinstance(negatives, Impressions):
        shown = [[f"i{row}", f"i{(row + 7) % 60}"] for row in data.events.items.tolist()]
        data = replace(data, events=replace(data.events, columns=Table.of({"shown": shown})))
    training = Training(epochs=1, batch_size=512, measure=5)
    if loss.whole_catalogue and not isinstance(negatives, WholeCatalogue):
        with pytest.raises(SpecError, match="needs every item as a negative"):
            plan(training, negatives=negatives, loss=loss)
        return
    fitted, told = train((data, split), tmp_path, plan(training, negatives=negatives, loss=loss))
    assert np.isfinite(told[-1].loss)
    assert fitted.step == told[-1].step


@pytest.mark.parametrize(
    "negatives",
    [CrossBatch(3), Streaming(rate=0.05, buckets=4096), Mined(Uniform(16), every=7, pool=40, skip=2, width=10)],
    ids=lambda one: type(one).__name__,
)
def test_samplers_that_remember_resume_too(ring: tuple[Prepared, Split], tmp_path: Path, negatives: Any) -> None:
    made = plan(Training(epochs=3, batch_size=300, measure=5, patience=0), negatives=negatives)
    data, split = ring
    train(ring, tmp_path / "whole", made)

    class Stop(Exception):  # noqa: N818
        pass

    def stop(progress: Progress) -> None:
        if progress.epoch >= 1:
            raise Stop

    with pytest.raises(Stop):
        fit(made, data, split, SCHEMA.fit(data, split), tmp_path / "cut", stop)
    train(ring, tmp_path / "cut", made)
    whole, cut = (load_file(tmp_path / run / "last.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_each_process_has_a_card_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:1")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    assert choose_device("cpu") == torch.device("cpu")


def test_another_recipe_in_the_same_folder_is_refused(ring: tuple[Prepared, Split], tmp_path: Path) -> None:
    train(ring, tmp_path, plan(Training(epochs=1, batch_size=256)))
    with pytest.raises(TrainingError, match=r"another recipe or other data.*--fresh"):
        train(ring, tmp_path, plan(Training(epochs=1, batch_size=128)))


def test_a_run_keeps_its_settings_when_defaults_move(ring: tuple[Prepared, Split], tmp_path: Path) -> None:
    """What is kept names every setting; what was kept before a setting was there has it as it is by default."""
    made = plan(Training(epochs=1, batch_size=256))
    fitted, _ = train(ring, tmp_path, made)
    tensors, facts = checkpoint.load(tmp_path / "last.safetensors")
    for name, kind in (("training", Training), ("optimizer", Optimizer), ("model", YouTubeDNN)):
        assert {field.name for field in fields(kind)} <= facts["plan"][name].keys()
    for left_out, same in (("precision", True), ("batch_size", False)):
        training = {key: value for key, value in facts["plan"]["training"].items() if key != left_out}
        older = {**facts, "plan": {**facts["plan"], "training": training}}
        checkpoint.save(tmp_path / "last.safetensors", tensors, older)
        if same:
            again, told = train(ring, tmp_path, made)
            assert again.step == fitted.step
            assert told == []
        else:
            with pytest.raises(TrainingError, match="another recipe"):
                train(ring, tmp_path, made)


def test_a_loss_that_is_not_finite_stops_with_the_likely_cause(ring: tuple[Prepared, Split], tmp_path: Path) -> None:
    made = plan(optimizer=Optimizer(lr=1e30, table_lr=1e30), model=replace(SMALL, normalize=False))
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) by step \d+.*learning rate is too high"):
        train(ring, tmp_path, made)


def test_a_model_that_diverged_since_its_last_loss_is_found_by_validation(
    ring: tuple[Prepared, Split], tmp_path: Path
) -> None:
    made = plan(
        Training(epochs=1, batch_size=4096),
        optimizer=Optimizer(lr=1e38, table_lr=1e38),
        model=replace(SMALL, normalize=False),
    )
    with pytest.raises(
        TrainingError, match=r"validation at step 1 .*scores that are NaN.*diverged: lower the learning"
    ):
        train(ring, tmp_path, made)


def test_what_cannot_fit_is_refused_with_the_numbers(ring: tuple[Prepared, Split], tmp_path: Path) -> None:
    for parts in (
        {"negatives": Uniform(10**12)},
        {"training": Training(batch_size=10**12)},
        {"model": replace(SMALL, dim=10**9, hidden=())},
    ):
        with pytest.raises(TrainingError, match=r"needs at least [\d.e+]+ [TG]B: .*free.*Lower training\.batch_size"):
            train(ring, tmp_path, plan(**parts))
        assert not list(tmp_path.iterdir())


def test_a_user_of_a_million_events_is_learned_from_in_runs(tmp_path: Path) -> None:
    """A batch of it is no larger than one of others'; `examples_per_user` keeps it from being most of an epoch."""
    random = np.random.default_rng(0)
    many, others = 1_000_000, 60
    users = np.r_[np.zeros(many, np.int32), np.repeat(np.arange(1, others + 1, dtype=np.int32), 4)]
    items = random.integers(500, size=len(users)).astype(np.int32)
    events = EventLog.of(users, items, np.arange(len(users)), user_count=others + 1)
    ids = [Vocabulary.of(map(str, range(count))) for count in (others + 1, 500)]
    data = Prepared(ids[0], ids[1], events, Table.of({}, others + 1), Table.of({}, 500))
    world = (data, LeaveLastOut().split(events, True))
    for made, steps in ((plan(), 3906), (plan(Training(batch_size=256, examples_per_user=200)), 1)):
        run = TrainingRun(made, *world, SCHEMA, tmp_path, ALONE, profile=False)
        drafts = run.drafts()
        one = next(drafts)
        assert run.steps_per_epoch in (steps, steps + 1)
        assert len(one.events) == 256
        assert max(part.history.shape[1] for part in one.stretches) <= RUN_LENGTH + SCHEMA.history_length
        assert torch.isfinite(run.take(one))
        drafts.close()


def test_users_and_items_that_training_never_saw_are_candidates_and_asked_for(tmp_path: Path) -> None:
    """Half of the users, and the last items, come after the cut: the users are known by what they did since, if
    anything, the items have a row that no example has moved."""
    users = np.repeat(np.arange(40, dtype=np.int32), 6)
    items = ((np.arange(240) * 7) % 30 + 10 * (users >= 20)).astype(np.int32)
    events = EventLog.of(users, items, worlds.START + np.arange(240) * worlds.HOUR, user_count=40)
    ids = [Vocabulary.of(map(str, range(40))) for _ in range(2)]
    data = Prepared(ids[0], ids[1], events, Table.of({}, 40), Table.of({}, 40))
    split = TimeCut(test=0.25, validation=0.25).split(events, True)
    assert set(events.users[split.train]) == set(range(20))
    assert set(range(30, 40)) & set(events.items)
    assert not set(range(30, 40)) & set(events.items[split.train])
    fitted, _ = train((data, split), tmp_path, plan(Training(epochs=1, batch_size=32, measure=5)))
    scores = fitted.scorer(data).scores(split.test.starts)
    assert scores.shape == (len(split.test), 40)
    assert torch.isfinite(scores).all()
    report = evaluate({"model": fitted.scorer(data)}, data, split.test, ks=(40,), remove_seen=False)
    assert report.value("model", "recall@40") == 1.0, "every item can be found, those never seen too"


def test_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    data = worlds.random_world(20, 10, 3, seed=0)
    world = (data, LeaveLastOut().split(data.events, data.clock))
    with pytest.raises(DataError, match=r"none of the 20 training events has 1 events before it.*min_history = 0"):
        train(world, tmp_path, plan())
    train(world, tmp_path, plan(Training(epochs=1, min_history=0)))


def pairs_in_one_order(kinds: int = 20) -> tuple[Prepared, Split]:
    """Users who did a, then its b; and users who did b and are asked for a, as nobody was in that order."""
    items = [f"{name}{kind}" for kind in range(kinds) for name in "ab"]
    both, asked = [kind for kind in range(kinds) for _ in range(20)], list(range(kinds))
    rows = np.array(
        [[2 * kind, 2 * kind + 1] for kind in both] + [[2 * kind + 1, 2 * kind] for kind in asked], np.int32
    )
    users, times = np.repeat(np.arange(len(rows), dtype=np.int32), 2), np.tile([0, 1], len(rows))
    log = EventLog.of(users, rows.flatten(), times, user_count=len(rows))
    names, number = Vocabulary.of([f"u{at}" for at in range(len(rows))]), len(log)
    data = Prepared(names, Vocabulary.of(items), log, Table({}), Table({}))
    last = np.arange(2 * len(both) + 1, number, 2)
    held = HeldOut(last, last + 1)
    return data, Split(np.setdiff1d(np.arange(number), last), held, held, 1, "pairs")


def test_what_has_no_order_is_learned_in_both(tmp_path: Path) -> None:
    data, split = pairs_in_one_order()
    towers = DSSM(dim=16, hidden=(), pooling="mean")
    found = {}
    for unordered in (True, False):
        training = Training(epochs=10, batch_size=64, measure=1, patience=0, unordered=unordered)
        made = Plan(towers, WholeCatalogue(), FullSoftmax(), FAST, training)
        found[unordered] = train((data, split), tmp_path / str(unordered), made)[0].recall
    assert found[True] == 1.0
    assert found[False] < 0.3


def test_a_model_that_looks_at_the_order_cannot_learn_without_one(ring: tuple[Prepared, Split], tmp_path: Path) -> None:
    for model in (YouTubeDNN(dim=8), MIND(dim=8), SASRec(dim=8, heads=1), YouTubeSBC(dim=8, pooling="mean")):
        with pytest.raises(SpecError, match=r"training.unordered: true, and .* looks at the order") as told:
            train(ring, tmp_path, plan(Training(unordered=True), model=model))
        assert 'model.pooling = "mean"' in str(told.value)
    with pytest.raises(SpecError, match="unordered and baskets"):
        Training(unordered=True, baskets=True)


def test_others_count_where_there_is_no_order(ring: tuple[Prepared, Split]) -> None:
    data, split = ring
    log, train = data.events, split.train
    owners = log.users[train]
    several = np.bincount(owners)[owners] > 3
    assert learnable(log, train, 3, unordered=True).tolist() == train[several].tolist()
    assert learnable(log, train, 3).tolist() != train[several].tolist()
    with pytest.raises(DataError, match="has 99 events beside it"):
        learnable(log, train, 99, unordered=True)


def test_a_loss_that_needs_every_item_is_refused_with_a_sampler() -> None:
    with pytest.raises(SpecError, match=r"FullSoftmax needs every item.*not Uniform.*WholeCatalogue"):
        plan(loss=FullSoftmax())


def test_rewards_weigh_examples(tmp_path: Path) -> None:
    """Half of the log is noise; rewards of 0 there leave the ring to be learned."""
    ring = worlds.ring(300, 40, 12, 0.0, seed=0)
    log = ring.events
    random = np.random.default_rng(0)
    noisy = random.random(len(log)) < 0.5
    items = np.where(noisy, random.integers(0, 40, len(log)), log.items).astype(np.int32)
    rewards = Table.of({"reward": np.where(noisy, 0.0, 1.0)})
    events = EventLog.of(log.users, items, log.times, user_count=300, columns=rewards)
    data = replace(ring, events=events)
    world = (data, LeaveLastOut().split(events, True))
    training = Training(epochs=6, batch_size=256, measure=5)
    found = {}
    for name, weight in (("with", "reward"), ("without", "")):
        fitted, _ = train(world, tmp_path / name, plan(replace(training, weight=weight)))
        clean = ~noisy[world[1].test.starts]
        rows = fitted.scorer(data).scores(world[1].test.starts[clean]).argmax(1).numpy()
        found[name] = float((rows == items[world[1].test.starts[clean]]).mean())
    assert found["with"] > found["without"] + 0.02


def recall(world: tuple[Prepared, Split], fitted: Fitted, k: int, seen: bool = True) -> float:
    data, split = world
    report = evaluate({"model": fitted.scorer(data)}, data, split.test, ks=(k,), remove_seen=not seen)
    return report.value("model", f"recall@{k}")


def test_logq_makes_in_batch_softmax_full_softmax(tmp_path: Path) -> None:
    """Popularity decides within a group: without logQ the model learns p(i|u)/p(i), and ranks a group at random."""
    world = worlds.tastes(1500, 1500, 4, 12, seed=3, skew=1.0, repeats=True)
    data = world.data
    split = LeaveLastOut().split(data.events, data.clock)
    training = Training(epochs=6, batch_size=512, measure=50, patience=0, run_length=1)
    model = YouTubeDNN(dim=32, hidden=(64,), normalize=False, temperature=1.0)

    found = {}
    for name, negatives, loss in (
        ("full", WholeCatalogue(), FullSoftmax()),
        ("logq", InBatch(), SampledSoftmax()),
        ("bare", InBatch(), SampledSoftmax(logq=False)),
    ):
        made = Plan(model, negatives, loss, Optimizer(lr=0.003, table_lr=0.01), training)
        fitted, _ = train((data, split), tmp_path / name, made)
        found[name] = recall((data, split), fitted, 50)
    assert found["logq"] > 0.97 * found["full"]
    assert found["bare"] < 0.93 * found["full"]


def test_example_age_helps_where_popularity_drifts(tmp_path: Path) -> None:
    """Every request has age 0, the end of training: the model answers with what is popular then, not on average."""
    world = worlds.drifting(1200, 150, 12, seed=0, days=60, width=5.0)
    data = world.data
    split = TimeCut(test=2, validation=2, unit="days").split(data.events, data.clock)
    training = Training(epochs=8, batch_size=512, measure=10, patience=0, min_history=0)
    made = Plan(YouTubeDNN(dim=16, hidden=(64, 32)), WholeCatalogue(), FullSoftmax(), Optimizer(0.003, 0.01), training)
    found = {}
    for name, context in (("age", (ExampleAge(),)), ("none", ())):
        schema = Schema(context=context, history_length=10)
        fitted, _ = train((data, split), tmp_path / name, made, schema)
        found[name] = recall((data, split), fitted, 10)
    assert found["age"] > 1.15 * found["none"]
