"""The top of the page in plain words: what was run, and what to beware of. What it shows, the sections say."""

from collections import Counter
from collections.abc import Sequence

from pipeline.report.choices import aims, explained
from pipeline.report.numbers import listed, times
from pipeline.report.stored import Stored, TaskResults
from pipeline.report.verdicts import Verdict


def what_was_run(stored: Stored, others: Sequence[str]) -> list[str]:
    """Tasks, models, seeds, how operating points were chosen, and what else.

    Args:
        others: what sections have beside training.
    """
    lines = [_tasks_and_models(stored), _choosing(stored)] if stored.tasks else ["No task."]
    return [*lines, f"Also: {listed(others)}."] if others else lines


def _tasks_and_models(stored: Stored) -> str:
    groups = [group for _, group in stored.groups]
    backbones = dict.fromkeys(f"{group.backbone} ({group.layers} layers)" for group in groups)
    methods = dict.fromkeys(group.method.replace("_", " ") for group in groups)
    keys = [trial.key for group in groups for trial in group.trials]
    failed = sum(len(group.failed) for group in groups)
    text = (
        f"Tasks: {listed(map(_described, stored.tasks))}. Backbone: {listed(backbones)}. Training: {listed(methods)}. "
        f"{_counted(len(keys), 'selected model stands', 'selected models stand')} behind the rows, "
        f"{_counted(len(stored.trials), 'trial was', 'trials were')} run, "
        + (f"{failed} failed or could not run." if failed else "none failed.")
    )
    if stopped := sum(group.search.stopped for group in groups):
        saved = sum(group.search.epochs_saved for group in groups)
        text += (
            f" {_counted(stopped, 'trial was', 'trials were')} stopped by the search for a grid point, which saved at "
            f"most {saved} epochs."
        )
    other = sum(stored.trials[key].other_code for key in keys if key in stored.trials)
    if other:
        text += (
            f" {_counted(other, f'of {len(keys)} models was', f'of {len(keys)} models were')} trained by code that was "
            "since changed and declared to do the same."
        )
    return text


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def _described(task: TaskResults) -> str:
    image = "image " if task.image else ""
    return f"{task.name} ({image}{task.evaluated.kind}{', generated data' if task.demo else ''})"


def _choosing(stored: Stored) -> str:
    where = (
        "on selection rows taken from the training split; the rows reported chose nothing"
        if stored.tasks[0].evaluated.protocol == "holdout"
        else "on the rows of the first report split, as the paper did, so scores there are flattered; rows say so"
    )
    texts = [f"{times(1.30)} to {times(1.96)}"] if stored.texts else []
    images = [f"{times(1.20)} to {times(1.40)} on images"] if stored.images else []
    return (
        f"Each exit rule's setting was chosen, seed by seed, for {aims(stored.tasks)} (the paper: best score, "
        f"{listed([*texts, *images])}), {where}."
    )


def cautions(stored: Stored, verdicts: Sequence[Verdict]) -> list[str]:
    """What limits the findings."""
    lines = []
    if stored.tasks and all(task.demo for task in stored.tasks):
        lines.append(
            "This is the demo: small models from random weights on generated data. It shows that the pipeline works "
            "from end to end; it says nothing for or against the paper's claims."
        )
    coverage = [v.own_points.coverage for v in verdicts if v.own_points.coverage is not None]
    if coverage and min(coverage) < 0.9:
        lines.append(
            f"The range of so few seeds holds the true median with a probability of only {min(coverage):.0%} (five "
            "seeds: 94%): “ahead” and “behind” are weak evidence here."
        )
    if verdicts and not coverage:
        lines.append("One seed: there are no intervals, and no verdict is more than an observation.")
    outside = Counter(row.rule for task in stored.tasks for row in task.rows if not row.in_window)
    for rule, count in outside.items():
        rows = _counted(count, "row lies", "rows lie")
        lines.append(f"{rows} {explained(rule)}. They are marked and are not a fair comparison.")
    return lines
