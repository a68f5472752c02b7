"""The client beside a server's limits."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.server import Limits, client, infer, start
from ripieno.types import Bundle
from tests.server.stand_in import SHAPE, StandIn, direct_answers


def test_large_images_are_sent_in_requests_that_a_server_takes(
    bundle: Bundle, engine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    monkeypatch.setattr(client, "BYTES", 2000)
    with start(engine, limits=Limits(body=4000)) as running:
        np.testing.assert_allclose(infer(running.url, images), direct_answers(bundle, images).mean(axis=0), atol=1e-6)
        monkeypatch.setattr(client, "BYTES", 1)  # an image that is too large alone is sent all the same
        assert infer(running.url, images[:2]).shape == (2, 4)


def test_half_of_what_a_server_takes_by_default_is_left_for_the_rest_of_a_request() -> None:
    assert Limits().body >= 2 * client.BYTES
