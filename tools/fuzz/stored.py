"""Single edits of the stored results of a finished run, through every reader.

The run is copied first. Each stored JSON file and each table of curves is edited in one place at a time, and read by
the report, the stages and the commands that read it.
"""

import contextlib
import copy
import io
import itertools
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.layout import Workspace
from tools.fuzz.outcome import Tally

Place = tuple[str | int, ...]
Mutation = tuple[str, Any]
"""What was edited, and the edited payload."""
GONE = object()
FIGURES = 20
"""Of so many edits that the report takes, the figures of one are drawn."""


def mutations(payload: Any) -> Iterator[Mutation]:
    """Single edits of a JSON payload, at every field of every object and at the ends of every list."""
    for place, value in _places(payload):
        for name, edit in _edits(value):
            yield f"{'.'.join(map(str, place))} {name}", _edited(payload, place, edit)


def _places(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    if place and place != ("schema",):
        yield place, value
    if isinstance(value, dict):
        for name in value:
            yield from _places(value[name], (*place, name))
    elif isinstance(value, list):
        for i in sorted({0, len(value) - 1}) if value else ():
            yield from _places(value[i], (*place, i))


def _edits(value: Any) -> Iterator[tuple[str, Any]]:
    """Edits of one value: gone, null, other types, and other values of its type."""
    yield "gone", GONE
    for other in (None, True, "other", 7, -3, 10**30, 0.5, -1e308, math.nan, math.inf, [], {}, [None], {"other": 1}):
        if type(other) is not type(value) or other != value:
            yield f"= {json.dumps(other)}", other
    if isinstance(value, str):
        yield "+ x", f"{value}x"
        yield "empty", ""
        yield "path", "../../up"
        yield "lines", "two\nlines"
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield "* -1", -value
        yield "+ 1", value + 1
        yield "zero", 0
    elif isinstance(value, list) and value:
        yield "shorter", value[:-1]
        yield "twice", [*value, value[-1]]
        yield "reversed", value[::-1]
    elif isinstance(value, dict) and value:
        first = next(iter(value))
        yield "renamed", {f"{name}x" if name == first else name: part for name, part in value.items()}


def _edited(payload: Any, place: Place, value: Any) -> Any:
    out = copy.deepcopy(payload)
    holder = out
    for step in place[:-1]:
        holder = holder[step]
    if value is GONE:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return out


def table_mutations(text: str) -> Iterator[tuple[str, str]]:
    """Edits of a CSV file: lines that are gone, twice, cut, and cells with other values."""
    lines = text.splitlines()
    yield "empty", ""
    yield "header only", f"{lines[0]}\n"
    for i in sorted({0, 1, len(lines) // 2, len(lines) - 1}):
        yield f"line {i} gone", "\n".join(lines[:i] + lines[i + 1 :]) + "\n"
        yield f"line {i} twice", "\n".join([*lines[: i + 1], *lines[i:]]) + "\n"
        cells = lines[i].split(",")
        for j in range(len(cells)):
            for other in ("", "x", "-1", "0", "nan", "inf", "-inf", "1e400", '"', "1_0", "9" * 5000):
                edited = ",".join([*cells[:j], other, *cells[j + 1 :]])
                yield f"line {i} cell {j} = {other[:9]}", "\n".join([*lines[:i], edited, *lines[i + 1 :]]) + "\n"


def fuzz_json(path: Path, reader: Callable[[], Any], tally: Tally, every: int = 1) -> None:
    """Edit one file in each way in turn and read it; it is as before at the end."""
    text = path.read_text(encoding="utf-8")
    try:
        for i, (name, payload) in enumerate(mutations(json.loads(text))):
            if i % every == 0:
                path.write_text(json.dumps(payload), encoding="utf-8")
                tally.run(f"{path}: {name}", reader, remedy=True)
    finally:
        path.write_text(text, encoding="utf-8")


def fuzz_table(path: Path, reader: Callable[[], Any], tally: Tally, every: int = 1) -> None:
    """The same for a CSV file."""
    text = path.read_text(encoding="utf-8")
    try:
        for i, (name, edited) in enumerate(table_mutations(text)):
            if i % every == 0:
                path.write_text(edited, encoding="utf-8")
                tally.run(f"{path}: {name}", reader, remedy=True)
    finally:
        path.write_text(text, encoding="utf-8")


# Readers


def report(params: Any, here: Workspace, drawn: int = FIGURES) -> Callable[[], Any]:
    """The page; with its figures, which take seconds, once in `drawn` times."""
    from pipeline.report.collect import collect
    from pipeline.report.render import Provenance, build
    from pipeline.report.sections import SECTIONS
    from pipeline.report.summary import cautions, what_was_run
    from pipeline.report.verdicts import headlines, verdicts

    taken = itertools.count()

    def read() -> None:
        stored = collect(params, here)
        if next(taken) % drawn == 0:
            build(stored, Provenance("0123abc", "feed5eed"))
            return
        every = verdicts(stored.tasks)
        what_was_run(stored, [part for section in SECTIONS for part in section.ran(stored)])
        cautions(stored, every)
        headlines(every)
        for section in SECTIONS:
            section.not_run(stored)
            section.findings(stored)
            section.tables(stored)

    return read


def metrics(here: Workspace) -> Callable[[], Any]:
    """The command compare-metrics."""
    from pipeline.commands.compare_metrics import collect, differences

    stored = collect(here)
    return lambda: differences(stored, collect(here))


def stage(name: str, task: str, params: Any) -> Callable[[], Any]:
    """A stage's main function on one task, in the working directory and without a tracking server."""
    from importlib import import_module
    from types import SimpleNamespace

    from pipeline.storage import write_text

    main = import_module(f"stages.{name}").main
    tracked = SimpleNamespace(log_artifact=lambda path: None, log_dataset=lambda *parts: None)
    run = SimpleNamespace(
        params=params,
        instance=task,
        run=tracked,
        write=lambda path, result: result.write(path),
        write_text=lambda path, text: write_text(Path(path), text),
        log_metrics=lambda metrics: None,
        log_row=lambda settings, metrics, **more: None,
    )
    return lambda: main(run)


def plan(params: Any) -> Callable[[], Any]:
    """The plan of finetune with the trials that have ended, and the selection of each task."""
    from pipeline.layout import HERE
    from pipeline.training.groups import plan_of
    from pipeline.training.progress import Progress
    from pipeline.training.selection import selected_models

    def read() -> None:
        planned = plan_of(params)
        progress = Progress(planned, HERE.trials)
        if progress.unfinished():  # finetune runs what is not finished first
            return
        for name in params.tasks:
            groups = [group for group in planned.groups if group.names["task"] == name]
            selected_models(params.task(name), params.protocol, groups, progress)

    return read


def commands(here: Workspace) -> Callable[[], Any]:
    """The command why, for every trial."""
    from pipeline.commands.why_trial import trial_keys, why_trial

    return lambda: [why_trial(key, here) for key in trial_keys(here)[:2]]


def declarations(here: Workspace) -> Callable[[], Any]:
    """What finetune and why read of the declarations of `harmless`."""
    from pipeline.identity.equivalence import canonical, read_equivalence, trained_by_other_code
    from pipeline.training.code import trial_code

    today = trial_code("text", "joint")

    def read() -> None:
        equivalence = read_equivalence(here.root)
        canonical(today.hash, equivalence)
        trained_by_other_code("0" * 16, today, equivalence)

    return read


def readers(params: Any, here: Workspace) -> Iterator[tuple[Path, str, Callable[[], Any]]]:
    """Each file of a run with each of its readers."""
    page, compared, planned, why = report(params, here), metrics(here), plan(params), commands(here)
    for task in params.tasks:
        for path in (here.evaluated(task), here.selected(task), here.latency(task), here.attack(task)):
            yield path, "report", page
        yield here.curves(task), "report", page
        yield here.trace_index(task), "evaluate", stage("evaluate", task, params)
        yield here.manifest(task), "plan", planned
        yield here.manifest(task), "trace", stage("trace", task, params)
        yield here.selected(task), "trace", stage("trace", task, params)
        for name, asked in (("latency", params.latency.tasks), ("attack", params.attack.tasks)):
            for path in (here.evaluated(task), here.selected(task), here.manifest(task)) if task in asked else ():
                yield path, name, stage(name, task, params)
        yield here.evaluated(task), "compare-metrics", compared
        yield here.attack(task), "compare-metrics", compared
    for task in params.attack.tasks:
        for folder in (here.attacked / task, here.attacked / task / "pooled"):
            for path in sorted(folder.glob("*.json"))[:1]:
                yield path, "attack", stage("attack", task, params)
    for path in (here.simulation, here.trials_table):
        yield path, "report", page
    yield here.simulation, "compare-metrics", compared
    yield here.trials_table, "why", why
    for key in sorted(path.parent.name for path in here.trials.glob("*/result.json"))[:2]:
        yield here.trial(key) / "result.json", "plan", planned
        yield here.trial(key) / "code.json", "why", why
        yield here.trial(key) / "settings.json", "why", why


def fuzz_run(params: Any, here: Workspace, wanted: Sequence[str] = (), every: int = 1) -> Mapping[str, Tally]:
    """Edit every file of a finished run in the working directory; outcomes by reader.

    Args:
        wanted: readers to drive; empty: all.
        every: take one of so many edits.
    """
    tallies: dict[str, Tally] = {}
    for path, name, reader in readers(params, here):
        if (wanted and name not in wanted) or not path.is_file():
            continue
        tally = tallies.setdefault(name, Tally(f"stored results, {name}"))
        (fuzz_table if path.suffix == ".csv" else fuzz_json)(path, reader, tally, every)
    return tallies


def fuzz(folder: Path, every: int) -> list[Tally]:
    """Edit the files of a copy of a finished run, one of so many edits."""
    from pipeline.params import load_params

    with tempfile.TemporaryDirectory() as copied:
        run = Path(copied) / "run"
        shutil.copytree(folder, run, symlinks=True, ignore=shutil.ignore_patterns(".*", "mlruns", "mlartifacts"))
        with contextlib.chdir(run), contextlib.redirect_stdout(io.StringIO()):
            return list(fuzz_run(load_params(), Workspace(), every=every).values())
