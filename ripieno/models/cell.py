"""Networks of cells (Falanti et al. 2022), built from their plan: of images, of series, and of pixels with a decoder.

Inputs are float, normalised, channels first: (batch, channels, height, width), or (batch, channels, length) with NaN at
the padding of series. Maps of series are zero at padding, and so a padded series gives what it gives without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from ripieno.models.cell_config import CellConfig, cell_config
from ripieno.models.cell_plan import GATES, CellPlan, Layer, NetworkPlan, Sides, decoder_steps, plan_network
from ripieno.models.image_padding import ImagePadding
from ripieno.models.lite import convolve_windows
from ripieno.models.resnet import LAYER_ACTIVATIONS, PostActivation, make_convolution
from ripieno.models.resnet_config import Architecture, Stage, image_shape
from ripieno.models.series_parts import MaskedNorm, masked_mean, normalise_series, split_padding
from ripieno.models.unet import enlarge
from ripieno.types import Configuration, Input

LayerActivation = Callable[[Tensor], Tensor]
ValidPlaces = Mapping[Sides, Tensor]
_CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
_AVERAGES: dict[int, type[nn.AvgPool1d | nn.AvgPool2d]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d}
_RECURRENT: dict[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Maximum(nn.Module):
    """Largest of three values along each side of a map, of zeros beyond its ends."""

    def __init__(self, rank: int, stride: int) -> None:
        super().__init__()
        self.rank, self.stride = rank, stride

    def forward(self, x: Tensor) -> Tensor:
        """Compute a map of as many channels."""
        if self.rank == 2:
            return nn.functional.max_pool2d(x, 3, self.stride, 1)
        # zeros at both ends, as padding has
        return nn.functional.max_pool1d(nn.functional.pad(x, (1, 1)), 3, self.stride)


class Recurrent(nn.Module):
    """A recurrent layer along series, forward in time, so that padding at the end changes nothing before it."""

    def __init__(self, form: str, c_in: int, c_out: int) -> None:
        super().__init__()
        self.layer = _RECURRENT[form](c_in, c_out, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the states (batch, c_out, length) of series (batch, c_in, length)."""
        states, _ = self.layer(x.transpose(1, 2))
        found: Tensor = states.transpose(1, 2)
        return found


class ByChannel(nn.Conv1d):
    """A convolution in each channel of series."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute a map of as many channels."""
        # graphs are exported in evaluation mode
        if self.training and x.device.type == "cpu" and self.stride[0] == 1:
            return convolve_windows(x, self)
        return super().forward(x)


class CellNorm(nn.Module):
    """Batch norm, with an activation where there is one; of series by their points, and zero at padding."""

    def __init__(self, channels: int, rank: int, activation: LayerActivation | None) -> None:
        super().__init__()
        self.norm: nn.BatchNorm2d | MaskedNorm = nn.BatchNorm2d(channels) if rank == 2 else MaskedNorm(channels)
        self.activation = activation

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Normalise a map; `mask` is that of series, (batch, 1, length)."""
        x = self.norm(x) if mask is None else self.norm(x, mask)
        if self.activation is not None:
            x = self.activation(x)
        return x if mask is None else x * mask


class Squeeze(nn.Module):
    """Factor for each channel of a map, from the means of all (Hu et al. 2018)."""

    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        self.narrow, self.widen = nn.Linear(channels, middle), nn.Linear(middle, channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Scale the channels of a map."""
        means = x.mean((2, 3)) if mask is None else masked_mean(x, mask)
        factors = torch.sigmoid(self.widen(torch.relu(self.narrow(means))))
        return x * factors[(..., *(None,) * (x.ndim - 2))]


class CellLayer(nn.Module):
    """An operator of a plan: steps without norm, then norm and activation, then factors of channels."""

    def __init__(self, layer: Layer, activation: LayerActivation) -> None:
        super().__init__()
        self.after = layer.after
        rank, form = len(layer.sides), layer.operator.form
        steps: list[nn.Module] = []
        stride = layer.stride
        if layer.averages:
            steps.append(_AVERAGES[rank](3, 2, 1))
            stride = 1
        steps += _operator_steps(layer, rank, stride)
        if layer.projects:
            steps.append(_CONVOLUTIONS[rank](layer.c_in, layer.c_out, 1, bias=False))
        self.steps = nn.Sequential(*steps)
        is_weighted = layer.projects or form not in ("identity", "max", "average")
        # what has no weights of its own stays linear
        is_linear = layer.projects or form in GATES
        self.norm = CellNorm(layer.c_out, rank, None if is_linear else activation) if is_weighted else None
        self.squeeze = Squeeze(layer.c_out, layer.squeezed) if layer.squeezed else None

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Compute the result of the layer, whose mask is `mask` for series."""
        x = self.steps(x)
        if self.norm is not None:
            x = self.norm(x, mask)
        elif mask is not None:
            x = x * mask
        return x if self.squeeze is None else self.squeeze(x, mask)


def _operator_steps(layer: Layer, rank: int, stride: int) -> list[nn.Module]:
    """Return the modules of the operator itself."""
    form, kernel, dilation = layer.operator.form, layer.operator.kernel, layer.operator.dilation
    c_in, c_out, convolution = layer.c_in, layer.c_out, _CONVOLUTIONS[rank]
    reach = kernel // 2
    if form in GATES:
        return [Recurrent(form, c_in, c_out)]
    if form == "max":
        return [Maximum(rank, stride)]
    if form == "average":
        return [_AVERAGES[rank](kernel, stride, reach)]
    if form == "pair":
        return [
            nn.Conv2d(c_in, c_out, (1, kernel), (1, stride), (0, reach), bias=False),
            nn.Conv2d(c_out, c_out, (kernel, 1), (stride, 1), (reach, 0), bias=False),
        ]
    if form == "separable":
        by_channel = ByChannel if rank == 1 else nn.Conv2d
        across = convolution(c_in, c_out, 1, bias=False)
        return [by_channel(c_in, c_in, kernel, stride, reach, groups=c_in, bias=False), across]
    if form == "convolution":
        return [convolution(c_in, c_out, kernel, stride, reach * dilation, dilation, bias=False)]
    return []


class CellModule(nn.Module):
    """One cell of a network."""

    def __init__(self, plan: CellPlan, activation: LayerActivation) -> None:
        super().__init__()
        self.plan = plan
        self.fit = None if plan.fit is None else CellLayer(plan.fit, activation)
        layers = [layer for block in plan.blocks for layer in block.layers]
        self.layers = nn.ModuleList(CellLayer(layer, activation) for layer in layers)
        self.mix = None if plan.mix is None else CellLayer(plan.mix, activation)

    def forward(self, found: dict[int, Tensor], masks: ValidPlaces) -> Tensor:
        """Compute the map of the cell from those of its inputs -1 and -2, as far as it reads them."""
        found, mask = dict(found), masks.get(self.plan.sides)
        if self.fit is not None:
            found[-2] = self.fit(found[-2], masks.get(self.fit.after))
        for number, block in enumerate(self.plan.blocks):
            pairs = zip(block.inputs, self.layers[2 * number : 2 * number + 2], strict=True)
            first, second = (layer(found[input], mask) for input, layer in pairs)
            found[number] = first + second
        results = [found[number] for number in self.plan.outputs]
        if self.mix is not None:
            results = [self.mix(torch.cat(results, 1), mask)]
        if self.plan.residual:
            results.append(found[-1])
        return reduce(add, results)


class CellEncoder(nn.Module):
    """Stem and cells of a plan."""

    def __init__(self, plan: NetworkPlan, config: CellConfig) -> None:
        super().__init__()
        activation = LAYER_ACTIVATIONS[config.activation]
        self.plan, first = plan, plan.stem
        rank = len(first.convolved)
        self.stem = _CONVOLUTIONS[rank](
            first.c_in, first.c_out, first.kernel, first.stride, first.kernel // 2, bias=False
        )
        self.norm = CellNorm(first.c_out, rank, activation)
        self.pool = Maximum(rank, 2) if first.pool else None
        self.cells = nn.ModuleList(CellModule(cell, activation) for cell in plan.cells)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[list[Tensor], ValidPlaces]:
        """Return the maps that end the motifs, those that are built, and the masks of maps of series by their sides."""
        masks = self._masks(mask)
        x = self.norm(self.stem(x), mask)
        maps = {0: x if self.pool is None else self.pool(x)}
        for module, cell in zip(self.cells, self.plan.cells, strict=True):
            found = {lookback: maps[cell.sources[-1 - lookback]] for lookback in cell.reads}
            maps[cell.number] = module(found, masks)
        return [maps[cell.number] for cell in self.plan.levels if cell.number in maps], masks

    def _masks(self, mask: Tensor | None) -> ValidPlaces:
        """Return the masks of maps by their sides: each stride keeps every second place."""
        if mask is None:
            return {}
        sides = self.plan.stem.after
        masks = {sides: mask}
        for cell in self.plan.levels:
            if cell.sides != sides:
                mask, sides = mask[:, :, ::2], cell.sides
                masks[sides] = mask
        return masks


class CellNetwork(nn.Module):
    """Encoder, mean over the last map, dropout, linear head."""

    def __init__(self, plan: NetworkPlan, config: CellConfig, outputs: int) -> None:
        super().__init__()
        self.encoder = CellEncoder(plan, config)
        self.is_series, self.by_series = len(plan.stem.convolved) == 1, config.normalisation == "series"
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(plan.levels[-1].channels, outputs))
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs (batch, outputs) of normalised images or series."""
        if not self.is_series:
            maps, _ = self.encoder(x)
            features = maps[-1].mean((2, 3))
        else:
            x, mask = split_padding(x)
            maps, masks = self.encoder(normalise_series(x, mask) if self.by_series else x, mask)
            features = masked_mean(maps[-1], masks[self.encoder.plan.levels[-1].sides])
        outputs: Tensor = self.head(features)
        return outputs


class CellUNet(nn.Module):
    """Encoder of cells, and a decoder as that of `unet`: logits of the classes of every pixel."""

    def __init__(self, plan: NetworkPlan, config: CellConfig, input: Input, outputs: int) -> None:
        super().__init__()
        height, width, _ = image_shape(input)
        self.padding = ImagePadding(height, width, plan.side)
        self.encoder = CellEncoder(plan, config)
        shape = Architecture(activation=config.activation)
        self.narrow, self.up = nn.ModuleList(), nn.ModuleList()
        for below, level in decoder_steps(plan):
            self.narrow.append(make_convolution(below.channels, level.channels, 1))
            stage = Stage(1, level.channels, 1, 2 * level.channels, level.channels, 0, 0)
            self.up.append(PostActivation(shape, stage, 2 * level.channels, 1))
        self.dropout = nn.Dropout2d(config.dropout)
        _initialise(self)
        # with torch's own weights, as in `unet`
        self.classifier = nn.Conv2d(plan.levels[0].channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (batch, classes, height, width) of normalised images (batch, channels, height, width)."""
        maps, _ = self.encoder(self.padding(x))
        x = self.dropout(maps.pop())
        for narrow, level in zip(self.narrow, self.up, strict=True):
            x = level(torch.cat((enlarge(narrow(x), 2), maps.pop()), 1))
        return self.padding.crop(enlarge(self.classifier(x), self.encoder.plan.stem.stride))


def cell_network(configuration: Configuration, input: Input, outputs: int) -> nn.Module:
    """Create the network of `configuration` for images or series. Raises ModelError naming a bad value."""
    return CellNetwork(plan_network(configuration, input), cell_config(configuration), outputs)


def cell_pixel_network(configuration: Configuration, input: Input, outputs: int) -> nn.Module:
    """Create the network of `configuration` for the pixels of images. Raises ModelError naming a bad value."""
    plan = plan_network(configuration, input, is_pixelwise=True)
    return CellUNet(plan, cell_config(configuration), input, outputs)


def _initialise(network: nn.Module) -> None:
    """Draw the weights of convolutions across channels; the others keep torch's."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups == 1:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
