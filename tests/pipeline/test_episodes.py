"""A bundle of policies run in its environment: what was scored is what is served."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gymnasium", reason="needs the extra rl")
from ripieno.engine import Engine
from ripieno.errors import EngineError, LibraryError, SelectionError
from ripieno.pipeline.episodes import run_episodes
from ripieno.reports.html import report
from ripieno.server import start_in_thread
from ripieno.tasks.action_rules import standardised
from tests.command_line import ripieno
from tests.linear_policies import CARTPOLE, VALID, policy_bundle

pytestmark = pytest.mark.rl
CARTPOLE_NAME = "gym:CartPole-v1"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return policy_bundle(tmp_path_factory.mktemp("policies"))


def test_the_engine_plays_the_episodes_that_the_selection_scored(bundle):
    found = run_episodes(bundle, CARTPOLE_NAME, seed=VALID[0], episodes=len(VALID))
    assert tuple(episode.episode_return for episode in found) == bundle.ensemble.returns["valid"]
    assert [episode.seed for episode in found] == list(VALID)
    assert all(episode.steps == episode.episode_return for episode in found)  # a reward of 1 a step


def test_a_plot_and_a_video_of_the_first_episode(bundle, tmp_path):
    (episode,) = run_episodes(bundle, CARTPOLE_NAME, episodes=1, output=tmp_path / "episode.png")
    with Image.open(tmp_path / "episode.png") as plot:
        assert plot.width > 200
    run_episodes(bundle, CARTPOLE_NAME, episodes=1, output=tmp_path / "episode.svg")
    assert b"<svg" in (tmp_path / "episode.svg").read_bytes()
    pytest.importorskip("pygame", reason="needs the extra rl")
    run_episodes(bundle, CARTPOLE_NAME, episodes=1, output=tmp_path / "episode.gif")
    with Image.open(tmp_path / "episode.gif") as video:
        assert 1 < video.n_frames <= episode.steps


@pytest.mark.parametrize(
    ("environment", "options", "error"),
    [
        ("gym:Pendulum-v1", {}, "those of the environment are a box of -2 to 2"),
        ("gym:Acrobot-v1", {}, "those of the environment are 3 discrete ones"),
        (CARTPOLE_NAME, {"episodes": 0}, "episodes 0"),
        (CARTPOLE_NAME, {"output": "video.mp4"}, "neither a video"),
        (CARTPOLE_NAME, {"output": "absent/plot.png"}, "is no folder"),
    ],
)
def test_what_cannot_be_run_is_one_line(bundle, environment, options, error):
    with pytest.raises((EngineError, SelectionError), match=error) as raised:
        run_episodes(bundle, environment, **options)
    assert "\n" not in str(raised.value)


def test_served_values_and_actions(bundle):
    observations = np.float32([[0.0, 0.1, 0.2, -0.1], [0.0, 0.1, -0.2, 0.1], [0.3, 0.0, 0.0, 0.0]])
    outputs = []
    for name in ("good", "fair"):
        score = observations @ np.float32(CARTPOLE[name])
        outputs.append(np.stack([-score, score], axis=1))
    expected = standardised(np.float32(outputs)).mean(axis=0)
    sent = {"name": "images", "datatype": "FP32", "shape": [3, 4], "data": observations.ravel().tolist()}
    with (
        Engine(bundle) as engine,
        start_in_thread(engine) as server,
        httpx.Client(base_url=server.url, timeout=20, trust_env=False) as http,
    ):
        document = http.get("/v2/models/ensemble").json()
        answer = http.post("/v2/models/ensemble/infer", json={"inputs": [sent]}).json()
        rows = http.post("/predict", content=json.dumps(observations[0].tolist()))
    declared = {one["name"]: (one["datatype"], one["shape"]) for one in document["outputs"]}
    assert declared["values"] == ("FP32", [-1, 2])
    assert declared["action"] == ("INT64", [-1])
    values, action = ({o["name"]: o for o in answer["outputs"]}[name] for name in ("values", "action"))
    assert np.allclose(np.reshape(values["data"], (3, 2)), expected, atol=1e-6)
    assert action["data"] == expected.argmax(axis=1).tolist() == [1, 0, 1]
    assert rows.status_code in (400, 415)  # observations go to /infer


def test_the_report_shows_returns_and_an_episode(bundle):
    page = report(bundle.path.parent / "run").read_text()
    assert "Returns by ensemble" in page
    assert "An episode of B1" in page
    rows = (bundle.path.parent / "run" / "report" / "returns.csv").read_text().splitlines()
    assert rows[0] == "ensemble,split,episode,return"
    assert len(rows) == 1 + 3 + 2


def test_the_command_lists_the_episodes(bundle):
    done = ripieno("predict", bundle.path, "--environment", CARTPOLE_NAME, "--episodes", "2", "--json")
    shown = json.loads(done.stdout)
    assert [row["seed"] for row in shown["episodes"]] == [0, 1]
    for options, error in (
        ([], "nothing to predict"),
        (["--episodes", "2"], "give their --environment"),
        (["x.npy", "--environment", CARTPOLE_NAME], "needs no INPUT"),
        (["x.npy"], "predict BUNDLE --environment"),
    ):
        refused = ripieno("predict", bundle.path, *options)
        assert refused.returncode == 2
        assert error in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["coverage", "soup", "variants", "suspects"])
def test_what_needs_predictions_of_samples_is_refused(bundle, command):
    from ripieno import pipeline

    run = bundle.path.parent / "run"
    arguments = {"coverage": (run, "B1")}.get(command, (run,))
    with pytest.raises((SelectionError, LibraryError), match="policies have returns of episodes"):
        getattr(pipeline, command)(*arguments)
