"""Two Ray nodes, one of which is killed under load: wrong and lost answers of `ripieno deploy`.

    python benchmarks/serving/nodes.py [--quick] [--kills 5]

The nodes have one core each on this machine, and small object stores. Clients send requests without pause over sockets,
and check every answer against the reference. SIGKILL repeatedly ends the second node and its processes under load, and
a new node joins. At the end SIGTERM: the deployment must exit with 0 and leave no process of Ray Serve behind. Writes
benchmarks/results/serving-nodes.{json,txt}. Targets: nothing wrong, nothing lost.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[2]))
from record import record

from ripieno.server import Client
from tests.server.stand_in import direct_answers, write_small_bundle

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
SOON = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
"""Ray detects a dead node within about a second; the default takes about 15."""


class Asking(threading.Thread):
    """A thread that sends requests without pause and checks the answers."""

    def __init__(self, url: str, images: np.ndarray, truth: np.ndarray, seed: int) -> None:
        super().__init__()
        self.url, self.images, self.truth = url, images, truth
        self.dice = np.random.default_rng(seed)
        self.over = threading.Event()
        self.right = self.wrong = 0
        self.errors: list[str] = []
        self.seconds: list[tuple[float, float]] = []

    def run(self) -> None:
        """Send requests until `over` is set."""
        with Client(self.url) as client:
            while not self.over.is_set():
                size = int(self.dice.choice((1, 1, 1, 7, 40)))
                at = int(self.dice.integers(0, len(self.images) - size))
                began = time.monotonic()
                try:
                    answer = client.infer(self.images[at : at + size])
                except Exception as error:
                    self.errors.append(str(error))
                    continue
                good = np.abs(answer - self.truth[at : at + size]).max() < 1e-5
                self.right, self.wrong = self.right + good, self.wrong + (not good)
                self.seconds.append((began, time.monotonic() - began))


def workers(url: str) -> list[dict[str, Any]]:
    """Return the workers that are up, of all nodes."""
    overview = json.loads(urllib.request.urlopen(url + "/overview", timeout=30).read())
    return [worker for worker in overview["bundles"]["ensemble"]["engine"]["lanes"] if worker["up"]]


def wait_for(url: str, nodes: int) -> float:
    """Wait until `nodes` nodes answer; return the seconds."""
    began = time.monotonic()
    while len({worker["device"] for worker in workers(url)}) != nodes:
        if time.monotonic() > began + 120:
            raise RuntimeError(f"Expected {nodes} nodes within 120 s")
        time.sleep(0.1)
    return time.monotonic() - began


def kill(cluster: Cluster, node: Any) -> None:
    """Kill a node and its processes by SIGKILL."""
    replicas = [p for p in psutil.process_iter(["cmdline"]) if "ray::ServeReplica" in " ".join(p.info["cmdline"] or ())]
    raylet = node.all_processes["raylet"][0].process.pid
    for process in [p for p in replicas if p.ppid() == raylet]:
        process.kill()
    cluster.remove_node(node, allow_graceful=False)


def left() -> int:
    """Count the processes of Ray Serve."""
    return sum("ray::Serve" in " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"]))


def main() -> None:
    """Deploy, send requests, kill, check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="one kill")
    options = parser.parse_args()
    kills = 1 if options.quick else options.kills
    found, before = [], left()
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "_system_config": SOON})
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_small_bundle(Path(folder))
        images = np.random.default_rng(0).integers(0, 256, (256, 8, 8, 3), dtype=np.uint8)
        truth = direct_answers(bundle, images).mean(0)
        node = cluster.add_node(**NODE)
        began = time.monotonic()
        command = [sys.executable, "-m", "ripieno", "deploy", folder, "--address", cluster.address, "--port", "0"]
        server = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True)
        try:
            url = json.loads("".join(iter(server.stdout.readline, "}\n")) + "}")["url"]
            wait_for(url, 2)
            up = time.monotonic() - began
            clients = [Asking(url, images, truth, i) for i in range(options.clients)]
            for client in clients:
                client.start()
            for _ in range(kills):
                time.sleep(4)
                killed = time.monotonic()
                kill(cluster, node)
                wait_for(url, 1)
                time.sleep(2)
                longest = max(s for c in clients for at, s in c.seconds if at + s > killed - 1)
                node = cluster.add_node(**NODE)
                found.append((longest, wait_for(url, 2)))
            for client in clients:
                client.over.set()
                client.join()
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(90)
            remaining = left() - before
            cluster.shutdown()
    seconds = [s for c in clients for _, s in c.seconds]
    errors = sorted({error for c in clients for error in c.errors})
    row = {
        "kills": kills,
        "requests": len(seconds) + sum(len(c.errors) for c in clients),
        "right": sum(c.right for c in clients),
        "wrong": sum(c.wrong for c in clients),
        "lost": sum(len(c.errors) for c in clients),
        "up s": up,
        "p50 ms": 1e3 * float(np.median(seconds)),
        "longest s at a kill": max(longest for longest, _ in found),
        "joined s": float(np.median([joined for _, joined in found])),
        "exit code": code,
        "left": remaining,
    }
    record("serving-nodes" + "-quick" * options.quick, {"clients": options.clients}, [row], "; ".join(errors))
    if row["wrong"] or row["lost"] or code or remaining:
        sys.exit(1)


if __name__ == "__main__":
    main()
