"""The operating point: how a trained model decides that a row may leave."""

import math

from pydantic import JsonValue

from pipeline.results.base import Part


class OperatingPoint(Part):
    """A criterion with its settings, what it learned, and its threshold; "all layers" is one of its values.

    Made once, by evaluate, and read by all that run, time, attack, predict or show a model. `pipeline.evaluation.point`
    turns it into the criterion that decides, and back.
    """

    criterion: str | None = None
    """Name of the exit criterion; None: all layers, the last exit answers."""
    settings: dict[str, float] = {}
    """The criterion's settings, as params.yaml has them."""
    fitted: dict[str, JsonValue] = {}
    """What the criterion learned from selection rows, such as temperatures; mostly empty."""
    threshold: float | None = None
    """A row leaves at the first exit whose score reaches it; None: never before the last."""

    @property
    def limit(self) -> float:
        """The threshold as a number: infinity for never."""
        return math.inf if self.threshold is None else self.threshold

    @property
    def name(self) -> str:
        """How it is called in a metric's or a file's name."""
        return self.criterion or "full"


ALL_LAYERS = OperatingPoint()
"""No early exit."""
