"""Documents of predictions: within the limit of responses, and marked where members are missing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ripieno.server import rows_endpoint
from ripieno.server.http_errors import HttpError
from ripieno.server.limits import Limits
from ripieno.server.models import Model, ServedEngine
from ripieno.server.signature import signatures
from tests.server.stand_in import StandIn, write_table_bundle
from tests.server.test_rows_endpoint import OBJECTS


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[StandIn]:
    made = StandIn(write_table_bundle(tmp_path))
    yield made
    made.close()


def document(engine: Any, limits: Limits, query: bytes = b"") -> dict[str, Any]:
    model = Model(signatures(engine.bundle)[0], ServedEngine(engine))
    body = json.dumps(OBJECTS).encode()
    return asyncio.run(rows_endpoint.answer({"query_string": query}, body, model, limits))


def test_a_document_over_the_limit_is_refused_before_it_is_predicted(engine: StandIn) -> None:
    engine.broken = True
    with pytest.raises(HttpError, match=r"The response would have about \d+ bytes \(limit 500\)") as refused:
        document(engine, Limits(reply=500), b"members=true")
    assert refused.value.status == 413
    engine.broken = False
    assert len(document(engine, Limits(reply=500))["predictions"]) == len(OBJECTS)


def test_a_document_without_all_members_says_so(engine: StandIn) -> None:
    assert "partial" not in document(engine, Limits())
    engine.partial = True
    assert document(engine, Limits())["partial"] is True


@pytest.mark.parametrize(("query", "option"), [(b"resize=true", "resize"), (b"overlap=0.5", "overlap")])
def test_options_of_masks_are_refused_for_other_tasks(engine: StandIn, query: bytes, option: str) -> None:
    message = f"^{option} is for segmentations, but ensemble is of a classification"
    with pytest.raises(HttpError, match=message) as refused:
        document(engine, Limits(), query)
    assert refused.value.status == 400
    assert "partial" not in document(engine, Limits(), b"resize=false")
