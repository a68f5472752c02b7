"""Configuration dataclasses: types, ranges, nested updates, files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from ripieno.config import Count, Port, Seconds, SecondsOrZero, check_fields, read_config, settings, update
from ripieno.errors import EngineError, RipienoError


@dataclass(frozen=True)
class Inner:
    size: Count = 3
    """samples"""
    wait: Seconds = 1.0
    """seconds"""

    def __post_init__(self) -> None:
        check_fields(self, EngineError)


@dataclass(frozen=True)
class Outer:
    mode: Literal["fast", "safe"] = "fast"
    """how it runs"""
    port: Port | None = None
    """where"""
    delay: SecondsOrZero = 0.0
    """seconds"""
    folder: Path | None = None
    """files"""
    secret: str | None = field(default=None, repr=False)
    """password"""
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        check_fields(self)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"mode": "slow"}, "mode 'slow' is not valid. Expected fast, safe."),
    ({"port": 65536}, "port 65536 is not valid. Expected `int` <= 65535."),
    ({"port": True}, "port True is not valid. Expected `int | null`, got `bool`."),
    ({"port": "80"}, "port '80' is not valid. Expected `int | null`, got `str`."),
    ({"delay": float("nan")}, "delay nan must be a number of seconds, 0 or more and at most 1e+08"),
    ({"delay": -1}, "delay -1 must be a number of seconds, 0 or more and at most 1e+08"),
    ({"delay": 1e9}, "delay 1e+09 must be a number of seconds, 0 or more and at most 1e+08"),
    ({"folder": 3}, "folder 3 is not valid. Expected a path, got `int`."),
    ({"inner": {"size": 0}}, "inner.size 0 is not valid. Expected `int` >= 1."),
    ({"inner": {"size": 1.5}}, "inner.size 1.5 is not valid. Expected `int`, got `float`."),
    ({"inner": 3}, "inner 3 is not valid. Expected a table, or Inner(...)."),
    ({"inner": {"sise": 1}}, "Unknown key inner.sise. Expected one of size, wait."),
    ({"prot": 1}, "Unknown key prot. Expected one of mode, port, delay, folder, secret, inner."),
]


@pytest.mark.parametrize(("values", "message"), WRONG, ids=[message[:20] for _, message in WRONG])
def test_a_wrong_value_is_an_error_that_names_the_key_and_what_is_expected(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RipienoError) as caught:
        update(Outer(), values)
    assert str(caught.value) == message
    path = tmp_path / "some.json"
    path.write_text(json.dumps(values))
    with pytest.raises(RipienoError) as caught:
        read_config(Outer(), path)
    assert str(caught.value) == f"{path}: {message}"


def test_a_secret_is_not_in_the_error() -> None:
    with pytest.raises(RipienoError, match=r"^secret is not valid\. Expected `str \| null`, got `int`\.$"):
        Outer(secret=12345)  # type: ignore[arg-type]


def test_the_error_is_that_of_the_class_with_the_field() -> None:
    with pytest.raises(EngineError, match=r"inner\.wait"):
        update(Outer(), {"inner": {"wait": 0}})


def test_values_are_converted_and_the_others_kept() -> None:
    before = Outer(port=80, inner=Inner(size=5))
    after = update(before, {"delay": 2, "folder": "files", "inner": {"wait": 4}})
    assert after == Outer(port=80, delay=2.0, folder=Path("files"), inner=Inner(5, 4.0))
    assert isinstance(after.delay, float)
    assert update(before, {"inner": Inner(9)}).inner.size == 9


TOML = """
mode = "safe"
[inner]
size = 7
"""


def test_a_file_is_toml_or_json(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TOML)
    (tmp_path / "a.json").write_text('{"mode": "safe", "inner": {"size": 7}}')
    for name in ("a.toml", "a.json"):
        assert read_config(Outer(port=1), tmp_path / name) == Outer("safe", 1, inner=Inner(7))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", b"", "ends in .toml or .json"),
        ("a.toml", b"port = ", "is not TOML: Invalid value"),
        ("a.json", b"{", "is not JSON: Expecting"),
        ("a.json", b"[]", "is not JSON: expected an object"),
        ("a.toml", b"\xff", "is not TOML: 'utf-8'"),
        ("absent.toml", None, "cannot read .*absent.toml: No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RipienoError, match=message) as caught:
        read_config(Outer(), tmp_path / name)
    assert "\n" not in str(caught.value)


def test_settings_are_the_fields_with_the_values_of_the_configuration() -> None:
    found = [(s.key, s.default, s.help) for s in settings(Outer(port=5))]
    assert found[1] == (("port",), 5, "where")
    assert found[-2:] == [(("inner", "size"), 3, "samples"), (("inner", "wait"), 1.0, "seconds")]
    assert len(found) == 7
