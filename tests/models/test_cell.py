"""Networks of cells: what they compute, their cost in closed form, and configurations that are refused."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from ripieno.backends.export import export_onnx
from ripieno.backends.flops import onnx_flops
from ripieno.backends.onnx import open_file
from ripieno.errors import ModelError
from ripieno.models.build import Network, build
from ripieno.models.cell import CellModule, Maximum
from ripieno.models.cell_config import SEARCHED, SLOT_NAMES, SLOTS, cell_of, cell_slots, name_cell, slot_values
from ripieno.models.cell_plan import plan_network
from ripieno.models.cell_spec import OPERATORS, expand_cell, parse_cell
from ripieno.models.configuration_costs import configuration_costs
from ripieno.models.family_config import network_megavalues
from ripieno.search.built_in_spaces import SPACES
from ripieno.train.checkpoint import weights_bytes
from ripieno.types import Configuration, DataKind, Input, Member, Task, classification

IMAGES, SERIES = Input((11, 14, 2)), Input((37, 2), "float32")
FIVE = classification("abcde")
PIXELS = Task("segmentation", (11, 14, 3), ("a", "b", "c"))
DEEP = "max3x3(-1)+sep3x3-se(-2);conv1x5-5x1(0)+avg3x3(-1);identity(-2)+conv3x3d2(-1);sep5x5(-1)+conv1x1(1)"
RECURRENT = "lstm(-1)+sep7-se(-2);max3(0)+gru(-1);identity(-2)+conv7d2(-1);avg3(-1)+conv1(1)"


def draw_configuration(draws: random.Random, kind: DataKind) -> Configuration:
    operators = list(OPERATORS[kind])
    blocks = draws.randrange(1, 5)
    edges = [[f"{draws.choice(operators)}({draws.randrange(-2, n)})" for _ in "ab"] for n in range(blocks)]
    return {
        "cell": ";".join(map("+".join, edges)),
        "filters": draws.choice((4, 6)),
        "motifs": draws.choice((1, 2, 3, 4)),
        "normal_cells": draws.choice((1, 2)),
        "outputs": draws.choice(("concatenate", "add")),
        "residual": draws.random() < 0.5,
        "stem_stride": draws.choice((1, 2)),
    }


def made(configuration: Configuration, input: Input = IMAGES, task: Task = FIVE, seed: int = 0) -> Network:
    """Network with statistics of its batch norms, in evaluation mode."""
    torch.manual_seed(seed)
    network = build("cell", {"filters": 4, **configuration}, input, task, (1.0, -1.0), (2.0, 3.0))
    network.train()
    for _ in range(2):
        network(noise(input, 8))
    return network.eval()


def noise(input: Input, samples: int) -> torch.Tensor:
    return torch.randn(samples, *input.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("input", "task"), [(IMAGES, FIVE), (SERIES, FIVE), (IMAGES, PIXELS)])
def test_parameters_are_those_of_the_network(input: Input, task: Task) -> None:
    draws = random.Random(0)
    for _ in range(5):
        configuration = draw_configuration(draws, "series" if input is SERIES else "image")
        network = build("cell", configuration, input, task)
        expected = configuration_costs("cell", configuration, input, task)["parameters"]
        assert sum(p.numel() for p in network.parameters()) == expected, configuration
        assert network.eval()(noise(input, 1)).shape == (1, *task.output)


@pytest.mark.parametrize(
    ("cell", "input", "task"),
    [(DEEP, IMAGES, FIVE), (RECURRENT, SERIES, FIVE), (DEEP, IMAGES, PIXELS)],
    ids=["images", "series", "pixels"],
)
def test_an_exported_network_predicts_the_same_and_its_operations_are_counted(
    cell: str, input: Input, task: Task, tmp_path: Path
) -> None:
    configuration: Configuration = {"cell": cell, "filters": 4, "normal_cells": 1}
    network = made(configuration, input, task)
    (tmp_path / "weights.safetensors").write_bytes(weights_bytes(network))
    member = Member("00000-e001", 0, 1, "cell", configuration, input, task, {}, 0, 0.0, 0.0)
    path = tmp_path / "model.onnx"
    assert export_onnx(member, tmp_path / "weights.safetensors", path) < 1e-4
    inputs = noise(input, 3)
    if input is SERIES:
        inputs[1, 25:] = torch.nan
    else:
        inputs = (100 + 50 * inputs).clamp(0, 255).to(torch.uint8)
    (found,) = open_file(path.read_bytes())(inputs.numpy())
    np.testing.assert_allclose(found, network.predict(inputs).detach().numpy(), atol=1e-4)
    assert onnx_flops(path) == configuration_costs("cell", configuration, input, task)["flops"]


def test_operations_of_drawn_networks_are_counted() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    draws = random.Random(1)
    for number in range(6):
        input, task = (SERIES, FIVE) if number % 3 == 0 else (IMAGES, FIVE if number % 3 == 1 else PIXELS)
        configuration = draw_configuration(draws, "series" if input is SERIES else "image")
        if "lstm" in str(configuration["cell"]) or "gru" in str(configuration["cell"]):
            continue  # torch's counter leaves them out; the test above counts them
        network = build("cell", configuration, input, task).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(noise(input, 1))
        expected = configuration_costs("cell", configuration, input, task)["flops"]
        assert counter.get_total_flops() == expected, configuration


@pytest.mark.parametrize("normalisation", ["series", "channel"])
def test_a_padded_series_predicts_as_without_its_padding(normalisation: str) -> None:
    configuration: Configuration = {"cell": RECURRENT, "normal_cells": 1, "normalisation": normalisation}
    network = made(configuration, SERIES)
    short = noise(SERIES, 3)[:, :25]
    padded = torch.nn.functional.pad(short, (0, 0, 0, 12), value=torch.nan)
    expected = network(short)
    torch.testing.assert_close(network(torch.cat([padded, noise(SERIES, 2)]))[:3], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(torch.nan_to_num(padded)), expected, atol=1e-3)


def test_a_block_adds_its_operators_and_a_cell_reads_the_two_before() -> None:
    configuration: Configuration = {"cell": "avg3x3(-1)+identity(-2);identity(0)+identity(0)", "filters": 3}
    plan = plan_network(configuration, Input((6, 6, 3)))
    cell = CellModule(plan.cells[1], torch.relu)  # no layer has weights
    last, before = (torch.randn(2, 3, 6, 6) for _ in "ab")
    expected = 2 * (torch.nn.functional.avg_pool2d(last, 3, 1, 1) + before)
    torch.testing.assert_close(cell({-1: last, -2: before}, {}), expected)


@pytest.mark.parametrize("outputs", ["concatenate", "add"])
def test_blocks_that_no_other_reads_are_joined(outputs: str) -> None:
    base: Configuration = {"cell": "identity(-1)+identity(-1);max3x3(-1)+identity(-2)", "filters": 3}
    plan = plan_network({**base, "outputs": outputs, "residual": True}, Input((6, 6, 3))).cells[1]
    cell = CellModule(plan, torch.relu).eval()
    last, before = (torch.randn(2, 3, 6, 6) for _ in "ab")
    first, second = 2 * last, torch.nn.functional.max_pool2d(last, 3, 1, 1) + before
    expected = first + second if cell.mix is None else cell.mix(torch.cat([first, second], 1), None)
    torch.testing.assert_close(cell({-1: last, -2: before}, {}), expected + last)
    assert (cell.mix is None) == (outputs == "add")


def test_equal_cells_of_one_seed_are_one_network() -> None:
    one, other = (
        made({"cell": cell})
        for cell in (
            "sep3x3(-2)+conv3x3(-1);max3x3(0)+identity(-1);conv1x1(-1)+max3x3(-2)",
            "max3x3(-2)+conv1x1(-1);conv3x3(-1)+sep3x3(-2);identity(-1)+max3x3(1)",
        )
    )
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_motifs_double_channels_and_halve_sides_as_long_as_there_are_any() -> None:
    plan = plan_network({"filters": 8, "motifs": 4, "normal_cells": 2}, Input((16, 9, 1)))
    assert [(cell.channels, cell.sides) for cell in plan.levels] == [
        (8, (16, 9)),
        (16, (8, 5)),
        (32, (4, 3)),
        (64, (2, 2)),
    ]
    assert len(plan.cells) == 4 * 2 + 3
    assert [cell.sides for cell in plan_network({"motifs": 4}, Input((4, 4, 1))).levels] == [(4, 4), *[(2, 2)] * 3]
    assert plan_network({}, Input((100, 100, 3))).cells[0].sides == (25, 25)


def test_cells_that_nothing_reads_are_not_built() -> None:
    skipping: Configuration = {"cell": "conv3x3(-2)+max3x3(-2)", "filters": 4, "normal_cells": 1}
    assert [cell.number for cell in plan_network(skipping, IMAGES).cells] == [1, 3, 5]
    made(skipping)
    every = plan_network(skipping, IMAGES, is_pixelwise=True).cells
    assert {1, 3, 5} <= {cell.number for cell in every}
    made(skipping, task=PIXELS)


def test_blocks_may_be_hyperparameters_of_their_own() -> None:
    draws = random.Random(0)
    drawn = {name: draws.choice(values) for name, values in slot_values(SEARCHED["image"]).items()}
    for blocks in range(1, len(SLOTS) + 1):
        cell = cell_of({**drawn, "blocks": blocks}, "image")
        assert len(cell.blocks) == blocks
    text = f"{drawn['operator_1a']}({drawn['input_1a']})+{drawn['operator_1b']}({drawn['input_1b']})"
    assert cell_of({**drawn, "blocks": 1}, "image") == cell_of({"cell": text}, "image")


def test_a_cell_becomes_values_of_the_ranges_and_back() -> None:
    ranges = SPACES["cell"].ranges
    for blocks in (1, 3, 5):
        cell = cell_of({**cell_slots(parse_cell(DEEP)), "blocks": 1}, "image")
        while len(cell.blocks) < blocks:
            cell = next(expand_cell(cell, SEARCHED["image"]))
        slots = cell_slots(cell)
        assert cell_of(slots, "image") == cell
        assert slots.keys() == SLOT_NAMES | {"blocks"}
        for name, value in slots.items():
            assert name == "blocks" or value in getattr(ranges[name], "choices", ())


def test_a_configuration_is_shown_with_its_cell_in_place_of_its_blocks() -> None:
    drawn: Configuration = {"input_1a": -1, "operator_1a": "gru", "input_1b": -2, "operator_1b": "max3"}
    shown = name_cell({**drawn, "operator_2a": "avg3", "blocks": 1, "filters": 4})
    assert shown == {"cell": "max3(-2)+gru(-1)", "filters": 4}
    others: list[Configuration] = [{"blocks": 2, "width": 3}, {**drawn, "blocks": 2}, {"cell": "gru(-1)+gru(-1)"}]
    assert [name_cell(other) for other in others] == others


def test_values_are_those_of_all_steps_but_sums_and_norms() -> None:
    values: Configuration = {"cell": "conv1x5-5x1(-1)+max3x3(-1);sep3x3(0)+conv1x1(-1)", "filters": 4}
    counted = 0
    network = build("cell", values, IMAGES, FIVE).eval()
    kinds = (torch.nn.Conv2d, torch.nn.AvgPool2d, Maximum)

    def count(_: torch.nn.Module, __: object, result: torch.Tensor) -> None:
        nonlocal counted
        counted += result.numel()

    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(count)
    network(noise(IMAGES, 1))
    assert network_megavalues("cell", values, IMAGES) == counted / 1e6
    segmentation: Configuration = {**values, "stem_stride": 1}
    assert network_megavalues("cell", segmentation, IMAGES) > counted / 1e6
    recurrent = {"cell": "gru(-1)+gru(-1)"}
    assert network_megavalues("cell", recurrent, SERIES) > 3 * network_megavalues(
        "cell", {"cell": "conv1(-1)+conv1(-1)"}, SERIES
    )


@pytest.mark.parametrize("task", [Task("multilabel", (2,), ("a", "b")), Task("regression", (4,), ("t",) * 4)])
@pytest.mark.parametrize("input", [IMAGES, SERIES, Input((1, 1, 2)), Input((1, 2), "float32")])
def test_a_network_has_a_head_for_its_task_and_takes_small_samples(task: Task, input: Input) -> None:
    network = build("cell", {"filters": 4}, input, task).eval()
    assert network(noise(input, 2)).shape == (2, *task.output)


@pytest.mark.parametrize(
    ("configuration", "word"),
    [
        ({"cell": 3}, "cell is 3: it must be the text of a cell"),
        ({"cell": "lstm(-1)+conv3x3(-1)"}, "no operator 'lstm' for data of kind image"),
        ({"cell": "conv3x3(-1)+conv3x3(-1)", "blocks": 1}, "has both cell and blocks"),
        ({"blocks": 2, **dict.fromkeys(("input_1a", "input_1b"), -1)}, "blocks is 2, but the configuration has no op"),
        ({"blocks": 6}, "blocks is 6: it must be a whole number from 1 to 5"),
        ({"filters": 0}, "filters is 0"),
        ({"outputs": "mean"}, "outputs is 'mean': it must be one of concatenate, add"),
        ({"residual": 1}, "residual is 1: it must be True or False"),
        ({"activation": "gelu"}, "tanh, relu, elu"),
    ],
)
def test_bad_values_are_told_in_one_line(configuration: Configuration, word: str) -> None:
    with pytest.raises(ModelError, match=word) as caught:
        build("cell", configuration, IMAGES, FIVE)
    assert "\n" not in str(caught.value)
