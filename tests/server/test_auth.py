"""Validation of tokens and of the requests that carry them."""

from __future__ import annotations

from typing import Any

import pytest

from ripieno.errors import RipienoError
from ripieno.server import start_in_thread
from ripieno.server.auth import check_token, validate_token
from ripieno.server.http_errors import HttpError
from tests.server.stand_in import StandIn


def test_white_space_around_a_token_is_no_part_of_it() -> None:
    assert validate_token("abc\n") == validate_token(" abc ") == "abc"
    assert validate_token(None) is None


@pytest.mark.parametrize("token", ["", " \n", "a b", "a\x00b", "schlüssel"])
def test_a_token_that_no_header_carries_is_refused(token: str) -> None:
    with pytest.raises(RipienoError, match=r"^The token .*Pass a"):
        validate_token(token)


@pytest.mark.parametrize("token", [b"abc", 5])
def test_a_token_is_text(token: Any) -> None:
    with pytest.raises(RipienoError, match="of type"):
        validate_token(token)


def test_a_server_does_not_start_with_an_empty_token(engine: StandIn) -> None:
    with pytest.raises(RipienoError, match="token is empty"):
        start_in_thread(engine, token="")


@pytest.mark.parametrize("header", [b"Bearer s3cret", b"bearer s3cret", b"BEARER  s3cret ", b"Bearer\ts3cret"])
def test_the_scheme_is_met_in_any_case(header: bytes) -> None:
    check_token(header, "s3cret")


@pytest.mark.parametrize("header", [b"", b"s3cret", b"Basic s3cret", b"Bearer", b"Bearer s3cre", b"Bearer s3cret x"])
def test_anything_else_is_not_authorized(header: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        check_token(header, "s3cret")
    assert caught.value.status == 401
