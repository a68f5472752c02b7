"""The keyword forms of `tune` and `import_` take the options that their dataclasses have, with the same defaults."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import ripieno
from ripieno.allocation import AllocationOptions
from ripieno.pipeline import plan_offline
from ripieno.pipeline.execution import ExecutionConfig
from ripieno.pipeline.importing import ImportOptions
from ripieno.pipeline.preparation import DataOptions
from ripieno.pipeline.search_options import SearchOptions

FORMS: list[tuple[Callable[..., Any], type, set[str]]] = [
    (ripieno.tune, SearchOptions, set()),
    (ripieno.tune, ExecutionConfig, {"pack"}),  # chosen by a profile
    (ripieno.tune, DataOptions, set()),
    (ripieno.import_, ImportOptions, set()),
    (ripieno.allocate, AllocationOptions, {"pins", "batch_size", "lanes", "seconds"}),  # pins are text there
    (plan_offline, AllocationOptions, {"pins", "batch_size", "lanes", "seconds", "max_benches"}),
]


@pytest.mark.parametrize(("function", "kind", "inner"), FORMS, ids=[kind.__name__ for _, kind, _ in FORMS])
def test_every_option_is_a_keyword_with_the_default_of_its_field(
    function: Callable[..., Any], kind: type, inner: set[str]
) -> None:
    keywords = inspect.signature(function).parameters
    options = {f.name: f.default for f in dataclasses.fields(kind) if f.name not in inner}
    assert {name: keywords[name].default for name in options} == options


def test_no_keyword_is_lost() -> None:
    passed = {"data", "run", "sources", "progress", "notes", "watch", "labels"}  # the last: another name of targets
    for function in (ripieno.tune, ripieno.import_):
        known = {f.name for form, kind, _ in FORMS if form is function for f in dataclasses.fields(kind)}
        assert set(inspect.signature(function).parameters) <= known | passed
