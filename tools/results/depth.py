"""The tables of docs/results-depth.md, from stored traces alone; `python -m tools.evidence depth12` writes them.

Differences are between answers to the same rows. Their interval is over rows: 1,000 bootstrap samples of the rows, the
same for both answers and all seeds, of the mean difference over seeds (2.5% and 97.5%). Thresholds and matched speeds
are chosen on selection rows; all numbers are of the report rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.evaluation.choosing import Risk, Speedup, Window, fit_and_choose
from pipeline.evaluation.criteria import CRITERIA, make
from pipeline.evaluation.criteria.base import Criterion
from pipeline.evaluation.diagnosis import overthought
from pipeline.evaluation.groups import Group, SeedTraces, load_groups
from pipeline.evaluation.metrics import score
from pipeline.evaluation.sweep import sweep
from pipeline.evaluation.trace import Trace
from pipeline.params import Params
from pipeline.results import TraceIndex
from pipeline.results.traces import SELECTION
from tools.results.tables import Table, markdown

PROFILE = "depth12"
PAGE = Path(__file__).resolve().parents[2] / "docs/results-depth.md"
RESAMPLES = 1000
EPSILON, DELTA = 0.02, 0.1
RIVALS = ("confidence", "entropy", "ensemble", "fixed")
NEWER, SPEEDS = ("gates", "scheduled"), (1.3, 1.5, 2.0, 3.0)
METHODS = ("joint", "two_stage")
"""Methods that train other exits; berxit's are those of joint."""


def exits(params: Params, folder: Path) -> str:
    """The score of each exit alone."""
    rows = []
    for task, group in _groups(params, folder, ("single_exit", *METHODS)):
        names = params.task(task).metrics
        scores = np.array([score(names, report.answers().T, report.labels) for report in _reports(group)])
        median = np.median(scores, axis=0) * 100
        cells = [""] * 11 if len(median) == 1 else []
        rows.append([task, group.method, *cells, *(f"{value:.1f}" for value in median)])
    return markdown(["task", "method", *map(str, range(1, 13))], rows)


def patience(params: Params, folder: Path) -> str:
    """Score against all layers under each patience."""
    rows = []
    for task, group in _groups(params, folder, METHODS):
        names, steps = params.task(task).metrics, np.arange(1.0, 12.0)
        criterion = _patience(params)
        swept = [sweep(report, criterion, steps) for report in _reports(group)]
        predictions = [
            np.concatenate([of.predictions, report.answers()[:, -1][None]])
            for of, report in zip(swept, _reports(group), strict=True)
        ]
        pairs = [(k, len(steps)) for k in range(len(steps))]
        gains = differences(names, predictions, [report.labels for report in _reports(group)], pairs)
        speeds = np.median([of.layer_speedup for of in swept], axis=0)
        best = max(range(len(steps)), key=lambda k: gains[k][0])
        cells = [f"{'**' * (k == best)}{_difference(gain)}{'**' * (k == best)}" for k, gain in enumerate(gains)]
        rows.append([task, group.method, "difference", *cells])
        rows.append(["", "", "speed-up", *(f"{speed:.2f}x" for speed in speeds)])
    return markdown(["task", "method", "", *(f"t = {t}" for t in range(1, 12))], rows)


def rivals(params: Params, folder: Path) -> str:
    """Patience minus each rival, at the speed that patience t has on selection rows."""
    rows = []
    for task, group in _classes(params, folder):
        names, steps = params.task(task).metrics, range(2, 8)
        table = [[_matched(names, params, seed, t) for t in steps] for seed in group.seeds]
        flat = [np.concatenate([answers for answers, _ in of_seed]) for of_seed in table]
        labels = [report.labels for report in _reports(group)]
        width = 1 + len(RIVALS)
        pairs = [(k * width, k * width + 1 + r) for r in range(len(RIVALS)) for k in range(len(steps))]
        found = iter(differences(names, flat, labels, pairs))
        speeds = np.median([[speed for _, speed in of_seed] for of_seed in table], axis=0)
        rows.append([task, group.method, "speed-up", *(f"{speed:.2f}x" for speed in speeds)])
        for rival in RIVALS:
            rows.append(["", "", f"minus {rival}", *(_difference(next(found), sure=True) for _ in steps)])
    return markdown(["task", "method", "", *(f"t = {t}" for t in range(2, 8))], rows)


def newer(params: Params, folder: Path) -> str:
    """JEI-DNN's gates and EENet's schedule minus confidence, at speeds that selection rows choose."""
    rows = []
    for task, group in _classes(params, folder):
        names = params.task(task).metrics
        rules = [(name, speed) for name in ("confidence", *NEWER) for speed in SPEEDS]
        answers = [
            np.concatenate([_at_speed(name, speed, names, seed) for name, speed in rules]) for seed in group.seeds
        ]
        pairs = [((1 + r) * len(SPEEDS) + k, k) for r in range(len(NEWER)) for k in range(len(SPEEDS))]
        found = iter(differences(names, answers, [report.labels for report in _reports(group)], pairs))
        for rival in NEWER:
            cells = [_difference(next(found), sure=True) for _ in SPEEDS]
            rows.append([task, group.method, f"{rival} minus confidence", *cells])
    return markdown(["task", "method", "", *(f"{speed:g}x" for speed in SPEEDS)], rows)


def risk(params: Params, folder: Path) -> str:
    """What the exact binomial bound certifies, and what the report rows lose."""
    names = ("patience", "confidence", "entropy", "patient_confidence", "ensemble")
    cases = {name: (name, Risk(EPSILON, DELTA)) for name in names}
    header = ["task", "method", "criterion", "certified", "speed-up", "rows lost, in %, by seed"]
    return markdown(header, _controlled(params, folder, cases))


def promises(params: Params, folder: Path) -> str:
    """What each bound certifies of confidence, and what the report rows lose, in its own loss."""
    cases = {
        f"{bound}, {loss}": ("confidence", Risk(EPSILON, 0.0 if bound == "crc" else DELTA, loss, bound=bound))
        for bound, loss in (("binomial", "gap"), ("betting", "gap"), ("crc", "gap"), ("betting", "brier"))
    }
    header = ["task", "method", "bound, loss", "certified", "speed-up", "mean loss, in %, by seed"]
    return markdown(header, _controlled(params, folder, cases))


def _controlled(params: Params, folder: Path, cases: Mapping[str, tuple[str, Risk]]) -> list[list[str]]:
    """A row for each group and case, which is a criterion with a chooser."""
    rows = []
    for task, group in _classes(params, folder):
        for label, (name, chooser) in cases.items():
            criterion, speeds, risks, certified = make(name), [], [], 0
            for seed, report in zip(group.seeds, _reports(group), strict=True):
                fitted, choice = fit_and_choose(criterion, seed.traces[SELECTION], params.task(task).metrics, chooser)
                swept = chooser.prepared(sweep(report, fitted, np.array([choice.threshold])), report, fitted)
                certified += choice.in_window
                speeds.append(float(swept.layer_speedup[0]))
                risks.append(float(chooser.risk(swept)[0]))
            lost = ", ".join(f"{100 * value:.1f}" for value in risks)
            rows.append([task, group.method, label, f"{certified} of {len(risks)}", f"{np.median(speeds):.2f}x", lost])
    return rows


def bounds(params: Params, folder: Path) -> str:
    """What there is to gain: the best exit, the oracle, a fixed layer and patience in the paper's window."""
    rows = []
    for task, group in _groups(params, folder, METHODS):
        names = params.task(task).metrics
        by_exit = np.array([score(names, r.answers().T, r.labels) for r in _reports(group)])
        cells = [f"{100 * np.median(by_exit[:, -1]):.1f}"]
        best = int(np.argmax(np.median(by_exit, axis=0)))
        cells.append(f"{100 * np.median(by_exit[:, best]):.1f} (exit {best + 1})")
        for name in ("oracle", "fixed", "patience"):
            criterion = _patience(params) if name == "patience" else make(name)
            points = [_in_window(names, params, task, seed, criterion) for seed in group.seeds]
            value, speed = np.median(points, axis=0)
            cells.append(f"{100 * value:.1f} at {speed:.2f}x")
        if group.seeds[0].traces[SELECTION].kind == "regression":
            cells.append("")
        else:
            share = np.median([overthought(report).mean() for report in _reports(group)])
            cells.append(f"{100 * share:.1f}")
        rows.append([task, group.method, *cells])
    header = ["task", "method", "all layers", "best exit", "oracle", "fixed layer", "patience", "overthought, in %"]
    return markdown(header, rows)


TABLES: dict[str, Table] = {table.__name__: table for table in (exits, bounds, patience, rivals, newer, risk, promises)}


def differences(
    names: tuple[str, ...],
    predictions: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    pairs: Sequence[tuple[int, int]],
) -> list[tuple[float, float, float]]:
    """Mean difference over seeds of the scores of pairs of answers, with its interval over rows.

    Args:
        predictions: of each seed, (k, n).
        labels: of each seed, (n,).
        pairs: indices into k; the score of the first minus that of the second.

    Returns:
        Difference, low, high of each pair.
    """

    def means(rows: np.ndarray) -> np.ndarray:
        of_seeds = [score(names, p[:, rows], y[rows]) for p, y in zip(predictions, labels, strict=True)]
        values = np.mean(np.nan_to_num(of_seeds), axis=0)  # an undefined correlation counts as 0
        return np.array([values[a] - values[b] for a, b in pairs])

    n = len(labels[0])
    generator = np.random.default_rng(0)
    samples = np.array([means(generator.integers(0, n, n)) for _ in range(RESAMPLES)])
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    return list(zip(means(np.arange(n)).tolist(), low.tolist(), high.tolist(), strict=True))


def _matched(names: tuple[str, ...], params: Params, seed: SeedTraces, t: int) -> tuple[np.ndarray, float]:
    """Answers under patience t and under each rival at its speed, (1 + rivals, n), and patience's speed-up there."""
    selection, report = seed.traces[SELECTION], _report(seed)
    criterion, steps = _patience(params), np.array([float(t)])
    swept = sweep(report, criterion, steps)
    chooser = Speedup(float(sweep(selection, criterion, steps).layer_speedup[0]))
    answers = [swept.predictions]
    for rival in RIVALS:
        fitted, choice = fit_and_choose(make(rival), selection, names, chooser)
        answers.append(sweep(report, fitted, np.array([choice.threshold])).predictions)
    return np.concatenate(answers), float(swept.layer_speedup[0])


def _at_speed(name: str, speed: float, names: tuple[str, ...], seed: SeedTraces) -> np.ndarray:
    """A rival's answers at the slowest threshold that is at least as fast on selection rows, (1, n)."""
    settings = {"speedup": speed} if name == "scheduled" else {}
    fitted, choice = fit_and_choose(make(name, settings), seed.traces[SELECTION], names, Speedup(speed))
    return sweep(_report(seed), fitted, np.array([choice.threshold])).predictions


def _in_window(
    names: tuple[str, ...], params: Params, task: str, seed: SeedTraces, criterion: Criterion
) -> tuple[float, float]:
    """Score and speed-up at the threshold that selection rows choose in the profile's window."""
    chooser = Window(*params.window(params.task(task).modality))
    fitted, choice = fit_and_choose(criterion, seed.traces[SELECTION], names, chooser)
    swept = sweep(_report(seed), fitted, np.array([choice.threshold]))
    return float(swept.metrics(names)["score"][0]), float(swept.layer_speedup[0])


def _patience(params: Params) -> Criterion:
    return CRITERIA["patience"](**params.evaluate.criteria["patience"])


def _groups(params: Params, folder: Path, methods: Sequence[str]) -> Iterator[tuple[str, Group]]:
    for task in params.tasks:
        index = TraceIndex.read(folder / "traces" / task / "index.json", f"run `make demo PROFILE={PROFILE}`")
        for group in load_groups(index, folder / "traces" / task):
            if group.method in methods:
                yield task, group


def _classes(params: Params, folder: Path) -> Iterator[tuple[str, Group]]:
    """The groups of METHODS on tasks with classes, which have probabilities."""
    for task, group in _groups(params, folder, METHODS):
        if group.seeds[0].traces[SELECTION].kind != "regression":
            yield task, group


def _report(seed: SeedTraces) -> Trace:
    (report,) = (trace for split, trace in seed.traces.items() if split != SELECTION)
    return report


def _reports(group: Group) -> list[Trace]:
    return [_report(seed) for seed in group.seeds]


def _difference(found: tuple[float, float, float], sure: bool = False) -> str:
    """Points with their interval; in bold where the interval leaves 0 out, if `sure`."""
    middle, low, high = (100 * value for value in found)
    text = f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")  # noqa: RUF001 - a minus sign
    return f"**{text}**" if sure and (low > 0 or high < 0) else text
