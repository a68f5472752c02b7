from __future__ import annotations

import time

import torch

from ripieno.train.stall_timer import StallTimer


def test_waits_add_up_and_are_counted_once() -> None:
    timer = StallTimer(torch.device("cpu"))
    assert timer.seconds() == 0
    lasts = []
    for seconds in (0.01, 0.03):
        time.sleep(0.02)  # training time
        timer.begin()
        time.sleep(seconds)
        timer.end()
        lasts.append(timer.last())
    assert lasts[0] >= 0.01
    assert lasts[1] >= 0.03
    assert timer.seconds() == sum(lasts)
    assert timer.seconds() == 0
    assert timer.last() == lasts[1]
