"""Stored results as plain values: the shapes that `docs/results-schema.md` describes, typed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report.diagnosed import Diagnosed


@dataclass(frozen=True)
class Interval:
    """A number with its interval; None where it is not defined.

    Attributes:
        centre: the median over seeds, or the value over examples.
        n: seeds or examples.
        coverage: of an interval over seeds: chance that it holds the population's median.
        values: of each seed.
    """

    centre: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    coverage: float | None = None
    values: tuple[float | None, ...] = ()

    @classmethod
    def over_seeds(cls, stored: Mapping[str, Any]) -> "Interval":
        values = tuple(stored["values"])
        return cls(stored["median"], stored["low"], stored["high"], len(values), stored["coverage"], values)

    @classmethod
    def over_examples(cls, stored: Mapping[str, Any]) -> "Interval":
        return cls(stored["value"], stored["low"], stored["high"], stored["n"])


@dataclass(frozen=True)
class Result:
    """A row of evaluate or cifar: one model group under one exit rule (criterion None: all layers) on one split."""

    task: str
    backbone: str
    method: str
    criterion: str | None
    settings: Mapping[str, float]
    split: str
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    thresholds: tuple[float | None, ...]
    score: Interval
    metrics: Mapping[str, Interval]
    layer_speedup: Interval
    flop_speedup: Interval
    rule: str
    in_window: bool
    selected_on: str
    risk: Interval | None

    @classmethod
    def read(cls, task: str, row: Mapping[str, Any]) -> "Result":
        labels: dict[str, Any] = {n: row[n] for n in ("backbone", "method", "criterion", "settings", "split")}
        return cls(
            task,
            **labels,
            seeds=tuple(row["seeds"]),
            keys=tuple(row["keys"]),
            thresholds=tuple(row["thresholds"]),
            score=Interval.over_seeds(row["score"]),
            metrics={name: Interval.over_seeds(value) for name, value in row["metrics"].items()},
            layer_speedup=Interval.over_seeds(row["layer_speedup"]),
            flop_speedup=Interval.over_seeds(row["flop_speedup"]),
            rule=row["rule"],
            in_window=row["in_window"],
            selected_on=row["selected_on"],
            risk=None if row["risk"] is None else Interval.over_seeds(row["risk"]),
        )


@dataclass(frozen=True)
class Exits:
    """The score of each exit taken alone, of one trained model."""

    task: str
    backbone: str
    method: str
    split: str
    seed: int
    key: str
    layers: tuple[int, ...]
    scores: tuple[float | None, ...]

    @classmethod
    def read(cls, task: str, row: Mapping[str, Any]) -> "Exits":
        names = ("backbone", "method", "split", "seed", "key")
        return cls(task, **{n: row[n] for n in names}, layers=tuple(row["layers"]), scores=tuple(row["scores"]))


@dataclass(frozen=True)
class Point:
    """One setting of a criterion: its threshold and what it gives."""

    threshold: float
    score: float
    layer_speedup: float
    flop_speedup: float


@dataclass(frozen=True)
class Curve:
    """Every setting of one criterion on one trained model and split."""

    task: str
    backbone: str
    method: str
    criterion: str
    seed: int
    split: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Group:
    """One (task, backbone, method): its selected trials and parameter counts.

    Attributes:
        trials: seed and key of each selected trial; empty where the stage does not store them (cifar).
        weights: key to the hash of the weights.
        failed: seed and key of trials that did not finish.
    """

    task: str
    backbone: str
    method: str
    multi_exit: bool
    layers: int
    batch_size: int
    learning_rate: float
    parameters: int
    early_exit_parameters: int
    trials: tuple[tuple[int, str], ...]
    weights: Mapping[str, str]
    failed: tuple[tuple[int, str], ...]

    @classmethod
    def read(cls, task: str, row: Mapping[str, Any]) -> "Group":
        names = ("backbone", "method", "multi_exit", "layers", "batch_size", "learning_rate", "parameters")
        return cls(
            task,
            **{name: row[name] for name in (*names, "early_exit_parameters")},
            trials=tuple((t["seed"], t["key"]) for t in row.get("trials", ())),
            weights={t["key"]: t["weights_sha256"] for t in row.get("trials", ())},
            failed=tuple((t["seed"], t["key"]) for t in row["failed"]),
        )


@dataclass(frozen=True)
class Trained:
    """What training a trial took, and its MLflow run; times are None for a trial that failed."""

    key: str
    run_id: str | None
    seconds: float | None
    seconds_to_best: float | None
    best_epoch: int | None
    epochs_run: int | None


@dataclass(frozen=True)
class Evaluated:
    """All of one task, or all of cifar: rows, exits, curves, groups, and how operating points were chosen."""

    name: str
    kind: str
    protocol: str
    window: tuple[float, float]
    choose: Mapping[str, Any]
    rows: tuple[Result, ...]
    exits: tuple[Exits, ...]
    diagnoses: tuple[Diagnosed, ...]
    curves: tuple[Curve, ...]
    groups: tuple[Group, ...]

    def splits(self) -> list[str]:
        """Report splits, in the order stored."""
        return list(dict.fromkeys(row.split for row in self.rows))

    def group(self, row: Result) -> Group:
        """The group that a row belongs to."""
        named = (row.task, row.backbone, row.method)
        return next(g for g in self.groups if (g.task, g.backbone, g.method) == named)


@dataclass(frozen=True)
class Timed:
    """A latency row."""

    task: str
    backbone: str
    method: str
    criterion: str | None
    threshold: float | None
    key: str
    mode: str
    examples: int
    ms_per_example: float
    measured_speedup: float
    layer_speedup: float
    flop_speedup: float


@dataclass(frozen=True)
class Latency:
    """Wall times of one task on one device."""

    task: str
    device: str
    threads: int
    rows: tuple[Timed, ...]


@dataclass(frozen=True)
class Paired:
    """Two defences on the same examples: how many one kept and the other lost, the reverse, and McNemar's p-value."""

    kept: int
    lost: int
    p_value: float


@dataclass(frozen=True)
class Defence:
    """An attack row: one model and exit rule; figures by name, as intervals over examples.

    Attributes:
        against_first: after-attack accuracy against the first row's; None for that row, and under another goal.
    """

    backbone: str
    method: str
    criterion: str | None
    threshold: float | None
    key: str
    seed: int
    figures: Mapping[str, Interval]
    against_first: Paired | None = None


@dataclass(frozen=True)
class Attack:
    """One attacked task; goal: "misclassify", or "slow_down" for the same answers from deeper exits; max_queries: of
    one attack, None where there is no limit."""

    task: str
    recipe: str
    goal: str
    max_queries: int | None
    resources: Mapping[str, Any]
    comparable: bool
    source: str
    examples: int
    rows: tuple[Defence, ...]


@dataclass(frozen=True)
class Simulation:
    """Appendix C and Theorem 1, as stored."""

    n_layers: int
    samples: int
    rows: tuple[Mapping[str, Any], ...]
    theorem: tuple[Mapping[str, Any], ...]
    example: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Stored:
    """Everything that a report is made of.

    Attributes:
        trained, cifar_trained: every trial of finetune and of cifar, by its key.
        cut: task or image set to how many training rows were used, where params cut them.
        demo: tasks and image sets on generated data.
    """

    tasks: tuple[Evaluated, ...]
    trained: Mapping[str, Trained]
    cifar_trained: Mapping[str, Trained]
    latency: tuple[Latency, ...]
    attacks: tuple[Attack, ...]
    cifar: Evaluated
    simulation: Simulation
    cut: Mapping[str, int]
    demo: frozenset[str]
