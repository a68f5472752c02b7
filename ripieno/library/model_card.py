"""Model card of an ensemble: one page of Markdown that is part of every bundle and every export.

Its head is the YAML that model hubs read. The licence is unknown unless the user states it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ripieno import files
from ripieno.data.folds import validation_words
from ripieno.data_kinds import DATA_KINDS, is_series, traits_of
from ripieno.errors import LibraryError, RipienoError
from ripieno.library.backbones import BackboneRecord, find_origins
from ripieno.tasks.metrics import METRICS, format_expected, metric_key
from ripieno.tasks.registry import kind_of
from ripieno.types import SPLITS, combiner_name, training_unit

if TYPE_CHECKING:
    from ripieno.library.library import Library
    from ripieno.types import Allocation, Bundle, Column, Dataset, Ensemble, Input, Member, Task

CARD = "README.md"
"""File name that hubs expect."""
UNKNOWN, LICENCE = "unknown", "## Licence"
CLASSES = 50
"""Names listed at most."""
CATEGORIES = 8
"""Categories of a column listed at most."""
PIPELINE_TAGS = "image-classification", "image-segmentation", "tabular-classification", "tabular-regression"
"""The hubs' names of tasks; others have none."""
UNITS = {
    "seconds": "s for 2,000 samples",
    "latency": "s for one sample",
    "memory": "bytes",
    "joules": "J for 2,000 samples",
    "flops": "operations",
    "bytes": "of the ONNX files",
}


def render_card(
    bundle: Bundle,
    data: Dataset | None = None,
    search: Mapping[str, Any] | None = None,
    licence: str = UNKNOWN,
    origins: Mapping[str, BackboneRecord] | None = None,
) -> str:
    """Render the card of `bundle`: input and output, scores, members, costs, data, how it was made, licence.

    `data` is the data set it was made from, `search` the run's record of its search; without them the card states that
    they are not known. `origins` are the pretrained weights that its members began from, by `NAME-DIGEST`. The same
    bundle gives the same bytes.
    """
    ensemble, members = bundle.ensemble, bundle.members
    kind, task = kind_of(bundle.task), bundle.task
    names = ", ".join(map(_text, task.names[:CLASSES]))
    rest = len(task.names) - CLASSES
    outputs = ", ".join(map(str, task.output))
    sections = [
        _head(bundle.input, task, data, licence),
        f"# {_text(ensemble.name)}: an ensemble of {len(members)} members",
        f"It takes {_inputs(bundle.input)}, not normalised: "
        f"normalisation is included.{_padding(bundle.input)} It gives `{kind.outputs[0]}` (batch, {outputs}) of "
        f"float32, the {combiner_name(ensemble.combiner)} of its members' {kind.outputs[0]}.",
        *_columns(bundle.input),
        f"{kind.names_title.capitalize()}, in order: {names}{f' and {rest} more' if rest > 0 else ''}.",
        *_thresholds(ensemble, task),
        *_masks(task),
        "## Scores",
        _figures(ensemble, task, data),
        "## Members",
        _members(ensemble, members, task),
        "## Costs",
        *_costs(ensemble, bundle.allocation),
        *_cascade(bundle),
        *_coverage(ensemble, task),
        *_deviation(ensemble, task),
        "## Data",
        _data(data),
        "## How it was made",
        _making(ensemble, members, search, task),
        *_pretrained(origins or {}),
        LICENCE,
        f"{licence}."
        if licence != UNKNOWN
        else "Not stated. To publish this, state it in the head of this file, and respect the licences of the data, of "
        "pretrained weights and of imported members.",
    ]
    return "\n\n".join(sections) + "\n"


def write_card(bundle: Bundle, library: Library, path: Path) -> None:
    """Write the card of `bundle` into the folder `path`, with what the run of `library` records about its data."""
    from ripieno.data.dataset import find_dataset

    record = library.path / "run.json"
    try:
        data = find_dataset(library.dataset_path)
        search = files.read_json(record, dict[str, Any]) if record.exists() else None
    except RipienoError:  # the card has less content, but the deployment succeeds
        data, search = None, None
    origins = find_origins(library.path, bundle.members)
    files.write_bytes(path / CARD, render_card(bundle, data, search, origins=origins).encode("utf-8", "replace"))


def read_or_render_card(bundle: Bundle, licence: str | None = None) -> str:
    """Return the card in a bundle, or one rendered from the bundle alone; insert `licence` when it is given.

    Raises LibraryError for a licence that is not one word.
    """
    if licence is not None and not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", licence):
        raise LibraryError(f"licence {licence!r} must be one word, such as apache-2.0, mit, cc-by-4.0 or other")
    path = bundle.path / CARD
    if not path.is_file():
        origins = find_origins(bundle.path, bundle.members)
        return render_card(bundle, licence=licence or UNKNOWN, origins=origins)
    text = path.read_text("utf-8", "replace")
    if licence is None:
        return text
    text = re.sub(r"^license: .*$", f"license: {licence}", text, count=1, flags=re.MULTILINE)
    before, section, _ = text.rpartition(LICENCE)
    return f"{before}{section}\n\n{licence}.\n" if section else text


def _inputs(input: Input) -> str:
    """Format the tensors of the input."""
    if input.columns:
        return f"one tensor (batch, 1) for each of {len(input.columns):,} columns, named as it"
    return f"`images` (batch, {', '.join(map(str, input.shape))}) of {input.dtype}{_range(input)}"


def _columns(input: Input) -> list[str]:
    """List the columns of a table with their kinds and values."""
    if not input.columns:
        return []
    rows = [(column.name, column.kind, _values(column)) for column in input.columns[:CLASSES]]
    rest = len(input.columns) - CLASSES
    more = [f"And {rest} more columns."] if rest > 0 else []
    return [_table(("column", "kind", "values"), rows), *more]


def _values(column: Column) -> str:
    """Describe the values of a column: their type, and what stands for a missing one."""
    if column.kind == "date":
        return "float64, days since 1970-01-01; missing: NaN"
    if column.kind == "number":
        return "float32; missing: NaN"
    few = ", ".join(column.categories[:CATEGORIES]) + (", ..." if len(column.categories) > CATEGORIES else "")
    return f"text, one of {len(column.categories):,}: {few}; others are unseen; missing: empty"


def _range(input: Input) -> str:
    """Format the range of the training pixels, where it is known."""
    return "" if input.range is None else " from {:g} to {:g}".format(*input.range)


def _padding(input: Input) -> str:
    """Describe the padding of series; empty for other inputs."""
    return " Shorter series are padded with NaN at the end, in all channels." if is_series(input) else ""


def _thresholds(ensemble: Ensemble, task: Task) -> list[str]:
    """List the thresholds of the labels, where there are any."""
    if not ensemble.thresholds:
        return []
    pairs = list(zip(task.names, ensemble.thresholds, strict=True))
    listed = ", ".join(f"{_text(name)} {threshold:.3f}" for name, threshold in pairs[:CLASSES])
    rest = f" and {len(pairs) - CLASSES} more" if len(pairs) > CLASSES else ""
    return [f"A sample has a label from this probability on, fitted on the validation samples: {listed}{rest}."]


def _masks(task: Task) -> list[str]:
    """Describe the masks of a segmentation: their values, and what larger pictures are; nothing for other tasks."""
    if not kind_of(task).is_pixelwise:
        return []
    height, width, _ = task.output
    return [
        f"The class of a pixel is the one with the largest probability; a mask holds its index in the list. Scores are "
        f"of all pixels together. Pictures larger than {height} × {width} pixels are predicted in tiles that overlap, "
        "and the tiles' probabilities are blended."
    ]


def _head(input: Input, task: Task, data: Dataset | None, licence: str) -> str:
    name = [f"model_name: {json.dumps(f'ensemble on {data.name}')}"] if data else []
    form = (traits_of(input) or DATA_KINDS["image"]).card_form
    kind = kind_of(task)
    usual = "regression" if kind.activation == "identity" else "classification"
    tag = f"{form}-{task.kind if kind.is_pixelwise else usual}"
    tags = [f"pipeline_tag: {tag}"] if tag in PIPELINE_TAGS else []
    lines = ["library_name: ripieno", *tags, "tags: [ensemble, ripieno]", *name]
    return "\n".join(["---", f"license: {licence}", *lines, "---"])


def _figures(ensemble: Ensemble, task: Task, data: Dataset | None) -> str:
    rows = []
    held = f"{validation_words(data.fold_count)}; " if data and data.folds is not None else ""
    names = kind_of(task).metrics
    for split, words in (
        ("valid", f"validation ({held}used for selection)"),
        ("test", "test (not used for selection)"),
    ):
        values = [ensemble.losses.get(f"{split}_{name}") for name in names]
        if any(v is not None for v in values):
            rows.append((words, *("-" if v is None else f"{v:.4f}" for v in values)))
    if not rows:
        return "Not known."
    if ensemble.expected_loss is not None:
        known = {metric_key(ensemble.loss): format_expected(ensemble)}
        rows.append(("expected (cross-validated, ± standard error)", *(known.get(name, "-") for name in names)))
    return _table(("split", *(METRICS[name].title for name in names)), rows)


def _members(ensemble: Ensemble, members: Sequence[Member], task: Task) -> str:
    kind = kind_of(task)
    names = (kind.metrics[0], kind.default_metric)
    titles = (f"valid {METRICS[name].title}" for name in names)
    temperature = ["temperature"] if kind.calibrates else []
    columns = ("member", "weight", *temperature, "family", training_unit(members), "parameters", *titles)
    weights = dict(zip(ensemble.members, ensemble.weights, strict=True))
    temperatures = dict(zip(ensemble.members, ensemble.temperatures, strict=False))
    rows = []
    for m in members:
        losses = [m.losses.get(f"valid_{name}") for name in names]
        figures = ["-" if v is None else f"{v:.4f}" for v in losses]
        own = [f"{temperatures.get(m.id, 1.0):.3f}"] if kind.calibrates else []
        rows.append((m.id, f"{weights[m.id]:.3f}", *own, m.family, str(m.epoch), f"{m.parameters:,}", *figures))
    return _table(columns, rows)


def _costs(ensemble: Ensemble, allocation: Allocation) -> list[str]:
    rows = [
        (kind, f"{value:.4g}", f"{ensemble.budget[kind]:.4g}" if kind in ensemble.budget else "-", UNITS.get(kind, ""))
        for kind, value in ensemble.cost.items()
    ]
    costs = _table(("cost", "of all members", "budget", "unit"), rows) if rows else "Not known."
    placed = f"Placed on {', '.join(f'{d.name} ({d.kind})' for d in allocation.devices)}"
    if allocation.throughput:
        placed += f": {allocation.throughput:.0f} samples per second, measured"
    elif allocation.predicted:
        placed += f": {allocation.predicted:.0f} samples per second, predicted by the model"
    return [costs, f"{_text(placed)}."]


def _cascade(bundle: Bundle) -> list[str]:
    """Describe the order of the cascade, its savings and its scores; nothing without a cascade."""
    if bundle.cascade is None:
        return []
    turns, kind = bundle.cascade, kind_of(bundle.task)
    loss, score = METRICS[kind.metrics[0]].title, METRICS[kind.default_metric].title
    rows = [
        (
            {"valid": "validation (the threshold was set on it)"}.get(split, split),
            f"{100 * e.saved:.1f} %",
            f"{e.asked:.2f} of {len(turns.order)}",
            f"{e.loss:.4f} (all: {e.whole_loss:.4f})",
            f"{e.score:.4f} (all: {e.whole_score:.4f})",
        )
        for split, e in turns.effects.items()
    ]
    return [
        "## Cascade",
        f"Members are run in turn ({', '.join(map(_text, turns.order))}); a sample stops when the confidence of its "
        f"running mean is at least {turns.threshold:.4f}. The validation loss was allowed to grow by "
        f"{turns.tolerance:g} (tolerance). The scores above are of all members.",
        _table(("split", "compute saved", "members run", loss, score), rows),
    ]


def _coverage(ensemble: Ensemble, task: Task) -> list[str]:
    """Describe the coverages and the rule of abstention; nothing without them."""
    if not ensemble.coverage and ensemble.abstain is None:
        return []
    words = {True: "kept from selection", False: "of validation, used for selection too"}
    sections = ["## Coverage"]
    if ensemble.coverage:
        what = "intervals" if kind_of(task).activation == "identity" else "prediction sets"
        sections.append(
            f"On request it gives {what} that hold the truth of new samples as often as stated, if these come from "
            "where the validation samples came from (split conformal prediction). The first coverage is the default."
        )
        rows = [
            (
                f"{c.level:g}",
                f"{c.score}{' by class' * c.per_class}",
                f"{c.samples:,} {words[c.held_out]}",
                ", ".join(f"{size:.4g}" for size in c.sizes[:CLASSES]),
            )
            for c in ensemble.coverage
        ]
        sections.append(
            _table(("coverage", "score", "samples", "mean width" if what == "intervals" else "mean size"), rows)
        )
    if (rule := ensemble.abstain) is not None:
        sections.append(
            f"On request it says which samples it would rather not answer: those of a {rule.measure} below "
            f"{rule.threshold:.4f}. Of the others, at most {rule.error:.2%} are expected to be wrong. The threshold is "
            f"fitted to {rule.samples:,} samples {words[rule.held_out]}; {rule.answered:.1%} of them are answered."
        )
    return sections


def _deviation(ensemble: Ensemble, task: Task) -> list[str]:
    """Describe the standard deviation of the values; nothing where it is not known."""
    known = ensemble.spread_calibration
    if known is None:
        return []
    rows = [
        (name, f"{scale:.3f}", f"{floor:.4g}")
        for name, scale, floor in zip(task.names[:CLASSES], known.scales, known.floors, strict=False)
    ]
    return [
        "## Standard deviation",
        "On request it gives the standard deviation of the error of each value, the root of (scale × spread)² + "
        "floor²; the spread is the standard deviation of the members. Scale and floor are those of the highest normal "
        f"likelihood of {known.samples:,} validation samples. A scale of 0: the spread tells nothing of the error.",
        _table(("target", "scale", "floor"), rows),
    ]


def _data(data: Dataset | None) -> str:
    if data is None:
        return "Not known: these members were imported, or the bundle was made without its run."
    splits = [split for split in SPLITS if split != "valid" or data.folds is None]
    shares = ", ".join(f"{len(data.rows(split)):,} {split}" for split in splits)
    if data.folds is not None:
        shares += f"; validation: {validation_words(data.fold_count)}"
    names = kind_of(data.task).names_title
    outputs = f"{len(data.classes)} {names}" if len(data.classes) != 1 else f"1 {names.removesuffix('s')}"
    noun, shape = DATA_KINDS[data.kind].noun, " × ".join(map(str, data.inputs.shape[1:]))
    return f"{_text(data.name)}: {len(data.targets):,} {noun} of {shape} ({data.inputs.dtype}) in {outputs}; {shares}."


def _making(ensemble: Ensemble, members: Sequence[Member], search: Mapping[str, Any] | None, task: Task) -> str:
    from ripieno import __version__

    lines = [f"By ripieno {__version__}."]
    if search:
        space = search.get("space", {})
        space = space.get("name", "") if isinstance(space, Mapping) else ""
        algorithm = search.get("algorithm", "")
        algorithm = algorithm.get("name", "") if isinstance(algorithm, Mapping) else algorithm  # older: the name alone
        bound = f", {search['trials']} trials" if search.get("trials") else ""
        if isinstance(budget := search.get("budget"), Mapping):
            bound += f", under a budget of {_text(' and '.join(f'{value:g} {kind}' for kind, value in budget.items()))}"
        lines.append(
            f"Members: searched by {_text(str(algorithm))} in the space {_text(str(space))}, at "
            f"most {search.get('epochs')} {search.get('unit', 'epochs')} per trial, seed {search.get('seed')}{bound}."
        )
    averages = [m for m in members if m.averaged]
    lines += [f"{_text(m.id)} is the mean of the weights of {_text(', '.join(m.averaged))}." for m in averages]
    spent = sum({m.trial: m.seconds for m in sorted(members, key=lambda m: m.epoch)}.values())
    if spent:
        lines.append(f"The members' own training took {spent:,.0f} s{', averaged trials excluded' * bool(averages)}.")
    chosen = (
        f"Members: chosen by {_text(ensemble.method)} on validation samples, combined by their "
        f"{combiner_name(ensemble.combiner)}."
    )
    calibration = [_calibration(ensemble)] if kind_of(task).calibrates else []
    return " ".join([*lines, chosen, *calibration])


def _pretrained(origins: Mapping[str, BackboneRecord]) -> list[str]:
    """List the pretrained weights with source and licence; nothing where there are none."""
    if not origins:
        return []
    rows = [(r.name, r.source, r.licence or "not stated", r.sha256) for _, r in sorted(origins.items())]
    return [
        "## Pretrained weights",
        "Members of these networks of timm began from weights that others trained; their licences hold for them.",
        _table(("network", "source", "licence", "SHA-256"), rows),
    ]


def _calibration(ensemble: Ensemble) -> str:
    """Describe the temperatures."""
    if ensemble.calibration == "none":
        return "Probabilities are not calibrated."
    return (
        f"Calibration: {_text(ensemble.calibration)}; each member at its temperature, and their "
        f"{combiner_name(ensemble.combiner)} at {ensemble.temperature:.3f}."
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join(lines + [f"| {' | '.join(map(_text, row))} |" for row in rows])


def _text(text: str) -> str:
    """Escape `text` to plain text of one line, so that names contain no markup."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", plain).replace("&", "&amp;")
