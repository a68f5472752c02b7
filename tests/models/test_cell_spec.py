"""Cells as text: what is parsed and refused, canonical form, successors, features of graphs."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from ripieno.errors import ModelError
from ripieno.models.cell_spec import (
    EMPTY,
    OPERATORS,
    Cell,
    CellBlock,
    Edge,
    are_equal,
    canonical_cell,
    cell_features,
    expand_cell,
    operator_counts,
    parse_cell,
)

FEW = ("identity", "conv3x3", "max3x3")


def draw_cell(draws: random.Random, blocks: int, operators: tuple[str, ...] = FEW) -> Cell:
    def edge(number: int) -> Edge:
        return Edge(draws.randrange(-2, number), draws.choice(operators))

    return Cell(tuple((edge(number), edge(number)) for number in range(blocks)))


def rewrite(cell: Cell, order: tuple[int, ...], swaps: tuple[bool, ...]) -> Cell:
    """Return `cell` in another order of blocks and edges; the order must keep each block after those it reads."""
    places = {old: new for new, old in enumerate(order)}
    blocks: list[CellBlock] = []
    for old in order:
        first, second = (Edge(places.get(e.input, e.input), e.operator) for e in cell.blocks[old])
        blocks.append((second, first) if swaps[old] else (first, second))
    return Cell(tuple(blocks))


def all_spellings(cell: Cell) -> set[Cell]:
    """Return all cells equal to `cell`, found by trying every order, without the canonical form."""
    found, count = set(), len(cell.blocks)
    for order in permutations(range(count)):
        if all(e.input < 0 or order.index(e.input) < order.index(n) for n in order for e in cell.blocks[n]):
            for mask in range(2**count):
                found.add(rewrite(cell, order, tuple(bool(mask >> n & 1) for n in range(count))))
    return found


def test_text_is_parsed_into_blocks_and_written_back() -> None:
    cell = parse_cell(" max3x3(-2)+conv3x3(-1) ; sep3x3(0) + identity(-1)")
    assert cell.blocks == (
        (Edge(-2, "max3x3"), Edge(-1, "conv3x3")),
        (Edge(-1, "identity"), Edge(0, "sep3x3")),
    )
    assert str(cell) == "max3x3(-2)+conv3x3(-1);identity(-1)+sep3x3(0)"
    assert parse_cell(str(cell)) == cell
    assert (cell.outputs, cell.lookbacks) == ((1,), {-1, -2})


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "block 0 of the cell is '': it must be two operators"),
        ("conv3x3(-1)", "block 0 of the cell is 'conv3x3\\(-1\\)'"),
        ("conv3x3(-1)+conv3x3", "it must be two operators on their inputs"),
        ("conv3x3(-1)+conv3x3(-1)+conv3x3(-1)", "it must be two operators"),
        ("conv3x3(-1)+conv3x3(-2);", "block 1 of the cell is ''"),
        ("conv3x3(-3)+conv3x3(-1)", "block 0 of the cell reads -3: it must be one of -2, -1"),
        ("conv3x3(0)+conv3x3(-1)", "block 0 of the cell reads 0"),
        ("conv3x3(-1)+vgg(-1)", "cell has no operator 'vgg': it must be one of identity, conv1x1"),
        (";".join(["conv3x3(-1)+conv3x3(-1)"] * 6), "cell has 6 blocks: it must have at most 5"),
    ],
)
def test_what_is_no_cell_is_told_in_one_line(text: str, word: str) -> None:
    with pytest.raises(ModelError, match=word) as caught:
        parse_cell(text)
    assert "\n" not in str(caught.value)


def test_operators_are_of_a_kind_of_data() -> None:
    assert parse_cell("lstm(-1)+conv7(-2)", "series").operators == ("conv7", "lstm")
    with pytest.raises(ModelError, match="no operator 'lstm' for data of kind image: it must be one of"):
        parse_cell("lstm(-1)+conv3x3(-2)", "image")


def test_all_spellings_of_a_cell_have_one_canonical_form() -> None:
    draws = random.Random(0)
    for blocks in (1, 2, 3, 4):
        for _ in range(8):
            cell = draw_cell(draws, blocks, FEW[: draws.randrange(1, 4)])
            forms = {canonical_cell(spelling) for spelling in all_spellings(cell)}
            assert len(forms) == 1
            assert forms <= all_spellings(cell)  # it is itself one of the spellings
            assert parse_cell(str(cell)) in forms


def test_twins_that_are_read_once_each_or_one_twice_differ() -> None:
    twin = "conv3x3(-1)+max3x3(-2)"
    each, twice = (parse_cell(f"{twin};{twin};identity(0)+identity({number})") for number in (1, 0))
    assert not are_equal(each, twice)
    assert are_equal(twice, parse_cell(f"{twin};{twin};identity(1)+identity(1)"))


def test_cells_of_one_block_are_all_pairs_of_operators_on_inputs() -> None:
    first = list(expand_cell(EMPTY, FEW))
    edges = 2 * len(FEW)
    assert len(first) == len(set(first)) == edges * (edges + 1) // 2


def test_expansions_reach_every_cell_once() -> None:
    operators = FEW[:2]
    level, expected = {EMPTY}, {EMPTY}
    for _ in range(2):
        level = {grown for cell in level for grown in expand_cell(cell, operators)}
        expected = {
            canonical_cell(Cell((*cell.blocks, (Edge(i, a), Edge(j, b)))))
            for cell in expected
            for i in range(-2, len(cell.blocks))
            for j in range(-2, len(cell.blocks))
            for a in operators
            for b in operators
        }
        assert level == expected
    assert all(canonical_cell(cell) == cell for cell in level)


def test_successors_of_twins_are_yielded_once() -> None:
    twins = parse_cell("conv3x3(-1)+max3x3(-2);max3x3(-2)+conv3x3(-1)")
    grown = list(expand_cell(twins, FEW))
    edges = 4 * len(FEW)
    assert len(grown) == len(set(grown)) < edges * (edges + 1) // 2


def test_the_largest_cell_is_not_expanded() -> None:
    cell = draw_cell(random.Random(0), 5)
    with pytest.raises(ModelError, match="cell has 5 blocks, which is the most"):
        list(expand_cell(cell, FEW))


def test_features_are_those_of_the_graph() -> None:
    cell = parse_cell("conv3x3(-1)+identity(-1);max3x3(0)+conv3x3(0);conv3x3(-2)+max3x3(-1)")
    assert cell_features(cell, {"conv3x3": 3.0, "identity": 0.5, "max3x3": 1.0}) == {
        "blocks": 3.0,
        "depth": 2.0,
        "dependencies": 2.0,
        "lookbacks": 2.0,
        "outputs": 2.0,
        "weight": 11.5,
        "first_level_weight": 7.5,
        "heaviest_path": 6.0,
        "input -2": 1.0,
        "input -1": 3.0,
    }
    assert cell_features(cell)["weight"] == 5.0
    assert operator_counts(cell, FEW) == {"identity": 1, "conv3x3": 3, "max3x3": 2}


def test_features_are_the_same_for_all_spellings() -> None:
    draws = random.Random(1)
    for _ in range(8):
        cell = draw_cell(draws, 3)
        assert len({tuple(cell_features(spelling).items()) for spelling in all_spellings(cell)}) == 1


def test_operators_have_the_names_of_their_forms() -> None:
    assert OPERATORS["image"]["conv5x5d2"].dilation == 2
    assert OPERATORS["image"]["sep3x3-se"].squeezes
    assert all(operator.kernel % 2 for operators in OPERATORS.values() for operator in operators.values())
