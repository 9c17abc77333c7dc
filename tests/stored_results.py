"""A whole set of stored results, made in a second: synthetic answers through the project's own evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline import results
from pipeline.evaluation.choosing import make_chooser
from pipeline.evaluation.group import evaluate_group, merged
from pipeline.evaluation.groups import SELECTION, Group, SeedTraces
from pipeline.evaluation.intervals import mean_interval, proportion_interval
from pipeline.evaluation.trace import Trace
from pipeline.layout import Workspace
from pipeline.params import Params
from pipeline.storage import content_key, write_text
from pipeline.theory import appendix_c

PROFILE = Path(__file__).resolve().parent.parent / "profiles/demo.yaml"
CRITERIA: dict[str, dict[str, float]] = {"patience": {}, "confidence": {}, "entropy": {}}
METHODS = {"single_exit": False, "joint": True, "two_stage": True}
SEEDS = (1, 2, 3)
ROWS = 80
IMAGES = {"cifar10": 10, "demo-images": 10}
"""Image tasks with their classes."""
IMAGE_METHODS = ("single_exit", "joint")
RESNET, RESNET_LAYERS = "resnet56", 27
TEXT_WINDOW, IMAGE_WINDOW = (1.30, 1.96), (1.20, 1.40)


def params_for(tasks: Mapping[str, Any], backbone: str, **changes: Any) -> Params:
    """The demo's params over other tasks and one backbone for texts."""
    raw = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    first = next((name for name in tasks if name not in IMAGES), next(iter(tasks)))
    raw |= {"tasks": {name: _settings(name, given) for name, given in tasks.items()}, "backbones": {backbone: {}}}
    raw |= {"methods": list(METHODS), "seeds": list(SEEDS)}
    raw["latency"]["tasks"] = [first]
    raw["attack"]["tasks"] = {first: {"examples": 20}}
    return Params.model_validate(raw | changes)


def _settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Until params know image tasks, one is own data under its name."""
    if name not in IMAGES:
        return dict(given)
    source = {"demo": "sentences"} if name.startswith("demo-") else {"hub": "uoft-cs/cifar10"}
    names = [str(label) for label in range(IMAGES[name])]
    return {"source": source, "text": ["image"], "label": "label", "label_names": names, **given}


@dataclass(frozen=True)
class Made:
    """How results are made.

    Attributes:
        layers: of the backbone for texts.
        window: of speed-ups, for texts.
    """

    workspace: Workspace
    params: Params
    layers: int
    window: tuple[float, float]
    seeds: Sequence[int]

    def image(self, task: str) -> bool:
        return task in IMAGES

    def backbone(self, task: str) -> str:
        return RESNET if self.image(task) else next(iter(self.params.backbones))

    def layers_of(self, task: str) -> int:
        return RESNET_LAYERS if self.image(task) else self.layers

    def methods(self, task: str) -> list[str]:
        return [m for m in self.params.methods if m in IMAGE_METHODS or not self.image(task)]


def write_all(
    workspace: Workspace,
    params: Params,
    *,
    layers: int = 12,
    window: tuple[float, float] = TEXT_WINDOW,
    seeds: Sequence[int] = SEEDS,
    comparable: bool = True,
) -> None:
    """Write every file that the report reads for these params."""
    made = Made(workspace, params, layers, window, seeds)
    trials: list[results.TrialRecord] = []
    for task in params.tasks:
        trials += _selected(made, task)
        _evaluated(made, task)
        measured = _measured(task, made.backbone(task)) if task in params.latency.tasks else None
        results.Latency(task=task, measured=measured).write(workspace.latency(task))
        attacked = _attacked(task, made.backbone(task), comparable) if task in params.attack.tasks else None
        results.Attack(task=task, attacked=attacked).write(workspace.attack(task))
    results.Trials(trials=tuple(trials)).write(workspace.trials_table)
    write_simulation(workspace, [1, 2, 3, 4, 5])


def write_simulation(workspace: Workspace, patiences: Sequence[int], layers: int = 12) -> results.Simulation:
    """What simulate leaves."""
    simulation = appendix_c(layers, [*patiences], 0.1, 200, 0)
    simulation.write(workspace.simulation)
    return simulation


def key_of(*parts: object) -> str:
    """The key of a trial of these results."""
    return content_key({"parts": list(parts)})


def run_id_of(key: str) -> str:
    """The MLflow run of a trial of these results."""
    return content_key({"run": key}) * 2


def trace_of(kind: str, classes: int, exits: int, layers: int, seed: int) -> Trace:
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


def splits_of(made: Made, task: str) -> list[str]:
    if task == "mnli":
        return ["matched", "mismatched"]
    return ["test"] if made.image(task) else ["validation"]


def _evaluated(made: Made, name: str) -> None:
    """What evaluate leaves, through its own function."""
    task, protocol, choose = made.params.task(name), made.params.protocol, made.params.evaluate.choose.model_dump()
    window = IMAGE_WINDOW if made.image(name) else made.window
    chooser = make_chooser(choose, window)
    groups = [_traced(made, name, method) for method in made.methods(name)]
    every = merged(evaluate_group(group, CRITERIA, task.metrics, chooser, protocol) for group in groups)
    evaluated = results.Evaluated(
        task=name,
        modality="image" if made.image(name) else "text",
        kind=task.kind,
        metrics=task.metrics,
        protocol=protocol,
        choosing=results.Choosing(**choose, window=window),
        rows=every.rows,
        exits=every.exits,
        diagnosis=every.diagnosis,
    )
    evaluated.write(made.workspace.evaluated(name))
    write_text(made.workspace.curves(name), results.curves_text(every.curves))


def _traced(made: Made, name: str, method: str) -> Group:
    """A method's models on all splits of a task, as trace leaves them."""
    task, backbone, layers = made.params.task(name), made.backbone(name), made.layers_of(name)
    multi_exit = METHODS.get(method, False)
    exits = layers if multi_exit else 1

    def member(seed: int) -> SeedTraces:
        names = (SELECTION, *splits_of(made, name))
        traces = {s: trace_of(task.kind, task.outputs, exits, layers, 100 * seed + i) for i, s in enumerate(names)}
        return SeedTraces(seed, key_of(backbone, method, name, seed), traces)

    return Group(backbone, method, multi_exit, tuple(member(seed) for seed in made.seeds))


def _selected(made: Made, name: str) -> list[results.TrialRecord]:
    """What finetune leaves of a task."""
    backbone, layers, image = made.backbone(name), made.layers_of(name), made.image(name)
    groups, trials = [], []
    for method in made.methods(name):
        multi_exit = METHODS.get(method, False)
        keys = [(seed, key_of(backbone, method, name, seed)) for seed in made.seeds]
        chosen = tuple(
            results.SelectedTrial(seed=seed, key=key, weights_sha256=key_of("weights", key) * 4) for seed, key in keys
        )
        early = (9_000 if image else 24_000) * multi_exit
        group = results.ModelGroup(
            group=f"{name}/{backbone}/{method}",
            backbone=backbone,
            method=method,
            multi_exit=multi_exit,
            batch_size=128 if image else 32,
            learning_rate=0.1 if image else 2e-5,
            grid=(),
            trials=chosen,
            failed=(),
            layers=layers,
            exits=tuple(range(1, layers + 1)) if multi_exit else (layers,),
            parameters=(853_000 if image else 11_700_000) + early,
            early_exit_parameters=early,
        )
        groups.append(group)
        trials += [_trial(key, group.group) for _, key in keys]
    selected = results.Selected(
        task=name,
        modality="image" if image else "text",
        protocol=made.params.protocol,
        groups=tuple(groups),
    )
    selected.write(made.workspace.selected(name))
    return trials


def _trial(key: str, group: str) -> results.TrialRecord:
    return results.TrialRecord(
        key=key,
        group=group,
        settings={},
        train_seconds=600.0,
        train_seconds_to_best=400.0,
        epochs_run=3,
        best_epoch=2,
        mlflow_run_id=run_id_of(key),
    )


def _measured(task: str, backbone: str) -> results.Measured:
    rows = []
    for mode, gain in (("batch 1", 0.9), ("batch 32", 0.7)):
        for criterion, speed in ((None, 1.0), ("patience", 1.5), ("confidence", 1.8)):
            row = results.LatencyRow(
                backbone=backbone,
                method="joint",
                key=key_of(backbone, "joint", task, 1),
                point=point_of(criterion),
                mode=mode,
                examples=64,
                ms_per_example=10 / speed,
                measured_speedup=1 + gain * (speed - 1),
                layer_speedup=speed,
                flop_speedup=speed - 0.02,
            )
            rows.append(row)
    return results.Measured(device="cpu", threads=1, rows=tuple(rows))


def point_of(criterion: str | None) -> results.OperatingPoint:
    """An operating point at threshold 6, or all layers."""
    return results.OperatingPoint(criterion=criterion, threshold=6.0) if criterion else results.ALL_LAYERS


def _attacked(task: str, backbone: str, comparable: bool) -> results.Attacked:
    none = results.OverExamples(value=None, n=0)
    rows = []
    for method, criterion, survived in (("single_exit", None, 2), ("joint", "confidence", 3), ("joint", "patience", 5)):
        row = results.DefenceRow(
            defence=criterion or "single exit",
            backbone=backbone,
            method=method,
            seed=1,
            key=key_of(backbone, method, task, 1),
            point=point_of(criterion),
            original_accuracy=proportion_interval(17, 20),
            after_attack_accuracy=proportion_interval(survived, 20),
            pooled_accuracy=proportion_interval(1, 20),
            attack_success_rate=proportion_interval(17 - survived, 17),
            queries=mean_interval([60.0 + 3 * i for i in range(17)]),
            perturbed_words=none,
            layers_before=mean_interval([12.0, 8.0, 7.0]),
            layers_under_attack=none,
            layers_after=mean_interval([12.0, 9.0, 8.0]),
            against_first=results.Paired(kept=survived, lost=2, p_value=0.4) if criterion else None,
        )
        rows.append(row)
    return results.Attacked(
        recipe="textfooler",
        goal="misclassify",
        attacker="own",
        max_queries=None,
        resources={"word_vectors": "stock"},
        comparable_with_paper=comparable,
        source=f"{task}/matched",
        examples=20,
        query_rule="every text put to the model",
        rows=tuple(rows),
    )
