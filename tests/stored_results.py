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
from pipeline.evaluation.groups import Group, SeedTraces
from pipeline.evaluation.intervals import mean_interval, proportion_interval
from pipeline.evaluation.trace import Trace, save_trace
from pipeline.layout import Workspace
from pipeline.params import Params
from pipeline.results.traces import SELECTION
from pipeline.storage import content_key, write_text
from pipeline.tasks.names import resolve_task
from pipeline.tasks.task import Modality, Task, TaskSettings
from pipeline.theory import appendix_c
from pipeline.training.methods import METHODS

PROFILE = Path(__file__).resolve().parent.parent / "profiles/demo.yaml"
CRITERIA: dict[str, dict[str, float]] = {"patience": {}, "confidence": {}, "entropy": {}}
SEEDS = (1, 2, 3)
ROWS = 80


def params_for(tasks: Mapping[str, Any], backbone: str, **changes: Any) -> Params:
    """The demo's params over other tasks, one backbone for texts, the paper's for images, and three methods."""
    raw = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    texts = [name for name, given in tasks.items() if _modality(name, given) == "text"]
    first = texts[:1] or list(tasks)[:1]
    del raw["images"]
    raw |= {"tasks": dict(tasks), "backbones": {backbone: {}} if texts else {}}
    if len(texts) < len(tasks):
        raw["backbones"]["resnet56"] = {}
    raw |= {"methods": ["single_exit", "joint", "two_stage"], "seeds": list(SEEDS)}
    raw["latency"]["tasks"] = first
    both = {"single_exit", "joint"} <= {*changes.get("methods", raw["methods"])}
    raw["attack"]["tasks"] = {name: {"examples": 20} for name in first if name in texts and both}
    return Params.model_validate(raw | changes)


def _modality(name: str, given: Mapping[str, Any]) -> Modality:
    return resolve_task(name, TaskSettings.model_validate(given)).modality


@dataclass(frozen=True)
class Models:
    """The models of one backbone and method for one task.

    Attributes:
        layers: of the backbone.
        seeds: of the models.
    """

    task: Task
    backbone: str
    method: str
    layers: int
    seeds: Sequence[int]

    @property
    def multi_exit(self) -> bool:
        return METHODS[self.method].multi_exit

    @property
    def exits(self) -> int:
        return self.layers if self.multi_exit else 1

    @property
    def keys(self) -> list[tuple[int, str]]:
        """Each seed with its trial's key."""
        return [(seed, key_of(self.backbone, self.method, self.task.name, seed)) for seed in self.seeds]


def write_all(
    workspace: Workspace,
    params: Params,
    *,
    layers: int = 12,
    seeds: Sequence[int] = SEEDS,
    comparable: bool = True,
) -> None:
    """Write every file that the report reads for these params.

    Args:
        layers: of a backbone for texts.
        comparable: whether attacks are the paper's.
    """
    trials: list[results.TrialRecord] = []
    for name in params.tasks:
        task = params.task(name)
        models = [
            Models(task, spec.name, method, layers if task.modality == "text" else (spec.depth - 2) // 2, seeds)
            for spec in params.backbones_for(task.modality)
            for method in params.methods
            if task.modality in METHODS[method].modalities
        ]
        trials += [record for member in models for record in _records(member)]
        groups = tuple(_group(member) for member in models)
        selected = results.Selected(task=name, modality=task.modality, protocol=params.protocol, groups=groups)
        selected.write(workspace.selected(name))
        _evaluate(workspace, params, task, models)
        measured = _measured(models) if name in params.latency.tasks else None
        results.Latency(task=name, measured=measured).write(workspace.latency(name))
        splits = _splits(task) if name in params.attack.tasks else []
        attacked = tuple(_attacked(models, split, comparable) for split in splits)
        results.Attack(task=name, attacked=attacked).write(workspace.attack(name))
    results.Trials(trials=tuple(trials)).write(workspace.trials_table)
    write_simulation(workspace, [1, 2, 3, 4, 5])


def write_traces(workspace: Workspace, params: Params, *, layers: int = 12, seeds: Sequence[int] = SEEDS) -> None:
    """The traces of texts behind the results that `write_all` writes for the same arguments."""
    for task in map(params.task, params.tasks):
        entries = []
        for method in params.methods:
            models = Models(task, params.backbones_for("text")[0].name, method, layers, seeds)
            for member in _traced(models).seeds:
                for split, trace in member.traces.items():
                    path = workspace.trace(task.name, member.key, split)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    labels = {"backbone": models.backbone, "method": method, "multi_exit": models.multi_exit}
                    entry = {"seed": member.seed, "key": member.key, "split": split, "rows": trace.rows}
                    hashes = {"sha256": save_trace(trace, path), "weights_sha256": "23"}
                    entries.append(results.TraceEntry(**labels, **entry, **hashes, file=path.name))
        index = results.TraceIndex(task=task.name, traces=tuple(entries), unlabelled=())
        index.write(workspace.trace_index(task.name))


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
    return Trace(kind, logits.astype(np.float32), labels, np.arange(ROWS), at, flops, full, last_flops=full)


def _splits(task: Task) -> list[str]:
    if task.name == "mnli":
        return ["matched", "mismatched"]
    return ["validation"] if task.modality == "text" else ["test"]


def _evaluate(workspace: Workspace, params: Params, task: Task, models: Sequence[Models]) -> None:
    """What evaluate leaves, through its own function."""
    protocol, choose, window = params.protocol, params.evaluate.choose.model_dump(), params.window(task.modality)
    chooser = make_chooser(choose, window)
    costs = tuple(_costs(member) for member in models if member.multi_exit and chooser.reads_costs)
    machine = {"machine": costs[0].machine} if costs else {}
    every = merged(
        evaluate_group(
            _traced(member), CRITERIA, task.metrics, chooser.for_model(member.backbone, member.method, costs), protocol
        )
        for member in models
    )
    evaluated = results.Evaluated(
        task=task.name,
        modality=task.modality,
        kind=task.kind,
        metrics=task.metrics,
        protocol=protocol,
        choosing=results.Choosing(**choose, **machine, window=window),
        costs=costs,
        rows=every.rows,
        exits=every.exits,
        diagnosis=every.diagnosis,
    )
    evaluated.write(workspace.evaluated(task.name))
    write_text(workspace.curves(task.name), results.curves_text(every.curves))


def _costs(models: Models) -> results.ExitCosts:
    """A millisecond for each layer, and half of one for each exit."""
    at = np.linspace(models.layers / models.exits, models.layers, models.exits)
    return results.ExitCosts(
        backbone=models.backbone, method=models.method, engine="onnx-int8", machine="a processor, 2 CPUs", threads=1,
        rows=24, ms=tuple((at + 0.5 * np.arange(1, models.exits + 1)).tolist()), full_ms=models.layers + 0.5,
    )  # fmt: skip


def _traced(models: Models) -> Group:
    """The models on all splits, as trace leaves them."""
    task, splits = models.task, (SELECTION, *_splits(models.task))

    def traces(seed: int) -> dict[str, Trace]:
        of_split = enumerate(splits, start=100 * seed)
        return {split: trace_of(task.kind, task.outputs, models.exits, models.layers, i) for i, split in of_split}

    seeds = tuple(SeedTraces(seed, key, traces(seed)) for seed, key in models.keys)
    return Group(models.backbone, models.method, models.multi_exit, seeds)


def _group(models: Models) -> results.ModelGroup:
    """What finetune leaves of them."""
    image = models.task.modality == "image"
    early = (9_000 if image else 24_000) * models.multi_exit
    return results.ModelGroup(
        group=f"{models.task.name}/{models.backbone}/{models.method}",
        backbone=models.backbone,
        method=models.method,
        multi_exit=models.multi_exit,
        batch_size=128 if image else 32,
        learning_rate=0.1 if image else 2e-5,
        grid=(
            results.GridPoint(
                batch_size=128 if image else 32,
                learning_rate=0.1 if image else 2e-5,
                selection=0.9,
                key=models.keys[0][1],
            ),
        ),
        trials=tuple(
            results.SelectedTrial(seed=seed, key=key, weights_sha256=key_of("weights", key) * 4)
            for seed, key in models.keys
        ),
        failed=(),
        layers=models.layers,
        exits=tuple(range(1, models.layers + 1)) if models.multi_exit else (models.layers,),
        parameters=(853_000 if image else 11_700_000) + early,
        early_exit_parameters=early,
    )


def _records(models: Models) -> list[results.TrialRecord]:
    return [
        results.TrialRecord(
            key=key,
            group=f"{models.task.name}/{models.backbone}/{models.method}",
            settings={"seed": seed},
            train_seconds=600.0,
            train_seconds_to_best=400.0,
            epochs_run=3,
            best_epoch=2,
            mlflow_run_id=run_id_of(key),
            history=tuple(
                results.Epoch(epoch=epoch, train_loss=1.2 / epoch + 0.01 * seed, selection=score)
                for epoch, score in enumerate((0.8, 0.9, 0.88), start=1)
            ),
        )
        for seed, key in models.keys
    ]


def _of_method(models: Sequence[Models], method: str) -> list[Models]:
    """The models of a method and the first backbone; none where it was not trained."""
    return [member for member in models if member.method == method][:1]


def _measured(models: Sequence[Models]) -> results.Measured:
    modes, speeds = (("batch 1", 0.9), ("batch 32", 0.7)), ((None, 1.0), ("patience", 1.5), ("confidence", 1.8))
    rows = [
        results.LatencyRow(
            backbone=member.backbone,
            method=member.method,
            key=member.keys[0][1],
            point=point_of(criterion),
            engine="pytorch",
            precision="float32",
            score=0.8,
            mode=mode,
            threads=threads,
            examples=64,
            exits=(60, 4),
            ms_per_example=10 / speed,
            repeats_ms=(9 / speed, 10 / speed, 11 / speed),
            p50_ms=10 / speed,
            p99_ms=12 / speed,
            measured_speedup=1 + gain * (speed - 1),
            own_layer_speedup=speed,
            own_flop_speedup=speed - 0.02,
        )
        for member in _of_method(models, "joint")
        for threads in (1, 2)
        for mode, gain in modes
        for criterion, speed in speeds
    ]
    names = [{"backbone": one.backbone, "method": one.method} for one in _of_method(models, "joint")]
    engine: dict[str, Any] = {"engine": "pytorch", "precision": "float32"}
    roofs = [
        results.Roof(
            **name, mode=mode, threads=threads, shapes=((24, 768, 768, 48),), rates={"float32": 100.0 * threads},
            reached=(results.Reached(**engine, share=0.625),),
        )
        for name in names for threads in (1, 2) for mode, _ in modes
    ]  # fmt: skip
    memory = tuple(results.Memory(**name, **engine, batch=32, libraries_mib=300, peak_mib=450) for name in names)
    return results.Measured(
        device="cpu", machine="a processor, 2 CPUs", node=None, rows=tuple(rows), roofs=tuple(roofs), memory=memory
    )


def point_of(criterion: str | None) -> results.OperatingPoint:
    """An operating point at threshold 6, or all layers."""
    return results.OperatingPoint(criterion=criterion, threshold=6.0) if criterion else results.ALL_LAYERS


def _attempt(criterion: str | None) -> results.Record:
    """One attack, on which the single exit and confidence fall, and which patience withstands."""
    held = criterion == "patience"
    return results.Record(
        row_id=7, label=1, outcome="failed" if held else "successful", reason=None, answer_before=1,
        answer_after=1 if held else 0, original=("a fine film <b>",), changed=("a decent film <b>",), queries=12,
        words=4, words_changed=1, layers_before=4, layers_under_attack=5.5, layers_after=6,
    )  # fmt: skip


def _attacked(models: Sequence[Models], split: str, comparable: bool) -> results.Attacked:
    none, outputs = results.OverExamples(value=None, n=0), models[0].task.outputs
    defences = (("single_exit", None, 2), ("joint", "confidence", 3), ("joint", "patience", 5))
    rows = [
        results.DefenceRow(
            defence=criterion or "single exit",
            backbone=member.backbone,
            method=method,
            seed=member.keys[0][0],
            key=member.keys[0][1],
            point=point_of(criterion),
            scores="answered",
            unattacked=0,
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
            shown=(_attempt(criterion),),
        )
        for method, criterion, survived in defences
        for member in _of_method(models, method)
    ]
    return results.Attacked(
        split=split,
        recipe="textfooler",
        goal="misclassify",
        attacker="own",
        engine="pytorch",
        max_queries=None,
        resources={"word_vectors": "stock"},
        comparable_with_paper=comparable,
        source=f"{models[0].task.name}/{split}",
        examples=20,
        query_rule="every text put to the model",
        label_names=("negative", "positive") if outputs == 2 else tuple(f"class {i}" for i in range(outputs)),
        rows=tuple(rows),
    )
