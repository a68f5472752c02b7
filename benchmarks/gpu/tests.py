"""Step tests: tests/gpu, the code paths of ripieno that only a GPU reaches."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from kit import Report, read_options

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Run pytest file by file; add a row for each test."""
    options = read_options()
    report = Report(options)
    files = sorted((ROOT / "tests" / "gpu").glob("test_*.py"))
    for path in files[: 1 if options.dry else None]:
        if options.left() < 20:
            report.note(f"The time ended before {path.name}.")
            return
        with report.case(test=path.name, state="failed"):
            run_file(report, path, options.scratch / "tests.xml")


def run_file(report: Report, path: Path, results: Path) -> None:
    """Run the tests of one file."""
    results.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", str(path), "-p", "no:cacheprovider", f"--junit-xml={results}"]
    # the options of the project's own test runs need plugins that may be absent here
    command += ["-o", "addopts=", "-o", "filterwarnings=", "--import-mode=importlib", "-q", "-ra"]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if not results.exists():
        raise RuntimeError(f"pytest ended with exit code {done.returncode} and wrote no results")
    for case in ElementTree.parse(results).getroot().iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        states = {"failure": "failed", "error": "failed", "skipped": "skipped"}
        state = next((states[child.tag] for child in case if child.tag in states), "passed")
        reason = next((child.get("message", "") for child in case if child.tag in states), "")
        row = {"error": reason[:300]} if state == "failed" else {"remark": reason[:200]}
        report.add(test=name, state=state, seconds=float(case.get("time", 0)), **row)


if __name__ == "__main__":
    main()
