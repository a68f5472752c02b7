"""Members shared by the backend tests."""

from __future__ import annotations

import pytest

from ripieno.types import Input
from tests.backends.made import TINY, Made, make


@pytest.fixture(scope="session")
def digit(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("digit"), TINY, Input((8, 8, 1)))


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return a member with float images that are not square."""
    return make(tmp_path_factory.mktemp("coloured"), {**TINY, "convolution": "next"}, Input((9, 12, 3), "float32"))
