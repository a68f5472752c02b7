from __future__ import annotations

import time

import torch

from ripieno.train.stall_timer import StallTimer


def test_waits_add_up_and_are_counted_once() -> None:
    waits = StallTimer(torch.device("cpu"))
    assert waits.seconds() == 0
    lasts = []
    for seconds in (0.01, 0.03):
        time.sleep(0.02)  # trained on
        waits.begin()
        time.sleep(seconds)
        waits.end()
        lasts.append(waits.last())
    assert lasts[0] >= 0.01
    assert lasts[1] >= 0.03
    assert waits.seconds() == sum(lasts)
    assert waits.seconds() == 0
    assert waits.last() == lasts[1]
