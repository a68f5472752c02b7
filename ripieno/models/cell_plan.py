"""Plan of a network of cells: every layer with its channels and maps, and their cost in closed form. Pure Python.

A network is a stem, then motifs of normal cells. Before each motif but the first stands a reduction cell, which halves
the sides of maps and doubles their channels. All cells have one graph. Networks are built from the plan, and their
parameters and multiply-adds are sums over it. A segmentation has a decoder as that of `unet`, on the last map of each
motif.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from ripieno.models.cell_config import CellConfig, cell_config, cell_of
from ripieno.models.cell_spec import OPERATORS, Cell, Operator
from ripieno.models.resnet_config import LEAST, image_shape, stem
from ripieno.models.series_config import series_shape
from ripieno.models.unet_config import STEM_SIDE, STEM_STRIDES
from ripieno.types import Configuration, DataKind, Input

SERIES_STEM = 7
"""Points of the kernel of the first convolution of series."""
SQUEEZE = 4
"""Channels for each of those in the middle of a squeeze-and-excitation."""
POINTWISE = Operator("pointwise", "convolution")
GATES = {"lstm": 4, "gru": 3}
"""Matrices of a recurrent layer, each for its input and for its state."""
STEP_VALUES = {"lstm": 4, "gru": 12}
"""Values of each state that a step is taken to read and write, by the time that torch takes on a CPU."""
Sides = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """An operator between maps of given channels; `sides` are those of the map it reads."""

    operator: Operator
    c_in: int
    c_out: int
    stride: int
    sides: Sides

    @property
    def after(self) -> Sides:
        """Sides of the result."""
        return halve(self.sides, self.stride)

    @property
    def averages(self) -> bool:
        """True where an average of stride 2 comes first: the operator alone would skip places, or take all steps."""
        form, kernel = self.operator.form, self.operator.kernel
        return self.stride > 1 and (form in ("identity", *GATES) or (form == "convolution" and kernel == 1))

    @property
    def projects(self) -> bool:
        """True where a pointwise convolution ends an operator that has no weights of its own."""
        changes = self.c_in != self.c_out or (self.operator.form == "identity" and self.stride > 1)
        return self.operator.form in ("identity", "max", "average") and changes

    @property
    def squeezed(self) -> int:
        """Channels in the middle of a squeeze-and-excitation; 0 without one."""
        return max(1, self.c_out // SQUEEZE) if self.operator.squeezes else 0


@dataclass(frozen=True)
class BlockPlan:
    """The two layers of a block, and what each reads: -1, -2, or the number of an earlier block."""

    inputs: tuple[int, int]
    layers: tuple[Layer, Layer]


@dataclass(frozen=True)
class CellPlan:
    """One cell of a network. Maps are numbered: 0 is the stem's, the others are of the cells."""

    number: int
    sources: tuple[int, int]
    """maps that are its inputs -1 and -2"""
    reads: frozenset[int]
    """which of -1 and -2 are read"""
    fit: Layer | None
    """layer that gives the input -2 the sides of -1; None where it has them, or is not read"""
    blocks: tuple[BlockPlan, ...]
    outputs: tuple[int, ...]
    """blocks that are joined to the result"""
    mix: Layer | None
    """pointwise convolution of joined channels"""
    residual: bool
    """whether the input -1 is added to the result"""
    channels: int
    sides: Sides


@dataclass(frozen=True)
class StemPlan:
    """The first convolution; `pool`: a 3x3 maximum of stride 2 follows."""

    kernel: int
    stride: int
    pool: bool
    c_in: int
    c_out: int
    convolved: Sides
    """sides of the convolution's result"""

    @property
    def after(self) -> Sides:
        """Sides of the first map."""
        return halve(self.convolved, 2 if self.pool else 1)


@dataclass(frozen=True)
class NetworkPlan:
    """All layers of a network but its decoder; cells whose results nothing reads are left out."""

    stem: StemPlan
    cells: tuple[CellPlan, ...]
    levels: tuple[CellPlan, ...]
    """cells that end a motif"""
    side: int
    """side in pixels of what one place of the last map of a segmentation covers"""


def halve(sides: Sides, stride: int) -> Sides:
    """Return the sides of a map after `stride`, 1 or 2."""
    return tuple(-(-side // stride) for side in sides)


def plan_network(configuration: Configuration, input: Input, *, is_pixelwise: bool = False) -> NetworkPlan:
    """Return the plan of the network of `configuration` for samples of `input`.

    Raises ModelError for a bad configuration, and for samples that are neither images nor series.
    """
    config = cell_config(configuration)
    cell = cell_of(configuration, cell_kind(input))
    first, strides = (_plan_pixel_stem if is_pixelwise else _plan_stem)(config, input)
    maps = [(first.c_out, first.after)]  # channels and sides
    cells: list[CellPlan] = []
    ends: list[int] = []
    for motif, stride in enumerate(strides):
        for cell_stride in ([stride] if motif else []) + [1] * config.normal_cells:
            cells.append(_plan_cell(config, cell, maps, config.filters * 2**motif, cell_stride))
            maps.append((cells[-1].channels, cells[-1].sides))
        ends.append(len(cells))
    needed = _needed(cells, ends if is_pixelwise else ends[-1:])
    return NetworkPlan(first, needed, tuple(cells[number - 1] for number in ends), first.stride * prod(strides))


def cell_kind(input: Input) -> DataKind:
    """Return the kind of data whose operators a network for samples of `input` has."""
    return "series" if len(input.shape) == 2 else "image"


def _plan_stem(config: CellConfig, input: Input) -> tuple[StemPlan, list[int]]:
    """Return the stem, and the stride of the reduction before each motif: 1 at the first, and where maps are small."""
    if cell_kind(input) == "series":
        length, channels = series_shape(input)
        first = StemPlan(SERIES_STEM, 1, False, channels, config.filters, (length,))
    else:
        height, width, channels = image_shape(input)
        chosen = stem(input)
        sides = halve((height, width), chosen.stride)
        first = StemPlan(chosen.kernel, chosen.stride, chosen.pool, channels, config.filters, sides)
    strides, sides = [1], first.after
    while len(strides) < config.motifs:
        strides.append(2 if min(halve(sides, 2)) >= LEAST else 1)
        sides = halve(sides, strides[-1])
    return first, strides


def _plan_pixel_stem(config: CellConfig, input: Input) -> tuple[StemPlan, list[int]]:
    """Return the stem of a segmentation and the strides of its motifs: small images have fewer, as in `unet`.

    The images are padded to a multiple of what one place of the last map covers.
    """
    height, width, channels = image_shape(input)
    shorter = min(height, width)
    first = next((s for s in reversed(STEM_STRIDES) if s <= config.stem_stride and shorter // s >= STEM_SIDE), 1)
    strides, side = [1], first
    while len(strides) < config.motifs and shorter // (2 * side) >= LEAST:
        strides.append(2)
        side *= 2
    padded = tuple(-(-length // side) * side // first for length in (height, width))
    return StemPlan(2 * first + 1 if first > 1 else 3, first, False, channels, config.filters, padded), strides


def _plan_cell(
    config: CellConfig, cell: Cell, maps: Sequence[tuple[int, Sides]], filters: int, stride: int
) -> CellPlan:
    """Return the next cell after `maps`."""
    last, before = len(maps) - 1, max(0, len(maps) - 2)
    (c_last, sides), (c_before, sides_before) = maps[last], maps[before]
    fit = None
    if -2 in cell.lookbacks and sides_before != sides:
        fit = Layer(POINTWISE, c_before, filters, 2, sides_before)
        c_before = filters
    after = halve(sides, stride)
    inputs = {-1: (c_last, sides, stride), -2: (c_before, sides, stride)}
    blocks = []
    for block in cell.blocks:
        layers = []
        for edge in block:
            channels, found, step = inputs.get(edge.input, (filters, after, 1))
            operator = OPERATORS["series" if len(sides) == 1 else "image"][edge.operator]
            layers.append(Layer(operator, channels, filters, step, found))
        blocks.append(BlockPlan((block[0].input, block[1].input), (layers[0], layers[1])))
    joined = len(cell.outputs)
    mix = (
        Layer(POINTWISE, joined * filters, filters, 1, after)
        if config.outputs == "concatenate" and joined > 1
        else None
    )
    residual = config.residual and (c_last, sides) == (filters, after)
    reads = cell.lookbacks | ({-1} if residual else frozenset())
    return CellPlan(
        len(maps), (last, before), reads, fit, tuple(blocks), cell.outputs, mix, residual, filters, after
    )  # fmt: skip


def _needed(cells: Sequence[CellPlan], ends: Collection[int]) -> tuple[CellPlan, ...]:
    """Return the cells that the maps `ends` depend on."""
    wanted = set(ends)
    for cell in reversed(cells):
        if cell.number in wanted:
            wanted |= {cell.sources[-1 - lookback] for lookback in cell.reads}
    return tuple(cell for cell in cells if cell.number in wanted)


def cell_counts(
    configuration: Configuration, input: Input, outputs: int, *, is_pixelwise: bool = False
) -> tuple[int, float]:
    """Return the parameters of a network, and the multiply-adds of one sample in millions.

    The network has `outputs` outputs, or classes of each pixel. Counted are all convolutions, recurrent layers and
    matrix products. Raises ModelError as `plan_network`.
    """
    plan = plan_network(configuration, input, is_pixelwise=is_pixelwise)
    first, layers = plan.stem, list(network_layers(plan))
    weights = first.kernel ** len(first.convolved) * first.c_in * first.c_out
    parameters = weights + 2 * first.c_out + sum(map(layer_parameters, layers))
    products = prod(first.convolved) * weights + sum(map(layer_products, layers))
    for below, level in decoder_steps(plan) if is_pixelwise else ():
        c_in, c_out = below.channels, level.channels
        parameters += c_in * c_out + (9 * 3 + 2) * c_out**2 + 6 * c_out
        products += prod(below.sides) * c_in * c_out + prod(level.sides) * (9 * 3 + 2) * c_out**2
    last = plan.levels[0] if is_pixelwise else plan.levels[-1]
    parameters += (last.channels + 1) * outputs
    products += (prod(last.sides) if is_pixelwise else 1) * last.channels * outputs
    return parameters, products / 1e6


def network_layers(plan: NetworkPlan) -> Iterator[Layer]:
    """Yield the layers of all cells."""
    for cell in plan.cells:
        yield from (layer for layer in (cell.fit, cell.mix) if layer is not None)
        for block in cell.blocks:
            yield from block.layers


def decoder_steps(plan: NetworkPlan) -> Iterator[tuple[CellPlan, CellPlan]]:
    """Yield the levels of a decoder, from the last but one to the first, each after that below it."""
    for number in reversed(range(len(plan.levels) - 1)):
        yield plan.levels[number + 1], plan.levels[number]


def layer_parameters(layer: Layer) -> int:
    """Return the parameters of a layer, with those of its norm and squeeze-and-excitation."""
    form, taps = layer.operator.form, layer.operator.kernel ** len(layer.sides)
    c_in, c_out = layer.c_in, layer.c_out
    if form in ("identity", "max", "average"):
        return c_in * c_out + 2 * c_out if layer.projects else 0
    if form in GATES:
        own = GATES[form] * c_out * (c_in + c_out + 2)
    elif form == "pair":
        own = layer.operator.kernel * (c_in + c_out) * c_out
    elif form == "separable":
        own = c_in * taps + c_in * c_out
    else:
        own = c_in * c_out * taps
    squeezed = layer.squeezed
    return own + 2 * c_out + (2 * c_out * squeezed + squeezed + c_out if squeezed else 0)


def layer_products(layer: Layer) -> int:
    """Return the multiply-adds of a layer for one sample."""
    form, kernel, places = layer.operator.form, layer.operator.kernel, prod(layer.after)
    taps = kernel ** len(layer.sides)
    c_in, c_out = layer.c_in, layer.c_out
    if form in ("identity", "max", "average"):
        return places * c_in * c_out if layer.projects else 0
    if form in GATES:
        own = places * GATES[form] * c_out * (c_in + c_out)
    elif form == "pair":
        height, _ = layer.sides
        own = kernel * c_out * (height * layer.after[1] * c_in + places * c_out)
    elif form == "separable":
        own = places * c_in * (taps + c_out)
    else:
        own = places * c_in * c_out * taps
    return own + 2 * c_out * layer.squeezed


def cell_megavalues(configuration: Configuration, input: Input, *, is_pixelwise: bool = False) -> float:
    """Count the values that all convolutions, pools and recurrent layers give for one sample, in millions.

    Networks of few filters take longer to read and write their maps than to multiply. Raises ModelError as
    `plan_network`.
    """
    plan = plan_network(configuration, input, is_pixelwise=is_pixelwise)
    first = plan.stem
    values = prod(first.convolved) * first.c_out + sum(map(layer_values, network_layers(plan)))
    for below, level in decoder_steps(plan) if is_pixelwise else ():
        values += level.channels * (prod(below.sides) + 3 * prod(level.sides))
    return values / 1e6


def layer_values(layer: Layer) -> int:
    """Return the values that the steps of a layer give for one sample, of recurrent ones with those within a step."""
    form, places = layer.operator.form, prod(layer.after)
    values = places * layer.c_in if layer.averages or form in ("max", "average", "separable") else 0
    if form == "pair":
        height, _ = layer.sides
        values += height * layer.after[1] * layer.c_out
    if form in GATES:
        return values + places * layer.c_out * STEP_VALUES[form]
    own = layer.projects or form not in ("identity", "max", "average")
    return values + (places * layer.c_out if own else 0)
