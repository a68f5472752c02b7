"""Descriptions of the peers, and a virtual environment for each, under runs/peers/NAME.

A peer's file begins with literals: TITLE, PROTOCOL, SETTINGS, REQUIREMENTS, and where it needs another Python than this
one PYTHON, where it uses the environment of another peer SHARES. They are read without running the file, whose imports
are there in the peer's own environment only.
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
"""A download that takes longer is given up."""


@dataclass(frozen=True)
class Peer:
    """A server to be compared with: its script takes the folder of networks, a port, the number of cores, a setting."""

    name: str
    title: str
    protocol: str
    """`oip`, `grpc` or `raw`: a key of `client.PROTOCOLS`"""
    settings: dict[str, str]
    """those that may be its best, by name, in words: which is the best at a load is measured"""
    requirements: tuple[str, ...]
    shares: str = ""
    """the peer whose environment it uses"""
    python: str = sys.executable

    @property
    def script(self) -> Path:
        """Its server."""
        return HERE / f"{self.name}.py"

    @property
    def home(self) -> Path:
        """Its folder."""
        return HOMES / (self.shares or self.name)

    @property
    def executable(self) -> Path:
        """Python of its environment."""
        return self.home / "venv" / "bin" / "python"


def read_peer(name: str) -> Peer:
    """A peer from the literals of its file."""
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
    """Make a peer's environment anew; why not, in one line, or nothing."""
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
            reason = f"installing took more than {MINUTES:g} minutes"
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
    """Why a peer cannot be started, or nothing."""
    refused = peer.home / "refused.txt"
    if refused.exists():
        return refused.read_text().strip()
    return "" if peer.executable.exists() else f"not installed: peers.py --install {peer.name}"
