"""Running the server: the sockets, the signals, the drain.

`serve` blocks until SIGTERM or SIGINT; `start` runs the same server in a thread of this process. Order at the start:
the port is bound (so that a taken one is said at once), the engines are loaded, connections are taken. At the end:
"not ready", the port is closed, requests under way are finished within the grace period, the engines are closed.
SIGHUP renews the certificate and exchanges the bundles for what lies in their places now; one that comes while they are
loaded waits for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import resource
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, cast

import uvicorn
from PIL.Image import DecompressionBombWarning

from ripieno.errors import RipienoError, require
from ripieno.server.address import TlsConfig, bind_socket, is_loopback, listener_url
from ripieno.server.app import InferenceApp
from ripieno.server.connection import Connection, make_connection_class
from ripieno.server.heap import freeze, trim_periodically
from ripieno.server.limits import CROSSING, Limits, within_descriptors
from ripieno.server.listener import Listener
from ripieno.server.model_repository import ModelRepository, ModelSources
from ripieno.server.signals import signal_handlers
from ripieno.server.tracing import Tracer

log = logging.getLogger("ripieno.server")

SWITCH = 0.0005
"""Seconds that a thread may keep the interpreter while the event loop waits for it, Python's own 0.005 otherwise.

The loop gives the interpreter up at each system call: with twenty clients sending while long JSON is read in a thread,
it was held for 200 ms at Python's own interval, for 30 at this one.
"""


@dataclass(frozen=True)
class ServerConfig:
    """How to serve; the defaults are those of a server for this machine alone."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free one"""
    isolation: str = "auto"
    """of the engines' lanes: auto, thread, process"""
    limits: Limits = field(default_factory=Limits)
    grpc_port: int | None = None
    """serve the protocol over gRPC too, on this port (0: a free one)"""
    token: str | None = None
    """what requests must carry as `Authorization: Bearer TOKEN`"""
    certificate: str | Path | None = None
    """PEM file of the certificate chain: serve over TLS"""
    key: str | Path | None = None
    """PEM file of its private key"""
    reload: bool = False
    """let the repository's `load` exchange bundles, as SIGHUP does"""
    traces: Any = None
    """OpenTelemetry traces: True exports them as the environment says, or a provider of them; see `server.traces`"""
    ready: Callable[[str], None] | None = None
    """called with the URL once the server answers"""
    grpc_ready: Callable[[str], None] | None = None
    """called with host:port of gRPC, just before `ready`"""
    trusted: Sequence[str] = ()
    """the user's own families (`module:function`) that engines may import for the PyTorch backend"""


def serve(
    bundle: ModelSources,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    isolation: str = "auto",
    limits: Limits | None = None,
    grpc_port: int | None = None,
    token: str | None = None,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    reload: bool = False,
    traces: Any = None,
    trusted: Sequence[str] = (),
    ready: Callable[[str], None] | None = None,
    grpc_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a bundle over the Open Inference Protocol until SIGTERM or SIGINT, then drain and return.

    `bundle` is a bundle's folder, a Bundle, an engine (which is then left open), or several of these by the names of
    their models. The other arguments are those of `Options`. Only this machine can connect unless `host` says
    otherwise. Raises RipienoError when a port is taken or a certificate unusable, LibraryError or EngineError when a
    bundle cannot be loaded.
    """
    limits = limits or Limits()
    options = ServerConfig(
        host, port, isolation, limits, grpc_port, token, certificate, key, reload, traces, ready, grpc_ready, trusted
    )
    # pictures are judged by their pixels before they are unpacked: Pillow need not warn on our standard error
    warnings.simplefilter("ignore", DecompressionBombWarning)
    early: list[int] = []
    keep = signal_handlers({signal.SIGHUP: lambda number, _: early.append(number)})  # it would end the process
    with keep, _short_turns(), _prepared(bundle, options) as (server, listener):
        server.pending_signals, server.owns_process = early, True
        server.run(sockets=[listener])
        server.check()


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    """Let threads change over after SWITCH seconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class ServerHandle:
    """A server in a thread of this process; `url` is where it answers. A context manager that stops it."""

    def __init__(self, bundle: ModelSources, options: ServerConfig) -> None:
        self.url = ""
        self.grpc = ""
        """host:port of gRPC, where it is served"""
        self._up = threading.Event()
        told = dataclasses.replace(options, ready=self._ready, grpc_ready=self._grpc_ready)
        with contextlib.ExitStack() as stack:
            self._server, listener = stack.enter_context(_prepared(bundle, told))
            self._thread = threading.Thread(target=self._run, args=[listener], name="ripieno-server", daemon=True)
            self._stack = stack.pop_all()
        self._thread.start()
        self._up.wait()
        if not self.url:
            self._thread.join()
            self._stack.close()
            self._server.check()
            raise RipienoError("the server did not start: see the log of ripieno.server")

    def _run(self, listener: socket.socket) -> None:
        try:
            self._server.run(sockets=[listener])
        finally:
            self._up.set()

    def _ready(self, url: str) -> None:
        self.url = url
        self._up.set()

    def _grpc_ready(self, address: str) -> None:
        self.grpc = address

    def reload(self) -> bool:
        """Load the bundles again from their folders; see `House.exchange`."""
        return self._server.reload().result()

    def stop(self) -> None:
        """Drain, stop and close what was opened; stopping twice is fine."""
        self._server.stop()
        self._thread.join()
        self._stack.close()

    def __enter__(self) -> ServerHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_in_thread(
    bundle: ModelSources,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    isolation: str = "auto",
    limits: Limits | None = None,
    grpc_port: int | None = None,
    token: str | None = None,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    reload: bool = False,
    traces: Any = None,
    trusted: Sequence[str] = (),
) -> ServerHandle:
    """Serve in a thread of this process, on a free port by default; returns once it answers. Raises as `serve` does."""
    options = ServerConfig(
        host, port, isolation, limits or Limits(), grpc_port, token, certificate, key, reload, traces, trusted=trusted
    )
    return ServerHandle(bundle, options)


class _Server(uvicorn.Server):
    """uvicorn's server with signals that end in a return, not in the signal again, and with gRPC beside it."""

    def __init__(
        self, config: uvicorn.Config, door: InferenceApp, options: ServerConfig, tls: TlsConfig | None, url: str
    ) -> None:
        super().__init__(config)
        self.door = door
        self.options = options
        self.tls = tls
        self.url = url
        self.pending_signals: list[int] = []
        """signals to exchange the bundles that came before it could be done"""
        self.owns_process = False
        """whether the process does nothing but serve"""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: RipienoError | None = None
        self._releasing: asyncio.Task[None] | None = None
        self.servers: list[Any] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections, and say so."""
        self._loop = asyncio.get_running_loop()
        self._grpc = None
        if self.options.grpc_port is not None:
            try:
                for module in ("grpc", "grpc_health", "grpc_reflection"):
                    require(module)
                from ripieno.server.grpc_server import GrpcServer

                self._grpc = await GrpcServer.open(self.door, self.options.host, self.options.grpc_port, self.tls)
            except RipienoError as error:
                self._failure, self.should_exit = error, True
                return
            if self.options.grpc_ready is not None:
                self.options.grpc_ready(self._grpc.address)
        tls = None if self.tls is None else self.tls.context
        for listening in sockets or ():
            self.servers.append(Listener(listening, self._connection, self.door.opened, self.door.limits, tls))
        self.started = True
        self._releasing = self._loop.create_task(trim_periodically())
        if self.owns_process:
            freeze()
        self.door.lag.start(self._loop)
        log.info("serving %s at %s", ", ".join(self.door.models.engines), self.url)
        if self.options.ready is not None:
            self.options.ready(self.url)
        if self.pending_signals:
            self.reload()

    def _connection(self, others: int) -> Connection:
        make = cast("type[Connection]", self.config.http_protocol_class)
        made = make(self.config, self.server_state, self.lifespan.state, self._loop)
        made.others = others
        return made

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was sent on both protocols, within one grace period, and close the connections."""
        self.door.draining = True
        self.door.lag.stop()
        if self._releasing is not None:
            self._releasing.cancel()
        over = [self._shutdown_http(sockets)]
        if self._grpc is not None:
            over.append(self._grpc.close(self.options.limits.grace))
        await asyncio.gather(*over)

    async def _shutdown_http(self, sockets: list[socket.socket] | None) -> None:
        """Close the port, then connections: a request that crosses our farewell on its way is answered first."""
        await asyncio.gather(*(server.finish(CROSSING) for server in self.servers))
        for connection in self.server_state.connections:
            cast("Connection", connection).finish()
        if self.server_state.connections:
            await asyncio.sleep(CROSSING)
            for _ in range(2):  # what has come meanwhile is read, however late this is
                await asyncio.sleep(0)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs, in the main thread; they are not raised again afterwards."""
        end, exchange = self.handle_exit, self._reload_soon
        with signal_handlers({signal.SIGINT: end, signal.SIGTERM: end, signal.SIGHUP: exchange}):
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Drain at the first signal, give up waiting at the second."""
        self.force_exit = self.should_exit
        self.stop()

    def stop(self) -> None:
        """Begin to drain."""
        self.door.draining = True
        self.should_exit = True

    def reload(self) -> Future[bool]:
        """Renew the certificate and exchange the bundles; thread-safe. False when either failed: the log says why."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(self._reload(), self._loop)

    async def _reload(self) -> bool:
        done = self._renew_certificate()
        return await self.door.house.reload() and done

    def _renew_certificate(self) -> bool:
        """Show a renewed certificate to clients that connect from now on; a broken one leaves the old one in place."""
        if self.tls is None:
            return True
        try:
            if self.tls.renew():
                self.tls.load_into(self.tls.context)
                log.info("The certificate was renewed from %s.", self.tls.certificate)
        except (RipienoError, OSError) as error:
            log.error("The certificate was not renewed, the old one stays: %s", error)
            return False
        return True

    def _reload_soon(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._loop is None:
            self.pending_signals.append(sig)
        else:
            self.reload()

    def check(self) -> None:
        """Raise what kept the server from starting."""
        if self._failure is not None:
            raise self._failure


def _descriptors() -> int:
    """File descriptors that this process may have, after asking for as many as are allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


@contextlib.contextmanager
def _prepared(bundle: ModelSources, options: ServerConfig) -> Iterator[tuple[_Server, socket.socket]]:
    """A server ready to run, and its listening socket; both closed at the end, with the engines."""
    # the words of others go to handlers the user set, or nowhere
    for library in ("uvicorn", "python_multipart", "opentelemetry"):
        logging.getLogger(library).addHandler(logging.NullHandler())
    limits = within_descriptors(options.limits, _descriptors(), 1 if options.grpc_port is None else 2)
    if limits != options.limits:
        asked = options.limits.connections
        log.warning("%d connections are taken, not %d: raise `ulimit -n` for more", limits.connections, asked)
    tls = TlsConfig.read(options.certificate, options.key)
    if tls is not None:
        try:
            tls.check_dates()
        except RipienoError as error:
            log.warning("Clients will refuse the certificate: %s", error)
    if not is_loopback(options.host) and options.token is None:
        log.warning("%s can be reached from other machines and no token is asked for", options.host)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(bind_socket(options.host, options.port))
        traces = None
        if options.traces:
            traces = Tracer(None if options.traces is True else options.traces)
            stack.callback(traces.close)
        house = ModelRepository(bundle, options.isolation, limits.samples, options.trusted)
        stack.callback(house.close)
        door = InferenceApp(house, limits, options.token, options.reload, traces)
        config = uvicorn.Config(
            door,
            http=make_connection_class(limits, door),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=max(1, round(limits.keep_alive)),
            timeout_graceful_shutdown=max(1, round(limits.grace)),
        )
        yield _Server(config, door, options, tls, listener_url(listener, tls is not None)), listener
