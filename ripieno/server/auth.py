"""Validation of the server's bearer token and of the requests that carry it. Pure functions."""

from __future__ import annotations

import hmac

from ripieno.errors import RipienoError
from ripieno.server.http_errors import HttpError


def validate_token(token: str | None) -> str | None:
    """Return `token` without surrounding white space; None stays None, and then no token is required.

    Raises RipienoError for a token that no header can carry: it is empty, or contains blanks, control characters or
    characters beyond ASCII.
    """
    if token is None:
        return None
    if not isinstance(token, str):
        raise RipienoError(f"The token is of type {type(token).__name__}. Pass a string.")
    plain = token.strip()
    if not plain:
        raise RipienoError("The token is empty. Pass a token, or unset RIPIENO_TOKEN to serve without one.")
    if not all("!" <= character <= "~" for character in plain):
        raise RipienoError("The token has blanks or characters that are not printable ASCII. Pass another token.")
    return plain


def check_token(
    value: bytes, token: str | None, needed: str = "request needs the header 'Authorization: Bearer TOKEN'"
) -> None:
    """Raise HttpError (401) unless `value` is `Bearer TOKEN`, in any case of the scheme, or `token` is None.

    `value` is that of an HTTP request's header or of a gRPC call's metadata, as `needed` says.
    """
    if token is None:
        return
    scheme, *credentials = value.split(None, 1) or (b"",)
    # the token is compared whatever the scheme is, so that the duration reveals nothing
    same = hmac.compare_digest(b"".join(credentials).strip(), token.encode())
    if not same or scheme.lower() != b"bearer":
        raise HttpError(401, f"Unauthorized: the {needed}.")
