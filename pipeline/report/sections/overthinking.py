"""Figure 2: overfitting in training beside overthinking in inference, the analogy from which the paper starts."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from pipeline.report.cells import model_name, slug
from pipeline.report.numbers import number
from pipeline.report.sections.base import NO_TASK, Section
from pipeline.report.stored import Stored, TaskResults
from pipeline.report.svg import BLUE, INK, Canvas, Panel, Plot, canvas, look
from pipeline.results import Diagnosis, TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Overthinking(Section):
    """What another epoch gives, and what another layer gives."""

    slug = "overthinking"
    title = "Overfitting and overthinking (Figure 2)"

    def not_run(self, stored: Stored) -> Sequence[str]:
        return [] if stored.groups else [NO_TASK]

    def plots(self, stored: Stored) -> Sequence[Plot]:
        trained = [panel for task in stored.tasks for panel in _training_panels(stored, task)]
        exits = [_exit_panel(task, models) for task in stored.tasks for models in _by_model(task)]
        return [
            Plot(
                "figure-2a",
                "Figure 2a: overfitting, epoch by epoch",
                "Above: the mean training loss of an epoch; methods weigh their exits differently, so compare a line "
                "with itself. Below: the score on selection rows that picks the epoch. A line per selected "
                "model; ringed: the epoch that was kept.",
                tuple(trained),
            ),
            Plot(
                "figure-2b",
                "Figure 2b: overthinking, layer by layer",
                "Above: rows that the exit alone has wrong; below: mean entropy of its prediction, which falls as the "
                "exit becomes sure of itself. Where the error rises while the entropy still falls, deeper exits are "
                "surer and worse. Thick: the median over seeds; thin: each seed.",
                tuple(exits),
            ),
        ]


def _training_panels(stored: Stored, task: TaskResults) -> Iterator[Panel]:
    """A panel per backbone, with a colour per method."""
    for backbone in dict.fromkeys(group.backbone for group in task.groups):
        by_method = {}
        for group in task.groups:
            records = [stored.trials[trial.key] for trial in group.trials if trial.key in stored.trials]
            if group.backbone == backbone and (told := [record for record in records if record.history]):
                by_method[group.method] = told
        if by_method:
            yield _training_panel(task, backbone, by_method)


def _training_panel(task: TaskResults, backbone: str, by_method: dict[str, list[TrialRecord]]) -> Panel:
    names = tuple(method.replace("_", " ") for method in by_method)
    title = f"{task.name}: {backbone}"
    alt = f"Training loss and selection score by epoch on {title}, for {', '.join(names)}."
    with canvas(slug("figure-2a", task.name, backbone), alt, 3.6, (1, 1)) as drawing:
        above, below = drawing.axes
        for name, records in zip(names, by_method.values(), strict=True):
            for record in records:
                _epochs(drawing, above, record, name, names, lambda at: at.train_loss)
                _epochs(drawing, below, record, name, names, lambda at: at.selection)
        above.set(ylabel="training loss")
        below.set(xlabel="epoch", ylabel="selection score")
        longest = max(record.history[-1].epoch for records in by_method.values() for record in records)
        below.set_xticks(range(1, longest + 1, -(-longest // 12)))
        return drawing.finish(title)


def _epochs(
    drawing: Canvas,
    axes: "Axes",
    record: TrialRecord,
    name: str,
    names: tuple[str, ...],
    value: Callable[..., float | None],
) -> None:
    """One trial's line; an undefined score leaves a gap."""
    style = look(name, names)
    found = [(at.epoch, value(at)) for at in record.history]
    values = [np.nan if y is None else y for _, y in found]
    axes.plot([x for x, _ in found], values, style.dash, color=style.colour, lw=1.3, alpha=0.8, label=name)
    for x, y in found:
        if y is None:
            continue
        kept = x == record.best_epoch
        axes.plot([x], [y], style.marker, color=style.colour, markersize=6 if kept else 3,
                  markeredgecolor=INK if kept else style.colour)  # fmt: skip
        seed = record.settings.get("seed")
        text = f"{name}, seed {seed}, epoch {x}: {number(y, 3)}" + (", kept" if kept else "")
        drawing.spot(axes, x, y, text)


def _by_model(task: TaskResults) -> list[list[Diagnosis]]:
    """The models of each split and method with early exits, a seed each; of tasks with classes."""
    every = sorted(
        (model for model in task.early_exits if model.error is not None and model.entropy is not None),
        key=_model,
    )
    return [list(models) for _, models in groupby(every, key=_model)]


def _model(diagnosis: Diagnosis) -> tuple[str, str, str]:
    return diagnosis.split, diagnosis.backbone, diagnosis.method


def _exit_panel(task: TaskResults, models: Sequence[Diagnosis]) -> Panel:
    first = models[0]
    title = f"{task.heading(first.split)}: {model_name(first.backbone, first.method)}"
    name = slug("figure-2b", task.name, first.split, first.backbone, first.method)
    with canvas(name, f"Error and entropy of each exit by its layer on {title}.", 3.6, (1, 1)) as drawing:
        above, below = drawing.axes
        errors = np.array([model.error for model in models])
        _by_layer(drawing, above, first.layers, 100 * errors, INK, "error {}%", 1)
        _by_layer(drawing, below, first.layers, np.array([model.entropy for model in models]), BLUE, "entropy {}", 3)
        above.set(ylabel="error (%)")
        below.set(xlabel="exit after layer", ylabel="entropy (nats)")
        below.set_xticks(first.layers if len(first.layers) <= 12 else first.layers[1::2])
        return drawing.finish(title)


def _by_layer(
    drawing: Canvas, axes: "Axes", layers: Sequence[float], table: np.ndarray, colour: str, text: str, digits: int
) -> None:
    """Each seed thin and the median thick, (seeds, exits)."""
    for values in table if len(table) > 1 else ():
        axes.plot(layers, values, color=colour, lw=0.7, alpha=0.4)
    middle = np.median(table, axis=0)
    axes.plot(layers, middle, color=colour, marker="o", markersize=4)
    for layer, value in zip(layers, middle.tolist(), strict=True):
        drawing.spot(axes, layer, value, f"exit after layer {layer:g}: {text.format(number(value, digits))}")
