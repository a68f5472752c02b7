"""`/metrics`: counts of the server and its engines in the Prometheus text format.

Nothing is stored twice: the counts are read from `served_model_stats` and `Engine.stats` at each request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ripieno.engine.inference_result import MemberStats, WorkerStats
from ripieno.server.event_loop import LoopLag
from ripieno.server.limits import Admission
from ripieno.server.models import AnyEngine, Models
from ripieno.server.served_model_stats import Histogram, ServedModelStats
from ripieno.server.watcher import DriftWatcher

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
        admission = self.admission
        refused = CounterMetricFamily("ripieno_refused", "Refused requests, by HTTP status.", labels=["status"])
        for status, count in sorted(admission.refused.items()):
            refused.add_metric([str(status)], count)
        families: dict[str, Any] = {"ripieno_refused": refused}

        def add(kind: Any, name: str, text: str, labels: Mapping[str, str], *values: Any) -> None:
            if name not in families:
                families[name] = kind(name, text, labels=list(labels))
            families[name].add_metric(list(labels.values()), *values)

        add(GaugeMetricFamily, "ripieno_requests_in_flight", "Requests in flight.", {}, admission.requests)
        add(GaugeMetricFamily, "ripieno_body_bytes_in_flight", "Bytes of bodies in flight.", {}, admission.held)
        text = "Lag of the event loop, measured by a timer that is due every 10 ms."
        lag = _buckets(self.lag.seconds), self.lag.seconds.total
        add(HistogramMetricFamily, "ripieno_event_loop_lag_seconds", text, {}, *lag)
        add(GaugeMetricFamily, "ripieno_event_loop_lag_max_seconds", "Maximum lag so far.", {}, self.lag.longest)
        for name, model in self.models.by_name.items():
            _add_requests(add, {"model": name}, model.stats)
            if model.watcher is not None:
                _add_drift(add, {"model": name}, model.watcher)
            if model.labels is not None:
                _add_live(add, {"model": name}, model.labels.live())
        for name, served in self.models.engines.items():
            _add_engine(add, {"bundle": name}, served.engine)
        yield from families.values()


def _add_requests(add: Callable[..., None], labels: Mapping[str, str], stats: ServedModelStats) -> None:
    late = stats.failures[504]
    counts = {"success": stats.requests, "late": late, "error": stats.failures.total() - late}
    for outcome, count in counts.items():
        by_outcome = {**labels, "outcome": outcome}
        add(CounterMetricFamily, "ripieno_inference_requests", "Requests by outcome.", by_outcome, count)
    add(CounterMetricFamily, "ripieno_inference_samples", "Samples answered.", labels, stats.samples.total)
    add(CounterMetricFamily, "ripieno_partial_answers", "Answers without all members.", labels, stats.partial)
    for column, count in stats.unseen.items():
        text = "Categories in answered requests that training did not have."
        add(CounterMetricFamily, "ripieno_unseen_categories", text, {**labels, "column": column}, count)
    for abstained, count in stats.abstained.items():
        text = "Samples of answered requests for the output abstain, by its value."
        value = str(abstained).lower()
        add(CounterMetricFamily, "ripieno_abstain_samples", text, {**labels, "abstain": value}, count)
    for name, text, values in (
        ("ripieno_inference_request_duration_seconds", "Time from the read body to the answer.", stats.seconds),
        ("ripieno_inference_request_samples", "Samples per request.", stats.samples),
    ):
        add(HistogramMetricFamily, name, text, labels, _buckets(values), values.total)


def _add_drift(add: Callable[..., None], labels: Mapping[str, str], watcher: DriftWatcher) -> None:
    detector = watcher.detector
    add(GaugeMetricFamily, "ripieno_drift", "1 while requests have drifted.", labels, detector.drifting)
    add(CounterMetricFamily, "ripieno_drifts", "Drifts that began.", labels, detector.drifts)
    add(CounterMetricFamily, "ripieno_watched_windows", "Windows of samples compared.", labels, watcher.windows)
    add(CounterMetricFamily, "ripieno_watched_samples", "Samples taken by the watcher.", labels, watcher.samples)
    text = "Samples the watcher had no room for."
    add(CounterMetricFamily, "ripieno_watch_dropped_samples", text, labels, watcher.dropped)
    for subject, state in detector.by_subject().items():
        own = {**labels, "subject": subject}
        text = "Distance of the last window from the validation samples, 0..1."
        add(GaugeMetricFamily, "ripieno_drift_distance", text, own, state.comparison.distance)
        text = "Least p of the last window, times the number of its distributions."
        add(GaugeMetricFamily, "ripieno_drift_p", text, own, state.p)


LIVE_METRICS = {
    "ripieno_live_accuracy": "accuracy",
    "ripieno_live_accuracy_low": "accuracy_low",
    "ripieno_live_accuracy_high": "accuracy_high",
    "ripieno_live_loss": "loss",
    "ripieno_live_loss_low": "loss_low",
    "ripieno_live_loss_high": "loss_high",
}
"""Figures of `LabelStore.live` by the name of their metric."""


def _add_live(add: Callable[..., None], labels: Mapping[str, str], live: Mapping[str, Any]) -> None:
    add(CounterMetricFamily, "ripieno_labels", "Labels of answered requests.", labels, live["labels"])
    add(GaugeMetricFamily, "ripieno_live_samples", "Labelled answers of the live figures.", labels, live["samples"])
    for metric, name in LIVE_METRICS.items():
        if (value := live.get(name)) is not None:
            text = "Figure of the latest labelled answers, or a bound of its interval of 95 %."
            add(GaugeMetricFamily, metric, text, labels, value)


def _add_engine(add: Callable[..., None], labels: Mapping[str, str], engine: AnyEngine) -> None:
    stats = engine.stats()
    add(GaugeMetricFamily, "ripieno_ready", "1 while every worker is up.", labels, engine.ready)
    add(GaugeMetricFamily, "ripieno_waiting_requests", "Requests waiting for room.", labels, engine.waiting)
    add(GaugeMetricFamily, "ripieno_pending_samples", "Samples in the ring.", labels, stats.pending)
    add(GaugeMetricFamily, "ripieno_capacity_samples", "Capacity of the ring.", labels, stats.capacity)
    add(CounterMetricFamily, "ripieno_combining_seconds", "Time spent combining.", labels, stats.combining)
    rows: list[tuple[str, Mapping[str, str], MemberStats | WorkerStats]]
    rows = [("member", {**labels, "member": member}, work) for member, work in stats.members.items()]
    for prefix in ("worker", "lane"):
        rows += [(prefix, {**labels, "device": w.device, prefix: str(w.lane)}, w) for w in stats.lanes]
    for prefix, own, work in rows:
        if isinstance(work, WorkerStats):
            add(
                GaugeMetricFamily, f"ripieno_{prefix}_up", _help(prefix, "up", "1 while the worker runs."), own, work.up
            )
            text = _help(prefix, "restarts_total", "Crashes of the worker.")
            add(CounterMetricFamily, f"ripieno_{prefix}_restarts", text, own, work.restarts)
        for name, (attribute, text) in WORK.items():
            text = _help(prefix, f"{name}_total", text)
            add(CounterMetricFamily, f"ripieno_{prefix}_{name}", text, own, getattr(work, attribute))


def _help(prefix: str, name: str, text: str) -> str:
    """Return the help of a worker's metric; `ripieno_lane_*` are the deprecated names of `ripieno_worker_*`."""
    return f"Deprecated: use ripieno_worker_{name}." if prefix == "lane" else text


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(str, map(float, histogram.bounds)), "+Inf"]
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
