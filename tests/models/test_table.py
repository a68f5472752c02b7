"""Networks of tables: what their preparation makes of a row, what is exported, what is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from ripieno.backends.export import export_onnx
from ripieno.backends.flops import onnx_flops
from ripieno.backends.onnx import open_file
from ripieno.backends.quantise import write_int8
from ripieno.errors import ModelError
from ripieno.models.build import Network, build
from ripieno.models.table import TableNetwork
from ripieno.models.table_config import MOST_EMBEDDED, NETWORKS, TableConfig, row_form, table_megaflops
from ripieno.models.table_parts import (
    CategoryEmbedding,
    PiecewiseLinearEmbedding,
    QuantileNormalisation,
    RobustNormalisation,
)
from ripieno.train.checkpoint import weights_bytes
from ripieno.types import Column, Configuration, Float32s, Input, Member, Task
from tests.mixed_table import AGE, COLOUR, INCOME, MEMBER, MONTH, TABLE, TASKS, TOWN, YEAR, mixed_rows

SMALL: Configuration = {"units": 16, "layers": 2, "embedding_size": 6, "frequencies": 5, "bins": 7}
VARIANTS: dict[str, tuple[str, Configuration]] = {
    "mlp": ("mlp", {}),
    "robust": ("mlp", {"normalisation": "robust"}),
    "periodic": ("mlp-periodic", {}),
    "piecewise-linear": ("mlp-periodic", {"embedding": "piecewise-linear", "normalisation": "robust"}),
}


def made(variant: str, task: Task = TASKS["classification"], input: Input = TABLE) -> Network:
    """Network fitted to rows, in evaluation mode."""
    torch.manual_seed(0)
    family, configuration = VARIANTS[variant]
    network = build(family, {**SMALL, **configuration}, input, task).eval()
    body = network.body
    assert isinstance(body, TableNetwork)
    body.fit(mixed_rows()[0][:, : input.shape[0]])
    return network


def gaps() -> Float32s:
    """Rows with all that may come when serving."""
    rows = mixed_rows(8, seed=1)[0]
    rows[0] = np.nan
    rows[1, [COLOUR, TOWN, MEMBER]] = -1
    rows[2, [AGE, INCOME]] = 1e30, -1e30
    return rows


def predicted(network: Network, rows: Float32s) -> Float32s:
    with torch.no_grad():
        found: Float32s = network.predict(torch.from_numpy(rows)).numpy()
    return found


def test_a_row_has_numbers_and_categories_at_their_positions() -> None:
    form = row_form(TABLE)
    assert form.numbers == (AGE, YEAR, MONTH, INCOME)
    assert (form.categories, form.counts) == ((COLOUR, TOWN, MEMBER), (3, 20, 2))
    plain = row_form(Input((3,), "float32"))
    assert (plain.numbers, plain.categories) == ((0, 1, 2), ())
    with pytest.raises(ModelError, match=r"samples have shape \(8, 8, 1\); networks of tables need \(columns,\)"):
        row_form(Input((8, 8, 1)))
    with pytest.raises(ModelError, match="samples have 3 values, but their columns have 1"):
        row_form(Input((3,), "float32", columns=(Column("a"),)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_exported_network_takes_what_is_missing_or_unseen_and_predicts_the_same(
    variant: str, tmp_path: Path
) -> None:
    network = made(variant)
    (tmp_path / "weights.safetensors").write_bytes(weights_bytes(network))
    family, configuration = VARIANTS[variant]
    configuration = {**SMALL, **configuration}
    member = Member("00000-e001", 0, 1, family, configuration, TABLE, TASKS["classification"], {}, 0, 0.0, 0.0)
    assert export_onnx(member, tmp_path / "weights.safetensors", tmp_path / "model.onnx") < 1e-5
    expected = predicted(network, gaps())
    assert np.isfinite(expected).all()
    run = open_file((tmp_path / "model.onnx").read_bytes())
    np.testing.assert_allclose(run(gaps())[0], expected, atol=1e-5)
    np.testing.assert_allclose(run(gaps()[:1])[0], expected[:1], atol=1e-5)
    assert onnx_flops(tmp_path / "model.onnx") == pytest.approx(
        2e6 * table_megaflops(family, configuration, TABLE) + 2 * SMALL["units"] * 2  # type: ignore[operator]
    )


@pytest.mark.parametrize("variant", ["robust", "periodic", "piecewise-linear"])
def test_rows_are_prepared_in_full_precision_where_layers_are_in_int8(variant: str, tmp_path: Path) -> None:
    network = made(variant)
    (tmp_path / "weights.safetensors").write_bytes(weights_bytes(network))
    family, configuration = VARIANTS[variant]
    member = Member(
        "00000-e001", 0, 1, family, {**SMALL, **configuration}, TABLE, TASKS["classification"], {}, 0, 0.0, 0.0
    )
    export_onnx(member, tmp_path / "weights.safetensors", tmp_path / "model.onnx")
    rows = mixed_rows(200)[0]
    write_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx", rows)
    (found,) = open_file((tmp_path / "int8.onnx").read_bytes())(rows)
    assert np.abs(found - predicted(network, rows)).max() < 0.02


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", TASKS)
def test_a_network_has_a_head_for_its_task(variant: str, kind: str) -> None:
    assert predicted(made(variant, TASKS[kind]), gaps()).shape == (8, *TASKS[kind].output)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_column_and_what_is_missing_counts(variant: str) -> None:
    network, rows = made(variant), mixed_rows(1, seed=3)[0]
    body = network.body
    assert isinstance(body, TableNetwork)
    rows[:, [COLOUR, TOWN, INCOME]] = 1, 4, np.nanmedian(mixed_rows()[0][:, INCOME])
    before = predicted(network, rows)[0]
    for value, codes in ((np.nan, (TOWN, COLOUR, MEMBER)), (-1.0, (TOWN, COLOUR, MEMBER)), (np.nan, (AGE, INCOME))):
        for position in codes:
            changed = rows[:1].copy()
            changed[0, position] = value
            assert not np.allclose(predicted(network, changed)[0], before, atol=1e-6), (value, position)


def test_rows_without_columns_are_numbers_and_rows_of_categories_alone_have_none() -> None:
    plain = made("periodic", input=Input((2,), "float32"))
    assert predicted(plain, np.zeros((2, 2), np.float32)).shape == (2, 2)
    only = Input((1,), "float32", columns=(Column("colour", "category", ("red", "blue")),))
    body = build("mlp-periodic", SMALL, only, TASKS["classification"]).eval()
    assert isinstance(body.body, TableNetwork)
    body.body.fit(np.zeros((4, 1), np.float32))
    assert len(np.unique(predicted(body, np.array([[0], [1]], np.float32)))) > 2


def quantile(values: Float32s) -> QuantileNormalisation:
    layer = QuantileNormalisation(values.shape[1])
    layer.fit(values)
    return layer


def test_numbers_get_a_normal_distribution() -> None:
    values = np.random.default_rng(0).lognormal(8, 2, (5000, 1)).astype(np.float32)
    ranks = (values[:, 0].argsort().argsort() + 0.5) / len(values)
    found = quantile(values)(torch.from_numpy(values)).numpy()[:, 0]
    inner = (ranks > 0.01) & (ranks < 0.99)
    np.testing.assert_allclose(found[inner], norm.ppf(ranks[inner]), atol=0.05)
    outer = quantile(values)(torch.tensor([[-1e9], [1e9], [torch.inf], [torch.nan]])).numpy()[:, 0]
    np.testing.assert_allclose(outer, [-3, 3, 3, np.nan])


def test_repeated_constant_and_missing_numbers_are_normalised() -> None:
    draw = np.random.default_rng(0)
    values = np.stack(
        [np.where(draw.random(1000) < 0.8, 0, draw.random(1000)), np.full(1000, 7), np.full(1000, np.nan)], 1
    ).astype(np.float32)
    with torch.no_grad():
        found = quantile(values)(torch.tensor([[0.0, 7.0, 5.0], [0.001, 8.0, -5.0], [1.0, 6.0, 0.0]])).numpy()
    assert -1.5 < found[0, 0] < -0.5  # the mean of the lower four fifths
    assert found[1, 0] == pytest.approx(found[0, 0], abs=0.2)
    assert found[2, 0] == pytest.approx(3, abs=0.2)
    assert not found[:, 1:].any()


def test_a_robust_normalisation_keeps_distances_and_reduces_large_ones() -> None:
    values = np.random.default_rng(0).normal(50, 4, (5000, 1)).astype(np.float32)
    layer = RobustNormalisation(1)
    layer.fit(values)
    found = layer(torch.tensor([[50.0], [54.0], [1e6], [-1e30]])).numpy()[:, 0]
    np.testing.assert_allclose(found, [0, 1, 3, -3], atol=0.1)
    rare = np.zeros((1000, 1), np.float32)
    rare[:10] = 0.05
    layer.fit(rare)  # quartiles are equal
    assert layer(torch.tensor([[0.05]])).item() > 2


def test_shares_of_bins_are_those_below_a_number() -> None:
    layer = PiecewiseLinearEmbedding(2, 4, 3)
    values = np.stack([np.linspace(0, 8, 801), np.ones(801)], 1).astype(np.float32)
    layer.fit(values)
    torch.testing.assert_close(layer.starts[0], torch.tensor([0.0, 2, 4, 6]))
    kept: list[torch.Tensor] = []
    layer.linear.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    layer(torch.tensor([[5.0, 1.0]]))
    torch.testing.assert_close(kept[0], torch.tensor([[[1.0, 1, 0.5, 0], [0, 0, 0, 0]]]))


def test_a_category_that_training_lacks_adds_nothing() -> None:
    layer = CategoryEmbedding((3, 2), 4)
    found = layer(torch.tensor([[-1.0, torch.nan], [0, 1], [2, 0], [7, 9]]))
    assert not found[0].any()
    assert found[1:].all()
    torch.testing.assert_close(found[3], layer(torch.tensor([[2.0, 1]]))[0])  # no category of another column


def test_embeddings_of_many_numbers_are_smaller() -> None:
    config = TableConfig("mlp-periodic")
    assert config.shared(24, 10) == 24
    assert config.shared(24, 1000) == MOST_EMBEDDED // 1000
    assert config.shared(24, 10**6) == 1
    wide = build("mlp-periodic", {"units": 8}, Input((2000,), "float32"), TASKS["classification"])
    assert sum(p.numel() for p in wide.parameters()) < 500_000


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_operations_of_a_network_are_counted(variant: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        made(variant)(torch.from_numpy(gaps()[:1]))
    family, configuration = VARIANTS[variant]
    counted = table_megaflops(family, {**SMALL, **configuration}, TABLE)
    assert counted == pytest.approx(counter.get_total_flops() / 2e6, rel=0.1)


def test_a_configuration_may_name_the_network() -> None:
    form = Input((2,), "float32")
    named = build("table", {**SMALL, "network": "mlp-periodic"}, form, TASKS["classification"])
    fixed = build("mlp-periodic", SMALL, form, TASKS["classification"])
    assert [t.shape for t in named.state_dict().values()] == [t.shape for t in fixed.state_dict().values()]
    for values, message in (
        ({}, "family table has no network: name one of mlp, mlp-periodic"),
        ({"network": "resnet"}, "network is 'resnet': it must be one of mlp"),
        ({"network": "mlp", "units": 0}, "units is 0: it must be a whole number of at least 1"),
        ({"network": "mlp", "units": 2.5}, "units is 2.5: it must be a whole number"),
        ({"network": "mlp", "dropout": 1}, "dropout is 1: it must be a number of at least 0 and below 1"),
        (
            {"network": "mlp", "normalisation": "series"},
            "normalisation is 'series': it must be one of quantile, robust",
        ),
    ):
        with pytest.raises(ModelError, match=message):
            build("table", values, form, TASKS["classification"])
    assert NETWORKS == ("mlp", "mlp-periodic")


def test_vectors_of_columns_are_not_decayed() -> None:
    body = made("periodic").body
    decayed = {name for name, p in body.named_parameters() if p.ndim > 1}
    assert not {name for name in decayed if "frequencies" in name or "bias" in name}
    assert isinstance(body, nn.Module)
