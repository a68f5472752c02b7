"""The verbs on a server: serve, deploy, top."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ripieno.cli import console
from ripieno.cli.app import BundlePath, FamilyOpt, app
from ripieno.cli.bundle import Isolation, known_isolation
from ripieno.commands import command, shell
from ripieno.durations import check_duration
from ripieno.errors import RipienoError

TokenOpt = Annotated[
    str | None, typer.Option(envvar="RIPIENO_TOKEN", help="Token that requests carry; better given in the variable.")
]
TracingOpt = Annotated[
    bool,
    typer.Option("--traces", help="Send OpenTelemetry traces to where the variable OTEL_EXPORTER_OTLP_ENDPOINT says."),
]

Host = Annotated[str, typer.Option(help="Address to listen on; only this machine unless told otherwise.")]
Port = Annotated[int, typer.Option(help="Port; 0 takes a free one.")]
GrpcPort = Annotated[int | None, typer.Option(help="Serve gRPC too, on this port; 0 takes a free one.")]
Certificate = Annotated[Path | None, typer.Option(help="Certificate chain (PEM): serve over TLS.")]
KeyOpt = Annotated[Path | None, typer.Option(help="Its private key (PEM).")]
Log = Annotated[bool, typer.Option("--log", help="Log requests to standard error, a JSON object a line.")]


@app.command()
def serve(
    bundle: Annotated[
        list[str], typer.Argument(help="The deployment's folder; several as NAME=FOLDER.", metavar="BUNDLE...")
    ],
    host: Host = "127.0.0.1",
    port: Port = 8000,
    grpc_port: GrpcPort = None,
    isolation: Isolation = "auto",
    token: TokenOpt = None,
    certificate: Certificate = None,
    key: KeyOpt = None,
    log: Log = False,
    traces: TracingOpt = False,
    family: FamilyOpt = None,
) -> None:
    """Serve a deployment by the Open Inference Protocol v2: `ripieno serve bundle`."""
    from ripieno.server import serve as run_server

    bundles = _bundles(bundle)
    model = next(iter(bundles)) if isinstance(bundles, dict) else "ensemble"

    grpc = _begin(log)

    @console.announcing()
    def ready(url: str) -> None:
        console.say("serving ", (", ".join(bundle), "bold"), f" at {url}")
        console.log.print("Ctrl-C stops, after the requests under way", style="dim")
        console.print_result("", shell("curl", f"{url}/v2/models/{model}"), url=url, grpc=grpc.address, bundles=bundle)

    run_server(
        bundles,
        host,
        port,
        isolation=known_isolation(isolation),
        grpc_port=grpc_port,
        token=token,
        certificate=certificate,
        key=key,
        traces=traces,
        trusted=family or (),
        ready=ready,
        grpc_ready=grpc.ready,
    )


@app.command()
def deploy(
    bundle: BundlePath,
    address: Annotated[
        str, typer.Option(help="The Ray cluster, as HOST:PORT; `auto` is the one this machine is part of.")
    ] = "auto",
    host: Host = "127.0.0.1",
    port: Port = 8000,
    grpc_port: GrpcPort = None,
    isolation: Isolation = "auto",
    token: TokenOpt = None,
    certificate: Certificate = None,
    key: KeyOpt = None,
    log: Log = False,
    traces: TracingOpt = False,
    family: FamilyOpt = None,
) -> None:
    """Serve a deployment by every node of a Ray cluster: `ripieno deploy bundle --address 10.0.0.1:6379`."""
    from ripieno.server import deploy as run_deploy

    grpc = _begin(log)
    nodes: list[Any] = []

    def deployed(places: list[Any]) -> None:
        bar.close()
        nodes.extend(places)
        made = console.table(f"{bundle} on {len(places)} nodes", "node", "devices", "lanes", "images/s planned")
        for place in places:
            if place.allocation is None:
                made.add_row(place.node, Text(place.refusal, style="yellow"), "", "")
                continue
            lanes = {(p.device, p.lane) for p in place.allocation.placements}
            kinds = ", ".join(d.kind for d in place.allocation.devices)
            made.add_row(place.node, kinds, str(len(lanes)), console.number(place.allocation.predicted))
        console.out.print(made)

    @console.announcing()
    def ready(url: str) -> None:
        console.say("serving ", (str(bundle), "bold"), f" at {url}")
        console.log.print("Ctrl-C stops, after the requests under way, and ends what runs on the nodes", style="dim")
        console.print_result("", command("top", url), url=url, grpc=grpc.address, nodes=nodes)

    with ExitStack() as bar:
        progress = bar.enter_context(console.progress())
        run_deploy(
            bundle,
            address,
            host,
            port,
            isolation=known_isolation(isolation),
            grpc_port=grpc_port,
            token=token,
            certificate=certificate,
            key=key,
            traces=traces,
            trusted=family or (),
            progress=progress,
            deployed=deployed,
            ready=ready,
            grpc_ready=grpc.ready,
        )


class _GrpcAddress:
    """Where gRPC is served, once it is."""

    address: str | None = None

    @console.announcing()
    def ready(self, address: str) -> None:
        """Say it."""
        self.address = address
        console.out.print(f"serving gRPC at {address}")


def _begin(log: bool) -> _GrpcAddress:
    """What comes before any server: its requests' log, if asked for.

    Raises RipienoError for an empty RIPIENO_TOKEN: typer would take it as absent, and the server would be open.
    """
    from ripieno.server.auth import validate_token

    validate_token(os.environ.get("RIPIENO_TOKEN"))
    from ripieno.server.logs import log_to, warn_to

    (log_to if log else warn_to)(sys.stderr)
    return _GrpcAddress()


def _bundles(said: list[str]) -> str | dict[str, str]:
    """One folder, or folders by the names of their models."""
    if len(said) == 1 and ("=" not in said[0] or Path(said[0]).exists()):
        return said[0]
    pairs = [(name, folder) for name, _, folder in (one.partition("=") for one in said)]
    if not all(folder for _, folder in pairs) or len(dict(pairs)) < len(pairs):
        raise RipienoError(
            f"bundles are {' '.join(said)}, must be one folder, or NAME=FOLDER each with a name of its own"
        )
    return dict(pairs)


@app.command()
def top(
    url: Annotated[str, typer.Argument(help="Where the server answers.")] = "http://127.0.0.1:8000",
    every: Annotated[float, typer.Option(help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once (two looks, for the rates) and end.")] = False,
    token: TokenOpt = None,
) -> None:
    """Watch a server: requests, latencies, members, lanes: `ripieno top http://127.0.0.1:8000`."""
    from ripieno.server import Client

    check_duration(every, "--every")
    with Client(url, token=token) as client:
        before, then = client.overview(), time.monotonic()
        time.sleep(every)
        now, at = client.overview(), time.monotonic()
        if once or console.output_mode.json or not console.out.is_terminal:
            console.out.print(_view(before, now, at - then))
            if console.output_mode.json:
                console.print_result("", command("top", url), before=before, now=now, seconds=at - then)
            return
        with Live(_view(before, now, at - then), console=console.out, screen=True) as live, suppress(KeyboardInterrupt):
            while True:  # Ctrl-C is how one leaves
                time.sleep(every)
                before, then, now, at = now, at, client.overview(), time.monotonic()
                live.update(_view(before, now, at - then))


def _view(before: Mapping[str, Any], now: Mapping[str, Any], seconds: float) -> Group:
    """Tables of what changed in `seconds` between two overviews."""
    flight = now["flight"]
    refused = ", ".join(f"{count} x {status}" for status, count in flight["refused"].items()) or "none"
    state = "ready" if now["ready"] else "not ready"
    made = console.table(
        f"{state}, {flight['requests']} requests under way, refused: {refused}",
        *("model", "requests/s", "samples/s", "p50 (ms)", "p99 (ms)", "failed", "partial"),
    )
    for name, model in now["models"].items():
        old = before["models"].get(name, model)
        made.add_row(
            name,
            f"{(model['requests'] - old['requests']) / seconds:.1f}",
            f"{(model['samples'] - old['samples']) / seconds:.1f}",
            f"{1000 * model['p50']:.4g}",
            f"{1000 * model['p99']:.4g}",
            str(model["failures"]),
            str(model["partial"]),
        )
    return Group(made, *(_engine(name, before, bundle, seconds) for name, bundle in now["bundles"].items()))


def _engine(name: str, before: Mapping[str, Any], bundle: Mapping[str, Any], seconds: float) -> Table:
    engine = bundle["engine"]
    old = before["bundles"].get(name, bundle)["engine"]
    title = f"{name}: {engine['pending']} of {engine['capacity']} places taken, {bundle['waiting']} requests wait"
    made = console.table(title, "lane or member", "busy", "samples/s", "samples/batch", "restarts")
    rows = [(f"{x['device']} lane {x['lane']}", x, y) for x, y in zip(engine["lanes"], old["lanes"], strict=False)]
    rows += [(m, work, old["members"].get(m, work)) for m, work in engine["members"].items()]
    for label, work, earlier in rows:
        batches, samples = work["batches"] - earlier["batches"], work["samples"] - earlier["samples"]
        made.add_row(
            label if work.get("up", True) else f"{label} (down)",
            console.percent((work["computing"] - earlier["computing"]) / seconds),
            f"{samples / seconds:.1f}",
            f"{samples / batches:.1f}" if batches else "-",
            str(work.get("restarts", "")),
        )
    return made
