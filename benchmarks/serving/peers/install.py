"""Descriptions of the peers, and a virtual environment for each, under runs/peers/NAME.

A peer's file begins with literals: TITLE, PROTOCOL, SETTINGS, REQUIREMENTS, PYTHON if it needs another Python than this
one, and SHARES if it uses the environment of another peer. They are read without running the file, because its imports
exist only in the peer's own environment.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
HOMES = HERE.parents[2] / "runs" / "peers"
"""Environments, journals and logs; ignored by git."""
MINUTES = 6.0
"""Installation timeout in minutes."""


@dataclass(frozen=True)
class Peer:
    """A server for comparison: its script takes the networks' folder, a port, the number of cores, a setting."""

    name: str
    title: str
    protocol: str
    """`oip`, `grpc` or `raw`: a key of `client.PROTOCOLS`"""
    settings: dict[str, str]
    """descriptions of the candidate settings, by name; the best at each load is measured"""
    requirements: tuple[str, ...]
    shares: str = ""
    """name of the peer with the environment to use"""
    python: str = sys.executable

    @property
    def script(self) -> Path:
        """File of its server."""
        return HERE / f"{self.name}.py"

    @property
    def home(self) -> Path:
        """Folder of its environment."""
        return HOMES / (self.shares or self.name)

    @property
    def executable(self) -> Path:
        """Python of its environment."""
        return self.home / "venv" / "bin" / "python"


def read_peer(name: str) -> Peer:
    """Read a peer from the literals of its file."""
    tree = ast.parse((HERE / f"{name}.py").read_text())
    facts = {
        node.targets[0].id.lower(): ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in FACTS
    }
    return Peer(name, **facts)


FACTS = ("TITLE", "PROTOCOL", "SETTINGS", "REQUIREMENTS", "SHARES", "PYTHON")
NAMES = tuple(sorted(p.stem for p in HERE.glob("*.py") if "\nREQUIREMENTS = " in p.read_text()))


def install(peer: Peer) -> str:
    """Recreate a peer's environment; return the reason of a failure in one line, or an empty string."""
    if Path(peer.python).name == "python3" and not Path(peer.python).exists():
        return f"needs {peer.python}"
    shutil.rmtree(peer.home / "venv", ignore_errors=True)
    steps = [
        [peer.python, "-m", "venv", str(peer.home / "venv")],
        [str(peer.executable), "-m", "pip", "install", "-q", "--no-cache-dir", *peer.requirements],
    ]
    for step in steps:
        try:
            done = subprocess.run(step, capture_output=True, text=True, timeout=60 * MINUTES, check=False)
        except subprocess.TimeoutExpired:
            reason = f"installation exceeded {MINUTES:g} minutes"
        else:
            if not done.returncode:
                continue
            words = [line for line in done.stderr.splitlines() if line.strip()]
            reason = "pip: " + next((w for w in words if "ERROR" in w), words[-1] if words else "failed")[:160]
        (peer.home / "refused.txt").write_text(reason + "\n")
        return reason
    (peer.home / "refused.txt").unlink(missing_ok=True)
    return ""


def why_not(peer: Peer) -> str:
    """Return the reason why a peer cannot be started, or an empty string."""
    refused = peer.home / "refused.txt"
    if refused.exists():
        return refused.read_text().strip()
    return "" if peer.executable.exists() else f"not installed: peers.py --install {peer.name}"
