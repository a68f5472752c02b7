"""Data types of ripieno: frozen and passive, without input or output.

All stages exchange these and nothing else. :mod:`ripieno.files` writes them as JSON, :mod:`ripieno.library` names the
files. The units are seconds and bytes throughout; image arrays are NHWC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ripieno.deprecation import find_renamed, warn_renamed

type_version = 2
"""Version written into every JSON file; readers refuse what is newer, and :mod:`ripieno.version1` reads version 1."""

Float32s = NDArray[np.float32]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ProgressFunction = Callable[[str, int, int], None]
"""Callback with the name of the step, the number of items done and their total."""
InputLayout = Literal["auto", "NHWC", "NCHW", "NLC", "NCL"]
"""Axes of a network's inputs: batch, height, width, length of series, channels."""
ModelOutputs = Literal["probabilities", "logits"]

Value = bool | int | float | str
Configuration = Mapping[str, Value]
"""One value per hyperparameter name."""

PixelRange = tuple[float, float]
"""Least and largest pixel."""

Metric = Literal["accuracy", "macro-f1"]
TrainingUnit = Literal["epochs", "steps", "rounds", "instances"]
"""What a trainer counts as an epoch."""
DataKind = Literal["image", "series", "table"]
"""Form of the inputs: (height, width, channels), (length, channels) or (columns,)."""
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
NO_SPLIT = len(SPLITS)
"""Value of `Dataset.split` for a sample that is left out."""
Folds = int | Literal["auto"]
"""Number of folds of the training samples; 0: none, `auto`: by the number of samples, see `ripieno.data.folds`."""
Combiner = Literal["mean", "weighted", "vote", "median", "probability", "value"]
"""Name of a rule that combines predictions; the last two and `vote` are of discrete actions, too."""
PolicyOutput = Literal["action", "values", "probabilities"]
"""What a policy returns for an observation: an action in a box, or a value or probability for each discrete action."""
OutputActivation = Literal["softmax", "sigmoid", "identity"]
"""From a network's outputs to its predictions."""
Temperature = Annotated[float, Meta(ge=1e-6, le=1e6)]
"""Temperature of probabilities: see `ripieno.tasks.calibration`. The bounds keep single precision finite."""

IGNORED = 255
"""Value of a mask's pixels that neither train nor are scored."""
COST_SAMPLES = 2000
"""A cost in seconds is the time to predict this many samples (section 2.1: "time to predict 2000 images")."""


ColumnKind = Literal["number", "category", "date"]
DatePart = Literal["year", "month", "day", "weekday", "hour", "age"]


@dataclass(frozen=True)
class Column:
    """Column of a table, and how `ripieno.data.table_encoding` turns its values into numbers, NaN where one is missing.

    A number is itself. A category is its index in `categories`, and -1 where it has none. A date has a number for each
    of its `parts`.
    """

    name: str
    kind: ColumnKind = "number"
    categories: tuple[str, ...] = ()
    """values of the training rows, as text, the most frequent first"""
    parts: tuple[DatePart, ...] = ()
    """age: days before `latest`"""
    latest: float = 0.0
    """of a date: the last of the training rows, in days since 1970-01-01"""

    @property
    def width(self) -> int:
        """Number of values of a sample that the column becomes."""
        return len(self.parts) if self.kind == "date" else 1


def column_places(columns: Iterable[Column]) -> Iterator[tuple[Column, slice]]:
    """Yield each column of a table with the place of its values in a sample."""
    start = 0
    for column in columns:
        yield column, slice(start, start + column.width)
        start += column.width


@dataclass(frozen=True)
class Input:
    """Shape and type of one sample: `shape` without the batch axis (height, width, channels), `dtype` as in NumPy."""

    shape: tuple[int, ...]
    dtype: str = "uint8"
    range: PixelRange | None = field(default=None, compare=False)
    """of the training images' pixels; None when unknown, and for tables: their columns have no common unit"""
    columns: tuple[Column, ...] = ()
    """of a table, whose values are the sample's in this order; none: the columns have no names and hold numbers"""


RANKING_METRICS: Mapping[str, str] = {
    "classification": "cross_entropy",
    "multilabel": "binary_cross_entropy",
    "regression": "squared_error",
    "segmentation": "cross_entropy",
    "policy": "negative_return",
    "command": "mean_loss",
}
"""Metric by which members are ranked and trials compared, by kind of task; lower is better."""


@dataclass(frozen=True)
class Task:
    """Prediction task: its kind and the form of its predictions; :mod:`ripieno.tasks` defines its metrics."""

    kind: str
    """key of `ripieno.tasks.TASKS`"""
    output: tuple[int, ...]
    """shape of one prediction: (classes,), (labels,), (targets,), (actions,) or, of a segmentation, (height, width,
    classes)"""
    names: tuple[str, ...]
    """of the last axis: classes, labels, targets, discrete actions or dimensions of an action"""
    metric: str = field(default="", compare=False)
    """shown score; empty: the first of the kind's own"""
    low: tuple[float, ...] = ()
    """least action in each dimension of a box; empty: actions are discrete, or the task is no policy"""
    high: tuple[float, ...] = ()
    """largest action, likewise"""


def classification(classes: Sequence[str], metric: Metric = "accuracy") -> Task:
    """Return the task of predicting one of `classes`."""
    return Task("classification", (len(classes),), tuple(classes), metric)


def loss_key(task: Task, split: Split = "valid") -> str:
    """Return the name of the ranking metric of `split` among the `losses` of a member or an ensemble."""
    return f"{split}_{RANKING_METRICS[task.kind]}"


def ranking_loss(losses: Mapping[str, float], split: Split = "valid") -> float | None:
    """Return the ranking loss of `split` among the `losses` of a member or an ensemble of any task; None: none."""
    names = (f"{split}_{metric}" for metric in RANKING_METRICS.values())
    return next((losses[name] for name in names if name in losses), None)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs with targets in three splits, usually memory-mapped."""

    name: str
    inputs: NDArray[np.generic]
    """(samples, *shape), uint8 or float32, channels last: images (samples, height, width, channels)"""
    targets: NDArray[Any]
    """classification: (samples,) int64, an index into `task.names`; segmentation: (samples, height, width) uint8, an
    index or `IGNORED`; else (samples, *task.output): 0 and 1 as uint8 for several labels, float32 for a regression"""
    split: NDArray[np.uint8]
    """(samples,), an index into `SPLITS`, or `NO_SPLIT`"""
    task: Task
    mean: tuple[float, ...]
    """per channel over the training split, in the unit of `inputs`"""
    std: tuple[float, ...]
    kind: DataKind = "image"
    path: Path | None = None
    """the folder it is mapped from; None for arrays in memory"""
    range: PixelRange | None = None
    """of the pixels of the training split: see `Input.range`"""
    folds: NDArray[np.uint8] | None = None
    """(samples,), the fold that holds each training sample out; None: the data set has a validation split. With folds
    the training samples are the validation samples, too: each is predicted by a model that was trained without it"""
    columns: tuple[Column, ...] = ()
    """of a table: see `Input.columns`"""
    split_by: str = ""
    """column of a table by which its samples were split; empty: at random, or as the source says"""
    files: NDArray[np.bytes_] | None = None
    """(samples,), names of the samples' files within the source; None: they are not files of their own"""
    doubted: tuple[int, ...] = ()
    """rows of the test split that a list of samples to leave out names: see `ripieno.data.leave_out`"""
    environment: str = ""
    """of a policy: name of the environment, see `ripieno.environments`. A sample is then an episode: its first
    observation, and as its target the seed that it is reset with. Empty: none"""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the last axis of predictions."""
        return self.task.names

    @property
    def images(self) -> NDArray[np.generic]:
        """Return `inputs`: the former name, for one version."""
        warn_renamed("Dataset.images", "inputs")
        return self.inputs

    @property
    def labels(self) -> NDArray[Any]:
        """Return `targets`: the former name, for one version."""
        warn_renamed("Dataset.labels", "targets")
        return self.targets

    @property
    def metric(self) -> str:
        """Return `task.metric`: the former name, for one version."""
        warn_renamed("Dataset.metric", "task.metric")
        return self.task.metric

    @property
    def input(self) -> Input:
        """Shape and type of one sample."""
        shape = tuple(int(n) for n in self.inputs.shape[1:])
        return Input(shape, str(self.inputs.dtype), self.range, self.columns)

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Return the indices of the samples of `split`, ascending; with folds, `valid` are those of `train`."""
        held = "train" if self.folds is not None and split == "valid" else split
        return np.flatnonzero(self.split == SPLITS.index(held))

    @property
    def fold_count(self) -> int:
        """Number of folds; 0 where the data set has a validation split."""
        return 0 if self.folds is None else int(self.folds[self.rows("train")].max(initial=0)) + 1


@dataclass(frozen=True)
class Job:
    """Train trial `trial` from the end of epoch `start` to the end of epoch `stop`."""

    trial: int
    configuration: Configuration
    start: int
    stop: int
    seed: int = 0
    """of the trial's randomness, below 2**32, as a trainer gets it"""
    unit: TrainingUnit = "epochs"
    """of `start` and `stop`, as its trainer counts"""

    @property
    def member(self) -> str:
        """Id of the member this job makes: `00042-e027`."""
        return f"{self.trial:05d}-e{self.stop:03d}"


@dataclass(frozen=True)
class Failure:
    """Failure of a job; `message` is one line, `detail` a traceback or empty, `log` a path or empty."""

    reason: Literal["diverged", "memory", "crash", "error", "time"]
    """`time`: the search ended before the trial finished an epoch; a later start continues it"""
    message: str
    detail: str = ""
    log: str = ""


@dataclass(frozen=True)
class Epoch:
    """One epoch of a learning curve; `seconds` is its duration."""

    epoch: int
    train_loss: float | None
    """None where the trainer reports none"""
    valid_loss: float
    """the metric of `RANKING_METRICS` on the validation split"""
    valid_score: float
    """the task's metric on the validation split"""
    seconds: float
    waited: float = 0.0
    """seconds of these in which the trainer had no batch to train on"""
    joules: float | None = None
    """of the trial's share of the device, by its energy counter; None: it has none"""


@dataclass(frozen=True)
class Member:
    """One trained network, at one epoch."""

    id: str
    trial: int
    epoch: int
    family: str
    """a built-in family, `module:function`, or `onnx` / `predictions` for imported ones"""
    configuration: Configuration
    input: Input
    task: Task
    losses: Mapping[str, float]
    """the task's metrics, e.g. `valid_cross_entropy`, `valid_accuracy`; the same with `test_` once evaluated"""
    parameters: int
    seconds: float
    """training time of the trial so far"""
    curve: tuple[Epoch, ...] = ()
    created: float = 0.0
    """when it was made, Unix seconds; 0 when unknown"""
    format: Literal["safetensors", "onnx", "predictions"] = "safetensors"
    costs: Mapping[str, float] = field(default_factory=dict)
    """costs given at import; measured costs are in profiles"""
    temperature: Temperature | None = None
    """fitted to the validation samples; None: not fitted"""
    backbone: str = ""
    """id of the frozen pretrained backbone that it shares with other members: see `ripieno.models.backbone_id`; its
    weights are then those of the other layers. Empty: none"""
    unit: TrainingUnit = "epochs"
    """of `epoch`, as its trainer counts"""
    averaged: tuple[str, ...] = ()
    """ids of the members of which its weights are the mean, the best first; empty: it was trained, or imported"""
    variant_of: str = ""
    """id of the member whose network it is in lower precision or, as a trained member, distilled; empty: none"""
    policy: PolicyOutput | None = None
    """what its outputs are where it is a policy; its `valid.npy` then holds the returns of episodes. None: no policy"""

    @property
    def inference_unit(self) -> str:
        """Name of the unit that it is placed and run in: its backbone, with all members that share it, or its id."""
        return self.backbone or self.id

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the last axis of its predictions."""
        return self.task.names

    @property
    def loss(self) -> float:
        """Loss on the validation split, by which members are ranked."""
        return self.losses[loss_key(self.task)]

    @property
    def waited(self) -> float | None:
        """Share of its training time in which it waited for data; None when that is not known."""
        seconds = sum(e.seconds for e in self.curve)
        return sum(e.waited for e in self.curve) / seconds if seconds else None

    @property
    def train_joules(self) -> float | None:
        """Joules of its training; None when that of an epoch is not known."""
        known = [e.joules for e in self.curve if e.joules is not None]
        return sum(known) if known and len(known) == len(self.curve) else None


def training_unit(members: Iterable[Member]) -> TrainingUnit:
    """Return the unit of the `epoch` of `members`, which a search trained: it has one trainer."""
    return next((m.unit for m in members if m.epoch), "epochs")


@dataclass(frozen=True)
class JobResult:
    """Result of a job: a member or a failure, never both; wall-clock times are Unix seconds."""

    job: Job
    member: Member | None = None
    failure: Failure | None = None
    slot: int = 0
    started: float = 0.0
    finished: float = 0.0
    values: Mapping[str, float] = field(default_factory=dict)
    """numbers of the result besides the ranking loss, by name: what objectives and constraints read"""


@dataclass(frozen=True)
class BatchProfile:
    """A measurement at one batch size: median `seconds` per batch, relative `spread`, peak `bytes`."""

    batch_size: int
    seconds: float
    spread: float
    bytes: int


@dataclass(frozen=True)
class Profile:
    """Time and memory of a member per batch size on a kind of device, and its energy."""

    member: str
    device: str
    """kind of device: see `Device.kind`"""
    backend: str
    points: tuple[BatchProfile, ...]
    idle: bool = True
    """False when other processes kept the machine busy while it was measured"""
    base: int = 0
    """bytes of a process on the device before it loads a member: the worker's own share, not in the points' bytes"""
    load: int = 0
    """bytes of the member before its first batch: its weights, the runtime's graph; in the points' too. 0: unknown"""
    tried: tuple[int, ...] = ()
    """batch sizes that were asked for: those of them without a point did not fit"""
    joules: float | None = None
    """to predict `COST_SAMPLES` samples at the best batch size, above those of the idle machine; None: not measured"""

    @property
    def best(self) -> BatchProfile:
        """The point with the most samples per second (ties: the smaller batch)."""
        return min(self.points, key=lambda p: (p.seconds / p.batch_size, p.batch_size))

    @property
    def cost(self) -> float:
        """Seconds to predict `COST_SAMPLES` samples at the best batch size."""
        return self.best.seconds / self.best.batch_size * COST_SAMPLES

    def at(self, batch_size: int) -> BatchProfile:
        """Return the measurement at `batch_size`. Raises KeyError when it was not measured."""
        return {point.batch_size: point for point in self.points}[batch_size]


CoverageScore = Literal["lac", "aps", "raps", "residual", "spread", "root", "fnr"]
"""What orders the answers of a prediction set or interval: see `ripieno.tasks.conformal`."""


@dataclass(frozen=True)
class Coverage:
    """Thresholds at which prediction sets or intervals hold the truth with probability `level` (split conformal)."""

    level: float
    """between 0 and 1"""
    score: CoverageScore
    thresholds: tuple[float, ...]
    """largest score of an answer in the set: a single one, or one for each class, label or target"""
    samples: int
    """number of validation samples that the thresholds are fitted to"""
    sizes: tuple[float, ...] = ()
    """on these samples: mean number of answers in a set, or the mean width of the interval of each target"""
    per_class: bool = False
    """whether the level holds for each class or label by itself"""
    held_out: bool = False
    """whether the samples were kept from the selection of the ensemble"""
    floors: tuple[float, ...] = ()
    """for each target: of score `spread` the deviation of the residuals, of score `root` the least size of a value"""
    penalty: float = 0.0
    """of score `raps`: for each class above `free_classes` in rank"""
    free_classes: int = 0
    """of score `raps`: number of the most likely classes without a penalty"""
    seed: int = 0
    """of scores `aps` and `raps`: of the random share of a class's own probability"""


@dataclass(frozen=True)
class AbstainRule:
    """Threshold below which an ensemble would rather not answer."""

    error: float
    """largest expected error of the samples that are answered, between 0 and 1"""
    threshold: float
    """of `measure`: a sample below it is not answered"""
    samples: int
    """number of validation samples that the threshold is fitted to"""
    measure: str = "confidence"
    """what is compared: the confidence of the kind of task"""
    answered: float = 1.0
    """share of these samples that is answered"""
    held_out: bool = False
    """whether the samples were kept from the selection of the ensemble"""


@dataclass(frozen=True)
class SpreadCalibration:
    """Standard deviation of the error of each target: the root of (scale * spread)^2 + floor^2."""

    scales: tuple[float, ...]
    """of the standard deviation of the members; 0 where it tells nothing of the error"""
    floors: tuple[float, ...]
    """least standard deviation, above 0, in the unit of the target"""
    samples: int
    """number of validation samples that both are fitted to"""


@dataclass(frozen=True)
class Ensemble:
    """Members whose predictions are combined, selected under a budget."""

    name: str
    members: tuple[str, ...]
    weights: tuple[float, ...]
    """of the members, both in the order chosen; sum 1"""
    method: str
    budget: Mapping[str, float]
    """bound per cost, e.g. {"seconds": 20.0}"""
    cost: Mapping[str, float]
    losses: Mapping[str, float]
    combiner: Combiner = "mean"
    loss: str = "cross-entropy"
    """what was minimised when it was chosen; see `ripieno.selection.validation.Loss`"""
    temperatures: tuple[Temperature, ...] = ()
    """of the members, in the same order; empty: all are 1"""
    temperature: Temperature = 1.0
    """of the combined predictions"""
    calibration: str = "none"
    """how the temperatures were chosen; see `ripieno.selection.validation.Calibrate`"""
    expected_loss: float | None = None
    """mean loss of samples that the selection has not seen, by cross-validation; None where not computed"""
    expected_loss_error: float | None = None
    """its standard error"""
    thresholds: tuple[float, ...] = ()
    """probability from which each label is predicted, fitted to the validation samples; empty: 0.5 for each, and for
    tasks without labels"""
    returns: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """of policies: by split, the returns of its episodes from each seed; empty: it is of no policies"""
    coverage: tuple[Coverage, ...] = ()
    """levels at which prediction sets or intervals are served, the default first; empty: none"""
    abstain: AbstainRule | None = None
    """when it would rather not answer; None: it always answers"""
    unusual: tuple[float, ...] = ()
    """quantiles of the disagreement of the members about validation samples, at equal steps; empty: not known"""
    spread_calibration: SpreadCalibration | None = None
    """how the standard deviation of an error follows from the spread of a regression; None: not known"""


def combiner_name(combiner: Combiner) -> str:
    """Return the display name of a combiner."""
    return "weighted mean" if combiner == "weighted" else combiner


@dataclass(frozen=True)
class Front:
    """Pareto front: the best ensemble for every budget in one kind of cost."""

    cost: str
    """kind of the cost, as in the `cost` of its ensembles"""
    method: str
    ensembles: tuple[Ensemble, ...]
    """cheapest first; the validation loss falls from each to the next"""

    def best(self, budget: float) -> Ensemble | None:
        """Return the best ensemble within `budget`; None when every ensemble costs more."""
        return next((e for e in reversed(self.ensembles) if e.cost[self.cost] <= budget), None)

    @property
    def kind(self) -> str:
        """Return `cost`: the former name, for one version."""
        warn_renamed("Front.kind", "cost")
        return self.cost


@dataclass(frozen=True)
class FrontEnsemble:
    """Ensemble of a live front: the mean of the predictions of its members."""

    cost: float
    loss: float
    """validation loss by which members are ranked, without temperatures"""
    members: tuple[str, ...]


@dataclass(frozen=True)
class LiveFront:
    """Best ensembles of the members that a search has trained until now, for every budget."""

    cost: str
    """kind of the costs: `flops` of one sample, `parameters`, or `members`, their number"""
    ensembles: tuple[FrontEnsemble, ...]
    """cheapest first; the loss falls from each to the next"""
    reference: tuple[float, float]
    """cost and loss that bound the hypervolume; the same for all fronts of a run"""
    hypervolume: float
    """share of the area of cost times loss up to `reference` that the ensembles dominate, 0..1"""
    members: int
    """number of members of the run then"""
    seconds: float = 0.0
    """seconds of the search until then, over all its starts"""
    budget: float | None = None
    """budget of the search, in the unit of the costs"""

    def best(self, budget: float) -> FrontEnsemble | None:
        """Return the best ensemble within `budget`; None when every ensemble costs more."""
        return next((e for e in reversed(self.ensembles) if e.cost <= budget * (1 + 1e-9)), None)


@dataclass(frozen=True)
class Device:
    """Device that runs members: `cpu:0`, `cuda:1`. Devices of one `kind` share profiles."""

    name: str
    kind: str
    memory: int
    cores: tuple[int, ...] = ()
    """processor ids that its workers may use; empty: not pinned"""

    @property
    def type(self) -> str:
        """`cpu` or `cuda`."""
        return self.name.partition(":")[0]


@dataclass(frozen=True)
class Placement:
    """One member on one device in batches of one size; `lane` is the number of the worker on that device."""

    member: str
    device: str
    batch_size: int
    lane: int = 0


Placements = tuple[Placement, ...]


@dataclass(frozen=True)
class Allocation:
    """Placements of an ensemble's members: replicas are two placements of one member."""

    name: str
    ensemble: str
    devices: tuple[Device, ...]
    placements: tuple[Placement, ...]
    throughput: float | None = None
    """measured samples per second; None when only planned"""
    start_throughput: float | None = None
    """the same of the allocation the refinement started from"""
    benches: int = 0
    """benches the refinement ran"""
    predicted: float | None = None
    """samples per second by the model"""
    bound: float | None = None
    """samples per second that no allocation on these devices can exceed, by the model"""
    rate: float | None = None
    """samples per second it was planned to answer at the least latency; None when planned for throughput"""
    latency: float | None = None
    """seconds within which 99 of 100 samples are answered at `rate`: measured, or by the model without a bench"""
    planned: Mapping[str, int] = field(default_factory=dict)
    """planned bytes per worker, by `DEVICE/LANE`; empty without a plan: then no limit is enforced"""
    shares: tuple[float, ...] = ()
    """share of its resource's time that each placement computed in the last bench; empty when there was none"""
    errors: tuple[float, ...] = ()
    """of each bench: how much larger (0.1: a tenth) the model's figure was than the one measured"""
    others: float | None = None
    """share of the machine's processors, 0..1, that other programs took during the benches; None without benches"""
    backends: tuple[str, ...] = ()
    """what runs each placement, and so which profile it was planned by; empty: that of most profiles"""
    filled: float | None = None
    """how full the batches of the busiest member were in the last bench, 0..1 of those planned; None when unknown"""


TOLERANCE = 0.002
"""Default growth of the validation loss that a cascade may cause, nats."""
DISABLED = 2.0
"""Threshold that disables a cascade: no confidence reaches it."""


@dataclass(frozen=True)
class CascadeEffect:
    """Compute saved by a cascade on some samples and its loss there, against running all members on every sample."""

    samples: int
    saved: float
    """share of the compute"""
    asked: float
    """mean number of members run on a sample"""
    loss: float
    """the metric of `RANKING_METRICS`"""
    whole_loss: float
    """of the mean of all members"""
    score: float
    """the default metric of the kind of task"""
    whole_score: float

    @property
    def cross_entropy(self) -> float:
        """Former name of `loss`, for one version."""
        warn_renamed("CascadeEffect.cross_entropy", "loss")
        return self.loss

    @property
    def whole_cross_entropy(self) -> float:
        """Former name of `whole_loss`, for one version."""
        warn_renamed("CascadeEffect.whole_cross_entropy", "whole_loss")
        return self.whole_loss

    @property
    def accuracy(self) -> float:
        """Former name of `score`, for one version."""
        warn_renamed("CascadeEffect.accuracy", "score")
        return self.score

    @property
    def whole_accuracy(self) -> float:
        """Former name of `whole_score`, for one version."""
        warn_renamed("CascadeEffect.whole_accuracy", "whole_score")
        return self.whole_score


@dataclass(frozen=True)
class Cascade:
    """Order in which members run (early exit), and the confidence of their running mean at which a sample stops."""

    order: tuple[str, ...]
    threshold: float
    """confidence of the running mean at which a sample stops: the largest probability of a class, or, for several
    labels, the probability of the likelier value of the least certain label"""
    tolerance: float = 0.0
    """growth of the validation loss that was allowed, nats"""
    effects: Mapping[str, CascadeEffect] = field(default_factory=dict)
    """by split: planned on `valid`, measured on `test`"""


@dataclass(frozen=True)
class Bundle:
    """A deployment: a folder that can be copied and needs nothing else."""

    ensemble: Ensemble
    allocation: Allocation
    members: tuple[Member, ...]
    input: Input
    task: Task
    backend: str
    """backend of the members that `chosen` does not list: see `ripieno.backends.backend_id`"""
    path: Path = Path()
    """where it was read from; not stored"""
    chosen: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """backend by member and device, where it is not `backend`"""
    cascade: Cascade | None = None
    """early exit, if the user chose it"""
    prior: tuple[float, ...] = ()
    """share of each class among the samples that it was selected by; empty: not known, or not of one class each"""
    trusted: tuple[str, ...] = field(default=(), compare=False, metadata={"stored": False})
    """the user's model families (`module:function`) that may be imported; not stored"""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the last axis of predictions."""
        return self.task.names


RENAMED = {
    "ImageLayout": "InputLayout",
    "Outcome": "JobResult",
    "Point": "BatchProfile",
    "Range": "PixelRange",
}
"""Former names of types."""
if not TYPE_CHECKING:  # a type checker would take every name for an attribute of this module

    def __getattr__(name: str) -> Any:
        return find_renamed(globals(), RENAMED, name)
