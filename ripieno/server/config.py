"""Settings of a server: its address, security, engines and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ripieno.config import Port, check_fields, read_quantity, update
from ripieno.engine.config import EngineConfig
from ripieno.errors import RipienoError
from ripieno.server.limits import Limits


@dataclass(frozen=True)
class ServerConfig:
    """Configuration of a server; by default, only this machine can connect."""

    host: str = "127.0.0.1"
    """address to listen on; the default accepts only this machine"""
    port: Port = 8000
    """port to listen on; 0 takes a free one"""
    grpc_port: Port | None = None
    """port to serve gRPC on, too; 0 takes a free one"""
    token: str | None = field(default=None, repr=False)
    """token that requests must carry; safer in the variable RIPIENO_TOKEN"""
    certificate: Path | None = None
    """certificate chain (PEM) to serve over TLS"""
    key: Path | None = None
    """private key of the certificate (PEM)"""
    reload: bool = False
    """let requests reload bundles, as SIGHUP does; not with deploy"""
    watch: bool = False
    """compare requests with the bundle's validation samples, and warn of drift"""
    keep: Path | None = None
    """with watch: folder in which recent inputs and their labels are kept"""
    keep_bytes: str = "1GiB"
    """limit of the kept inputs, such as 500MiB; the oldest are removed first"""
    labels: Path | None = None
    """with watch: folder of CSV and JSONL files with labels, read as they grow"""
    traces: Any = False
    """send OpenTelemetry traces to the URL in OTEL_EXPORTER_OTLP_ENDPOINT"""
    trusted: tuple[str, ...] = ()
    """model factories (module:function) that may be imported; repeat the option"""
    engine: EngineConfig = field(default_factory=EngineConfig)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_fields(self)
        for name, folder in (("keep", self.keep), ("labels", self.labels)):
            if folder is not None and not self.watch:
                raise RipienoError(f"{name} {str(folder)!r} needs watch. Start with --watch (watch=True).")
        if not 1 <= (read_quantity(self.keep_bytes) or 0) < 2**60:
            raise RipienoError(f"keep_bytes {self.keep_bytes!r} is not valid. Expected bytes, such as 500MiB or 1GiB.")
        if not isinstance(self.traces, bool | None) and not hasattr(self.traces, "get_tracer"):
            raise RipienoError(f"traces {self.traces!r} is not valid. Expected true, false or a tracer provider.")


def server_config(
    config: ServerConfig | None, host: str | None, port: int | None, keywords: Mapping[str, Any]
) -> ServerConfig:
    """Return `config` with the keywords of `serve`: fields of `ServerConfig`, and `isolation` of its engine."""
    values = {name: value for name, value in {"host": host, "port": port, **keywords}.items() if value is not None}
    if "isolation" in values:
        values["engine"] = {"isolation": values.pop("isolation")}
    return update(config or ServerConfig(), values)
