"""The settings of `ripieno serve`: a file, options that overrule it, and the table in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import numpy as np
import pytest

from ripieno.cli.server_options import SETTINGS
from ripieno.engine import EngineConfig, RestartPolicy
from ripieno.errors import RipienoError
from ripieno.server import Client, Limits, ServerConfig
from tests.cli.serving import serving, url_in
from tests.command_line import ripieno
from tests.server.stand_in import ROOT, write_small_bundle

FILE = """
port = 1  # overruled by the option
[engine]
isolation = "process"
capacity = 64
[limits]
body = 2000
samples = 3
"""


def status_of(url: str, size: int) -> int:
    """Return the status of a request with a body of `size` bytes."""
    return httpx.post(f"{url}/v2/models/ensemble/infer", content=b" " * size, trust_env=False).status_code


def test_the_limits_and_the_engine_of_a_file_are_in_force(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    (tmp_path / "server.toml").write_text(FILE)
    with serving(str(bundle.path), "--config", str(tmp_path / "server.toml")) as (_, lines):
        url = url_in(lines)
        assert (status_of(url, 2001), status_of(url, 2000)) == (413, 400)
        with Client(url) as client:
            engine = client.overview()["bundles"]["ensemble"]["engine"]
            assert engine["capacity"] == 64
            assert all(worker["process"] is not None for worker in engine["lanes"])
            with pytest.raises(RipienoError, match=r"returned 413: .*limit 2000"):
                client.infer(np.zeros((12, 8, 8, 3), np.uint8))
            with pytest.raises(RipienoError, match=r"returned 400: .* must have 1 to 3"):
                client.infer(np.zeros((4, 8, 8, 3), np.uint8))


def test_an_option_overrules_the_file(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    (tmp_path / "server.json").write_text('{"limits": {"body": 2000, "reply": 10}, "engine": {"capacity": 64}}')
    more = ["--config", str(tmp_path / "server.json"), "--limits-body", "3000", "--isolation", "thread"]
    with serving(str(bundle.path), *more) as (_, lines):
        url = url_in(lines)
        assert (status_of(url, 3001), status_of(url, 2001)) == (413, 400)
        with Client(url) as client:
            assert client.overview()["bundles"]["ensemble"]["engine"]["capacity"] == 64


REFUSED = [
    ("a.toml", "[limits]\nbodi = 1\n", "Unknown key limits.bodi. Expected one of body, json, "),
    ("a.toml", "[limits]\nbody = 'much'\n", "limits.body 'much' is not valid. Expected `int`, got `str`."),
    ("a.toml", "[engine]\nmax_delay = -1.0\n", "engine.max_delay -1 must be a number of seconds, 0 or more"),
    (
        "a.toml",
        "[engine]\nisolation = 'fork'\n",
        "engine.isolation 'fork' is not valid. Expected auto, thread, process.",
    ),
    (
        "a.json",
        '{"engine": {"patience": {"deaths": 0}}}',
        "patience.deaths 0 is not valid. Expected `int` >= 1.",
    ),
    ("a.json", '{"token": 12345}', "token is not valid. Expected `str | null`, got `int`."),
    ("a.json", '{"traces": "yes"}', "traces 'yes' is not valid. Expected true, false"),
    ("a.toml", "limits", "is not TOML"),
    ("a.yaml", "", "Expected a file that ends in .toml or .json."),
    ("absent.toml", None, "No such file"),
]


@pytest.mark.parametrize(("name", "text", "message"), REFUSED, ids=[message[:24] for *_, message in REFUSED])
def test_a_wrong_file_is_one_line_and_exit_code_2(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    done = ripieno("serve", "absent", "--config", tmp_path / name)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.split())
    assert done.stderr.startswith("error: ")
    assert str(tmp_path / name) in done.stderr.replace("\n", "")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--limits-body", "0", "limits.body 0 is not valid. Expected `int` >= 1."),
        ("--limits-body", "much", "Invalid value for '--limits-body': Input should be a valid integer"),
        ("--isolation", "fork", "engine.isolation 'fork' is not valid. Expected auto, thread, process."),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(option: str, value: str, message: str) -> None:
    done = ripieno("serve", "absent", option, value)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.split())


def test_every_setting_is_an_option_of_both_commands() -> None:
    expected = {
        *(f.name for f in ServerConfig.__dataclass_fields__.values()),
        *(f"limits_{name}" for name in Limits.__dataclass_fields__),
        *(f"patience_{name}" for name in RestartPolicy.__dataclass_fields__),
        *EngineConfig.__dataclass_fields__,
        "family",
    } - {"engine", "limits", "patience", "trusted"}
    assert set(SETTINGS) == expected


def test_the_documentation_lists_the_settings_with_their_defaults() -> None:
    section = (ROOT / "docs" / "serving.md").read_text().split("\n## Settings\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| `--([\w-]+)` \| (.*?) ?\| (.*) \|$", section, re.MULTILINE)
    expected = []
    for option, setting in SETTINGS.items():
        default = "" if setting.default in (None, ()) else str(setting.default)
        default = default.lower() if isinstance(setting.default, bool) else default
        expected.append((".".join(setting.key), option.replace("_", "-"), default, setting.help))
    assert rows == expected
