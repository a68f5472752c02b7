"""An empty plot in the report's style, and a finished one as SVG for the page, SVG and PNG for the folder.

The page is light or dark after the reader's wish, so plots on it must not fix their colours: they are drawn in three
mid-tones that read on both, and on the page each of these is replaced by a variable of the style sheet.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ripieno.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, BLUE, ORANGE, GREEN = "#7a7f87", "#3d85c6", "#e07b39", "#4b9a6b"
"""Mid-tones that read on white and on black alike."""
TEXT = "#1e2329"
"""For letters on a colour."""
VARIABLES = {INK: "var(--dim)", BLUE: "var(--blue)", ORANGE: "var(--orange)", GREEN: "var(--green)", TEXT: "var(--ink)"}
WIDE, SMALL = (4.5, 3.1), (2.7, 2.0)
"""Inches: of a plot in a card, of one among many. Small enough that the text can be read on a phone."""
FONTS = ["system-ui", "Helvetica", "Arial", "DejaVu Sans"]
DPI = 150


@contextmanager
def style() -> Iterator[None]:
    """Draw inside it: plain text only (a name may hold a dollar), the same bytes for the same data."""
    mpl = require("matplotlib")
    settings = {
        "svg.hashsalt": "ripieno",
        "svg.fonttype": "none",
        "font.size": 9.5,
        "axes.labelsize": 9.5,
        "text.parse_math": False,
        "axes.unicode_minus": True,
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the page has fonts that the PNG has not
        yield


def axes(x: str = "", y: str = "", size: tuple[float, float] = WIDE) -> tuple[Figure, Axes]:
    """An empty plot, transparent, with a faint grid and axes at the left and below only."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    made = figure.add_subplot(xlabel=x, ylabel=y)
    figure.patch.set_alpha(0)
    made.patch.set_alpha(0)
    made.set_axisbelow(True)
    made.grid(color=INK, alpha=0.18, linewidth=0.6)
    for side, spine in made.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_alpha(0.5)
    made.tick_params(colors=INK, which="both", labelsize=9 if size == WIDE else 8, length=3)
    made.tick_params(which="minor", length=0)
    made.xaxis.label.set_color(INK)
    made.yaxis.label.set_color(INK)
    return figure, made


def logarithmic(axis: Axis, values: Sequence[float], most: int = 8) -> None:
    """Make an axis logarithmic, with at most about `most` plain numbers on it; left as it is unless all are above 0."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

    if not values or min(values) <= 0:
        return
    name = axis.axis_name  # type: ignore[attr-defined]
    getattr(axis.axes, f"set_{name}scale")("log")
    low, high = min(values), max(values)
    axis.set_major_locator(MaxNLocator(4) if high / low < 3 else FixedLocator(_round_numbers(low, high, most)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _round_numbers(low: float, high: float, most: int) -> list[float]:
    """Numbers between two others as one would write them on a logarithmic axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [[1, 2, 3, 5], [1, 2, 5], [1, 3], [1]] + [[1]] * 8
    for skip, digits in enumerate(choices):
        every = max(1, skip - 2)  # each decade, then each second one, and so on
        found = [d * 10.0**p for p in powers if p % every == 0 for d in digits]
        found = [float(f"{v:.1g}") for v in found if low / 1.05 <= v <= high * 1.05]
        if len(found) <= most:
            break
    return found


def integers(axis: Axis, values: Sequence[float]) -> None:
    """Ticks at whole numbers only, when all values are whole."""
    from matplotlib.ticker import MaxNLocator

    if all(float(v).is_integer() for v in values):
        axis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))


def legend(axes: Axes) -> None:
    """A legend without a frame above the plot, where it hides nothing, when there is anything to name."""
    if axes.get_legend_handles_labels()[0]:
        place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 4, "columnspacing": 1.0}
        axes.legend(frameon=False, labelcolor=INK, fontsize=8.5, handlelength=1.4, **place)


def plain(text: str) -> str:
    """`text` as it may stand in a picture: what cannot be printed becomes a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text)


def short(text: str, length: int = 24) -> str:
    """`text`, cut in the middle when it is longer than `length`."""
    half = (length - 1) // 2
    return plain(text if len(text) <= length else f"{text[:half]}…{text[-half:]}")


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element in its own colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    figure.set_layout_engine("none")  # all has its place now: another format need not look for it again
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def on_page(picture: str, name: str, label: str) -> str:
    """An `<svg>` for the page: the style sheet's colours, ids of its own, and `label` for who cannot see it."""
    from html import escape

    body = re.sub(r"<metadata>.*?</metadata>", "", picture, flags=re.DOTALL)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", body)
    body = re.sub(r"(font(?:-family)?:[^;\"]*?) ?'[^;\"]*(?=[;\"])", r"\1 inherit", body)
    body = re.sub(r"font: ([\d.]+px) inherit", r"font-size: \1", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, variable)
    return body.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def png(figure: Figure) -> bytes:
    """The figure on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
