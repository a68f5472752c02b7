"""The complete command line: importing this module registers every command with `app`."""

from ripieno.cli import (
    algorithm,
    allocate,
    augment,
    bundle,
    compare,
    coverage,
    doctor,
    evaluate,
    history,
    library,
    predict,
    reselect,
    select,
    serve,
    soup,
    suspects,
    tune,
    variants,
)
from ripieno.cli.app import app

__all__ = ["COMMAND_MODULES", "app"]

COMMAND_MODULES = (
    tune, augment, algorithm, history, library, soup, variants, select, coverage, allocate, bundle, evaluate, predict,
    reselect, serve, compare, suspects, doctor,
)  # fmt: skip
"""The modules that register commands on import."""
