"""The client at a server's limits."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.errors import RipienoError
from ripieno.server import Client, Limits, client, infer, start_in_thread
from ripieno.types import Bundle
from tests.server.stand_in import SHAPE, StandIn, direct_answers


def test_large_images_are_sent_in_requests_that_a_server_takes(
    bundle: Bundle, engine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    monkeypatch.setattr(client, "BYTES", 2000)
    with start_in_thread(engine, limits=Limits(body=4000)) as running:
        np.testing.assert_allclose(infer(running.url, images), direct_answers(bundle, images).mean(axis=0), atol=1e-6)
        monkeypatch.setattr(client, "BYTES", 1)  # a single image over the limit is still sent
        assert infer(running.url, images[:2]).shape == (2, 4)


def test_half_of_what_a_server_takes_by_default_is_left_for_the_rest_of_a_request() -> None:
    assert Limits().body >= 2 * client.BYTES


def test_a_token_is_sent_as_the_server_reads_it(engine: StandIn) -> None:
    with start_in_thread(engine, token="s3cret\n") as running, Client(running.url, token="s3cret\r\n") as asking:
        assert asking.metadata()["name"] == "ensemble"


@pytest.mark.parametrize("token", ["schlüssel", "a\nb"])
def test_a_token_that_cannot_be_sent_is_one_line(token: str) -> None:
    with pytest.raises(RipienoError, match="The token has"):
        Client("http://127.0.0.1:1", token=token)


def test_images_are_whatever_becomes_an_array_of_their_type(bundle: Bundle, engine: StandIn) -> None:
    images = np.zeros((2, *SHAPE), np.uint8)
    with start_in_thread(engine) as running, Client(running.url) as asking:
        expected = asking.infer(images)
        np.testing.assert_array_equal(asking.infer(images.astype(">f4")), expected)
        with pytest.raises(RipienoError, match="int64, must be uint8"):
            asking.infer(images.astype(np.int64).tolist())
        for nothing in (np.zeros((0, *SHAPE), np.uint8), np.uint8(3)):
            with pytest.raises(RipienoError, match="images is empty"):
                asking.infer(nothing)


def test_a_model_of_an_odd_name_is_asked_for_by_that_name(engine: StandIn) -> None:
    with (
        start_in_thread(engine) as running,
        Client(running.url, model="../../v2?") as asking,
        pytest.raises(RipienoError, match="returned 404"),
    ):
        asking.metadata()


def test_a_closed_client_says_so_in_one_line(engine: StandIn) -> None:
    with start_in_thread(engine) as running:
        asking = Client(running.url)
        asking.close()
        with pytest.raises(RipienoError, match="closed"):
            asking.metadata()
