"""The operating point: the criterion and threshold at which rows leave."""

import math

from pydantic import JsonValue

from pipeline.results.base import Part, Text


class OperatingPoint(Part):
    """A criterion with its settings, its fit and its threshold; or "all layers".

    evaluate makes it; live inference, latency, attack, predictions and report read it. `pipeline.evaluation.point`
    converts it to a criterion and back.
    """

    criterion: Text | None = None
    """Name of the criterion; None: all layers, where the last exit answers."""
    settings: dict[Text, float] = {}
    """Settings of the criterion in params.yaml."""
    fitted: dict[Text, JsonValue] = {}
    """Fields that the criterion learned from selection rows, such as temperatures; empty for most."""
    threshold: float | None = None
    """A row leaves at the first exit whose score reaches it; None: no row leaves before the last exit."""

    def check(self) -> None:
        if self.criterion is None and (self.settings or self.fitted or self.threshold is not None):
            raise ValueError("criterion is missing for a threshold, a setting or a fit")

    @property
    def limit(self) -> float:
        """The threshold as a number: infinity for never."""
        return math.inf if self.threshold is None else self.threshold

    @property
    def name(self) -> str:
        """Its name in metrics and files."""
        return self.criterion or "full"


ALL_LAYERS = OperatingPoint()
"""No early exit."""
