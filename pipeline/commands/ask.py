"""Answers of a selected model to texts: at which exit each left, and why."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ParamsError, UnsupportedError, unknown
from pipeline.evaluation.asked import FULL, Decision, asked, decision_of
from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.diagnosis import model_learned
from pipeline.evaluation.leaving import Rule, leave_recorded
from pipeline.evaluation.point import read_with_points
from pipeline.layout import HERE, Workspace
from pipeline.models.deploy.runtime import Answer, answers_of
from pipeline.results import Evaluated, Manifest, ModelGroup, Selected

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pipeline.models.multi_exit import MultiExit
    from pipeline.params import Params

BATCH = 32
Text = str | tuple[str, ...]


@dataclass(frozen=True)
class Opened:
    """A selected model of the first seed, ready to answer, with what it needs to know.

    Attributes:
        points: evaluate's operating points, by the criterion's name.
        decision: at which of them, or otherwise, rows leave.
        learned: whether the model knows more than one answer for every row.
        tokenizer: None for images.
    """

    manifest: Manifest
    group: ModelGroup
    points: Mapping[str, Decision]
    decision: Decision
    learned: bool
    model: "MultiExit"
    tokenizer: "Tokenizer | None"
    device: str

    def at(
        self, criterion: str | None, threshold: float | None = None, settings: Mapping[str, float] | None = None
    ) -> "Opened":
        """The same model under another decision; arguments and errors as `asked`."""
        return replace(self, decision=asked(self.points, criterion, threshold, settings))


@dataclass(frozen=True)
class Explanation:
    """Why a row left where it did.

    Attributes:
        answer: what is said to it.
        threshold: None: it was not to leave early.
        exits: what each exit says.
        scores: the criterion's after each exit; None where it was not asked: at all layers, and the last exit.
    """

    answer: Answer
    threshold: float | None
    exits: list[Answer]
    scores: list[float | None]


def open_model(
    params: "Params", task: str | None, backbone: str | None, method: str | None, criterion: str | None
) -> Opened:
    """Load a model that finetune selected, at an operating point of evaluate, to ask it about texts.

    Args:
        task, backbone: may be left out where there is one.
        method: None takes the first with early exits.
        criterion: None takes the one that selection rows prefer; "full" all layers.

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
    if criterion is not None and criterion not in (*points, FULL):
        raise unknown("criterion", criterion, [*points, FULL], key="--criterion")
    from pipeline.models.multi_exit import load_checkpoint
    from pipeline.models.packed import ready
    from pipeline.tasks.text.tokens import load_tokenizer

    model = ready(load_checkpoint(here.model(task, trial.key), sha256=trial.weights_sha256), device)
    tokenizer = load_tokenizer(here.tokenizer(task, group.backbone)) if manifest.modality == "text" else None
    learned = model_learned(evaluated, group, manifest.report_splits[0])
    return Opened(manifest, group, points, asked(points, criterion), learned, model, tokenizer, device)


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


def _points(evaluated: Evaluated, group: ModelGroup, key: str, split: str) -> dict[str, Decision]:
    """The operating points at which a model can run, by the criterion's name, the preferred one first."""
    return {
        row.criterion: decision_of(dict(row.point(key)))
        for row in sorted(evaluated.rows, key=lambda row: not row.preferred)
        if (row.backbone, row.method, row.split) == (group.backbone, group.method, split)
        and row.criterion is not None
        and CRITERIA[row.criterion].causal
    }


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


def predict(opened: Opened, texts: Sequence[Text] | np.ndarray) -> list[Answer]:
    """Answer texts with the live engine, each leaving by itself.

    Args:
        texts: or images, (n, 32, 32, 3) uint8.

    Raises:
        InvalidLogitsError: an exit answered NaN.
    """
    from pipeline.models.live import LiveEngine

    engine = LiveEngine(opened.model, *opened.decision)
    answers: dict[int, Answer] = {}
    for part, batch in _batches(opened, texts):
        left = engine(batch)
        said = answers_of(opened.manifest.label_names, opened.model.exits, left.logits, left.exit_index)
        answers.update(zip(part.tolist(), said, strict=True))
    return [answers[i] for i in range(len(texts))]


def explain(opened: Opened, text: Text) -> Explanation:
    """What every exit says of a text, the criterion's score there, and where the text leaves; raises as `predict`."""
    from pipeline.models.live import LiveEngine

    engine = LiveEngine(opened.model, *opened.decision)
    ((_, batch),) = _batches(opened, [text])
    logits, channels = engine.record(batch)
    leaving = leave_recorded(engine.rule, logits, channels)
    names, exits = opened.manifest.label_names, opened.model.exits
    (answer,) = answers_of(names, exits, leaving.logits, leaving.exit_index)
    return Explanation(
        answer=answer,
        threshold=opened.decision.stored_threshold,
        exits=answers_of(names, exits, logits[0], np.arange(len(exits))),
        scores=_scores(engine.rule, logits, channels),
    )


def _scores(rule: Rule, logits: np.ndarray, channels: Mapping[str, np.ndarray]) -> list[float | None]:
    """The criterion's score of one row after each exit, whether it has left before or not; None at the last."""
    if rule.criterion is None:
        return [None] * logits.shape[1]
    values = logits if rule.reads == "logits" else channels[rule.reads]
    state, scores = rule.criterion.start(1, values[:, 0]), []
    for index in range(rule.last):
        state, score = rule.criterion.step(state, values[:, index])
        scores.append(float(score[0]))
    return [*scores, None]


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
