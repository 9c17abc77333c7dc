"""What every stage shares: settings, a lock, a parent run in MLflow, atomic results, errors as one line."""

import atexit
import gc
import getpass
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from filelock import FileLock, Timeout

from pipeline.errors import ClusterError, ParamsError, exit_with_one_line, shown
from pipeline.identity.versions import git_commit
from pipeline.layout import HERE
from pipeline.params import Params, load_params
from pipeline.results import Result
from pipeline.running.dvc_lock import kept_from_dvc
from pipeline.running.mlflow.tracker import Tracker
from pipeline.running.runs import TrackedRun
from pipeline.running.signals import received, stopped_by_signals
from pipeline.storage import content_key, write_text
from pipeline.tasks.stores import manifest_of

EXPERIMENT, EXPERIMENT_TAG = "DVC_EXP_NAME", "dvc_experiment"
"""The variable that names DVC's experiment to its stages, and the tag of their runs."""

LOOK = 1.0
"""Seconds to wait for a stage's lock: another driver may hold it for an instant, to see whether it is free."""


class Stage:
    """One running stage instance.

    Attributes:
        name, instance: such as "trace" and the task, or "finetune" and "".
        params: the validated params.yaml.
        run: the stage's own MLflow run, parent of its trials' runs.
    """

    def __init__(self, name: str, instance: str, params: Params, tracker: Tracker) -> None:
        self.name, self.instance, self.params, self.tracker = name, instance, params, tracker
        tracker.close_abandoned(name, instance)
        commit = git_commit()
        self.tags = {
            "stage": name,
            "instance": instance,
            "git_commit": commit,
            "params_hash": params_hash(params),
            # Columns of MLflow's own.
            "mlflow.user": _user(),
            "mlflow.source.name": f"stages.{name}",
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": commit,
            **({EXPERIMENT_TAG: os.environ[EXPERIMENT]} if os.environ.get(EXPERIMENT) else {}),
        }
        title = f"{name} {instance}".strip()
        self.run: TrackedRun = tracker.open(title, tags=self.tags, params={"stage": name, "instance": instance})

    def write(self, path: Path, result: Result) -> Path:
        """Write a result whole or not at all, and keep it as an artifact of the run."""
        written = result.write(path)
        self.run.log_artifact(written)
        return written

    def write_text(self, path: str | Path, text: str) -> Path:
        """Write a text result atomically, and keep it as an artifact of the run."""
        written = write_text(Path(path), text)
        self.run.log_artifact(written)
        return written

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Headline numbers of the stage; None (not defined) is left out."""
        self.run.log_metrics({name: value for name, value in metrics.items() if value is not None})

    def describe(self, text: str) -> None:
        """Text for the stage's run in MLflow's pages, in Markdown."""
        self.run.log_tags({"mlflow.note.content": text})

    def log_row(
        self,
        settings: Mapping[str, Any],
        metrics: Mapping[str, float | None],
        *,
        keys: Sequence[str] = (),
        by_layer: Mapping[int, float | None] | None = None,
    ) -> TrackedRun:
        """Make a run of a row of the stage's result, below the stage's own: rows are then compared as runs.

        Args:
            settings: what the row is of, such as its backbone, method, criterion and threshold; its parameters.
            metrics: its numbers, under the names that they have in every stage; None (not defined) is left out.
            keys: of the trials that it rests on, which its tag `keys` names.
            by_layer: the score of each exit alone, by its layer, as the steps of `exit_score`.
        """
        params = {"task": self.instance, **settings}
        parts = ("criterion", "method", "backbone", "task", "split", "mode")  # what differs first: lists cut names
        title = " ".join([*(str(params[part]) for part in parts if params.get(part)), f"({self.name})"])
        tags = {**self.tags, "kind": "row", "keys": ",".join(keys)}
        run = self.tracker.open(title, tags=tags, params=params, parent=self.run)
        task, split = str(params["task"]), str(params.get("split"))
        if HERE.manifest(task).is_file() and split in (
            splits := manifest_of(task).splits
        ):  # traces may be all there is
            run.log_dataset(task, splits[split].sha256, str(HERE.data(task)), split)
        run.log_metrics({name: value for name, value in metrics.items() if value is not None})
        run.log_series("exit_score", {layer: score for layer, score in (by_layer or {}).items() if score is not None})
        run.end()
        return run


def run_stage(
    name: str,
    main: Callable[[Stage], None],
    *,
    per_task: bool = True,
    unasked: Callable[[Params, str], bool] = lambda params, instance: False,
) -> None:
    """Run a stage's main function as a command, whose only argument is the task, where the stage has one per task.

    A PipelineError ends the process with its one line and exit code 1; the stage's run is then FAILED.

    Args:
        unasked: writes what stands for an instance that the settings do not ask for and returns True; False: it was
            asked for. Such an instance has no run in MLflow, whose import takes ten times as long as all else it does.
    """
    if main.__module__ == "__main__":  # this process is the stage's own
        _collect_seldom()

    @click.command(name, help=(sys.modules[main.__module__].__doc__ or name).split("\n")[0])
    @click.argument("arguments", metavar="[TASK]", nargs=-1)
    @click.option("--quiet", is_flag=True, help="No bars and no line per trial, as with `runtime.progress: false`.")
    def command(arguments: tuple[str, ...], quiet: bool) -> None:
        with stopped_by_signals(name), exit_with_one_line(name):
            params = load_params()
            if quiet:
                params = params.model_copy(update={"runtime": params.runtime.model_copy(update={"progress": False})})
            _locked(name, _instance(params, arguments, per_task), params, main, unasked)

    command()


def _instance(params: Params, arguments: tuple[str, ...], per_task: bool) -> str:
    """The task that a stage's arguments name; "" for a stage of all tasks."""
    if not per_task and not arguments:
        return ""
    given = " ".join(arguments)
    if not per_task:
        raise ParamsError(f"{shown(given)} given; it runs for all tasks at once, so name none")
    if len(arguments) != 1 or not given:
        raise ParamsError(f"{shown(given) if given else 'no task'} given; name one of {', '.join(params.tasks)}")
    return params.task(given).name


def run_untracked(name: str, main: Callable[[], None]) -> None:
    """Run a stage of an instant that trains, records and evaluates nothing, without a run of its own in MLflow."""

    @click.command(name, help=(sys.modules[main.__module__].__doc__ or name).split("\n")[0])
    def command() -> None:
        with exit_with_one_line(name):
            main()

    command()


def _collect_seldom() -> None:
    """Let imports and exit alone.

    What libraries make on import stays, hundreds of thousands of objects: to look for garbage among them takes a sixth
    of an import, and a second or two once more at exit.
    """
    gc.set_threshold(50_000, 20, 100)
    atexit.register(gc.freeze)


def _locked(
    name: str,
    instance: str,
    params: Params,
    main: Callable[[Stage], None],
    unasked: Callable[[Params, str], bool],
) -> None:
    HERE.locks.mkdir(exist_ok=True)
    label = f"{name}@{instance}" if instance else name
    try:
        with FileLock(HERE.lock(name, instance), timeout=LOOK), kept_from_dvc(name, instance):
            if unasked(params, instance):
                return
            tracker = Tracker(params.runtime.tracking_uri)
            try:
                stage = Stage(name, instance, params, tracker)
                try:
                    main(stage)
                except Exception:
                    stage.run.end("FAILED" if received() is None else "KILLED")
                    raise
                stage.run.end()
            finally:
                tracker.close()
    except Timeout:
        raise ClusterError(f"another {label} runs in this folder; wait for it or end it") from None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in containers
        return str(os.getuid())


def params_hash(params: Params) -> str:
    """Hash of everything that changes results: all blocks but runtime."""
    return content_key(params.model_dump(mode="json", exclude={"runtime"}))
