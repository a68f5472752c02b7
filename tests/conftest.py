"""What every test shares."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

# one thread per library, before any of them is imported: the machine is small and tests must not fight
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# a shell's background and nohup ignore Ctrl-C, children inherit that, and tests press it for them
signal.signal(signal.SIGINT, signal.default_int_handler)

# a machine that does something else for a moment is no failure, and every run tries the same examples
hypothesis.settings.register_profile("here", deadline=None, derandomize=True)
hypothesis.settings.load_profile("here")

SKIPPED = "ripieno/skipped"
"""Key of pytest's cache: the tests that the last whole run skipped."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--only-skipped`."""
    parser.addoption(
        "--only-skipped", action="store_true", help="run what the last run skipped: `make test-all` installs the extras"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that were skipped; of a module skipped whole, all."""
    if not config.getoption("--only-skipped"):
        return
    skipped = tuple(config.cache.get(SKIPPED, []))
    kept = [i for i in items if i.nodeid in skipped or i.nodeid.split("::")[0] in skipped]
    config.hook.pytest_deselected(items=[i for i in items if i not in kept])
    items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Remember what a whole run skipped."""
    part = config.getoption("--only-skipped") or config.option.keyword or config.args_source.name == "ARGS"
    if not part and config.pluginmanager.has_plugin("cacheprovider"):
        config.cache.set(SKIPPED, sorted({r.nodeid for r in terminalreporter.stats.get("skipped", [])}))


SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data in ../shared/data, which is not here")
    return SHARED


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder: 360 of scikit-learn's handwritten digits as PNG files, a folder a class."""
    from PIL import Image
    from sklearn.datasets import load_digits

    root = tmp_path_factory.mktemp("digits") / "images"
    digits = load_digits()
    for number in range(360):
        folder = root / f"digit-{digits.target[number]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[number] * 15).astype("uint8")).save(folder / f"{number:04d}.png")
    return root


@pytest.fixture(scope="session")
def finished_run(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a real small library, two ensembles and a bundle; tests that write copy it first."""
    import ripieno
    from ripieno.profiles import local_devices, measure_library

    path = tmp_path_factory.mktemp("runs") / "run"
    run = ripieno.tune(digit_folder, path, trials=4, epochs=3, space="resnet-tiny", pool="inline", seed=1, free="off")
    # what `ripieno.measure` does, for a shorter time: these costs need not be exact
    profiles = measure_library(run, local_devices("cpu")[0], window=0.02, max_seconds=0.5)
    dearest = max(p.cost for p in profiles.values())
    ensembles = ripieno.select(run, [dearest, 4 * dearest], prune=1.0)
    ripieno.allocate(run, ensembles[-1], devices="cpu", bundle=path.parent / "bundle", max_benches=2)
    return path


@pytest.fixture(scope="session")
def finished_bundle(finished_run: Path) -> Path:
    """The deployment of `finished_run`."""
    return finished_run.parent / "bundle"
