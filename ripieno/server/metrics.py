"""`/metrics`: what the server and its engines count, in the text that Prometheus reads.

Nothing is kept twice: the counts are those of `tally` and of `Engine.stats`, read when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ripieno.server.limits import Admission
from ripieno.server.loop_lag import LoopLag
from ripieno.server.models import Models
from ripieno.server.served_model_stats import Histogram

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Metrics(Collector):
    """Reads a server's counts for Prometheus."""

    def __init__(self, models: Models, admission: Admission, lag: LoopLag) -> None:
        self.models = models
        self.admission = admission
        self.lag = lag
        self.registry = CollectorRegistry()
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=self.registry)
        self.registry.register(self)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing fixed: the names depend on the bundles."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric now."""
        yield from self._door()
        yield from self._requests()
        yield from self._engines()
        yield from self._work()

    def _door(self) -> Iterator[Metric]:
        admission = self.admission
        yield GaugeMetricFamily("ripieno_requests_in_flight", "Requests under way.", admission.requests)
        yield GaugeMetricFamily("ripieno_body_bytes_in_flight", "Bytes of bodies under way.", admission.held)
        refused = CounterMetricFamily("ripieno_refused", "Requests refused, by HTTP status.", labels=["status"])
        for status, count in sorted(admission.refused.items()):
            refused.add_metric([str(status)], count)
        yield refused
        lag = HistogramMetricFamily(
            "ripieno_event_loop_lag_seconds",
            "How late the event loop came to a timer that is due every 10 ms.",
            labels=[],
        )
        lag.add_metric([], _buckets(self.lag.seconds), self.lag.seconds.total)
        yield lag
        yield GaugeMetricFamily("ripieno_event_loop_lag_max_seconds", "The latest it ever came.", self.lag.longest)

    def _requests(self) -> Iterator[Metric]:
        answered = CounterMetricFamily(
            "ripieno_inference_requests", "Requests by outcome.", labels=["model", "outcome"]
        )
        samples = CounterMetricFamily("ripieno_inference_samples", "Samples answered.", labels=["model"])
        partial = CounterMetricFamily("ripieno_partial_answers", "Answers without all members.", labels=["model"])
        seconds = HistogramMetricFamily(
            "ripieno_inference_request_duration_seconds", "From a body read to its answer.", labels=["model"]
        )
        sizes = HistogramMetricFamily("ripieno_inference_request_samples", "Samples per request.", labels=["model"])
        for name, model in self.models.by_name.items():
            tally = model.stats
            late = tally.failures[504]
            counts = {"success": tally.requests, "late": late, "error": tally.failures.total() - late}
            for outcome, count in counts.items():
                answered.add_metric([name, outcome], count)
            samples.add_metric([name], tally.samples.total)
            partial.add_metric([name], tally.partial)
            seconds.add_metric([name], _buckets(tally.seconds), tally.seconds.total)
            sizes.add_metric([name], _buckets(tally.samples), tally.samples.total)
        yield from (answered, samples, partial, seconds, sizes)

    def _engines(self) -> Iterator[Metric]:
        gauges = {
            "ready": GaugeMetricFamily("ripieno_ready", "1 while every lane is up.", labels=["bundle"]),
            "waiting": GaugeMetricFamily("ripieno_waiting_requests", "Requests waiting for room.", labels=["bundle"]),
            "pending": GaugeMetricFamily("ripieno_pending_samples", "Samples in the ring.", labels=["bundle"]),
            "capacity": GaugeMetricFamily("ripieno_capacity_samples", "Samples the ring holds.", labels=["bundle"]),
        }
        combining = CounterMetricFamily("ripieno_combining_seconds", "Time spent combining.", labels=["bundle"])
        for name, line in self.models.engines.items():
            stats = line.engine.stats()
            gauges["ready"].add_metric([name], line.engine.ready)
            gauges["waiting"].add_metric([name], line.engine.waiting)
            gauges["pending"].add_metric([name], stats.pending)
            gauges["capacity"].add_metric([name], stats.capacity)
            combining.add_metric([name], stats.combining)
        yield from (*gauges.values(), combining)

    def _work(self) -> Iterator[Metric]:
        member, lane = ["bundle", "member"], ["bundle", "device", "lane"]
        up = GaugeMetricFamily("ripieno_lane_up", "1 while the lane works.", labels=lane)
        restarts = CounterMetricFamily("ripieno_lane_restarts", "Deaths of the lane.", labels=lane)
        families = {
            (of, what): CounterMetricFamily(f"ripieno_{of}_{what}", text, labels=labels)
            for of, labels in (("member", member), ("lane", lane))
            for what, text in (
                ("batches", "Batches predicted."),
                ("samples", "Samples predicted."),
                ("queue_seconds", "Time the oldest sample of each batch waited."),
                ("compute_seconds", "Time inside the backend."),
                ("combine_seconds", "Time in which predictions became answers."),
            )
        }
        for name, line in self.models.engines.items():
            stats = line.engine.stats()
            rows = [("member", [name, m], w) for m, w in stats.members.items()]
            rows += [("lane", [name, x.device, str(x.lane)], x) for x in stats.lanes]
            for of, labels, work in rows:
                families[of, "batches"].add_metric(labels, work.batches)
                families[of, "samples"].add_metric(labels, work.samples)
                families[of, "queue_seconds"].add_metric(labels, work.waiting)
                families[of, "compute_seconds"].add_metric(labels, work.computing)
                families[of, "combine_seconds"].add_metric(labels, work.combining)
            for x in stats.lanes:
                up.add_metric([name, x.device, str(x.lane)], x.up)
                restarts.add_metric([name, x.device, str(x.lane)], x.restarts)
        yield from (up, restarts, *families.values())


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(str, map(float, histogram.bounds)), "+Inf"]
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
