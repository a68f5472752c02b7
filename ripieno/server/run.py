"""Running the server: the socket, the signals, the drain.

`serve` blocks until SIGTERM or SIGINT; `start` runs the same server in a thread of this process. Order at the start:
the port is bound (so that a taken one is said at once), the engine is loaded, connections are taken. Order at the end:
"not ready", the port is closed, requests under way are finished within the grace period, the engine is closed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import uvicorn

from ripieno.errors import RipienoError
from ripieno.server.app import Door, build_app
from ripieno.server.limits import Limits
from ripieno.server.line import Asked
from ripieno.types import Bundle

if TYPE_CHECKING:
    from ripieno.engine.engine import Isolation

log = logging.getLogger("ripieno.server")

Served: TypeAlias = str | Path | Bundle | Asked


def serve(
    bundle: Served,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    isolation: str = "auto",
    limits: Limits | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a bundle over the Open Inference Protocol until SIGTERM or SIGINT, then drain and return.

    `bundle` is a bundle's folder, a Bundle, or an engine (which is then left open). `port` 0 takes a free one; `ready`
    is called with the server's URL once it answers. Only this machine can connect unless `host` says otherwise.
    Raises RipienoError when the port is taken, LibraryError or EngineError when the bundle cannot be loaded.
    """
    limits = limits or Limits()
    with _bound(host, port) as listener, _engine(bundle, isolation) as engine:
        _server(engine, listener, limits, ready).run(sockets=[listener])


class Running:
    """A server in a thread of this process; `url` is where it answers. A context manager that stops it."""

    def __init__(self, bundle: Served, host: str, port: int, isolation: str, limits: Limits) -> None:
        self.url = ""
        self._up = threading.Event()
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(_bound(host, port))
            engine = stack.enter_context(_engine(bundle, isolation))
            self._server = _server(engine, listener, limits, self._ready)
            self._thread = threading.Thread(target=self._run, args=[listener], name="ripieno-server", daemon=True)
            self._stack = stack.pop_all()
        self._thread.start()
        self._up.wait()
        if not self.url:
            self._stack.close()
            raise RipienoError("the server did not start: see the log of ripieno.server")

    def _run(self, listener: socket.socket) -> None:
        try:
            self._server.run(sockets=[listener])
        finally:
            self._up.set()

    def _ready(self, url: str) -> None:
        self.url = url
        self._up.set()

    def stop(self) -> None:
        """Drain, stop and close what was opened; stopping twice is fine."""
        self._server.stop()
        self._thread.join()
        self._stack.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(
    bundle: Served,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    isolation: str = "auto",
    limits: Limits | None = None,
) -> Running:
    """Serve in a thread of this process, on a free port by default; returns once it answers. Raises as `serve` does."""
    return Running(bundle, host, port, isolation, limits or Limits())


class _Server(uvicorn.Server):
    """uvicorn's server with signals that end in a return, not in the signal again, and a word when it is up."""

    def __init__(self, config: uvicorn.Config, door: Door, up: Callable[[], None]) -> None:
        super().__init__(config)
        self.door = door
        self.up = up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Drain at the first signal, give up waiting at the second."""
        self.force_exit = self.should_exit
        self.stop()

    def stop(self) -> None:
        """Begin to drain."""
        self.door.draining = True
        self.should_exit = True


def _server(engine: Asked, listener: socket.socket, limits: Limits, ready: Callable[[str], None] | None) -> _Server:
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())  # its words go to handlers the user set, or nowhere
    door = build_app(engine, limits)
    options: dict[str, Any] = {"lifespan": "off", "log_config": None, "access_log": False, "server_header": False}
    config = uvicorn.Config(
        door,
        ws="none",
        timeout_graceful_shutdown=max(1, round(limits.grace)),
        timeout_keep_alive=75,
        proxy_headers=False,
        **options,
    )
    url = url_of(listener)

    def up() -> None:
        log.info("serving %s at %s", engine.bundle.ensemble.name, url)
        if ready is not None:
            ready(url)

    return _Server(config, door, up)


@contextlib.contextmanager
def _engine(bundle: Served, isolation: str) -> Iterator[Asked]:
    """The engine of a bundle, closed at the end; an engine that was handed in is left open."""
    if not isinstance(bundle, (str, Path, Bundle)):
        yield bundle
        return
    from ripieno.engine import Engine

    engine = Engine(bundle, isolation=cast("Isolation", isolation))  # it says what others there are
    try:
        yield engine
    finally:
        engine.close()


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket. Raises RipienoError when the address cannot be had."""
    if not 0 <= port <= 65535:
        raise RipienoError(f"port is {port}, must be 1 to 65535, or 0 for a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise RipienoError(f"{host}:{port} is no address to serve at: {error}") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(2048)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            mend = "choose another with --port, or 0 for a free one" if taken else "choose another address"
            why = "is in use by another process" if taken else f"cannot be served at ({error})"
            raise RipienoError(f"port {port} of {host} {why}: {mend}") from error
        yield listener


def url_of(listener: socket.socket) -> str:
    """The URL a listening socket answers at; an address that means "all" is given as this machine's loopback."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
