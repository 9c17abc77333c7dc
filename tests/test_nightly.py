"""The nightly job: what did not change is taken from a DVC remote, what moved is in one comment."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.commands.compare_metrics import TOLERANCES, collect
from pipeline.identity.imports import ROOT
from pipeline.layout import Workspace
from pipeline.report.render import markdown_text
from pipeline.results import StoredMetrics
from tests.stored_results import params_for, write_all
from tools.nightly import COMMENT, LONGEST, MOST_ROWS, comment

TASKS = {"demo-sentences": {"rows": {"train": 100, "selection": 80, "report": 80}}}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("results"))
    write_all(workspace, params_for(TASKS, "demo-albert"))
    return workspace


def metrics_of(**values: float | None) -> StoredMetrics:
    return StoredMetrics(metrics={"score": values})


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables."""
    lines = [line for line in text.splitlines() if re.match(r"\| (?!metric)", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_what_moved_stands_first_and_everything_stands_before_and_after(results: Workspace) -> None:
    fresh = collect(results)
    kind, values = next((kind, values) for kind, values in fresh.metrics.items() if len(values) > 2)
    far, near, gone = list(values)[:3]
    far_value, near_value = (0.0 if values[name] is None else values[name] or 0.0 for name in (far, near))
    moved = {far: far_value + 3 * TOLERANCES[kind], near: near_value + TOLERANCES[kind] / 2, "not there": 0.5}
    stored = StoredMetrics(metrics=fresh.metrics | {kind: {k: v for k, v in values.items() if k != gone} | moved})
    text = comment("demo", stored, fresh)
    first, _, second = text.partition("<details>")
    every = sum(map(len, stored.metrics.values()))
    assert first.startswith(f"## Profile `demo`: 2 of {every} metrics moved\nCommit ")
    assert [row[0] for row in rows(first)] == ["not there", markdown_text(far)]
    assert rows(first)[0] == ["not there", "0.5", "absent", ""]
    assert rows(first)[1][3] == f"{-3 * TOLERANCES[kind]:+.4g}"
    assert len(rows(second)) == every + 1  # `gone` is new in this run
    assert [row[1:3] for row in rows(second) if row[0] == markdown_text(gone)] == [["absent", f"{values[gone]:.6g}"]]


def test_nothing_moved(results: Workspace) -> None:
    fresh = collect(results)
    first, _, second = comment("demo", fresh, fresh).partition("<details>")
    assert first.startswith("## Profile `demo`: no metric moved\n")
    assert (rows(first), len(rows(second))) == ([], sum(map(len, fresh.metrics.values())))


def test_names_are_no_markup_and_what_is_undefined_is_said() -> None:
    text = comment("demo", metrics_of(**{'a|b <i> {"tau": 0.5}': 0.5, "lost": 0.5}), metrics_of(lost=None))
    assert rows(text)[0] == ['a\\|b &lt;i&gt; {"tau": 0.5}', "0.5", "absent", ""]
    assert rows(text)[1] == ["lost", "0.5", "undefined", ""]


@pytest.mark.parametrize("move", [0.0, 0.5])
def test_a_comment_is_never_longer_than_github_takes(move: float) -> None:
    names = [f"task/backbone/method/criterion {i}/validation" for i in range(3000)]
    text = comment("real", metrics_of(**dict.fromkeys(names, 0.5)), metrics_of(**dict.fromkeys(names, 0.5 + move)))
    assert len(text) < LONGEST
    assert len(rows(text)) == (MOST_ROWS if move else 0)
    assert "in the artifact" in text


# The job, on a graph of one stage

GRAPH = """
stages:
  all:
    cmd: cp -r results/outputs/* outputs/ && echo ran >> {log} && test ! -f results/broken
    deps: [results]
    outs: [outputs/evaluate, outputs/attack]
    metrics: [outputs/simulate/simulate.json]
"""


@pytest.fixture
def project(tmp_path: Path, results: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes clones of a project with a DVC remote; the stage of each writes a line into tmp_path/log."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")

    def clone(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(results.root, folder / "results")
        for part in ("pipeline", "tools", "profiles"):
            (folder / part).symlink_to(ROOT / part)
        (folder / "outputs").mkdir()
        shutil.copy(ROOT / "profiles/demo.yaml", folder / "params.yaml")
        (folder / "dvc.yaml").write_text(GRAPH.format(log=tmp_path / "log"))
        collect(results).write(folder / "docs/demo-metrics.json")
        dvc(folder, "init", "--no-scm", "--quiet")
        dvc(folder, "remote", "add", "--local", "--default", "--quiet", "remote", str(tmp_path / "remote"))
        return folder

    return clone


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


def nightly(folder: Path, profile: str = "demo") -> tuple[int, str]:
    run = [sys.executable, "-m", "tools.nightly", profile]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_second_machine_takes_what_the_first_pushed(project: Callable[[str], Path], tmp_path: Path) -> None:
    first, second = project("first"), project("second")
    assert nightly(first)[0] == 0
    dvc(first, "push", "--run-cache")
    assert nightly(second)[0] == 0
    assert (tmp_path / "log").read_text() == "ran\n"
    assert "no metric moved" in (second / "outputs" / COMMENT).read_text()
    # An input changed: the stage runs again. A stored number is another: it is named.
    (second / "results/note").touch()
    stored = second / "docs/demo-metrics.json"
    metrics = collect(Workspace(second)).metrics
    name = next(iter(metrics["score"]))
    StoredMetrics(metrics=metrics | {"score": metrics["score"] | {name: 0.0123}}).write(stored)
    code, out = nightly(second)
    assert (code, (tmp_path / "log").read_text()) == (1, "ran\nran\n")
    assert f"\n{name}: 0.0123 -> " in out
    assert out.endswith(f"\n1 metrics moved or are missing; the comment is in outputs/{COMMENT}\n")
    assert rows((second / "outputs" / COMMENT).read_text())[0][:2] == [markdown_text(name), "0.0123"]


@pytest.mark.slow
def test_what_fails_is_said_in_the_comment_or_refused_first(project: Callable[[str], Path], tmp_path: Path) -> None:
    folder = project("here")
    code, out = nightly(folder, "real")
    assert (code, out.count("\n")) == (1, 1)
    assert out.startswith("error: docs/real-metrics.json: no such file; write it")
    (folder / "params.yaml").write_text("tasks: {}\n")
    code, out = nightly(folder)
    assert (code, "holds edits of yours" in out) == (1, True)
    assert not (tmp_path / "log").exists()
    shutil.copy(ROOT / "profiles/demo.yaml", folder / "params.yaml")
    (folder / "results/broken").touch()
    assert nightly(folder)[0] == 1
    text = (folder / "outputs" / COMMENT).read_text()
    assert text.startswith("## Profile `demo` failed\n`dvc repro --pull` ended with exit code 255")
