"""A whole set of stored results, made in a second: synthetic answers through the project's own evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.evaluation.choosing import make_rule
from pipeline.evaluation.group import CURVE_COLUMNS, Evaluation, Seeded, curves_csv, evaluate_group, merged
from pipeline.evaluation.intervals import mean_interval, proportion_interval
from pipeline.evaluation.trace import Trace
from pipeline.params import Params
from pipeline.storage import content_key, write_json, write_text
from pipeline.theory import appendix_c

PROFILE = Path(__file__).resolve().parent.parent / "profiles/demo.yaml"
CRITERIA: dict[str, dict[str, float]] = {"patience": {}, "confidence": {}, "entropy": {}}
METHODS = {"single_exit": False, "joint": True, "two_stage": True}
SEEDS = (1, 2, 3)
ROWS = 80


def params_for(tasks: Mapping[str, Any], backbone: str, **changes: Any) -> Params:
    """The demo's params over other tasks and one backbone."""
    raw = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    raw |= {"tasks": dict(tasks), "backbones": {backbone: {}}, "methods": list(METHODS), "seeds": list(SEEDS)}
    raw["latency"]["tasks"] = [next(iter(tasks))]
    raw["attack"]["tasks"] = {next(iter(tasks)): {"examples": 20}}
    raw["cifar"] |= {"datasets": ["cifar10"], "depth": 56}
    return Params.model_validate(raw | changes)


def write_all(
    outputs: Path,
    params: Params,
    *,
    layers: int = 12,
    window: tuple[float, float] = (1.30, 1.96),
    seeds: Sequence[int] = SEEDS,
    comparable: bool = True,
) -> None:
    """Write every file that the report reads for these params."""
    trials: list[dict[str, Any]] = []
    for task in params.tasks:
        (backbone,) = params.backbones
        trials += _task(outputs, params, task, backbone, layers, window, seeds)
        if task in params.latency.tasks:
            _latency(outputs, task, backbone)
        if task in params.attack.tasks:
            _attack(outputs, task, backbone, comparable)
    write_json(outputs / "finetune/trials.json", {"schema": 1, "trials": trials})
    _cifar(outputs, params, seeds)
    write_json(outputs / "simulate/simulate.json", appendix_c(12, [1, 2, 3, 4, 5], 0.1, 200, 0))


def key_of(*parts: object) -> str:
    """The key of a trial of these results."""
    return content_key({"parts": list(parts)})


def run_id_of(key: str) -> str:
    """The MLflow run of a trial of these results."""
    return content_key({"run": key}) * 2


def _trace(kind: str, classes: int, exits: int, layers: int, seed: int) -> Trace:
    """Answers that get better with depth, with errors that neighbouring exits share."""
    generator = np.random.default_rng(seed)
    at = np.arange(layers, 0, -layers // exits)[::-1][-exits:].astype(np.float64)
    noise = np.cumsum(generator.normal(size=(ROWS, exits, classes)), axis=1) / np.sqrt(np.arange(1, exits + 1))[:, None]
    depth = (0.8 + 2.2 * at / layers)[None, :]
    if kind == "regression":
        labels = generator.uniform(0, 5, size=ROWS)
        logits = labels[:, None] + 2.5 * noise[:, :, 0] / depth
        logits = logits[:, :, None]
    else:
        classes_of = generator.integers(classes, size=ROWS)
        labels = classes_of.astype(np.float64)
        logits = noise + depth[:, :, None] * np.eye(classes)[classes_of][:, None, :]
    flops = np.repeat(10.0 + at[None, :], ROWS, axis=0)
    full = np.full(ROWS, 9.0 + layers)
    return Trace(kind, logits.astype(np.float32), labels, np.arange(ROWS), at, flops, full)


def _evaluated(
    labels: Mapping[str, str],
    kind: str,
    classes: int,
    layers: int,
    multi_exit: bool,
    metrics: tuple[str, ...],
    splits: Sequence[str],
    protocol: str,
    window: tuple[float, float],
    choose: Mapping[str, Any],
    seeds: Sequence[int],
) -> Evaluation:
    exits = layers if multi_exit else 1

    def member(seed: int) -> Seeded:
        names = ("selection", *splits)
        traces = {s: _trace(kind, classes, exits, layers, 100 * seed + i) for i, s in enumerate(names)}
        return Seeded(seed, key_of(*labels.values(), seed), traces)

    return evaluate_group(
        labels,
        [member(seed) for seed in seeds],
        CRITERIA if multi_exit else {},
        metrics,
        make_rule(choose, window),
        report_splits=list(splits),
        selected_on="selection" if protocol == "holdout" else splits[0],
    )


def _task(
    outputs: Path,
    params: Params,
    name: str,
    backbone: str,
    layers: int,
    window: tuple[float, float],
    seeds: Sequence[int],
) -> list[dict[str, Any]]:
    task = params.task(name)
    splits = ["matched", "mismatched"] if name == "mnli" else ["validation"]
    parts, groups, trials = [], [], []
    choose = params.evaluate.choose.model_dump()
    for method in params.methods:
        multi_exit = METHODS.get(method, False)
        labels = {"backbone": backbone, "method": method}
        found = _evaluated(
            labels | {"task": name}, task.kind, task.outputs, layers, multi_exit, task.metrics, splits,
            params.protocol, window, choose, seeds,
        )  # fmt: skip
        every = [[{k: v for k, v in row.items() if k != "task"} for row in part] for part in vars(found).values()]
        parts.append(Evaluation(*every))
        keys = [(seed, key_of(backbone, method, name, seed)) for seed in seeds]
        groups.append(
            labels
            | {"group": f"{name}/{backbone}/{method}", "multi_exit": multi_exit, "layers": layers, "grid": []}
            | {"batch_size": 32, "learning_rate": 2e-5, "failed": [], "parameters": 11_700_000 + 24_000 * multi_exit}
            | {"early_exit_parameters": 24_000 * multi_exit}
            | {"trials": [{"seed": s, "key": k, "weights_sha256": key_of("weights", k) * 4} for s, k in keys]}
        )
        trials += [_trial(key, f"{name}/{backbone}/{method}") for _, key in keys]
    about = {"schema": 1, "task": name, "kind": task.kind, "metrics": list(task.metrics), "protocol": params.protocol}
    write_json(
        outputs / f"selected/{name}.json", {"schema": 1, "task": name, "protocol": params.protocol, "groups": groups}
    )
    found = merged(parts)
    about |= {"window": list(window), "choose": choose}
    write_json(outputs / f"evaluate/{name}.json", about | found.stored())
    write_text(outputs / f"evaluate/{name}.curves.csv", curves_csv(found.curves))
    return trials


def _trial(key: str, group: str) -> dict[str, Any]:
    times = {"train_seconds": 600.0, "train_seconds_to_best": 400.0, "epochs_run": 3, "best_epoch": 2}
    return {"key": key, "group": group, "settings": {}, "mlflow_run_id": run_id_of(key), **times}


def _latency(outputs: Path, task: str, backbone: str) -> None:
    rows = []
    for mode, gain in (("batch 1", 0.9), ("batch 32", 0.7)):
        for criterion, speed in ((None, 1.0), ("patience", 1.5), ("confidence", 1.8)):
            rows.append(
                {"backbone": backbone, "method": "joint", "criterion": criterion, "mode": mode, "examples": 64}
                | {"threshold": 6.0 if criterion else None, "key": key_of(backbone, "joint", task, 1)}
                | {"ms_per_example": 10 / speed, "measured_speedup": 1 + gain * (speed - 1), "layer_speedup": speed}
                | {"flop_speedup": speed - 0.02}
            )
    write_json(
        outputs / f"latency/{task}.json", {"schema": 1, "task": task, "device": "cpu", "threads": 1, "rows": rows}
    )


def _attack(outputs: Path, task: str, backbone: str, comparable: bool) -> None:
    rows = []
    for method, criterion, survived in (("single_exit", None, 2), ("joint", "confidence", 3), ("joint", "patience", 5)):
        queries = [60.0 + 3 * i for i in range(17)]
        none: dict[str, Any] = {"value": None, "low": None, "high": None, "n": 0}
        rows.append(
            {"defence": criterion or "single exit", "backbone": backbone, "method": method, "criterion": criterion}
            | {"threshold": 6.0 if criterion else None, "key": key_of(backbone, method, task, 1), "seed": 1}
            | {
                "original_accuracy": proportion_interval(17, 20),
                "after_attack_accuracy": proportion_interval(survived, 20),
                "pooled_accuracy": proportion_interval(1, 20),
            }
            | {"attack_success_rate": proportion_interval(17 - survived, 17), "queries": mean_interval(queries)}
            | {"perturbed_words": none, "layers_before": mean_interval([12.0, 8.0, 7.0]), "layers_under_attack": none}
            | {"layers_after": mean_interval([12.0, 9.0, 8.0])}
            | {"against_first": {"kept": survived, "lost": 2, "p_value": 0.4} if criterion else None}
        )
    about = {"schema": 1, "task": task, "recipe": "textfooler", "resources": {"word_vectors": "stock"}, "examples": 20}
    where = {
        "goal": "misclassify",
        "max_queries": None,
        "comparable_with_paper": comparable,
        "source": f"{task}/matched",
    }
    write_json(outputs / f"attack/{task}.json", about | where | {"rows": rows})


def _cifar(outputs: Path, params: Params, seeds: Sequence[int]) -> None:
    parts, groups, trials = [], [], []
    choose = params.cifar.choose.model_dump()
    for dataset in params.cifar.datasets:
        for method, multi_exit in (("plain", False), ("joint", True)):
            labels = {"dataset": dataset, "backbone": f"resnet{params.cifar.depth}", "method": method}
            found = _evaluated(
                labels, "classification", 10, 9, multi_exit, ("accuracy",), ["test"], params.protocol, (1.2, 1.4),
                choose, seeds,
            )  # fmt: skip
            parts.append(found)
            trials += [_trial(key_of(*labels.values(), seed), f"{dataset}/{method}") for seed in seeds]
            groups.append(
                labels
                | {"group": f"{dataset}/{method}", "multi_exit": multi_exit, "layers": 9, "failed": [], "grid": []}
                | {"batch_size": 128, "learning_rate": 0.1, "parameters": 853_000, "early_exit_parameters": 9_000}
            )
    about = {"schema": 1, "kind": "classification", "metrics": ["accuracy"], "protocol": params.protocol}
    found = merged(parts)
    results = {"window": [1.2, 1.4], "choose": choose, "groups": groups}
    write_json(outputs / "cifar/cifar.json", about | results | found.stored())
    write_json(outputs / "cifar/trials.json", {"schema": 1, "trials": trials})
    write_text(outputs / "cifar/curves.csv", curves_csv(found.curves, ["dataset", *CURVE_COLUMNS]))
