"""The bearer token of a server: what is a token, and whether a request carries it. Pure."""

from __future__ import annotations

import hmac

from ripieno.errors import RipienoError


def validate_token(token: str | None) -> str | None:
    """`token` without surrounding white space; None stays None: no token is required then.

    Raises RipienoError for a token that no header could carry: an empty one, or one with blanks, control characters or
    characters beyond ASCII inside.
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
    # both sides are compared whatever the scheme is, so that the time taken says nothing
    same = hmac.compare_digest(b"".join(credentials).strip(), token.encode())
    return same and scheme.lower() == b"bearer"
