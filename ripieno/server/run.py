"""Start, signals and shutdown of the server.

`serve` blocks until SIGTERM or SIGINT; `start_in_thread` runs the same server in a thread of this process. At the
start, the port is bound first (so that a port in use is reported at once), then the engines are loaded, then
connections are accepted. At the end, the server reports "not ready", the port is closed, requests in flight finish
within the grace period, and the engines are closed. SIGHUP renews the certificate and reloads the bundles; a SIGHUP
during the start is handled after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from types import FrameType
from typing import Any, TypeAlias, cast

import uvicorn
from PIL.Image import DecompressionBombWarning

from ripieno.config import read_quantity
from ripieno.deprecation import warn_renamed
from ripieno.errors import RipienoError, require
from ripieno.server.address import TlsConfig, bind_socket, is_loopback, listener_url
from ripieno.server.app import InferenceApp
from ripieno.server.config import ServerConfig, server_config
from ripieno.server.connection import Connection, make_connection_class
from ripieno.server.limits import CROSSING, within_descriptors
from ripieno.server.listener import Listener
from ripieno.server.memory_maintenance import freeze, trim_periodically
from ripieno.server.model_repository import ModelRepository, ModelSources
from ripieno.server.tracing import Tracer

log = logging.getLogger("ripieno.server")

SignalHandler: TypeAlias = Callable[[int, FrameType | None], object]
SWITCH = 0.0005
"""Switch interval in seconds: how long a thread may keep the interpreter's lock while the event loop waits for it.

Python's default is 0.005. The loop releases the lock at each system call: with twenty clients sending while a thread
parsed long JSON, it was blocked for 200 ms at the default interval, and for 30 ms at this one.
"""


def serve(
    bundle: ModelSources,
    host: str | None = None,
    port: int | None = None,
    *,
    config: ServerConfig | None = None,
    ready: Callable[[str], None] | None = None,
    grpc_ready: Callable[[str], None] | None = None,
    **settings: Any,
) -> None:
    """Serve a bundle over the Open Inference Protocol until SIGTERM or SIGINT, then drain and return.

    `bundle` is a bundle's folder, a Bundle, an engine (which is left open), or several of these by the names of their
    models. `config` is a `ServerConfig`; its fields can also be passed as keywords (`grpc_port`, `token`,
    `certificate`, `key`, `reload`, `watch`, `keep`, `keep_bytes`, `labels`, `traces`, `trusted`, `engine`,
    `limits`), and so can the engine's `isolation`. By default, only this machine can connect; pass `host` to change
    that. `ready` is called with the URL once the server accepts requests, `grpc_ready` with host:port of gRPC just
    before it.

    Raises RipienoError when a port is in use or a certificate is invalid, LibraryError or EngineError when a bundle
    cannot be loaded.
    """
    config = server_config(config, host, port, settings)
    # the server checks the pixels of a picture before it decodes it, so Pillow's warning on standard error is redundant
    warnings.simplefilter("ignore", DecompressionBombWarning)
    pending: list[int] = []
    keep = signal_handlers({signal.SIGHUP: lambda number, _: pending.append(number)})  # by default it ends the process
    with keep, _short_switch_interval(), _prepared(bundle, config, ready, grpc_ready) as (server, listener):
        server.pending_signals, server.owns_process = pending, True
        server.run(sockets=[listener])
        server.check()


@contextlib.contextmanager
def signal_handlers(handlers: Mapping[signal.Signals, SignalHandler]) -> Iterator[None]:
    """Install signal handlers while the block runs, then restore the old ones. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _short_switch_interval() -> Iterator[None]:
    """Set the interpreter's switch interval to SWITCH seconds while the block runs."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class ServerHandle:
    """A server in a thread of this process, at `url`. As a context manager, it stops the server at the end."""

    def __init__(self, bundle: ModelSources, config: ServerConfig) -> None:
        self.url = ""
        self.grpc = ""
        """host:port of gRPC, if it is served"""
        self._up = threading.Event()
        with contextlib.ExitStack() as stack:
            self._server, listener = stack.enter_context(_prepared(bundle, config, self._ready, self._grpc_ready))
            self._thread = threading.Thread(target=self._run, args=[listener], name="ripieno-server", daemon=True)
            self._stack = stack.pop_all()
        self._thread.start()
        self._up.wait()
        if not self.url:
            self._thread.join()
            self._stack.close()
            self._server.check()
            raise RipienoError("The server did not start. See the log of ripieno.server.")

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
        """Reload the bundles from their folders; see `ModelRepository.reload`."""
        return self._server.reload().result()

    def exchange(self) -> bool:
        """Return `reload()`: the former name, for one version."""
        warn_renamed("ServerHandle.exchange", "reload")
        return self.reload()

    def stop(self) -> None:
        """Drain, stop and close everything that the server opened; idempotent."""
        self._server.stop()
        self._thread.join()
        self._stack.close()

    def __enter__(self) -> ServerHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_in_thread(
    bundle: ModelSources, host: str | None = None, port: int = 0, *, config: ServerConfig | None = None, **settings: Any
) -> ServerHandle:
    """Serve in a thread of this process, on a free port by default; return once it is ready.

    Arguments and errors are those of `serve`.
    """
    return ServerHandle(bundle, server_config(config, host, port, settings))


class _Server(uvicorn.Server):
    """uvicorn's server that also serves gRPC, and returns after a signal instead of raising it again."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: InferenceApp,
        server_config: ServerConfig,
        tls: TlsConfig | None,
        url: str,
        ready: Callable[[str], None] | None,
        grpc_ready: Callable[[str], None] | None,
    ) -> None:
        super().__init__(config)
        self.app, self.tls, self.url = app, tls, url
        self.server_config = server_config
        self._ready, self._grpc_ready = ready, grpc_ready
        self.pending_signals: list[int] = []
        """reload signals that arrived before the server could handle them"""
        self.owns_process = False
        """whether the process only serves"""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: RipienoError | None = None
        self._trimming: asyncio.Task[None] | None = None
        self.servers: list[Any] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and report that the server is ready."""
        self._loop = asyncio.get_running_loop()
        self._grpc = None
        if self.server_config.grpc_port is not None:
            try:
                for module in ("grpc", "grpc_health", "grpc_reflection"):
                    require(module)
                from ripieno.server.grpc_server import GrpcServer

                self._grpc = await GrpcServer.open(
                    self.app, self.server_config.host, self.server_config.grpc_port, self.tls
                )
            except RipienoError as error:
                self._failure, self.should_exit = error, True
                return
            if self._grpc_ready is not None:
                self._grpc_ready(self._grpc.address)
        tls = None if self.tls is None else self.tls.context
        for listening in sockets or ():
            self.servers.append(Listener(listening, self._connection, self.app.opened, self.app.limits, tls))
        self.started = True
        self._trimming = self._loop.create_task(trim_periodically())
        if self.owns_process:
            freeze()
        self.app.lag.start(self._loop)
        log.info("serving %s at %s", ", ".join(self.app.models.engines), self.url)
        if self._ready is not None:
            self._ready(self.url)
        if self.pending_signals:
            self.reload()

    def _connection(self, others: int) -> Connection:
        connection_class = cast("type[Connection]", self.config.http_protocol_class)
        connection = connection_class(self.config, self.server_state, self.lifespan.state, self._loop)
        connection.others = others
        return connection

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the requests of both protocols within one grace period, and close the connections."""
        self.app.draining = True
        self.app.lag.stop()
        if self._trimming is not None:
            self._trimming.cancel()
        shutdowns = [self._shutdown_http(sockets)]
        if self._grpc is not None:
            shutdowns.append(self._grpc.close(self.server_config.limits.grace))
        await asyncio.gather(*shutdowns)

    async def _shutdown_http(self, sockets: list[socket.socket] | None) -> None:
        """Close the port, then the connections, after answering requests that were sent before the closing arrives."""
        await asyncio.gather(*(server.finish(CROSSING) for server in self.servers))
        for connection in self.server_state.connections:
            cast("Connection", connection).finish()
        if self.server_state.connections:
            await asyncio.sleep(CROSSING)
            for _ in range(2):  # lets the loop read data that has arrived, even if this task is late
                await asyncio.sleep(0)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs, in the main thread; they are not raised again afterwards."""
        exit_, reload = self.handle_exit, self._reload_soon
        with signal_handlers({signal.SIGINT: exit_, signal.SIGTERM: exit_, signal.SIGHUP: reload}):
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Drain at the first signal, stop waiting at the second."""
        self.force_exit = self.should_exit
        self.stop()

    def stop(self) -> None:
        """Start draining."""
        self.app.draining = True
        self.should_exit = True

    def reload(self) -> Future[bool]:
        """Renew the certificate and reload the bundles; thread-safe. False if either failed; the reason is logged."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(self._reload(), self._loop)

    async def _reload(self) -> bool:
        renewed = self._renew_certificate()
        return await self.app.repository.reload() and renewed

    def _renew_certificate(self) -> bool:
        """Renew the certificate for clients that connect from now on; keep the old one if the new one is invalid."""
        if self.tls is None:
            return True
        try:
            if self.tls.renew():
                self.tls.load_into(self.tls.context)
                log.info("renewed the certificate from %s", self.tls.certificate)
        except (RipienoError, OSError) as error:
            log.error("renewal of the certificate failed; still using the previous one: %s", error)
            return False
        return True

    def _reload_soon(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._loop is None:
            self.pending_signals.append(sig)
        else:
            self.reload()

    def check(self) -> None:
        """Raise the error that prevented the start, if any."""
        if self._failure is not None:
            raise self._failure


def _descriptors() -> int:
    """Raise the limit of file descriptors to the hard limit, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


@contextlib.contextmanager
def _prepared(
    bundle: ModelSources,
    config: ServerConfig,
    ready: Callable[[str], None] | None,
    grpc_ready: Callable[[str], None] | None,
) -> Iterator[tuple[_Server, socket.socket]]:
    """Build a server and its listening socket; close both and the engines at the end."""
    # logs of these libraries go to the user's handlers, or nowhere
    for library in ("uvicorn", "python_multipart", "opentelemetry"):
        logging.getLogger(library).addHandler(logging.NullHandler())
    limits = within_descriptors(config.limits, _descriptors(), 1 if config.grpc_port is None else 2)
    if limits != config.limits:
        requested = config.limits.connections
        log.warning(
            "connection limit lowered from %d to %d by the limit of open files; raise `ulimit -n`",
            requested,
            limits.connections,
        )
    tls = TlsConfig.read(config.certificate, config.key)
    if tls is not None:
        try:
            tls.check_dates()
        except RipienoError as error:
            log.warning("clients will refuse the certificate: %s", error)
    if not is_loopback(config.host) and config.token is None:
        log.warning("%s is reachable from other machines, and no token is required", config.host)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(bind_socket(config.host, config.port))
        traces = None
        if config.traces:
            traces = Tracer(None if config.traces is True else config.traces)
            stack.callback(traces.close)
        keep = None if config.keep is None else (config.keep, int(read_quantity(config.keep_bytes) or 0))
        repository = ModelRepository(
            bundle, config.engine, limits.samples, config.trusted, config.watch, keep, config.labels
        )
        stack.callback(repository.close)
        app = InferenceApp(repository, limits, config.token, config.reload, traces)
        uvicorn_config = uvicorn.Config(
            app,
            http=make_connection_class(limits, app),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=max(1, round(limits.keep_alive)),
            timeout_graceful_shutdown=max(1, round(limits.grace)),
        )
        url = listener_url(listener, tls is not None)
        yield _Server(uvicorn_config, app, config, tls, url, ready, grpc_ready), listener
