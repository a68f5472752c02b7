"""Report of a run: one self-contained HTML file."""

from ripieno.reports.html import report

__all__ = ["report"]
