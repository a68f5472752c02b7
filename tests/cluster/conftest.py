"""Job functions are in the folder of the tests: workers inherit `sys.path` and can import them by name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Start a Ray cluster of one node with room for one slot, and connect to it."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'ripieno[cluster]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of Ray itself: open sockets, settings of its next versions
        import ray
        from ray.cluster_utils import Cluster

        # notice a dead node soon
        soon = {
            "health_check_initial_delay_ms": 500,
            "health_check_period_ms": 300,
            "health_check_failure_threshold": 3,
        }
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": soon})
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


RAYS_OWN = ("ResourceWarning", "FutureWarning", "DeprecationWarning", "pytest.PytestUnraisableExceptionWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore Ray's own warnings."""
    for item in items:
        if "ray" in item.nodeid.rpartition("::")[2] or "test_ray_pool" in item.nodeid:
            for kind in RAYS_OWN:
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))
