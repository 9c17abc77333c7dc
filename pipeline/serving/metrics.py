"""The numbers of a watch for Prometheus, and those of several replicas on one page."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

REPLICA = "replica"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """What a watch counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        at: Any = {"namespace": "early_exit", "registry": self.registry}
        own = ("criterion",)
        self.requests = Counter("requests", "Requests by status.", ("status",), **at)
        self.seconds = Histogram("request_seconds", "Seconds from arrival to answer.", buckets=SECONDS, **at)
        self.rows = Counter("rows", "Rows by the exit that answered.", (*own, "threshold", "exit"), **at)
        self.capped = Counter("capped_rows", "Rows that the cap on extra layers held back.", own, **at)
        self.checked = Counter("checked_rows", "Rows whose last exit answered too.", own, **at)
        self.difference = Counter("difference", "Difference of checked rows from the last exit's answers.", own, **at)
        self.extra = Gauge("extra_layers", "Layers beyond the promised mean in the last minute.", **at)
        self.drift = Gauge("drift", "1: rows do not leave as the selection rows did.", own, **at)
        self.stake = Gauge("drift_stake", "What bets against the promise have won, from 1.", own, **at)
        self.alarms = Counter("drift_alarms", "How often the stake was high enough for a warning.", own, **at)
        self.share = Gauge("promised_share", "Share of selection rows by exit.", (*own, "exit"), **at)
        self.layers = Gauge("promised_layers", "Mean layers of selection rows.", own, **at)
        self.expected = Gauge("promised_difference", "Mean difference of selection rows.", own, **at)

    def promise(self, criterion: str, shares: np.ndarray, layers: float, difference: float) -> None:
        """Show what was promised of a criterion: shares by exit, (exits,), mean layers and difference."""
        for index, share in enumerate(shares.tolist()):
            self.share.labels(criterion, index + 1).set(share)
        self.layers.labels(criterion).set(layers)
        self.expected.labels(criterion).set(difference)
        for counter in (self.alarms, self.capped, self.checked, self.difference):
            counter.labels(criterion)  # 0 from the start

    def count_row(self, criterion: str, threshold: str, exit_index: int, capped: bool) -> None:
        """Count a row."""
        self.rows.labels(criterion, threshold, exit_index + 1).inc()
        if capped:
            self.capped.labels(criterion).inc()

    def text(self) -> str:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry).decode()


def merged(texts: Mapping[str, str]) -> str:
    """One text from each replica's own, with the replica that counted it beside each number.

    Sums over replicas are Prometheus' to make: `sum without (replica) (...)`.
    """
    registry = CollectorRegistry()
    registry.register(_Texts(texts))
    return generate_latest(registry).decode()


class _Texts(Collector):
    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts

    def collect(self) -> Iterator[Metric]:
        """Families by name, in the order of the first text that has them."""
        families: dict[str, Metric] = {}
        for replica, text in self.texts.items():
            for family in text_string_to_metric_families(text):
                together = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    together.samples.append(sample._replace(labels={**sample.labels, REPLICA: replica}))
        yield from families.values()
