"""Listening sockets, URLs and TLS certificates of a server."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ripieno.errors import RipienoError


@contextmanager
def bind_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Open a listening socket; an IPv6 address may be in brackets. Raises RipienoError when it cannot be bound."""
    host = without_brackets(host)
    if not 0 <= port <= 65535:
        raise RipienoError(f"port is {port}, must be 1 to 65535, or 0 for a free port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise RipienoError(f"Cannot serve at {host}:{port}: {error}. Pass another address.") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(2048)
        except OSError as error:
            raise cannot_bind(host, port, error) from error
        yield listener


@contextmanager
def only_ipv4(host: str, port: int) -> Iterator[None]:
    """Occupy `port` on IPv6 while the block runs, if `host` is a numeric IPv4 address.

    gRPC listens on IPv6 too when its address is 0.0.0.0. A bound socket that does not listen prevents this: clients
    over IPv6 are then refused, as over HTTP.
    """
    with contextlib.ExitStack() as stack:
        if ":" not in host and not is_loopback(host):
            with contextlib.suppress(OSError):  # no IPv6 on this machine, or another process listens there
                blocker = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
                blocker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                blocker.bind(("::", port))
        yield


def without_brackets(host: str) -> str:
    """Return `host` as sockets expect it: an IPv6 address loses the brackets that it has in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def cannot_bind(host: str, port: int, error: OSError | None) -> RipienoError:
    """Return the error for an address that cannot be bound; without `error`, the port is in use."""
    if error is None or error.errno == errno.EADDRINUSE:
        return RipienoError(f"Cannot bind {host}:{port}: address in use. Pass another port, or 0 for a free port.")
    return RipienoError(f"Cannot bind {host}:{port}: {error}. Pass another address.")


def listener_url(listener: socket.socket, tls: bool = False) -> str:
    """Return the URL of a listening socket; a wildcard address is replaced by this machine's loopback."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(without_brackets(host)).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass
class TlsConfig:
    """A certificate chain and its private key, in PEM: their paths and their content at the last reading."""

    certificate: Path
    key: Path
    pair: tuple[bytes, bytes] = (b"", b"")
    """the bytes of the key and of the chain, as gRPC takes them"""

    def renew(self) -> bool:
        """Read the files again; return False when they are unchanged.

        Raises RipienoError when they are invalid, or when clients would refuse the certificate for its dates.
        """
        renewed = TlsConfig.read(self.certificate, self.key)
        assert renewed is not None
        if renewed.pair == self.pair:
            return False
        renewed.check_dates()
        self.pair = renewed.pair
        return True

    @cached_property
    def context(self) -> ssl.SSLContext:
        """The TLS context that presents this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.load_into(context)
        return context

    def load_into(self, context: ssl.SSLContext) -> None:
        """Load this certificate into `context`, for clients that connect from now on."""
        key, chain = self.pair
        # the content that was validated, not the files, which may have changed since
        with _as_file(chain) as chain_path, _as_file(key) as key_path:
            # without a password, OpenSSL would prompt at a terminal for that of an encrypted key
            context.load_cert_chain(chain_path, key_path, password=lambda: "")

    def check_dates(self) -> None:
        """Raise RipienoError when the certificate has expired or is not valid yet, by this machine's clock."""
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.load_into(server)
        client.check_hostname = False
        client.load_verify_locations(cadata=self.pair[1].decode("ascii", "ignore"))
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        sent, received = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [server.wrap_bio(received, sent, server_side=True), client.wrap_bio(sent, received)]
        for _ in range(2):  # the client's hello, then the server's certificate
            for end in reversed(ends):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                except ssl.SSLCertVerificationError as error:
                    if error.verify_code in _DATES:
                        raise RipienoError(
                            f"{self.certificate}: {error.verify_message}. Renew the certificate."
                        ) from None
                    return  # not a matter of dates: clients may still trust it
                except ssl.SSLError:
                    return

    @classmethod
    def read(cls, certificate: str | Path | None, key: str | Path | None) -> TlsConfig | None:
        """Read and validate both files; return None if neither is given. Raises RipienoError if they are invalid."""
        if certificate is None and key is None:
            return None
        if certificate is None or key is None:
            raise RipienoError("TLS needs both a certificate and its key. Pass both, or neither.")
        for path in (certificate, key):
            if not Path(path).is_file():
                raise RipienoError(f"{path} is not a file. Pass a PEM file.")
        try:
            config = cls(Path(certificate), Path(key), (Path(key).read_bytes(), Path(certificate).read_bytes()))
            config.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except (ssl.SSLError, OSError) as error:
            raise RipienoError(
                f"Cannot load {certificate} and {key} ({error}). Pass a certificate and its key, both in PEM."
            ) from error
        return config


_DATES = (9, 10)
"""OpenSSL's error codes of a certificate that is not valid yet and of one that has expired."""


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Write `content` to a file in memory and yield its path, for APIs that only accept paths."""
    with os.fdopen(os.memfd_create("ripieno-tls", os.MFD_CLOEXEC), "wb", buffering=0) as stream:
        stream.write(content)
        yield f"/proc/self/fd/{stream.fileno()}"
