"""The programs in examples/ run at a small size, from a reader's working folder."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SERVED = re.compile(r"served at http://127\.0\.0\.1:\d+: ([\d.]+)% of (\d+) test images predicted correctly")

TINY = {
    "family": "resnet",
    "ranges": {"learning_rate": {"kind": "continuous", "low": 1e-3, "high": 1e-2, "log": True}},
    "fixed": {"width": 4, "stem_filters": 4, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "batch_size": 64},
}
"""A space of networks that train quickly."""


@pytest.fixture
def here(tmp_path: Path, digit_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with `images` in it; examples can be imported."""
    shutil.copytree(digit_folder, tmp_path / "images")
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return tmp_path


def test_every_example_is_tested() -> None:
    here = Path(__file__).read_text()
    for path in EXAMPLES.iterdir():
        assert path.stem in here or path.name.startswith("_"), path.name


def test_images_makes_a_folder_of_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    importlib.import_module("images").main([str(tmp_path / "made"), "--count", "50"])
    assert len(list((tmp_path / "made").glob("digit-*/*.png"))) == 50


def test_folder_to_server(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "images --trials 2 --epochs 1 --space tiny.json --pool inline --port 0 --once"
    importlib.import_module("folder_to_server").main(words.split())
    assert _served(capsys)[1] > 60


def test_onnx_to_server(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module("onnx_to_server").main(["images", "--port", "0", "--once"])
    right, asked = _served(capsys)
    assert asked > 60
    assert right > 85


def test_own_network(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from ripieno.search import SAMPLERS

    monkeypatch.setitem(SAMPLERS, "near", None)  # so that it is removed afterwards
    words = "images --trials 4 --epochs 1 --pool inline"
    importlib.import_module("own_network").main(words.split())
    printed = capsys.readouterr().out
    assert "'patch'" in printed
    assert "test accuracy" in printed


def test_the_notebook_front_runs_and_shows_its_objects(here: Path) -> None:
    notebook = json.loads((EXAMPLES / "front.ipynb").read_text())
    for cell in notebook["cells"]:
        smaller = "".join(cell["source"]).replace("= 12, 9,", "= 2, 1,").replace('"resnet-tiny"', '"tiny.json"')
        smaller = smaller.replace('tempfile.mkdtemp(prefix="ripieno-")', '"run"')
        cell["source"] = smaller.splitlines(keepends=True)
    names = _runner().run(notebook)
    assert names["TRIALS"] == 2
    shown = [o["data"] for c in notebook["cells"] for o in c.get("outputs", ()) if o["output_type"] == "execute_result"]
    assert len(shown) == 6


def _served(capsys: pytest.CaptureFixture[str]) -> tuple[float, int]:
    """Return the example's accuracy on its server in percent, and the number of images."""
    found = SERVED.search(capsys.readouterr().out)
    assert found
    return float(found[1]), int(found[2])


def _runner() -> ModuleType:
    """scripts/notebook as a module."""
    loader = importlib.machinery.SourceFileLoader("notebook_runner", str(ROOT / "scripts" / "notebook"))
    spec = importlib.util.spec_from_loader("notebook_runner", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.rl
def test_motor_control(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3", reason="needs the extra rl")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    words = "--environment gym:Pendulum-v1 --trials 1 --epochs 1 --pool inline --steps 5 --period 0.5"
    importlib.import_module("motor_control").main(words.split())
    said = capsys.readouterr().out
    assert re.search(r"a motor that waits: reward -\d+\.\d+ a step; a decision takes \d", said)
    assert re.search(r"a period of 500 ms: reward -\d+\.\d+ a step, \d+\.0% in time", said)
