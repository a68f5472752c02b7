"""Style of the report's plots, and their export: SVG for the page, SVG and PNG for the folder.

The page follows the reader's light or dark theme, so its plots must not fix their colours. They are drawn in mid-tones
that are legible on both, and on the page a variable of the style sheet replaces each of these.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from ripieno.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, BLUE, ORANGE, GREEN = "#7a7f87", "#3d85c6", "#e07b39", "#4b9a6b"
"""Mid-tones that are legible on white and on black."""
TEXT = "#1e2329"
"""Colour of text on a coloured area."""
VARIABLES = {INK: "var(--dim)", BLUE: "var(--blue)", ORANGE: "var(--orange)", GREEN: "var(--green)", TEXT: "var(--ink)"}
WIDE, SMALL = (4.5, 3.1), (2.7, 2.0)
"""Sizes in inches: of a plot in a card, and of one of many. Small, so that the text is legible on a phone."""
DPI = 150


@contextmanager
def style() -> Iterator[None]:
    """Apply the style in the block: no math text (a name may contain a dollar), and reproducible bytes."""
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
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has more fonts
        yield


def axes(x: str = "", y: str = "", size: tuple[float, float] = WIDE) -> Axes:
    """Return an empty, transparent plot with a faint grid and only the left and bottom axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    figure.patch.set_alpha(0)
    made = figure.add_subplot(xlabel=x, ylabel=y)
    _set_style(made, 9 if size == WIDE else 8)
    return made


def grid(count: int, columns: int, size: tuple[float, float]) -> list[Axes]:
    """Return `count` empty plots of one figure, each of `size`, in rows of `columns`."""
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
    figure.patch.set_alpha(0)
    made = [figure.add_subplot(rows, columns, number) for number in range(1, count + 1)]
    for one in made:
        _set_style(one, 6)
    return made


def _set_style(made: Axes, size: int) -> None:
    """Make a plot transparent, with a faint grid, only the left and bottom axes, and labels of `size`."""
    made.patch.set_alpha(0)
    made.set_axisbelow(True)
    made.grid(color=INK, alpha=0.18, linewidth=0.6)
    for side, spine in made.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_alpha(0.5)
    made.tick_params(colors=INK, which="both", labelsize=size, length=3)
    made.tick_params(which="minor", length=0)
    made.xaxis.label.set_color(INK)
    made.yaxis.label.set_color(INK)


def logarithmic(axis: Axis, values: Sequence[float], most: int = 8) -> None:
    """Make an axis logarithmic, with at most about `most` plain tick labels, if all values are positive."""
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
    """Return round tick values of a logarithmic axis from `low` to `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [[1, 2, 3, 5], [1, 2, 5], [1, 3], [1]] + [[1]] * 8
    for skip, digits in enumerate(choices):
        every = max(1, skip - 2)  # every decade, then every second one, and so on
        ticks = [d * 10.0**p for p in powers if p % every == 0 for d in digits]
        ticks = [float(f"{v:.1g}") for v in ticks if low / 1.05 <= v <= high * 1.05]
        if len(ticks) <= most:
            break
    return ticks


def integers(axis: Axis, values: Sequence[float]) -> None:
    """Place ticks at whole numbers only, if all values are whole."""
    from matplotlib.ticker import MaxNLocator

    if all(float(v).is_integer() for v in values):
        axis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))


def finish(axes: Axes) -> Figure:
    """Add a legend without a frame above the plot, where it covers no data, if there are labels; return the figure."""
    if axes.get_legend_handles_labels()[0]:
        layout: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 4, "columnspacing": 1.0}
        axes.legend(frameon=False, labelcolor=INK, fontsize=8.5, handlelength=1.4, **layout)
    return cast("Figure", axes.figure)


def plain(text: str) -> str:
    """Return `text` with a question mark for each character that is not printable."""
    return "".join(c if c.isprintable() else "?" for c in text)


def short(text: str, length: int = 24) -> str:
    """Return `text`, shortened in the middle if it is longer than `length`."""
    half = (length - 1) // 2
    return plain(text if len(text) <= length else f"{text[:half]}…{text[-half:]}")


def svg(figure: Figure) -> str:
    """Return the figure as an `<svg>` element in its own colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    figure.set_layout_engine("none")  # the layout is done: do not repeat it for another format
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def on_page(picture: str, name: str, label: str) -> str:
    """Return an `<svg>` for the page: colours of the style sheet, unique ids, and `label` for screen readers."""
    from html import escape

    body = re.sub(r"<metadata>.*?</metadata>", "", picture, flags=re.DOTALL)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", body)
    body = re.sub(r"(font(?:-family)?:[^;\"]*?) ?'[^;\"]*(?=[;\"])", r"\1 inherit", body)
    body = re.sub(r"font: ([\d.]+px) inherit", r"font-size: \1", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, variable)
    return body.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def png(figure: Figure) -> bytes:
    """Return the figure as PNG on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
