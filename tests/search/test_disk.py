"""A disk that is really full: a separate file system in a separate namespace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]

SCRIPT = """
mount -t tmpfs -o size={size}k none {run} || exit 77
{drive} && exit 1
df {run} >&2
mount -o remount,size=64m {run}
{drive}
"""


def test_a_full_disk_stops_the_search_in_one_line_and_with_room_it_goes_on(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*SPACE, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare and the right to mount in a namespace of one's own")
    drive = f"{sys.executable} {HERE / 'drive.py'} {tmp_path} 30 9 1 0.001"
    script = SCRIPT.format(size=380, run=tmp_path, drive=drive)
    done = subprocess.run([*SPACE, script], capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip("needs the right to mount in a namespace of one's own")
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("ripieno.errors.SearchError"))
    assert ": No space left on device: " in line
    assert line.endswith(" and start the search again to resume it")
    assert done.stdout.startswith("trials ")
