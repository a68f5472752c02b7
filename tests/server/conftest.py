"""A real server on a real socket, shared by the tests in a file."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.server import ServerHandle, start_in_thread
from ripieno.types import Bundle
from tests.server.stand_in import SHAPE, StandIn, write_small_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_small_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[StandIn]:
    engine = StandIn(bundle)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def server(engine: StandIn) -> Iterator[ServerHandle]:
    with start_in_thread(engine) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: ServerHandle) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (5, *SHAPE), dtype=np.uint8)
