"""The metrics of several replicas as one page of Prometheus' text: each number with the replica that counted it."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

REPLICA = "replica"


def merged(texts: Mapping[str, str]) -> str:
    """One text from each replica's own.

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
