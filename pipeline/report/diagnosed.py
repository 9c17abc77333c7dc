"""A stored diagnosis as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Diagnosed:
    """One trained model on one report split, as pipeline/evaluation/diagnosis.py describes it; None: not defined.

    Attributes:
        overthinking: share of rows that some exit has right and the last wrong.
        oracle_score, oracle_speedup: leaving at the first exit that is right.
        agreement: share of rows that two exits answer alike, exits x exits.
        calibration: expected calibration error of each exit.
        lost, won: criterion to the share of rows lost and won against the full model, at its operating point.
    """

    task: str
    backbone: str
    method: str
    split: str
    seed: int
    key: str
    layers: tuple[float, ...]
    overthinking: float | None
    oracle_score: float | None
    oracle_speedup: float | None
    agreement: tuple[tuple[float, ...], ...] | None
    calibration: tuple[float, ...] | None
    lost: Mapping[str, float | None]
    won: Mapping[str, float | None]

    @classmethod
    def read(cls, task: str, row: Mapping[str, Any]) -> "Diagnosed":
        agreement, calibration = row["agreement"], row["calibration"]
        return cls(
            task,
            **{name: row[name] for name in ("backbone", "method", "split", "seed", "key")},
            layers=tuple(row["layers"]),
            overthinking=_share(row["overthinking"]),
            oracle_score=row["oracle"]["score"],
            oracle_speedup=row["oracle"]["layer_speedup"],
            agreement=None if agreement is None else tuple(tuple(shares) for shares in agreement),
            calibration=None if calibration is None else tuple(calibration["error"]),
            lost={point["criterion"]: _share(point["lost"]) for point in row["criteria"]},
            won={point["criterion"]: _share(point["won"]) for point in row["criteria"]},
        )


def _share(stored: Mapping[str, Any] | None) -> float | None:
    return None if stored is None else float(stored["share"])
