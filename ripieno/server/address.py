"""Where a server listens: sockets, URLs, certificates."""

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
    """A listening socket; an IPv6 address may stand in brackets. Raises RipienoError when the address cannot be had."""
    host = without_brackets(host)
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
            raise cannot_bind(host, port, error) from error
        yield listener


@contextmanager
def only_ipv4(host: str, port: int) -> Iterator[None]:
    """While the block runs, keep `port` of IPv6 taken where `host` is an IPv4 address, as a number.

    gRPC listens on IPv6 too when it is told 0.0.0.0. A bound socket that does not listen keeps it from doing so:
    clients over IPv6 are then refused, as HTTP refuses them.
    """
    with contextlib.ExitStack() as stack:
        if ":" not in host and not is_loopback(host):
            with contextlib.suppress(OSError):  # no IPv6 on this machine, or another process listens there
                taken = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
                taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                taken.bind(("::", port))
        yield


def without_brackets(host: str) -> str:
    """`host` as sockets take it: an IPv6 address may come in brackets, as it stands in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def cannot_bind(host: str, port: int, error: OSError | None) -> RipienoError:
    """The error for an address that cannot be listened at; without its reason the port is taken."""
    if error is None or error.errno == errno.EADDRINUSE:
        why, mend = "is in use by another process", "choose another port, or 0 for a free one"
    else:
        why, mend = f"cannot be served at ({error})", "choose another address"
    return RipienoError(f"port {port} of {host} {why}: {mend}")


def listener_url(listener: socket.socket, tls: bool = False) -> str:
    """The URL a listening socket answers at; an address that means "all" is given as this machine's loopback."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(without_brackets(host)).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass
class TlsConfig:
    """A certificate chain and its private key, in PEM: where they lie, and what was read of them last."""

    certificate: Path
    key: Path
    pair: tuple[bytes, bytes] = (b"", b"")
    """the bytes of the key and of the chain, as gRPC takes them"""

    def renew(self) -> bool:
        """Read the files again; False when they are as before.

        Raises RipienoError when they cannot be used, or clients would refuse them for their dates.
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
        """The context that shows this certificate."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.load_into(made)
        return made

    def load_into(self, context: ssl.SSLContext) -> None:
        """Have `context` show this certificate to clients that connect from now on."""
        key, chain = self.pair
        with _as_file(chain) as certificate, _as_file(key) as own:  # what was tried out, not what lies there by now
            context.load_cert_chain(certificate, own, password=_no_password)

    def check_dates(self) -> None:
        """Raise RipienoError when the certificate has expired, or is not valid yet, by this machine's clock."""
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.load_into(server)
        client.check_hostname = False
        client.load_verify_locations(cadata=self.pair[1].decode("ascii", "ignore"))
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        sent, received = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [server.wrap_bio(received, sent, server_side=True), client.wrap_bio(sent, received)]
        for _ in range(2):  # a client's hello, a server's certificate
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
                    return  # clients may trust it all the same
                except ssl.SSLError:
                    return

    @classmethod
    def read(cls, certificate: str | Path | None, key: str | Path | None) -> TlsConfig | None:
        """The pair, tried out; None when neither is given. Raises RipienoError when they cannot be used."""
        if certificate is None and key is None:
            return None
        if certificate is None or key is None:
            raise RipienoError("TLS needs both a certificate and its key: give both, or neither")
        for path in (certificate, key):
            if not Path(path).is_file():
                raise RipienoError(f"{path} is no file: give a PEM file")
        try:
            made = cls(Path(certificate), Path(key), (Path(key).read_bytes(), Path(certificate).read_bytes()))
            made.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except (ssl.SSLError, OSError) as error:
            raise RipienoError(f"{certificate} and {key} are no certificate and its key in PEM: {error}") from error
        return made


_DATES = (9, 10)
"""OpenSSL's codes of certificates that are not valid yet, and of those that have expired."""


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Path of a file in memory, for what reads nothing else."""
    with os.fdopen(os.memfd_create("ripieno-tls", os.MFD_CLOEXEC), "wb", buffering=0) as stream:
        stream.write(content)
        yield f"/proc/self/fd/{stream.fileno()}"


def _no_password() -> str:
    """Keys with a password would make the server wait at a terminal."""
    return ""
