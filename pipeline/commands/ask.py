"""Answers of a selected model to texts: at which exit each left, and why."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ParamsError, UnsupportedError, unknown
from pipeline.evaluation.criteria import CRITERIA, Criterion
from pipeline.evaluation.point import criterion_of, read_with_points
from pipeline.layout import HERE, Workspace
from pipeline.results import ALL_LAYERS, Evaluated, Manifest, ModelGroup, OperatingPoint, Selected

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pipeline.models.multi_exit import MultiExit
    from pipeline.params import Params

BATCH = 32
FULL = ALL_LAYERS.name
"""What `--criterion` calls all layers."""
Text = str | tuple[str, ...]


@dataclass(frozen=True)
class Opened:
    """A selected model of the first seed, ready to answer, with what it needs to know.

    Attributes:
        point: at which rows leave.
        points: evaluate's, by the criterion's name; "full" is all layers.
        tokenizer: None for images.
    """

    manifest: Manifest
    group: ModelGroup
    point: OperatingPoint
    points: Mapping[str, OperatingPoint]
    model: "MultiExit"
    tokenizer: "Tokenizer | None"
    device: str

    @property
    def criterion(self) -> Criterion | None:
        """The criterion at its settings and fit; None: all layers."""
        return criterion_of(self.point)

    def at(self, criterion: str | None, threshold: float | None = None) -> "Opened":
        """The same model under a criterion; None: the one it has.

        Args:
            threshold: None: the one that evaluate chose.

        Raises:
            ParamsError: evaluate had no such criterion, or a threshold for all layers, or one that is no number.
        """
        name = self.point.name if criterion is None else criterion
        if name not in self.points:
            raise unknown("criterion", name, list(self.points), key="criterion")
        point = self.point if name == self.point.name else self.points[name]
        if threshold is not None:
            if point.criterion is None:
                raise ParamsError(f"threshold {threshold:g}: no row leaves early at criterion {FULL!r}; leave it out")
            if not np.isfinite(threshold):
                raise ParamsError(f"threshold {threshold}: give a number, or criterion {FULL!r} for all layers")
            point = point.model_copy(update={"threshold": float(threshold)})
        return replace(self, point=point)


def open_model(
    params: "Params", task: str | None, backbone: str | None, method: str | None, criterion: str | None
) -> Opened:
    """Load a model that finetune selected, at an operating point of evaluate, to ask it about texts.

    Args:
        task, backbone: may be left out where there is one.
        method: None takes the first with early exits.
        criterion: None takes patience, else the first that evaluate have; "full" all layers.

    Raises:
        ParamsError: an unknown name, or one that is missing among several.
        ArtifactError: the task was not trained or evaluated.
        UnsupportedError: the task's rows are images.
    """
    import torch

    from pipeline.models.device import device_of

    name = only_one("--task", task, list(params.tasks))
    if Manifest.read(HERE.manifest(name), f"run `dvc repro prepare@{name}`").modality == "image":
        raise UnsupportedError(f"--task {name}: its rows are images, and this reads texts; name a text task")
    torch.set_num_threads(params.runtime.threads)
    return open_selected(HERE, name, backbone, method, criterion, device_of(params.runtime.device))


def open_selected(
    here: Workspace, task: str, backbone: str | None, method: str | None, criterion: str | None, device: str
) -> Opened:
    """Load a selected model from a folder with the layout of a run; arguments and errors as `open_model`."""
    manifest = Manifest.read(here.manifest(task), f"run `dvc repro prepare@{task}`")
    selected = Selected.read(here.selected(task), "run `dvc repro`")
    evaluated = read_with_points(Evaluated, here.evaluated(task), f"run `dvc repro evaluate@{task}`")
    group = chosen_group(selected, backbone, method)
    trial = group.trials[0]
    points = _points(evaluated, group, trial.key, manifest.report_splits[0])
    first = "patience" if "patience" in points else next(iter(points))
    if criterion is not None and criterion not in points:
        raise unknown("criterion", criterion, list(points), key="--criterion")
    from pipeline.models.multi_exit import load_checkpoint
    from pipeline.models.packed import ready
    from pipeline.tasks.text.tokens import load_tokenizer

    model = ready(load_checkpoint(here.model(task, trial.key), sha256=trial.weights_sha256), device)
    tokenizer = load_tokenizer(here.tokenizer(task, group.backbone)) if manifest.modality == "text" else None
    return Opened(manifest, group, points[criterion or first], points, model, tokenizer, device)


def chosen_group(selected: Selected, backbone: str | None, method: str | None) -> ModelGroup:
    """The group that is asked for; without a method the first with early exits."""
    backbone = only_one("--backbone", backbone, list(dict.fromkeys(group.backbone for group in selected.groups)))
    groups = {group.method: group for group in selected.groups if group.backbone == backbone}
    several = [name for name, group in groups.items() if group.multi_exit] or list(groups)
    return groups[only_one("--method", method or several[0], list(groups))]


def only_one(option: str, given: str | None, names: Sequence[str]) -> str:
    """The name that is given, or the only one there is."""
    if given is None and len(names) == 1:
        return names[0]
    if given is None:
        raise ParamsError(f"{option}: there are {', '.join(names)}; name one")
    if given not in names:
        raise unknown(option.removeprefix("--"), given, names, key=option)
    return given


def _points(evaluated: Evaluated, group: ModelGroup, key: str, split: str) -> dict[str, OperatingPoint]:
    """The operating points at which a model can run, by the criterion's name; all layers last."""
    points = {
        row.criterion: row.point(key)
        for row in evaluated.rows
        if (row.backbone, row.method, row.split) == (group.backbone, group.method, split)
        and row.criterion is not None
        and CRITERIA[row.criterion].causal
    }
    return {**points, FULL: ALL_LAYERS}


def texts_of(arguments: Sequence[str], columns: int) -> list[Text]:
    """Words of the command line as inputs: one each, or two each where the task has pairs.

    Raises:
        ParamsError: none, an odd number for pairs, or an empty text.
    """
    if not arguments or len(arguments) % columns:
        needs = "a text" if columns == 1 else "two texts for each input, in quotes"
        raise ParamsError(f"TEXT: {len(arguments)} given; give {needs}")
    if columns == 1:
        return list(arguments)
    return [tuple(arguments[i : i + columns]) for i in range(0, len(arguments), columns)]


def predict(opened: Opened, texts: Sequence[Text] | np.ndarray) -> list[dict[str, Any]]:
    """Answer texts with the live engine, each leaving by itself.

    Args:
        texts: or images, (n, side, side, 3) uint8.

    Returns:
        For each its answer (a class's name, or a value), its probability (None for a regression), the exit, counted
        from 1, the layers run and, for classes, the probability of each.
    """
    from pipeline.models.live import LiveEngine

    engine = LiveEngine.at(opened.model, opened.point)
    out: list[dict[str, Any]] = [{} for _ in texts]
    for part, batch in _batches(opened, texts):
        answers = engine(batch)
        for i, logits, index in zip(part, answers.logits.numpy(), answers.exit_index.tolist(), strict=True):
            where = {"exit": index + 1, "layers": opened.model.exits[index]}
            out[i] = _answer(opened, logits) | where | _probabilities(opened, logits)
    return out


def explain(opened: Opened, text: Text) -> dict[str, Any]:
    """What every exit says of a text, the criterion's score there, and where the text leaves.

    Returns:
        As `predict`, with `threshold` (None for all layers) and `exits`: for each exit its layer, its probabilities by
        class (or its value), its answer, and the score (None where the criterion was not asked: all layers, the last
        exit).
    """
    import torch

    model, criterion = opened.model, opened.criterion
    ((_, batch),) = _batches(opened, [text])
    with torch.inference_mode():
        recorded, channels = model.record(batch, model.channels)
    logits = recorded.float().cpu().numpy()  # (1, exits, outputs)
    reads = "logits" if criterion is None else criterion.reads
    values = logits if reads == "logits" else channels[reads].float().cpu().numpy()
    rows: list[dict[str, Any]] = []
    left, answer = len(model.exits) - 1, logits[:, -1]
    state = None if criterion is None else criterion.start(1, values[:, 0])
    for index, layer in enumerate(model.exits):
        score = None
        if criterion is not None and state is not None and index < len(model.exits) - 1:
            state, scores = criterion.step(state, values[:, index])
            score = float(scores[0])
            if index < left and score >= opened.point.limit:
                left, answer = index, np.asarray(criterion.answer(state, logits[:, index]))
        said = {"exit": index + 1, "layer": layer, **_answer(opened, logits[0, index]), "score": score}
        value = {"value": said["answer"]} if opened.manifest.kind == "regression" else {}
        rows.append(said | value | _probabilities(opened, logits[0, index]))
    return {
        **_answer(opened, answer[0]),
        "exit": left + 1,
        "layers": model.exits[left],
        "threshold": opened.point.threshold,
        "exits": rows,
    }


def _batches(opened: Opened, texts: Sequence[Text] | np.ndarray) -> Iterator[tuple[np.ndarray, Any]]:
    """Positions of texts of similar length, and their tokens padded to the longest; or of images, and these."""
    from pipeline.tasks.text.tokens import collate, in_buckets

    if opened.tokenizer is None:
        import torch

        for part in np.array_split(np.arange(len(texts)), range(BATCH, len(texts), BATCH)):
            yield part, {"image": torch.from_numpy(np.asarray(texts)[part]).to(opened.device)}
        return
    encoded: list[Any] = opened.tokenizer.encode_batch(list(texts))
    for part in in_buckets(np.array([len(row.ids) for row in encoded]), BATCH):
        yield part, collate([encoded[i].ids for i in part], [encoded[i].type_ids for i in part], opened.device)


def _answer(opened: Opened, logits: np.ndarray) -> dict[str, Any]:
    """The answer of logits (outputs,)."""
    if opened.manifest.kind == "regression":
        return {"answer": round(float(logits[0]), 4), "probability": None}
    best = int(np.argmax(logits))
    return {
        "answer": opened.manifest.label_names[best],
        "probability": round(float(_softmax(logits)[best]), 4),
    }


def _probabilities(opened: Opened, logits: np.ndarray) -> dict[str, Any]:
    if opened.manifest.kind == "regression":
        return {}
    shares = (round(float(share), 4) for share in _softmax(logits))
    return {"probabilities": dict(zip(opened.manifest.label_names, shares, strict=True))}


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers: np.ndarray = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(powers / powers.sum())
