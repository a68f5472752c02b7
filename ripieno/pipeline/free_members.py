"""Free members: trees on the flattened inputs, with which a search begins; they take seconds.

Of larger images, trees are trained on features by a pretrained backbone of the search, if it has one.

A library wants members that differ, and trees differ from networks. They are ordinary members of the library, of no
trial: the search does not know them, and its trials are the same with and without them.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import torch

from ripieno import clock, files
from ripieno.data.dataset import spread_rows
from ripieno.data_kinds import DATA_KINDS
from ripieno.errors import EngineError, LibraryError, MissingExtraError, ModelError, require
from ripieno.library import Library
from ripieno.library.cost_table import MEASURED, read_cost_table
from ripieno.library.import_predictions import NO_TRIAL
from ripieno.models.build import Network, build
from ripieno.models.parts import count_features
from ripieno.models.timm_config import FAMILY
from ripieno.pipeline.costs import UNCOUNTABLE, profile_members
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.pipeline.time_fit import feature_seconds
from ripieno.profiles import local_devices
from ripieno.search.constraints import Constraint, read_value
from ripieno.train import TrainingConfig
from ripieno.train.feature_trees import FeatureTreeTrainer
from ripieno.train.folds import FoldTrainer, kept_trainer, predict_valid
from ripieno.train.frozen_backbone import FrozenBackbone, load_pretrained
from ripieno.train.job import trial_seed
from ripieno.train.member_costs import KINDS
from ripieno.train.member_writer import add_member
from ripieno.train.registry import make_trainer
from ripieno.train.trainer import Trainer
from ripieno.train.trees import TreeTrainer
from ripieno.types import SPLITS, Configuration, Dataset, Job, Member

MODELS: Mapping[str, tuple[str, Configuration]] = {
    "trees-random-forest": ("trees:random-forest", {"trees": 100, "min_samples_leaf": 2}),
    "trees-extra-trees": ("trees:extra-trees", {"trees": 100, "min_samples_leaf": 2}),
    "trees-lightgbm": ("trees:lightgbm", {"rounds": 60, "feature_fraction": 0.3, "bagging_fraction": 0.8}),
    "trees-lightgbm-small": (
        "trees:lightgbm",
        {"rounds": 60, "num_leaves": 8, "learning_rate": 0.2, "feature_fraction": 0.3, "bagging_fraction": 0.8},
    ),
}
"""Trainer and configuration of each free member, by id."""
TABLE_MODELS: Mapping[str, tuple[str, Configuration]] = {
    "trees-lightgbm-shallow": (
        "trees:lightgbm",
        {"rounds": 300, "num_leaves": 4, "learning_rate": 0.08, "feature_fraction": 0.8, "bagging_fraction": 0.8},
    ),
    "trees-lightgbm-medium": (
        "trees:lightgbm",
        {"rounds": 150, "num_leaves": 15, "learning_rate": 0.05, "feature_fraction": 0.8, "bagging_fraction": 0.8},
    ),
    "trees-lightgbm-long": (
        "trees:lightgbm",
        {"rounds": 300, "num_leaves": 31, "learning_rate": 0.05, "feature_fraction": 0.8, "bagging_fraction": 0.8},
    ),
    "trees-lightgbm-large": (
        "trees:lightgbm",
        {
            **{"rounds": 300, "num_leaves": 127, "learning_rate": 0.05, "min_child_samples": 50, "lambda_l2": 5.0},
            **{"feature_fraction": 0.7, "bagging_fraction": 0.8},
        },
    ),
    "trees-random-forest-large": ("trees:random-forest", {"trees": 200, "min_samples_leaf": 5, "max_features": 0.7}),
    "trees-extra-trees-large": ("trees:extra-trees", {"trees": 200, "min_samples_leaf": 5, "max_features": 1.0}),
}
"""Those of tables besides, on which trees are as good as networks; their sizes suit data sets of different sizes."""
SIDE = 32
"""Longest side in pixels of the images that are flattened."""
FEATURES = 4096
"""Most numbers of a flattened sample."""
NUMBERS = 4_000_000
"""Numbers of the training samples that are used, at most: those of 5,100 images of 28 x 28."""
TREES = 600
"""Most trees of a boosted model: with many classes or labels it gets fewer rounds."""
SHARE = 0.05
"""Share of a search's time after which no free member is begun, once the library has a member."""
TABLE_SHARE = 0.15
"""The same of a search on a table."""
LEAVES = 2500
"""Most leaves of a tree of a forest on a table: the file of one with a leaf a row has hundreds of megabytes."""
_MODULES = ("sklearn", "skl2onnx", "lightgbm", "onnxmltools", "onnxruntime")
_FIRST_SEED = 1_000_000_000
"""Number from which seeds of free members are drawn, beyond those of trials."""


def add_free_members(
    library: Library,
    config: TrainingConfig,
    dataset: Dataset,
    seconds: float | None = None,
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
    backbone: Configuration | None = None,
    constraints: Sequence[Constraint] = (),
) -> None:
    """Train the free members that the library lacks, unless its search has begun or the inputs are large.

    Trees on large images take the features by `backbone`, the configuration of a pretrained network, if there is one.
    `seconds` is the time of the search, which bounds theirs. `notes` gets a remark where the extra `trees` is absent.
    One that breaks one of the `constraints` alone is removed; costs that they bound are measured for it.
    """
    if library.journal_path.exists() or not (_is_small(dataset) or backbone):
        return
    if any(constraint.name == "flops" for constraint in constraints):
        if notes is not None:
            notes.append(f"the search begins without free members: {UNCOUNTABLE}, so that none fits a bound of flops")
        return
    backbone = None if _is_small(dataset) else backbone
    models = _models(dataset)
    missing = [name for name in models if _member_id(name, backbone is not None) not in library]
    share = TABLE_SHARE if dataset.kind == "table" else SHARE
    if missing and backbone and (took := feature_seconds(backbone, dataset)) > share * (seconds or math.inf):
        if notes is not None:
            notes.append(f"the search begins without free members: their features would take about {took:.0f} s")
        return
    try:
        for module in _MODULES if missing else ():
            require(module)
    except MissingExtraError as error:
        if notes is not None:
            notes.append(f"the search begins without free members (trees): {error}")
        return
    started = time.monotonic()
    with files.locked(library.path / "lock", "another search"):
        features = _features(config, dataset, backbone, progress) if missing and backbone else None
        few = _bounded(dataset, prod(dataset.input.shape) if features is None else count_features(features[0]))
        # one thread: the same trees on every machine, and no threads of OpenMP that slow down trials of this process
        config = dataclasses.replace(config, threads=1)
        for done, name in enumerate(missing):
            if seconds is not None and len(library) and time.monotonic() - started > share * seconds:
                break
            progress("training free members", done, len(missing))
            try:
                _add(library, config, few, dataset, name, features)
                if broken := _broken(library, member := _member_id(name, features is not None), constraints):
                    library.remove(member)
                    if notes is not None:
                        notes.append(f"free member {name} was left out: {broken}")
            except (ModelError, EngineError, LibraryError) as error:  # a free member must not end a search
                if notes is not None:
                    notes.append(f"free member {name} was left out: {error}")
        progress("training free members", len(missing), len(missing))


def _models(dataset: Dataset) -> Mapping[str, tuple[str, Configuration]]:
    """Return trainer and configuration of each free member of `dataset`, by id."""
    if dataset.kind != "table":
        return MODELS
    least = math.ceil(len(dataset.rows("train")) / LEAVES)
    bounded = {
        name: (trainer, {**chosen, "min_samples_leaf": max(least, int(chosen["min_samples_leaf"]))})
        for name, (trainer, chosen) in {**MODELS, **TABLE_MODELS}.items()
        if "min_samples_leaf" in chosen
    }
    return {**MODELS, **TABLE_MODELS, **bounded}


def _member_id(name: str, on_features: bool) -> str:
    return f"features-{name.removeprefix('trees-')}" if on_features else name


def _features(
    config: TrainingConfig, dataset: Dataset, backbone: Configuration, progress: ProgressFunction
) -> tuple[Network, FrozenBackbone]:
    """Compute the features of the data set by a pretrained backbone, unless the run has them."""
    config = dataclasses.replace(config, family=FAMILY)
    # this process may have no GPU, where those of a cluster train
    device = config.device if torch.cuda.is_available() else "cpu"
    network = build(FAMILY, backbone, dataset.input, dataset.task, dataset.mean, dataset.std)
    frozen = load_pretrained(network, config, backbone, dataset)
    assert frozen is not None, "the backbone has no weights"
    frozen.progress = progress
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        frozen.cached(network.to(device).eval())
    finally:
        torch.set_num_threads(threads)
    return network.cpu(), frozen


def _add(
    library: Library,
    config: TrainingConfig,
    few: Dataset,
    dataset: Dataset,
    name: str,
    features: tuple[Network, FrozenBackbone] | None,
) -> None:
    trainer_name, configuration = _models(few)[name]
    if "rounds" in configuration:
        rounds = max(5, min(int(configuration["rounds"]), TREES // prod(dataset.task.output)))
        configuration = {**configuration, "rounds": rounds}
    started = time.perf_counter()
    named = dict(configuration)
    if features is not None:
        named["features"] = str(features[1].id)

    def make() -> Trainer:
        trees = make_trainer(dataclasses.replace(config, family=trainer_name, trainer=trainer_name))
        if features is None:
            return trees
        assert isinstance(trees, TreeTrainer)
        return FeatureTreeTrainer(trees, *features, library.path)

    trainer = make() if dataset.folds is None else FoldTrainer(make, dataset.fold_count)
    seed = trial_seed(config.seed, _FIRST_SEED + [*MODELS, *TABLE_MODELS].index(name))
    trainer.start(Job(0, configuration, 0, 1, seed), few)
    trainer.epoch()
    predictions = predict_valid(trainer, dataset)
    member = Member(
        id=_member_id(name, features is not None),
        trial=NO_TRIAL,
        epoch=0,
        family=trainer_name,
        configuration=named,
        input=dataset.input,
        task=dataset.task,
        losses={},
        parameters=0,
        seconds=time.perf_counter() - started,
        created=clock.now(),
    )
    add_member(library, kept_trainer(trainer), member, dataset, predictions)


def _broken(library: Library, member: str, constraints: Sequence[Constraint]) -> str:
    """Return what of the `constraints` a member alone breaks, measured where that takes it; empty: it meets them all.

    A cost that is not known breaks its bound; another number that is not known breaks none.
    """
    one, device = library.member(member), local_devices("cpu")[0]
    kinds = {c.name for c in constraints if c.name in KINDS}
    if timed := kinds & {*MEASURED}:
        profile_members(library, [member], device, "onnx", energy="joules" in timed)
    broken = []
    for constraint in constraints:
        name = constraint.name
        value = read_value(name, one)
        if name in kinds:
            value = read_cost_table(library, [name], device.kind, [one]).alone(name).get(member)
            if value is None:
                broken.append(f"its {name} are not known, which {constraint} bounds")
        if value is not None and constraint.violation(value) > 0:
            broken.append(f"its {name} {value:.3g} breaks {constraint}")
    return " and ".join(broken)


def _is_small(dataset: Dataset) -> bool:
    shape = dataset.input.shape
    return prod(shape) <= FEATURES and (not DATA_KINDS[dataset.kind].is_picture or max(shape[:2]) <= SIDE)


def _bounded(dataset: Dataset, width: int) -> Dataset:
    """Return the data set with as many training samples as `NUMBERS` allows, of `width` each; one a class at least."""
    train, most = dataset.rows("train"), max(1, NUMBERS // width)
    if len(train) <= most:
        return dataset
    chosen = spread_rows(train, most)
    if dataset.targets.ndim == 1:
        chosen = np.union1d(chosen, train[np.unique(np.asarray(dataset.targets[train]), return_index=True)[1]])
    split = np.full(len(dataset.split), len(SPLITS), np.uint8)  # of no split
    split[chosen] = SPLITS.index("train")
    return dataclasses.replace(dataset, split=split)
