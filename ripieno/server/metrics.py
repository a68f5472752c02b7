"""`/metrics`: counts of the server and its engines in the Prometheus text format.

Nothing is stored twice: the counts are read from `served_model_stats` and `Engine.stats` at each request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ripieno.server.event_loop import LoopLag
from ripieno.server.limits import Admission
from ripieno.server.models import Models
from ripieno.server.served_model_stats import Histogram

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
WORK = {
    "batches": ("batches", "Predicted batches."),
    "samples": ("samples", "Predicted samples."),
    "queue_seconds": ("waiting", "Time for which the oldest sample of each batch waited."),
    "compute_seconds": ("computing", "Time inside the backend."),
    "combine_seconds": ("combining", "Time spent combining predictions into answers."),
}
"""Counters of each member and of each worker: the attribute of their statistics, and their help."""


class Metrics(Collector):
    """Prometheus collector of a server's counts."""

    def __init__(self, models: Models, admission: Admission, lag: LoopLag) -> None:
        self.models = models
        self.admission = admission
        self.lag = lag
        self.registry = CollectorRegistry()
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=self.registry)
        self.registry.register(self)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def describe(self) -> Iterable[Metric]:
        """Return no fixed metrics: the names depend on the bundles."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its current values."""
        yield from self._server()
        yield from self._requests()
        yield from self._engines()
        yield from self._work()

    def _server(self) -> Iterator[Metric]:
        admission = self.admission
        yield GaugeMetricFamily("ripieno_requests_in_flight", "Requests in flight.", admission.requests)
        yield GaugeMetricFamily("ripieno_body_bytes_in_flight", "Bytes of bodies in flight.", admission.held)
        refused = CounterMetricFamily("ripieno_refused", "Refused requests, by HTTP status.", labels=["status"])
        for status, count in sorted(admission.refused.items()):
            refused.add_metric([str(status)], count)
        yield refused
        lag = HistogramMetricFamily(
            "ripieno_event_loop_lag_seconds",
            "Lag of the event loop, measured by a timer that is due every 10 ms.",
            labels=[],
        )
        lag.add_metric([], _buckets(self.lag.seconds), self.lag.seconds.total)
        yield lag
        yield GaugeMetricFamily("ripieno_event_loop_lag_max_seconds", "Maximum lag so far.", self.lag.longest)

    def _requests(self) -> Iterator[Metric]:
        answered = CounterMetricFamily(
            "ripieno_inference_requests", "Requests by outcome.", labels=["model", "outcome"]
        )
        samples = CounterMetricFamily("ripieno_inference_samples", "Samples answered.", labels=["model"])
        partial = CounterMetricFamily("ripieno_partial_answers", "Answers without all members.", labels=["model"])
        seconds = HistogramMetricFamily(
            "ripieno_inference_request_duration_seconds", "Time from the read body to the answer.", labels=["model"]
        )
        sizes = HistogramMetricFamily("ripieno_inference_request_samples", "Samples per request.", labels=["model"])
        for name, model in self.models.by_name.items():
            stats = model.stats
            late = stats.failures[504]
            counts = {"success": stats.requests, "late": late, "error": stats.failures.total() - late}
            for outcome, count in counts.items():
                answered.add_metric([name, outcome], count)
            samples.add_metric([name], stats.samples.total)
            partial.add_metric([name], stats.partial)
            seconds.add_metric([name], _buckets(stats.seconds), stats.seconds.total)
            sizes.add_metric([name], _buckets(stats.samples), stats.samples.total)
        yield from (answered, samples, partial, seconds, sizes)

    def _engines(self) -> Iterator[Metric]:
        gauges = {
            "ready": GaugeMetricFamily("ripieno_ready", "1 while every worker is up.", labels=["bundle"]),
            "waiting": GaugeMetricFamily("ripieno_waiting_requests", "Requests waiting for room.", labels=["bundle"]),
            "pending": GaugeMetricFamily("ripieno_pending_samples", "Samples in the ring.", labels=["bundle"]),
            "capacity": GaugeMetricFamily("ripieno_capacity_samples", "Capacity of the ring.", labels=["bundle"]),
        }
        combining = CounterMetricFamily("ripieno_combining_seconds", "Time spent combining.", labels=["bundle"])
        for name, served in self.models.engines.items():
            stats = served.engine.stats()
            gauges["ready"].add_metric([name], served.engine.ready)
            gauges["waiting"].add_metric([name], served.engine.waiting)
            gauges["pending"].add_metric([name], stats.pending)
            gauges["capacity"].add_metric([name], stats.capacity)
            combining.add_metric([name], stats.combining)
        yield from (*gauges.values(), combining)

    def _work(self) -> Iterator[Metric]:
        families = {
            ("member", what): CounterMetricFamily(f"ripieno_member_{what}", text, labels=["bundle", "member"])
            for what, (_, text) in WORK.items()
        }
        up, restarts = {}, {}
        for prefix in ("worker", "lane"):
            labels = ["bundle", "device", prefix]
            up[prefix] = GaugeMetricFamily(
                f"ripieno_{prefix}_up", _help(prefix, "up", "1 while the worker runs."), labels=labels
            )
            restarts[prefix] = CounterMetricFamily(
                f"ripieno_{prefix}_restarts", _help(prefix, "restarts_total", "Crashes of the worker."), labels=labels
            )
            for what, (_, text) in WORK.items():
                families[prefix, what] = CounterMetricFamily(
                    f"ripieno_{prefix}_{what}", _help(prefix, f"{what}_total", text), labels=labels
                )
        for name, served in self.models.engines.items():
            stats = served.engine.stats()
            rows = [("member", [name, m], work) for m, work in stats.members.items()]
            for prefix in ("worker", "lane"):
                for worker in stats.lanes:
                    labels = [name, worker.device, str(worker.lane)]
                    rows.append((prefix, labels, worker))
                    up[prefix].add_metric(labels, worker.up)
                    restarts[prefix].add_metric(labels, worker.restarts)
            for prefix, labels, work in rows:
                for what, (attribute, _) in WORK.items():
                    families[prefix, what].add_metric(labels, getattr(work, attribute))
        yield from (*up.values(), *restarts.values(), *families.values())


def _help(prefix: str, name: str, text: str) -> str:
    """Return the help of a worker's metric; `ripieno_lane_*` are the deprecated names of `ripieno_worker_*`."""
    return f"Deprecated: use ripieno_worker_{name}." if prefix == "lane" else text


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(str, map(float, histogram.bounds)), "+Inf"]
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
