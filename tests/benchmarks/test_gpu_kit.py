"""The GPU kit on a machine without a GPU: its driver, its parts, the list of tests, a dry run of every step."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
KIT = ROOT / "benchmarks" / "gpu"
TABLE = ROOT / "tests" / "gpu" / "README.md"
DRIVER = """
import importlib.machinery, importlib.util, sys
from pathlib import Path
loader = importlib.machinery.SourceFileLoader("kit_driver", {run!r})
spec = importlib.util.spec_from_loader("kit_driver", loader)
driver = importlib.util.module_from_spec(spec)
sys.modules["kit_driver"] = driver
loader.exec_module(driver)
driver.HERE = Path({folder!r})
driver.STEPS = tuple(driver.Step(*step) for step in {steps!r})
sys.exit(driver.main())
"""
STEP = """
import json, os, sys, time
from pathlib import Path
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
def report(**content):
    Path(options["--out"]).write_text(json.dumps(content))
"""


class Kit:
    """The driver with steps of its own, in a temporary folder."""

    def __init__(self, folder: Path, **scripts: str) -> None:
        self.folder, self.out = folder, folder / "out"
        self.steps = [(name, f"step {name}", (), "", name == "sliced") for name in scripts]
        for name, script in scripts.items():
            (folder / f"{name}.py").write_text(STEP + script)

    def command(self, *words: str) -> list[str]:
        code = DRIVER.format(run=str(KIT / "run"), folder=str(self.folder), steps=self.steps)
        own = ["--out", str(self.out), "--scratch", str(self.folder / "scratch")]
        return [sys.executable, "-c", code, *own, *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=120, check=False)

    def results(self) -> dict[str, dict[str, object]]:
        return dict(json.loads((self.out / "results.json").read_text())["steps"])


def runs(pid: int) -> bool:
    """Return whether a process runs; one that nobody waits for has ended too."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_failed_step_says_so_and_the_next_goes_on(tmp_path: Path) -> None:
    kit = Kit(
        tmp_path, bad="report(rows=[{'n': 1}])\nraise SystemExit('no such kernel')", good="report(rows=[{'n': 2}])"
    )
    done = kit.run()
    assert done.returncode == 1
    found = kit.results()
    assert (found["bad"]["state"], found["good"]["state"]) == ("failed", "done")
    assert found["bad"]["rows"] == [{"n": 1}]  # those before the failure are kept
    assert "no such kernel" in done.stdout
    assert "no such kernel" in (kit.out / "log.txt").read_text()
    assert "--again bad" in done.stdout.splitlines()[-1]
    assert {path.name for path in kit.out.iterdir()} == {"results.json", "log.txt", "table.md"}
    assert "| n |\n| --- |\n| 2 |" in (kit.out / "table.md").read_text()


def test_a_finished_step_is_not_run_again_unless_asked(tmp_path: Path) -> None:
    count = "runs = Path(options['--scratch']) / f'{sys.argv[1]}-runs'\nruns.open('a').write('x')\nreport(rows=[])"
    kit = Kit(tmp_path, first=count, second=count)
    runs = [tmp_path / "scratch" / f"{name}-runs" for name in ("first", "second")]
    kit.run("--only", "first")
    kit.run()
    assert [path.read_text() for path in runs] == ["x", "x"]
    kit.run("--again", "second")
    assert [path.read_text() for path in runs] == ["x", "xx"]
    assert re.search(r"first +done +step first", kit.run("--list").stdout)


def test_a_step_past_its_limit_is_ended_with_all_its_processes_and_keeps_its_rows(tmp_path: Path) -> None:
    slow = "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])\n"
    slow += "report(rows=[{'child': child.pid}])\nprint('began', flush=True)\ntime.sleep(100)"
    kit = Kit(tmp_path, slow=slow, good="report(rows=[])")
    assert kit.run("--limit", "3").returncode == 1
    found = kit.results()
    assert found["slow"]["state"] == "out of time"
    rows = found["slow"]["rows"]
    assert isinstance(rows, list)
    assert not runs(rows[0]["child"])
    assert found["good"]["state"] == "done"


def test_a_step_that_lacks_a_package_is_skipped_in_one_line_and_tried_again(tmp_path: Path) -> None:
    kit = Kit(tmp_path, wanting="report(rows=[])", unable="report(skipped='PyTorch sees no GPU here', rows=[])")
    kit.steps[0] = ("wanting", "step wanting", ("no_such_package",), "", False)
    done = kit.run()
    assert done.returncode == 0
    assert "skipped: needs no_such_package" in done.stdout
    assert kit.results()["unable"]["reason"] == "PyTorch sees no GPU here"
    kit.steps[0] = ("wanting", "step wanting", (), "", False)
    kit.run()
    assert kit.results()["wanting"]["state"] == "done"


def test_slices_go_on_where_the_one_before_ended(tmp_path: Path) -> None:
    kit = Kit(tmp_path, sliced="report(rows=[{'slice': int(options['--slice'])}])")
    kit.run("--slices", "2")
    kit.run("--slices", "2")
    kit.run("--slices", "3")
    assert kit.results()["sliced"]["rows"] == [{"slice": 1}, {"slice": 2}, {"slice": 3}]


def test_no_step_starts_when_the_time_of_the_whole_command_is_up(tmp_path: Path) -> None:
    kit = Kit(tmp_path, first="time.sleep(2)\nreport(rows=[])", second="report(rows=[])")
    done = kit.run("--minutes", "0.02")
    assert set(kit.results()) == {"first"}
    assert done.stdout.splitlines()[-1].startswith(f"next: benchmarks/gpu/run --out {kit.out}")


def test_ctrl_c_stops_the_step_and_the_same_command_resumes(tmp_path: Path) -> None:
    once = "marker = Path(options['--scratch']) / 'marker'\nif not marker.exists():\n    marker.touch()\n"
    once += "    print('waiting', os.getpid(), flush=True)\n    time.sleep(100)\nreport(rows=[{'n': 1}])"
    kit = Kit(tmp_path, waiting=once, last="report(rows=[])")
    with subprocess.Popen(kit.command(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = next(line.split()[1] for line in process.stdout if line.strip().startswith("waiting "))
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(timeout=30) == 130
    assert not runs(int(pid))
    assert "Traceback" not in rest
    assert kit.results()["waiting"]["state"] == "interrupted"
    assert "last" not in kit.results()
    assert kit.run().returncode == 0
    assert kit.results()["waiting"]["rows"] == [{"n": 1}]


def test_results_of_a_dry_run_are_not_mixed_with_others(tmp_path: Path) -> None:
    kit = Kit(tmp_path, good="report(rows=[])")
    kit.run("--dry")
    assert "A dry run on the CPU" in (kit.out / "table.md").read_text()
    done = kit.run()
    assert (done.returncode, "holds the results of a dry run" in done.stderr) == (2, True)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts of a tiny data set and the code, without packages."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone of the repository: pack takes its last commit")
    folder = tmp_path_factory.mktemp("pack")
    for name in ("a", "b", "c"):
        path = folder / "data" / "cifar100" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 900_000)
    out = folder / "parts"
    command = [sys.executable, str(KIT / "pack"), "--no-wheels", "--out", str(out), "--data", str(folder / "data")]
    done = subprocess.run([*command, "--most", "2"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "left out: plankton is not in" in done.stderr
    return out


def unpack(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "unpack"), "--target", str(folder / "there"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_parts_hold_the_code_and_the_data_and_none_is_larger_than_allowed(parts: Path, tmp_path: Path) -> None:
    sizes = [path.stat().st_size for path in sorted(parts.glob("part-*.tar"))]
    assert len(sizes) >= 3
    assert max(sizes) <= 2 << 20
    here = shutil.copytree(parts, tmp_path / "copied")
    done = unpack(here)
    assert done.returncode == 0, done.stderr
    there = here / "there"
    assert (there / "shared/data/cifar100/b").read_bytes() == b"b" * 900_000
    assert (there / "ripieno/ripieno/__init__.py").read_bytes() == (ROOT / "ripieno/__init__.py").read_bytes()
    assert (there / "ripieno/benchmarks/gpu/unpack").stat().st_mode & 0o100
    assert done.stdout.splitlines()[-1].startswith("next: cd ")


def test_the_first_part_may_be_unpacked_alone(parts: Path, tmp_path: Path) -> None:
    here = tmp_path / "copied"
    here.mkdir()
    for name in ("unpack", "manifest.json", "part-01.tar"):
        shutil.copy(parts / name, here / name)
    assert unpack(here, "--parts", "1").returncode == 0
    assert (here / "there/ripieno").is_dir()
    done = unpack(here)
    assert re.fullmatch(r"part-02\.tar is missing: the manifest lists \d+ parts\..*\n", done.stderr)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda content: content[:-7], "the copy is incomplete"),
        (lambda content: content[:-7] + b"0000000", "it is damaged"),
    ],
)
def test_a_spoilt_part_is_refused_in_one_line_and_nothing_is_written(
    parts: Path, tmp_path: Path, spoil, words: str
) -> None:
    here = shutil.copytree(parts, tmp_path / "copied")
    path = here / "part-03.tar"
    # a tar file ends with zeros: others are put into its content
    path.write_bytes(spoil(path.read_bytes().rstrip(b"\0")) if "damaged" not in words else spoilt(path.read_bytes()))
    done = unpack(here)
    assert done.returncode == 1
    assert done.stderr.startswith("part-03.tar has ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (here / "there").exists()


def spoilt(content: bytes) -> bytes:
    """Change one byte."""
    return content[:600] + bytes([content[600] ^ 1]) + content[601:]


def test_a_wheel_that_is_absent_is_added_and_one_that_is_here_is_not(tmp_path: Path) -> None:
    import zipfile

    import msgspec

    shutil.copy(KIT / "unpack", tmp_path / "unpack")
    (tmp_path / "manifest.json").write_text(json.dumps({"parts": []}))
    wheels, code = tmp_path / "there" / "wheels", tmp_path / "there" / "ripieno" / "benchmarks" / "gpu"
    wheels.mkdir(parents=True)
    code.mkdir(parents=True)
    for name, version in (("ripieno_absent", "1.0"), ("msgspec", msgspec.__version__), ("psutil", "999.0")):
        with zipfile.ZipFile(wheels / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "")
    (code / "wheels.txt").write_text("# a remark\nmsgspec>=0.20\npsutil>=999\n")
    done = unpack(tmp_path)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "there" / "site"
    assert sorted(path.name for path in site.iterdir()) == ["psutil", "ripieno_absent"]


def test_every_file_that_mentions_cuda_stands_in_the_table_with_tests_that_exist() -> None:
    rows = re.findall(r"^\| `(ripieno/[^`]+)` \|.*\| (.+) \|$", TABLE.read_text(), re.MULTILINE)
    listed = [path for path, _ in rows]
    mentioning = [p for p in (ROOT / "ripieno").rglob("*.py") if "cuda" in p.read_text().lower()]
    assert listed == sorted(listed)
    assert set(listed) == {str(path.relative_to(ROOT)) for path in mentioning}
    for path, tests in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", tests)
        assert named, f"{path} names no test"
        for file, test in named:
            assert f"def {test}" in (ROOT / file).read_text(), f"{file} has no test {test}"


def test_every_test_of_the_gpu_stands_in_the_table() -> None:
    table = TABLE.read_text()
    for file in sorted((ROOT / "tests" / "gpu").glob("test_*.py")):
        for test in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE):
            assert f"`tests/gpu/{file.name}::{test}`" in table, f"{file.name}::{test}"


def dry_run(folder: Path, *words: str, limit: float = 280) -> dict[str, dict[str, object]]:
    """Run the kit at tiny size on the CPU; return the results by step."""
    command = [sys.executable, str(KIT / "run"), "--dry", "--out", str(folder / "out")]
    command += ["--scratch", str(folder / "scratch"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return dict(json.loads((folder / "out" / "results.json").read_text())["steps"])


def check_rows(found: dict[str, dict[str, object]]) -> None:
    """Check that every step is done with rows, none of which reports an error."""
    for name, entry in found.items():
        assert entry["state"] == "done", (name, entry)
        rows = entry["rows"]
        assert isinstance(rows, list)
        assert rows, name
        assert not [row for row in rows if "error" in row], name


def test_light_steps_run_dry(tmp_path: Path) -> None:
    found = dry_run(tmp_path, "--only", "doctor", "selection", "energy")
    assert list(found) == ["doctor", "selection", "energy"]
    check_rows(found)


@pytest.mark.timeout(1500)
def test_every_step_runs_dry(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="takes minutes: `make test-all` runs it")
    found = dry_run(tmp_path, limit=1400)
    names = re.findall(r'^    Step\("([\w-]+)"', (KIT / "run").read_text(), re.MULTILINE)
    assert list(found) == names
    check_rows(found)
    assert len(list((tmp_path / "out").iterdir())) <= 8
