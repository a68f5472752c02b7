"""Search of a data set: makes the library of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ripieno import files
from ripieno.config import pick
from ripieno.errors import require
from ripieno.library import Library
from ripieno.notes import Notes
from ripieno.pipeline.budgets import Budget
from ripieno.pipeline.execution import ExecutionConfig, PoolName
from ripieno.pipeline.preparation import DataOptions, DataSource, prepare
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.pipeline.search_options import FreeMembers, SearchOptions
from ripieno.resources import sleep_while_waiting
from ripieno.types import ColumnKind, DataKind, Folds

if TYPE_CHECKING:
    from ripieno.search.algorithms import Algorithm
    from ripieno.search.progress import Snapshot


def tune(
    data: DataSource | None = None,
    run: str | Path = "run",
    *,
    hours: float | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    space: str = SearchOptions.space,
    algorithm: str | Path | Algorithm | None = None,
    step: float | None = None,
    keep: int | None = None,
    eta: int | None = None,
    first: int | None = None,
    beam: int | None = None,
    macro: str | None = None,
    seed: int | None = None,
    slots: int | None = None,
    pool: PoolName = ExecutionConfig.pool,
    device: str = ExecutionConfig.device,
    per_device: int = ExecutionConfig.per_device,
    address: str = ExecutionConfig.address,
    cpus: float = ExecutionConfig.cpus,
    limit: float | None = None,
    constraint: str | Sequence[str] | None = None,
    family: str | None = None,
    trainer: str | None = None,
    free: FreeMembers = SearchOptions.free,
    without: str | Sequence[str] | None = None,
    weights: str | Path | None = None,
    augmentation: str | Path | None = None,
    budget: Budget | None = None,
    objective: str | Sequence[str] | None = None,
    from_: str | Path | Sequence[str | Path] | None = None,
    history: str | Path | None = None,
    size: int | None = None,
    split: tuple[float, float, float] | None = None,
    metric: str | None = None,
    folds: Folds | None = None,
    skip_bad: bool | None = None,
    task: str | None = None,
    target: str | Sequence[str] | None = None,
    kind: DataKind | None = None,
    series: str | None = None,
    time: str | None = None,
    value: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    column: Mapping[str, ColumnKind] | None = None,
    split_by: str | None = None,
    leave_out: str | Path | None = None,
    ignore: str | int | Sequence[str | int] | None = None,
    episodes: int | None = None,
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
    watch: Callable[[Snapshot], None] | None = None,
) -> Library:
    """Search hyperparameters on `data` and keep every network trained in the folder `run` (section 2.1).

    Bounds: the search ends by `hours`, by `trials`, or by both; after one hour when neither is given. Bounded by trials
    alone, its result depends on the seed only.

    Runs: called again on the same run it goes on where it was stopped, however it was stopped. The run holds its data
    and its settings, so `data` and all that makes the search may be left out, and what is given must be the same (data
    that were moved or copied are). The bounds may change; without any, those of the last start apply again. For a new
    run, what is None is the default of `Settings` (`ripieno.search.settings`) or of `ripieno.data.load_dataset`.

    Spaces: the default is `series` for series, `table` for tables, `resnet` for images on a GPU, `resnet-small` on a
    CPU; of networks of timm, which `family` (`timm:NAME`) or `weights` names, `timm`, `timm-small`. A `family` of
    series (`lite`, ...) or of tables (`mlp`, `mlp-periodic`) is one network of `series` or `table`. A segmentation has
    the families `unet`, in the spaces `segmentation` and `segmentation-small`, and `smp:ARCHITECTURE/ENCODER`, in
    `segmentation-pretrained`. Another `family` (`module:function`) is your own code, which is run; such a family named
    only by a space's file or by the run is refused.

    Trainers: `trainer` is `network`, `trees:lightgbm`, `trees:random-forest`, `trees:extra-trees`, `policy` or your own
    code (`module:Class`), a class with the methods of `ripieno.train.trainer.Trainer`; it, too, is run only when named
    here.
    A search of small inputs begins with some trees, which are members of no trial; `free` ("off") leaves them out.

    Augmentation: `without` names changes that the augmentation of networks leaves out ("flip", "rotate", ...); a
    built-in space leaves out flips where mirrored training images look like other classes. `augmentation` is the JSON
    file of a policy, such as one that `augment` wrote: all networks train with it, and the run keeps it.

    Pretrained weights: `weights`, of networks of timm, are a .safetensors file, a folder of NAME.safetensors, or "hub",
    which allows their download; without any these networks start random.

    Algorithms: `algorithm` is a name, a pair such as `asha+tpe`, a JSON file or an `Algorithm` (`ripieno.search`);
    `step` and `keep` replace its two, and `eta` sets both. `popnas` grows networks of cells: `first` is the number of
    its first trials, `beam` that of each further number of blocks; with `macro` "after" all other hyperparameters are
    searched on the front of the last step.

    Execution: `pool`, `device`, `slots` and the next four parameters say where trials train: see `ExecutionConfig`.
    Without `slots`, a profile decides how many trials share this machine, when it takes at most 2 % of `hours`: see
    `pipeline.trial_packing`. `notes` receives remarks on that decision and on the data; without it they are logged.

    Constraints: `constraint` is a bound such as `bytes<=4e6` or `latency<=0.010`, or several. Of networks of the
    built-in families, `parameters`, `flops` and `bytes` (here four times the parameters) are known before training: a
    configuration that breaks such a bound is drawn again. `seconds`, `latency` and `memory` are measured after the
    first rung of each trial, `train_seconds` and scores such as `accuracy` are known after each. Trials that break what
    is measured rank last, and samplers learn it.

    Objectives: `objective` names what is searched for besides the loss, as in "loss,flops": costs (train_seconds,
    flops, parameters, bytes, seconds, latency, memory), metrics of the task, or numbers that your own trainer reports.
    Trials that no other one dominates are then promoted.

    Earlier runs: a new search of the same space learns from the runs, or records of runs, in `from_`, and from the
    records in the folder `history` (else that of RIPIENO_HISTORY), which `add_history` writes. The word "built-in"
    names the portfolio that comes with a built-in space. The run keeps what was taken: see `docs/history.md`.

    Budgets: with a `budget`, as `select` takes it (seconds, or a mapping of `seconds`, `memory`, `latency`,
    `parameters`, `flops` and `bytes`), no network is trained that exceeds it alone. Parameters, FLOPs and bytes of
    networks follow from their configurations. The other kinds are predicted from a dozen networks with random weights
    that are measured on this machine's CPU before the search, and what is predicted above twice the budget is not
    trained.

    Policies: with `task` "policy", `data` is an environment: `gym:ID` of Gymnasium, `gem:ID` of gym-electric-motor, or
    your own `module:function`, which is run only when named here. Algorithms of reinforcement learning find policies
    for it, `episodes` of which validate each, and as many test it.

    Data: `task` (classification, multilabel, regression, segmentation or policy) and `kind` (image, series or table)
    are inferred when None; `target` names the columns of targets, and `series`, `time` and `value` those of a table of
    series. Of a table with a row for each sample, `drop` names columns that are left out, `column` gives kinds of
    columns (number, category, date) in place of the inferred ones, and `split_by` names the column by whose order or
    groups the rows are split. `ignore` names values and classes of masks whose pixels are neither trained on nor
    scored, besides 255. `leave_out` is a list of samples by file name or row, such as that of `suspects`: they are left
    out of training and validation, and stay in the test split. `metric` is the score that is shown; trials are ranked
    by the loss of the task.

    Folds: `folds` (2 to 20) validate by predictions out of fold instead of a validation split, which suits small data
    sets: each trial trains a network a fold, and the one that is kept on all training samples; see
    `ripieno.data.load_dataset`.

    Raises DataError for data that cannot be used or are not there, SearchError for settings or data that contradict the
    run's.
    """
    given = locals()
    given["constraint"] = [constraint] if isinstance(constraint, str) else constraint
    options = pick(SearchOptions, given), pick(ExecutionConfig, given), pick(DataOptions, given)
    return search_library(data, run, *options, progress, notes, watch)


def search_library(
    data: DataSource | None,
    run: str | Path,
    search: SearchOptions,
    execution: ExecutionConfig,
    data_options: DataOptions,
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
    watch: Callable[[Snapshot], None] | None = None,
) -> Library:
    """Run a search as `tune` describes it and return its library."""
    library = Library(run, (search.family,) if search.family else ())
    if (library.path / "lock").exists():
        with files.locked(library.path / "lock", "another search"):
            pass  # refused at once, not when all is loaded
    sleep_while_waiting()  # before PyTorch is loaded
    require("torch")
    # late: these load PyTorch, which takes seconds, and neither `import ripieno` nor the lines above need it
    from ripieno.pipeline.search_execution import execute_plan, report_result
    from ripieno.pipeline.search_plan import plan_search
    from ripieno.pipeline.search_request import read_request

    if execution.pool == "ray":
        require("ray")
    notes = Notes() if notes is None else notes
    request = read_request(library, search, data_options, execution.on_gpu(), progress, notes)
    dataset = prepare(data, library, dataclasses.replace(data_options, seed=request.settings.seed), progress, notes)
    plan = plan_search(request, dataset, execution, progress, notes)
    last = execute_plan(plan, progress, notes, watch)
    report_result(library, last, progress, notes)
    return library
