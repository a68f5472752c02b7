"""The commands on a server: serve, deploy and top."""

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
from ripieno.cli.app import BundleArg, app, examples
from ripieno.cli.server_options import with_server_options
from ripieno.durations import check_duration
from ripieno.errors import RipienoError
from ripieno.server.config import ServerConfig
from ripieno.shell_command import command, shell

TokenOpt = Annotated[
    str | None,
    typer.Option(
        "--token", envvar="RIPIENO_TOKEN", help="Token that requests must carry; safer in the environment variable"
    ),
]
LogOpt = Annotated[bool, typer.Option("--log", help="Log requests to standard error, one JSON object per line")]


@app.command(
    epilog=examples(
        "ripieno serve bundle",
        "ripieno serve birds=bundle-1 cats=bundle-2 --port 9000",
        "ripieno serve bundle --config server.toml --limits-timeout 5",
    )
)
@with_server_options
def serve(
    bundle: Annotated[
        list[str], typer.Argument(help="Folder of the bundle; several as NAME=FOLDER", metavar="BUNDLE...")
    ],
    config: ServerConfig,
    log: LogOpt = False,
) -> None:
    """Serve a bundle with the Open Inference Protocol v2."""
    from ripieno.server import serve as run_server

    bundles = _bundles(bundle)
    model = next(iter(bundles)) if isinstance(bundles, dict) else "ensemble"

    grpc = _prepare(log)

    @console.announcing()
    def ready(url: str) -> None:
        console.say("serving ", (", ".join(bundle), "bold"), f" at {url}")
        console.log.print("Ctrl-C finishes running requests and stops", style="dim")
        console.print_result("", shell("curl", f"{url}/v2/models/{model}"), url=url, grpc=grpc.address, bundles=bundle)

    run_server(bundles, config=config, ready=ready, grpc_ready=grpc.ready)


@app.command(epilog=examples("ripieno deploy bundle --address 10.0.0.1:6379"))
@with_server_options
def deploy(
    bundle: BundleArg,
    config: ServerConfig,
    address: Annotated[str, typer.Option(help="Ray cluster as HOST:PORT; auto takes the one of this machine")] = "auto",
    log: LogOpt = False,
) -> None:
    """Serve a bundle from every node of a Ray cluster."""
    from ripieno.server import deploy as run_deploy

    grpc = _prepare(log)
    nodes: list[Any] = []

    def deployed(deployments: list[Any]) -> None:
        bar.close()
        nodes.extend(deployments)
        columns = "node", "devices", "workers", "samples/s planned"
        table = console.table(f"{bundle} on {len(deployments)} nodes", *columns)
        for deployment in deployments:
            allocation = deployment.allocation
            if allocation is None:
                table.add_row(deployment.node, Text(deployment.refusal, style="yellow"), "", "")
                continue
            workers = {(p.device, p.lane) for p in allocation.placements}
            kinds = ", ".join(d.kind for d in allocation.devices)
            table.add_row(deployment.node, kinds, str(len(workers)), console.number(allocation.predicted))
        console.out.print(table)

    @console.announcing()
    def ready(url: str) -> None:
        console.say("serving ", (str(bundle), "bold"), f" at {url}")
        console.log.print("Ctrl-C finishes running requests, then stops the server and its nodes", style="dim")
        console.print_result("", command("top", url), url=url, grpc=grpc.address, nodes=nodes)

    with ExitStack() as bar:
        progress = bar.enter_context(console.progress())
        run_deploy(
            bundle, address, config=config, progress=progress, deployed=deployed, ready=ready, grpc_ready=grpc.ready
        )


class _GrpcAddress:
    """Address of the gRPC server; None until it listens."""

    address: str | None = None

    @console.announcing()
    def ready(self, address: str) -> None:
        """Keep and print the address."""
        self.address = address
        console.out.print(f"serving gRPC at {address}")


def _prepare(log: bool) -> _GrpcAddress:
    """Check the token of the environment and start logging, requests included if `log`.

    Raises RipienoError for an empty RIPIENO_TOKEN: typer would treat it as absent, and the server would be open.
    """
    from ripieno.server.auth import validate_token

    validate_token(os.environ.get("RIPIENO_TOKEN"))
    from ripieno.server.logs import log_to, warn_to

    (log_to if log else warn_to)(sys.stderr)
    return _GrpcAddress()


def _bundles(arguments: list[str]) -> str | dict[str, str]:
    """Return one folder, or folders by model name."""
    if len(arguments) == 1 and ("=" not in arguments[0] or Path(arguments[0]).exists()):
        return arguments[0]
    pairs = [(name, folder) for name, _, folder in (argument.partition("=") for argument in arguments)]
    if not all(folder for _, folder in pairs) or len(dict(pairs)) < len(pairs):
        raise RipienoError(
            f"BUNDLE {' '.join(arguments)!r} must be one folder, or several NAME=FOLDER with different names"
        )
    return dict(pairs)


@app.command(epilog=examples("ripieno top http://127.0.0.1:8000"))
def top(
    url: Annotated[str, typer.Argument(help="URL of the server")] = "http://127.0.0.1:8000",
    every: Annotated[float, typer.Option(help="Seconds between two samples")] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one snapshot (two samples, to compute rates) and exit")
    ] = False,
    token: TokenOpt = None,
) -> None:
    """Show the requests, latencies, members and workers of a server."""
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
            while True:  # until Ctrl-C
                time.sleep(every)
                before, then, now, at = now, at, client.overview(), time.monotonic()
                live.update(_view(before, now, at - then))


def _view(before: Mapping[str, Any], now: Mapping[str, Any], seconds: float) -> Group:
    """Return tables of the rates between two overviews taken `seconds` apart."""
    flight = now["flight"]
    rejected = ", ".join(f"{count} x {status}" for status, count in flight["refused"].items()) or "none"
    state = "ready" if now["ready"] else "not ready"
    table = console.table(
        f"{state}, {flight['requests']} requests in flight, rejected: {rejected}",
        *("model", "requests/s", "samples/s", "p50 (ms)", "p99 (ms)", "failed", "partial"),
    )
    for name, model in now["models"].items():
        old = before["models"].get(name, model)
        table.add_row(
            name,
            f"{(model['requests'] - old['requests']) / seconds:.1f}",
            f"{(model['samples'] - old['samples']) / seconds:.1f}",
            f"{1000 * model['p50']:.4g}",
            f"{1000 * model['p99']:.4g}",
            str(model["failures"]),
            str(model["partial"]),
        )
    drifts = [_drift(name, model["drift"]) for name, model in now["models"].items() if "drift" in model]
    return Group(table, *drifts, *(_engine(name, before, bundle, seconds) for name, bundle in now["bundles"].items()))


def _drift(name: str, found: Mapping[str, Any]) -> Text:
    """Return a line on the drift of a watched model."""
    if found["drift"]:
        return Text(f"{name}: drift of {', '.join(found['moved'][:5])}; label recent requests", style="yellow")
    windows = f"{found['windows']} windows of samples compared, {found['dropped']} samples dropped"
    return Text(f"{name}: no drift, {windows}")


def _engine(name: str, before: Mapping[str, Any], bundle: Mapping[str, Any], seconds: float) -> Table:
    engine = bundle["engine"]
    old = before["bundles"].get(name, bundle)["engine"]
    title = (
        f"{name}: {engine['pending']} of {engine['capacity']} queue slots used, {bundle['waiting']} requests waiting"
    )
    table = console.table(title, "worker or member", "busy", "samples/s", "samples/batch", "restarts")
    rows = [(f"{x['device']} worker {x['lane']}", x, y) for x, y in zip(engine["lanes"], old["lanes"], strict=False)]
    rows += [(m, work, old["members"].get(m, work)) for m, work in engine["members"].items()]
    for label, work, earlier in rows:
        batches, samples = work["batches"] - earlier["batches"], work["samples"] - earlier["samples"]
        table.add_row(
            label if work.get("up", True) else f"{label} (down)",
            console.percent((work["computing"] - earlier["computing"]) / seconds),
            f"{samples / seconds:.1f}",
            f"{samples / batches:.1f}" if batches else "-",
            str(work.get("restarts", "")),
        )
    return table
