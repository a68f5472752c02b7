"""Commands that run a bundle import a user's own code only with `--family`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from ripieno.__main__ import main
from ripieno.cli.main import app
from ripieno.server import infer
from tests.cli.serving import serving, url_in
from tests.own_family import FAMILY, Own, own_deployment

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    with own_deployment(tmp_path_factory.mktemp("own")) as made:
        yield made


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs a command in this process: exit code, and standard error with single spaces."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ripieno", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(str(ended.value.code)), " ".join(capsys.readouterr().err.split())

    return run


@pytest.mark.parametrize("name", ["serve", "deploy", "bench", "predict"])
def test_every_command_that_runs_a_bundle_takes_a_family(name: str) -> None:
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    assert "--family" in {option for parameter in command.params for option in parameter.opts}


def test_predict_answers_by_a_family_that_is_named(run_command: Run, own: Own, tmp_path: Path) -> None:
    images, answers = tmp_path / "images.npy", tmp_path / "answers.npy"
    np.save(images, own.images)
    words = ("predict", str(own.bundle.path), str(images), "--output", str(answers))
    code, err = run_command(*words)
    assert code == 2
    assert f"pass --family {FAMILY}" in err
    assert run_command(*words, "--family", FAMILY)[0] == 0
    np.testing.assert_allclose(np.load(answers), own.truth, atol=1e-5)


def test_bench_measures_a_family_that_is_named(run_command: Run, own: Own) -> None:
    words = ("bench", str(own.bundle.path), "--seconds", "0.1")
    code, err = run_command(*words)
    assert code == 2
    assert f"pass --family {FAMILY}" in err
    assert run_command(*words, "--family", FAMILY)[0] == 0
    assert (own.bundle.path / "bench.json").exists()


def test_serve_answers_by_a_family_that_is_named(own: Own) -> None:
    with serving(str(own.bundle.path), "--family", FAMILY, PYTHONPATH=str(own.code)) as (_, lines):
        np.testing.assert_allclose(infer(url_in(lines), own.images), own.truth, atol=1e-5)
