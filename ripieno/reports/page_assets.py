"""Files of the report's pages, part of the package."""

from __future__ import annotations

from importlib import resources


def page_asset(name: str) -> str:
    """Return the text of a template, a style sheet or a script."""
    return resources.files("ripieno.reports").joinpath("page", name).read_text("utf-8")
