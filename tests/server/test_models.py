"""Requests to a model from the event loop, and bounded decompression: no sockets needed."""

from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ripieno.data.table_encoding import encode
from ripieno.engine import Engine
from ripieno.engine.inference_result import Answer
from ripieno.errors import DataError
from ripieno.server.body import _decoded
from ripieno.server.http_errors import HttpError, without_paths
from ripieno.server.limits import Admission, Limits
from ripieno.server.models import Model, Models, ServedEngine
from ripieno.server.oip_decode import InferenceRequest
from ripieno.server.signature import signatures
from tests.engine import fake_members as fake
from tests.server.stand_in import COLUMNS, ROWS, StandIn, write_small_bundle, write_table_bundle

MEMBER = fake.member(0, delay=0.02)
"""needs 20 ms per sample"""


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Open an engine with a ring of four samples, which take 80 ms."""
    with Engine(fake.bundle([MEMBER], lanes=1, batch_size=1), isolation="thread", load=fake.load, capacity=4) as made:
        yield made


def model_of(engine: Engine) -> Model:
    return Model(signatures(engine.bundle)[0], ServedEngine(engine))


def ask(engine: Engine, samples: int = 1, timeout: float = 20.0, **more: bool) -> asyncio.Task[Answer]:
    request = InferenceRequest(fake.images(samples), (), parameters=more)
    return asyncio.create_task(model_of(engine).answer(request, timeout))


async def settled(engine: Engine) -> None:
    """Wait until no request is in flight."""
    async with asyncio.timeout(10):
        while engine.waiting or engine.stats().pending:
            await asyncio.sleep(0.005)


def test_a_request_waits_for_room_and_is_answered(engine: Engine) -> None:
    async def run() -> list[int]:
        asked = [ask(engine, 4) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert engine.waiting == 2
        return [len((await one).predictions) for one in asked]

    assert asyncio.run(run()) == [4, 4, 4]
    assert engine.waiting == 0


def test_a_late_request_is_refused_and_takes_no_room_afterwards(engine: Engine) -> None:
    async def run() -> None:
        held = ask(engine, 4)
        await asyncio.sleep(0)
        with pytest.raises(HttpError) as late:
            await ask(engine, 400, 0.03)
        assert late.value.status == 504
        await held
        await settled(engine)

    asyncio.run(run())
    assert engine.stats().samples == 4


@pytest.mark.parametrize("wait", [0.0, 0.05])
def test_a_request_given_up_takes_its_room_back_at_once(engine: Engine, wait: float) -> None:
    async def run() -> float:
        asked = [ask(engine, 400) for _ in range(5)]
        await asyncio.sleep(wait)
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        began = time.monotonic()
        await ask(engine)
        return time.monotonic() - began

    assert asyncio.run(run()) < 1.0, "2000 samples of a cancelled request were predicted first"


@pytest.mark.alone
def test_what_a_request_for_a_partial_answer_waited_for_room_is_taken_off_its_time() -> None:
    crew = [fake.member(0), fake.member(1, delay=0.1)]
    bundle = fake.bundle(crew, lanes=2, batch_size=1, spread_out=True)

    async def run(engine: Engine) -> tuple[Answer, float]:
        held = ask(engine, 4)
        await asyncio.sleep(0)
        began = time.monotonic()
        answer = await ask(engine, 4, 0.6, partial=True)
        took = time.monotonic() - began
        await held
        return answer, took

    with Engine(bundle, isolation="thread", load=fake.load, capacity=4) as engine:
        answer, took = asyncio.run(run(engine))
    assert answer.partial
    assert 0.5 < took < 0.9, "the deadline restarted when there was room"


def test_the_event_loop_goes_on_while_a_request_waits_for_room(engine: Engine) -> None:
    async def run() -> int:
        waiting = [ask(engine, 4), ask(engine, 4, 0.3)]
        ticks, until = 0, time.monotonic() + 0.25
        while time.monotonic() < until:
            await asyncio.sleep(0.005)
            ticks += 1
        await asyncio.gather(*waiting)
        return ticks

    assert asyncio.run(run()) > 15


def test_a_failure_of_the_engine_is_500_with_its_words(engine: Engine) -> None:
    engine.close()
    with pytest.raises(HttpError, match="The engine is closed") as caught:
        asyncio.run(model_of(engine).answer(InferenceRequest(fake.images(1), ()), 1.0))
    assert caught.value.status == 500


@pytest.mark.parametrize(("encoding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_unpacking_stops_at_the_limit(encoding: bytes, pack: Any) -> None:
    admission = Admission(Limits(body=100_000))
    bomb = pack(bytes(50_000_000))
    tracemalloc.start()
    with admission.enter() as permit, pytest.raises(HttpError) as caught:
        asyncio.run(_decoded(bomb, encoding, permit))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.status == 413
    assert peak < 2_000_000
    assert (admission.requests, admission.held) == (0, 0)


def test_bodies_under_way_are_counted_and_given_back() -> None:
    admission = Admission(Limits(body=100, held=150, requests=3))
    with admission.enter() as one, admission.enter() as two:
        one.hold(100)
        one.hold(60)
        assert admission.held == 100
        with pytest.raises(HttpError) as caught:
            two.hold(60)
        assert (caught.value.status, caught.value.retry_after) == (503, 1)
        two.hold(50)
        with admission.enter(), pytest.raises(HttpError):
            admission.enter()
    assert (admission.requests, admission.held) == (0, 0)


def test_one_body_is_taken_even_where_it_alone_passes_what_all_may_hold() -> None:
    admission = Admission(Limits(body=100, held=50))
    with admission.enter() as permit:
        permit.hold(90)
        assert admission.held == 90


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("m died: /srv/models/b one/members/m/model.onnx does not exist: export it", "[bundle]/members/m/model.onnx"),
        ("cannot read '/etc/secret/key.pem' (/var/x)", "cannot read '[path]' ([path])"),
        ("see https://example.org/help, 3/4 of 1/2", "see https://example.org/help, 3/4 of 1/2"),
    ],
)
def test_no_path_of_this_machine_leaves_in_an_error(message: str, said: str) -> None:
    told = without_paths(message, Path("/srv/models/b one"))
    assert said in told
    assert "/srv" not in told
    assert "/etc" not in told


def test_the_most_columns_are_those_of_the_widest_table(tmp_path: Path) -> None:
    models = Models(100)
    for name, bundle in (
        ("table", write_table_bundle(tmp_path / "a")),
        ("pictures", write_small_bundle(tmp_path / "b")),
    ):
        engine: Any = StandIn(bundle)
        models.register(engine, name)
        engine.close()
    assert models.most_columns == len(COLUMNS)
    assert models.first.signature.name == "table"


def test_unseen_categories_of_answered_requests_are_counted(tmp_path: Path) -> None:
    bundle = write_table_bundle(tmp_path)
    engine: Any = StandIn(bundle)
    model = Model(signatures(bundle)[0], ServedEngine(engine))
    request = InferenceRequest(encode(COLUMNS, ROWS, "x", DataError), ())
    asyncio.run(model.answer(request, 20.0))
    assert model.stats.unseen == {"plan": 1}
    engine.broken = True
    with pytest.raises(HttpError):
        asyncio.run(model.answer(request, 20.0))
    assert model.stats.unseen == {"plan": 1}
    engine.close()
