"""Validation of the server's bearer token and of the requests that carry it. Pure functions."""

from __future__ import annotations

import hmac

from ripieno.errors import RipienoError


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


def is_authorized(header: bytes, token: str) -> bool:
    """Return whether the value of an `Authorization` header is `Bearer TOKEN`; the scheme's case does not matter."""
    scheme, *credentials = header.split(None, 1) or (b"",)
    # the token is compared whatever the scheme is, so that the duration reveals nothing
    same = hmac.compare_digest(b"".join(credentials).strip(), token.encode())
    return same and scheme.lower() == b"bearer"
