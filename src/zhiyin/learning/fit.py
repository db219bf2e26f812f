"""Training: batches → negatives → scores → loss → step; validation by exact retrieval; the best step is what stays.

Every step's randomness is a function of (seed, step) and every epoch's order of (seed, epoch), so a run that was killed
and resumed takes the same steps as one that was not.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from zhiyin import spec
from zhiyin.data.events import EventLog, Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.errors import DataError, SpecError, TrainingError
from zhiyin.evaluation.report import evaluate
from zhiyin.features.schema import Schema
from zhiyin.indexes.base import Vectors
from zhiyin.learning import checkpoint
from zhiyin.learning.base import Catalogue, Floats, Loss, NegativesSpec, Numbers, Stateful
from zhiyin.learning.batches import Draft, Shape, ahead, draft, epoch_order
from zhiyin.learning.distributed import Processes, own_device, processes
from zhiyin.learning.earlier import Earlier
from zhiyin.learning.examples import Examples
from zhiyin.learning.frequency import example_frequencies
from zhiyin.learning.losses import SampledSoftmax
from zhiyin.learning.memory import available, need, refuse_what_cannot_fit
from zhiyin.learning.negatives import Mixed, WholeCatalogue
from zhiyin.learning.optimizers import Optimizer
from zhiyin.learning.scoring import TowerScorer, item_vectors
from zhiyin.learning.step import Clock, Stepper
from zhiyin.models.base import ModelSpec, RetrievalModel
from zhiyin.spec import Home

LOOK_EVERY = 50
"""Steps between two looks at the loss: a look waits for the device."""

RUN_LENGTH = 32
"""Examples in a run, for a model that pools windows."""


@dataclass(frozen=True, slots=True)
class Training:
    """`examples_per_user`: at most so many of a user's examples an epoch, drawn anew each time; 0 is all of them.
    `min_history`: events a user must have before an example. `weight`: the event column with each example's reward.
    `validate_every`: epochs between validations; after `patience` of them without a better recall@`measure`, training
    ends (0: never early). `run_length`: examples of one user that are learned from together, sharing the work on their
    common history; 1 shuffles each example for itself, 0 is the model's own. `baskets`: what a user did at one time (an
    invoice) is learned from what came before all of it, not from its other parts. `unordered`: the order of a user's
    events means nothing, and each is learned from all the others; for models that take the plain mean of a history.
    `id_dropout`: how likely an item of a step is shown to the item tower by its features alone, so that they carry a
    new item. `checkpoint_minutes`: between
    two checkpoints where validations are further apart. `device`: "auto", "cpu", "cuda" or "mps". `precision`: "bf16"
    trains with the towers' products in bfloat16 (automatic mixed precision); what is kept and served is float32.
    """

    epochs: int = 20
    batch_size: int = 512
    examples_per_user: int = 0
    min_history: int = 1
    weight: str = ""
    validate_every: float = 1.0
    patience: int = 3
    measure: int = 50
    run_length: int = 0
    baskets: bool = False
    unordered: bool = False
    id_dropout: float = 0.0
    checkpoint_minutes: float = 10.0
    device: str = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("measure", 1),
            ("examples_per_user", 0),
            ("patience", 0),
            ("run_length", 0),
        ):
            if getattr(self, name) < least:
                raise SpecError(f"{getattr(self, name)}", where=f".{name}", expected=f"at least {least}")
        if self.min_history < 0 or self.validate_every <= 0 or self.checkpoint_minutes < 0:
            raise SpecError(
                f"min_history = {self.min_history}, validate_every = {self.validate_every}, "
                f"checkpoint_minutes = {self.checkpoint_minutes}",
                expected="min_history ≥ 0, validate_every > 0 and checkpoint_minutes ≥ 0",
            )
        if not 0 <= self.id_dropout <= 1:
            raise SpecError(f"{self.id_dropout}", where=".id_dropout", expected="a share, 0 to 1")
        if self.unordered and self.baskets:
            raise SpecError(
                "unordered and baskets",
                expected="one of them: baskets are about what came before",
                remedy="Leave baskets out where the order of events means nothing.",
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train and how: the recipe's tables of the same names."""

    model: Annotated[ModelSpec, Home("zhiyin.models")]
    negatives: Annotated[NegativesSpec, Home("zhiyin.learning")] = Mixed()
    loss: Annotated[Loss, Home("zhiyin.learning")] = SampledSoftmax()
    optimizer: Optimizer = Optimizer()
    training: Training = Training()

    def __post_init__(self) -> None:
        if self.loss.whole_catalogue and not isinstance(self.negatives, WholeCatalogue):
            raise SpecError(
                f"{type(self.loss).__name__} needs every item as a negative, not {type(self.negatives).__name__}",
                where="loss",
                remedy='Set [negatives] use = "negatives:WholeCatalogue", or [loss] use = "losses:SampledSoftmax".',
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands. `loss` is the mean since the last look; `recall` is the newest validation's, `validated`
    whether that was just now. `seconds`: where the time went, by part, when a profile was asked for."""

    epoch: float
    step: int
    steps: int
    loss: float
    examples_per_second: float
    recall: float | None
    best: float
    validated: bool
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model with all that is needed to use it. `recall` was measured on validation at `step`. `nameless`
    int64 [·]: rows of items that the item tower is shown by their features alone, since their ids were never learned.
    """

    model: RetrievalModel
    plan: Plan
    schema: Schema
    end: int
    step: int
    recall: float
    nameless: Tensor

    def __repr__(self) -> str:
        measure = f"validation recall@{self.plan.training.measure} {self.recall:.4f}"
        return f"<{type(self.plan.model).__name__}, step {self.step:,}: {measure}>"

    def examples(self, data: Prepared, device: torch.device) -> Examples:
        """This data as the towers see it."""
        return Examples(data, self.schema, end=self.end, device=device).without_ids(self.nameless)

    def scorer(self, data: Prepared, device: str = "auto") -> TowerScorer:
        """The model as a scorer of this data's catalogue, for `evaluate`."""
        where = choose_device(device)
        return TowerScorer(self.model.to(where), self.examples(data, where))

    @classmethod
    def open(cls, folder: Path, catalogue_size: int) -> "Fitted":
        """The best step of the run in `folder`. Raises `TrainingError` where there is none."""
        path = folder / "best.safetensors"
        tensors, facts = checkpoint.load(path)
        if facts["counts"][1] != catalogue_size:
            raise TrainingError(
                f"trained with {facts['counts'][1]:,} items, and there are {catalogue_size:,} now",
                where=str(path),
                remedy="Fit again: `zhiyin fit RECIPE --from RECIPE` goes on from these weights when files were "
                "appended, --fresh starts over.",
            )
        plan, schema = _trained_with(facts, path)
        model = plan.model.build(schema, catalogue_size)
        checkpoint.restore(model, tensors, path)
        nameless = tensors.get("nameless", torch.empty(0, dtype=torch.int64))
        return cls(model, plan, schema, facts["end"], facts["step"], facts["recall"], nameless)


def outdated(folder: Path, plan: Plan, schema: Schema) -> list[str]:
    """The recipe's tables, in their order there, that say something else than what the run in `folder` was trained
    with. Raises `TrainingError` where there is no run."""
    path = folder / "best.safetensors"
    then, told = _trained_with(checkpoint.facts(path), path)
    sides = ("user", "item", "event", "context")
    names = [[[feature.name for feature in getattr(one, side)] for side in sides] for one in (told, schema)]
    features = names[0] != names[1] or told.history_length != schema.history_length
    return ["features"] * features + [
        one.name for one in fields(plan) if getattr(then, one.name) != getattr(plan, one.name)
    ]


def _trained_with(facts: Mapping[str, Any], path: Path) -> tuple[Plan, Schema]:
    return spec.build(Plan, facts["plan"], str(path)), spec.build(Schema, facts["schema"], str(path))


def fit(
    plan: Plan,
    data: Prepared,
    split: Split,
    schema: Schema,
    folder: Path,
    watch: Callable[[Progress], None] = lambda progress: None,
    *,
    fresh: bool = False,
    profile: bool = False,
    start: Earlier | None = None,
) -> Fitted:
    """Train `plan`'s model on the split's training events and return its best step.

    `schema` must be fitted. `folder` keeps `best.safetensors` and `last.safetensors`; a run that was interrupted there,
    with the same plan and schema, goes on where it stood, unless `fresh`. `profile`: tell where the time goes. `start`:
    a run whose weights a new one begins with, be it of this folder; `schema` must then go on from its own. Under
    torchrun all processes share the work. Raises `TrainingError` when the loss is no longer finite, memory too small,
    or `start` of other data, and `DataError` when there is nothing to learn from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with processes(choose_device(plan.training.device)) as crew, torch.random.fork_rng(devices=[]):
        if fresh and crew.first:
            for old in folder.glob("*.safetensors" if start is None else "last.safetensors"):
                old.unlink()
        crew.told(None)  # nobody resumes what is being removed
        run = TrainingRun(plan, data, split, schema, folder, crew, profile=profile)
        if not run.resume(start is not None) and start is not None:
            start.put_into(run.model, plan.model, data)
        run.go(watch if crew.first else lambda progress: None)
        del run  # its tables, before those that are opened
    return Fitted.open(folder, len(data.items))


class TrainingRun:
    """One training run: the model, its optimiser, and how far it has come."""

    def __init__(
        self, plan: Plan, data: Prepared, split: Split, schema: Schema, folder: Path, crew: Processes, *, profile: bool
    ) -> None:
        self.plan, self.data, self.split, self.schema, self.folder, self.crew = plan, data, split, schema, folder, crew
        self.training = training = plan.training
        self.device = choose_device(training.device)
        self.examples = Examples(data, schema, end=split.end, device=self.device, weight=training.weight)
        self.events = learnable(data.events, split.train, training.min_history, training.unordered)
        self._refuse_what_cannot_fit()
        torch.manual_seed(training.seed)
        self.model = plan.model.build(schema, len(data.items)).to(self.device)
        self.shape = shape_of(self.model.sequential, schema, training)
        if training.unordered:
            self.shape = replace(self.shape, ends=self._ends())
        self.sampler = plan.negatives.build(self._catalogue())
        self.optimizer = plan.optimizer.build(self.model)
        self.clock = Clock(self.device, on=profile)
        if training.id_dropout and not schema.item:
            raise SpecError(
                f"{training.id_dropout}, and items have no features to be known by",
                where="training.id_dropout",
                expected="0 where there are none",
                remedy="Add [[features.item]], or leave id_dropout out.",
            )
        self.nameless = _nameless(data, self.events, schema, training.id_dropout)
        self.stepper = Stepper(
            self.model,
            plan.loss,
            self.optimizer,
            self.examples,
            crew,
            self.clock,
            training.id_dropout,
            half=training.precision == "bf16",
        )
        self.steps_per_epoch = math.ceil(_examples_an_epoch(data.events, self.events, training) / training.batch_size)
        self.steps = self.steps_per_epoch * training.epochs
        self.step = self.stale = 0
        self.best = -1.0
        self.saved = time.monotonic()

    def resume(self, anew: bool = False) -> bool:
        """Go on from `last.safetensors` when it is this run's, and say whether it is. Raises `TrainingError` where it
        is another's, unless that one may be replaced by a run that starts `anew`."""
        path = self.folder / "last.safetensors"
        if not path.exists():
            return False
        tensors, facts = checkpoint.load(path)
        if not self._is_mine(facts):
            if anew:
                return False
            raise TrainingError(
                "another run was interrupted or finished here, with another recipe or other data",
                where=str(self.folder),
                remedy="Use --fresh to start over, --from RECIPE to start from its weights when files were appended, "
                "or another `home`.",
            )
        checkpoint.restore(self.model, tensors, path)
        self.optimizer.load(_part(tensors, "optimizer."))
        if isinstance(self.sampler, Stateful):
            self.sampler.load({name: tensor.numpy() for name, tensor in _part(tensors, "negatives.").items()})
        self.step, self.best, self.stale = facts["step"], facts["best"], facts["stale"]
        return True

    def go(self, watch: Callable[[Progress], None]) -> None:
        """Take the steps that are left."""
        every = max(1, round(self.steps_per_epoch * self.training.validate_every))
        losses, seen, since, recall = torch.zeros((), device=self.device), 0, time.perf_counter(), None
        for one in self.drafts():
            losses += self.take(one)
            self.step += 1
            seen += 1
            validate = self.step % every == 0 or self.step == self.steps
            if not validate and self.step % LOOK_EVERY:
                continue
            loss, seconds = self._look(losses, seen), time.perf_counter() - since
            if validate:
                recall = self._validate()
            elif time.monotonic() - self.saved > 60 * self.training.checkpoint_minutes:
                self._save_last()
            speed = seen * self.training.batch_size / seconds
            epoch = self.step / self.steps_per_epoch
            watch(
                Progress(
                    epoch, self.step, self.steps, loss, speed, recall, self.best, validate, dict(self.clock.seconds)
                )
            )
            losses.zero_()
            seen, since = 0, time.perf_counter()
            if validate and self._spent():
                return

    def drafts(self) -> Generator[Draft]:
        """The steps that are left, each worked out ahead of its turn; in its turn, where negatives are mined from the
        item vectors of that moment."""
        first = self.steps if self._spent() else self.step
        made = partial(self._made, first)
        return made() if self.plan.negatives.mines else ahead(made)

    def _made(self, first: int) -> Generator[Draft]:
        size, seed = self.training.batch_size, self.training.seed
        step = max(0, first - self.plan.negatives.remembers)
        while step < self.steps:
            epoch, done = divmod(step, self.steps_per_epoch)
            random = np.random.default_rng([seed, epoch])
            order = epoch_order(self.data.events, self.events, self.shape, self.training.examples_per_user, random)
            for start in range(done * size, len(order), size):
                draw = partial(self.sampler, step=step, random=np.random.default_rng([seed, 1, step]))
                made = draft(self.data.events, order[start : start + size], self.shape, draw, self.crew)
                step += 1
                if step > first:
                    yield made

    def take(self, one: Draft) -> Tensor:
        """The batch's mean loss, not yet waited for."""
        torch.manual_seed(self.training.seed * 1_000_003 + self.step)  # dropout: a function of the step
        self.model.train()
        with self.clock.time("to the device"):
            batch = self.examples.batch(one)
        return self.stepper.step(batch, left=1 - self.step / self.steps)

    def _look(self, losses: Tensor, seen: int) -> float:
        self.crew.add([losses])
        loss = float(losses) / seen
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} by step {self.step}",
                where="fit",
                expected="a finite loss",
                remedy="Most likely the learning rate is too high for this temperature: lower optimizer.lr and "
                "optimizer.table_lr, or raise the temperature. The last good step is kept.",
            )
        return loss

    def _validate(self) -> float:
        with self.clock.time("validation"):
            recall = float(self.crew.told(self._recall() if self.crew.first else None))
        better = recall > self.best
        self.stale = 0 if better else self.stale + 1
        if better:
            self.best = recall
            self._save("best", checkpoint.weights(self.model) | {"nameless": self.nameless}, recall=recall)
        self._save_last()
        return recall

    def _recall(self) -> float:
        scorer = TowerScorer(self.model, self.examples.without_ids(self.nameless))
        measure = self.training.measure
        try:
            report = evaluate({"model": scorer}, self.data, self.split.validation, ks=(measure,))
        except TrainingError as error:
            raise error.at(f"validation at step {self.step:,}") from None
        return report.value("model", f"recall@{measure}")

    def _save_last(self) -> None:
        state = {f"optimizer.{name}": tensor for name, tensor in self.optimizer.state().items()}
        if isinstance(self.sampler, Stateful):
            state |= {f"negatives.{name}": torch.from_numpy(array) for name, array in self.sampler.state().items()}
        self._save("last", checkpoint.weights(self.model) | state, best=self.best, stale=self.stale)
        self.saved = time.monotonic()

    def _save(self, name: str, tensors: Mapping[str, Tensor], **facts: Any) -> None:
        if self.crew.first:
            told = {**self._identity(), "end": self.split.end, "step": self.step, **facts}
            with self.clock.time("checkpoints"):
                checkpoint.save(self.folder / f"{name}.safetensors", tensors, told)

    def _refuse_what_cannot_fit(self) -> None:
        training, items = self.training, len(self.data.items)
        draws = self.plan.negatives.size(training.batch_size, items)
        shape = shape_of(False, self.schema, training)
        wanted = need(self.plan.model, self.schema, items, self.plan.optimizer, shape, training.batch_size, draws)
        refuse_what_cannot_fit(wanted, available(self.device), training.batch_size, draws)

    def _ends(self) -> Events:
        """[users] where the training events of each end. Raises `SpecError` for a model to which order means much."""
        if not self.model.order_free:
            raise SpecError(
                f"true, and {type(self.plan.model).__name__} as it is set looks at the order of a history",
                where="training.unordered",
                expected="a model that takes the plain mean of a history",
                remedy='Set model.pooling = "mean" (YouTubeDNN and the DSSM family have it), or leave unordered out.',
            )
        log = self.data.events
        ends = log.offsets[:-1].astype(np.int64)
        np.maximum.at(ends, log.users[self.split.train], self.split.train + 1)
        return ends

    def _catalogue(self) -> Catalogue:
        frequencies = _frequencies(self.data, self.events, self.training.examples_per_user)
        size = self.training.batch_size
        return Catalogue(len(self.data.items), frequencies, size, self.data, self.events, self._vectors)

    def _vectors(self, rows: Numbers) -> Vectors:
        return item_vectors(self.model, self.examples, torch.from_numpy(rows).to(self.device)).cpu().numpy()

    def _spent(self) -> bool:
        return 0 < self.training.patience <= self.stale

    def _identity(self) -> dict[str, Any]:
        counts = [len(self.data.users), len(self.data.items), len(self.data.events), len(self.split.train)]
        told = {"plan": _whole(self.plan), "schema": _whole(self.schema), "counts": counts}
        return {**told, "lineage": self.data.lineage}

    def _is_mine(self, facts: Mapping[str, Any]) -> bool:
        """Whether these are facts of this run; settings they do not name are as they are by default."""
        try:
            plan, schema = spec.build(Plan, facts["plan"]), spec.build(Schema, facts["schema"])
        except SpecError:
            return False
        told = {**facts, "plan": _whole(plan), "schema": _whole(schema)}
        return all(told.get(name, "") == value for name, value in self._identity().items())


def _whole(settings: Plan | Schema) -> dict[str, Any]:
    return spec.table(settings, whole=True)


def shape_of(sequential: bool, schema: Schema, training: Training) -> Shape:
    """How batches are cut into runs, for a model that is `sequential` or not."""
    length = schema.history_length
    span = training.run_length or (length if sequential else RUN_LENGTH)
    return Shape(length, min(span, length) if sequential else span, sequential, training.baskets)


def learnable(log: EventLog, train: Events, min_history: int, unordered: bool = False) -> Events:
    """The training events with at least `min_history` events before them, or beside them where they are `unordered`.
    Raises `DataError` when there are none."""
    owners = log.users[train]
    others = np.bincount(owners)[owners] - 1 if unordered else train - log.offsets[owners]
    kept: Events = train[others >= min_history]
    if not len(kept):
        where = "beside" if unordered else "before"
        raise DataError(
            f"none of the {len(train)} training events has {min_history} events {where} it",
            where="fit",
            expected="users with several events each",
            remedy="Give a longer log, or set training.min_history = 0 (users are then known by profile alone).",
        )
    return kept


def choose_device(name: str) -> torch.device:
    """The device that "auto" stands for: cuda, then mps, then cpu. Raises `SpecError` for one that is not here."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return own_device(torch.device(next(device for device, there in here.items() if there)))
    if not here.get(name.split(":")[0], False):
        there = ", ".join(["auto", *(device for device, found in here.items() if found)])
        raise SpecError(f"the device '{name}' is not on this machine", where="training.device", expected=there)
    return own_device(torch.device(name))


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _frequencies(data: Prepared, events: Events, cap: int) -> Floats:
    weights = np.ones(len(events), np.float32)
    if cap:
        users = data.events.users[events]
        weights = np.minimum(1, cap / np.bincount(users)[users]).astype(np.float32)
    return example_frequencies(data.events.items[events], len(data.items), weights)


def _nameless(data: Prepared, events: Events, schema: Schema, id_dropout: float) -> Tensor:
    """The rows whose id is never learned: items without an example, all when ids are always dropped; none where items
    have no features, since nothing else would be known of them."""
    learned = np.full(len(data.items), not schema.item)
    if id_dropout < 1:
        learned[data.events.items[events]] = True
    return torch.from_numpy(np.flatnonzero(~learned))


def _examples_an_epoch(log: EventLog, events: Events, training: Training) -> int:
    if not training.examples_per_user:
        return len(events)
    return int(np.minimum(np.bincount(log.users[events]), training.examples_per_user).sum())
