from __future__ import annotations

import ctypes
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ripieno.allocation.milp_solver import CapacityConstraint, ConstraintRows, silence_solver, solve


def most_of(sizes: list[int], room: int) -> tuple[int, bool]:
    """Return how many of `sizes` a program packs into `room`, with scaled bytes as in the allocation."""
    count, rows = len(sizes), ConstraintRows()
    rows.add([(i, size / room) for i, size in enumerate(sizes)], 1.0)
    found = solve(
        -np.ones(count),
        np.ones(count),
        np.zeros(count),
        np.ones(count),
        rows,
        [CapacityConstraint(range(count), sizes, room)],
        10.0,
    )
    assert found.x is not None
    return round(found.x.sum()), found.bound == pytest.approx(-found.x.sum())


def test_a_byte_too_much_is_too_much() -> None:
    for size in (1000, 10**9):
        assert most_of([size] * 9, 4 * size) == (4, True)
        assert most_of([size] * 9, 4 * size - 1) == (3, True)
        assert most_of([size + i for i in range(9)], 4 * size + 5) == (3, True)


def test_infeasible_and_not_found_are_distinct() -> None:
    rows, one = ConstraintRows(), np.ones(1)
    rows.add([(0, 1.0)], 1 / 3)
    rows.add([(0, -1.0)], -1.0)
    assert solve(one, one, 0 * one, one, rows, [], 10.0).infeasible
    assert not solve(one, one, 0 * one, one, rows, [], 0.0).infeasible


def test_programs_print_nothing_past_their_own_log(capfd: pytest.CaptureFixture[str]) -> None:
    libc = ctypes.CDLL(None)
    with silence_solver():
        os.write(1, b"at once\n")
        libc.printf(b"later\n")
    libc.fflush(None)
    sys.stdout.write("seen")
    assert capfd.readouterr() == ("seen", "")


def test_programs_of_two_threads_leave_the_output_where_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    def silent(_: int) -> None:
        with silence_solver():
            time.sleep(0.01)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(silent, range(8)))
    sys.stdout.write("seen")
    assert capfd.readouterr() == ("seen", "")


def test_a_negative_capacity_holds_nothing() -> None:
    room = CapacityConstraint([0, 1], [5, 7], -3)
    assert room.cover(np.zeros(2)) is None
    assert room.cover(np.array([1.0, 0.0])) == ([0, 1], 0)
