"""What every test shares."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.quick_runs import quick_runs
from tests.worker_deaths import pytest_testnodedown as pytest_testnodedown

# one thread per library, before any of them is imported: the machine is small and tests must not fight
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# some tests use every core; a thread that spins while it waits takes the core from the thread it waits for
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

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
    """Begin with the files of long tests. With `--only-skipped`, keep those tests; of a module skipped whole, all."""
    # a long file that begins last keeps one worker busy while the others have ended
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long)
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


ROOT = Path(__file__).resolve().parents[1]
GATE, TURN = ROOT / "scripts" / "test", ROOT / "tests" / "conftest.py"
"""Files that the workers of `scripts/test` lock; their content does not matter."""


@contextmanager
def locked(path: Path, mode: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock on a file."""
    with open(path) as file:
        fcntl.flock(file, mode)
        try:
            yield
        finally:  # a forked child may still have the file open
            fcntl.flock(file, fcntl.LOCK_UN)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test that is marked `alone` while no other worker runs one."""
    alone = item.get_closest_marker("alone") is not None
    with ExitStack() as stack:
        with locked(GATE):  # kept while an `alone` test waits: no other test begins before it
            stack.enter_context(locked(TURN, fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def _quick_runs() -> Iterator[None]:
    """Train and measure at a test's size."""
    with quick_runs():
        yield


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """Return a folder that `build` fills, the same one in every worker."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    path, built = root / name, root / f"{name}.built"
    (root / f"{name}.lock").touch()
    with locked(root / f"{name}.lock"):
        if not built.exists():
            shutil.rmtree(path, ignore_errors=True)  # of a worker that failed
            path.mkdir()
            build(path)
            built.touch()
    return path


SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data in ../shared/data, which is not here")
    return SHARED


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder: 360 of scikit-learn's handwritten digits as PNG files, a folder a class."""

    def build(path: Path) -> None:
        from PIL import Image
        from sklearn.datasets import load_digits

        digits = load_digits()
        for number in range(360):
            folder = path / "images" / f"digit-{digits.target[number]}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[number] * 15).astype("uint8")).save(folder / f"{number:04d}.png")

    return built_once(tmp_path_factory, "digits", build) / "images"


@pytest.fixture(scope="session")
def finished_run(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a real small library, two ensembles and a bundle; tests that write copy it first."""

    def build(path: Path) -> None:
        import ripieno

        size: dict[str, Any] = {"trials": 4, "epochs": 3, "space": "resnet-tiny", "free": "off"}
        run = ripieno.tune(digit_folder, path / "run", **size, pool="inline", seed=1)
        dearest = max(p.cost for p in ripieno.measure(run).values())
        ensembles = ripieno.select(run, [dearest, 4 * dearest], prune=1.0)
        ripieno.allocate(run, ensembles[-1], devices="cpu", bundle=path / "bundle", max_benches=2)

    return built_once(tmp_path_factory, "finished", build) / "run"


@pytest.fixture(scope="session")
def finished_bundle(finished_run: Path) -> Path:
    """The deployment of `finished_run`."""
    return finished_run.parent / "bundle"
