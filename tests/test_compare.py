"""`python -m pipeline compare`: two runs side by side, and which of their inputs differ."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.compare import compare
from pipeline.errors import ArtifactError, ParamsError
from pipeline.identity.imports import ROOT
from pipeline.layout import Workspace
from pipeline.params import Params
from pipeline.results import Evaluated, Trials
from pipeline.storage import write_json
from tests.report.pages import Page, edit, small
from tests.stored_results import write_all, write_traces

SPEEDS = {"window": [1.3, 1.96]}


def run_in(folder: Path, params: Params, settings: Mapping[str, Any] | None = None) -> Path:
    """A folder with results and traces, and the settings of evaluate."""
    here = Workspace(folder)
    write_all(here, params)
    write_traces(here, params)
    write_json(here.stage_settings("evaluate", "sst2"), settings or SPEEDS)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs that differ in the window of speed-ups in which thresholds are chosen."""
    raw = small("albert-base").model_dump()["evaluate"]
    slow = small("albert-base", evaluate=raw | {"window": [1.0, 1.2]})
    root = tmp_path_factory.mktemp("runs")
    return run_in(root / "one", small("albert-base")), run_in(root / "two", slow, {"window": [1.0, 1.2]})


def rows(payload: Any, **names: str) -> list[Any]:
    return [row for row in payload["rows"] if all(row[name] == value for name, value in names.items())]


def test_a_run_beside_itself_has_nothing_to_explain(folders: tuple[Path, Path]) -> None:
    lines, payload = compare(str(folders[0]), str(folders[0]), None)
    assert lines[2] == f"{len(payload['rows'])} rows in common, all with the same numbers."
    assert lines[-1] == "  nothing differs"
    assert not any(row["moved"] for row in payload["rows"])
    assert {row["same_examples"]["p"] for row in payload["rows"]} == {1.0}


def test_scores_speeds_settings_and_the_setting_behind_them(folders: tuple[Path, Path]) -> None:
    lines, payload = compare(str(folders[0]), str(folders[1]), None)
    (patience,) = rows(payload, task="sst2", method="joint", criterion="patience")
    stored = [Evaluated.read(Workspace(folder).evaluated("sst2"), "").rows for folder in folders]
    before, after = (next(r for r in found if r.criterion == "patience") for found in stored)
    assert patience["before"]["score"]["value"] == before.score.median
    assert patience["after"]["layer_speedup"]["value"] == after.layer_speedup.median
    assert patience["after"]["thresholds"] == [point.threshold for point in after.points]
    gaps = sorted(b - a for a, b in zip(before.score.values, after.score.values, strict=True) if a and b)
    assert patience["difference"]["value"] == pytest.approx(gaps[1], abs=1e-6)
    (cause,) = payload["causes"]
    assert (cause["kind"], cause["name"], cause["where"]) == ("settings", "window", ("evaluate@sst2",))
    assert "  settings: window: [1.3, 1.96] \u2192 [1.0, 1.2] (evaluate@sst2)" in lines
    for row in rows(payload, criterion="all layers"):
        assert not row["moved"], "the window chooses no threshold of all layers"


def test_the_same_examples_are_compared_one_by_one(folders: tuple[Path, Path]) -> None:
    """One seed: better minus worse is the difference of accuracies, in rows."""
    _, payload = compare(str(folders[0]), str(folders[1]), None)
    for row in rows(payload, task="sst2", method="joint"):
        found, gaps = row["same_examples"], row["difference"]
        assert found["rows"] == 80
        assert found["better"] + found["worse"] <= 80
        assert (found["better"] == found["worse"] == 0) == (gaps["low"] == gaps["high"] == 0)
    moved = [row["same_examples"] for row in rows(payload, task="sst2") if row["moved"]]
    assert any(found["better"] != found["worse"] for found in moved)


def test_one_seed_is_mcnemar(tmp_path: Path) -> None:
    raw = small("albert-base").model_dump()["evaluate"]
    made = []
    for name, window in (("one", [1.3, 1.96]), ("two", [1.0, 1.2])):
        params = small("albert-base", ("sst2",), evaluate=raw | {"window": window})
        write_all(Workspace(tmp_path / name), params, seeds=(1,))
        write_traces(Workspace(tmp_path / name), params, seeds=(1,))
        made.append(str(tmp_path / name))
    _, payload = compare(*made, None)
    for row in payload["rows"]:
        found = row["same_examples"]
        gained = round(80 * row["difference"]["value"])
        assert found["better"] - found["worse"] == gained


def test_other_examples_are_not_paired(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Neither without traces."""
    write_all(Workspace(tmp_path), small("albert-base"))
    _, payload = compare(str(folders[0]), str(tmp_path), None)
    assert {row["same_examples"] is None for row in payload["rows"]} == {True}
    lines, _ = compare(str(folders[0]), str(tmp_path), None)
    assert any("no traces" in line for line in lines)


def change_trials(folder: Path, told: Mapping[str, Any]) -> None:
    """Replace fields of every trial of a run's table."""

    def each(payload: dict[str, Any]) -> None:
        for trial in payload["trials"]:
            trial.update(told)

    edit(Workspace(folder).trials_table, each)


@pytest.mark.parametrize(
    ("settings", "versions", "line"),
    [
        ({"training": {"epochs": 5}}, {}, "settings: training.epochs: 3 \u2192 5 ("),
        ({"data": "b" * 16}, {}, "data: other rows, labels or tokens to train on: aaaaaaaaaaaaaaaa"),
        ({"weights": "b" * 16}, {}, "weights: other pretrained weights to train on"),
        ({"code": "b" * 16}, {}, "code: training: other definitions: changed ("),
        ({}, {"torch": "3.0"}, "libraries: torch: 2.13.0 \u2192 3.0 ("),
        ({}, {"processor": "another"}, "hardware: processor: one \u2192 another ("),
    ],
)
def test_what_trained_models_otherwise_is_named(
    tmp_path: Path, settings: dict[str, Any], versions: dict[str, str], line: str
) -> None:
    params = small("albert-base", ("sst2",))
    for name in ("one", "two"):
        write_all(Workspace(tmp_path / name), params)
        plain = {"training": {"epochs": 3}, **dict.fromkeys(("data", "weights", "code"), "a" * 16)}
        told = {"settings": plain, "versions": {"torch": "2.13.0", "processor": "one"}}
        if name == "two":
            told = {"settings": plain | settings, "versions": told["versions"] | versions}
        change_trials(tmp_path / name, told)
    if versions:  # a trial that both used was trained once, so the keys differ as well
        rename_keys(tmp_path / "two")
    lines, payload = compare(str(tmp_path / "one"), str(tmp_path / "two"), None)
    assert any(text.strip().startswith(line) for text in lines), lines[-4:]
    assert len(payload["causes"]) == 1
    assert payload["causes"][0]["where"] == ("sst2/albert-base/single_exit", "sst2/albert-base/joint")


def rename_keys(folder: Path) -> None:
    """Give every trial another key, in all files of a run."""
    keys = [record.key for record in Trials.read(Workspace(folder).trials_table, "").trials]
    for path in (folder / "outputs").rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        for key in keys:
            text = text.replace(key, key[::-1])
        path.write_text(text, encoding="utf-8")


def test_rows_of_one_run_alone_are_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    params = small("albert-base", ("sst2",), methods=["joint"])
    write_all(Workspace(tmp_path), params)
    lines, payload = compare(str(folders[0]), str(tmp_path), None)
    assert "sst2 validation, albert-base, single_exit: all layers" in payload["only_before"]
    assert payload["only_after"] == []
    assert f"Only in {folders[0]}:" in lines


def test_the_page_and_its_twin(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for suffix in (".html", ".md"):
        lines, _ = compare(str(folders[0]), str(folders[1] / "outputs"), tmp_path / f"compare{suffix}")
        assert lines[-1] == f"written: {tmp_path / f'compare{suffix}'}"
    page = Page((tmp_path / "compare.html").read_text(encoding="utf-8"))
    assert page.balanced
    assert page.row("Why they differ", "window")["After"] == "[1.0, 1.2]"
    assert "of 80" in page.row("sst2 validation: albert-base, joint", "patience")["Same examples"]
    assert "| patience |" in (tmp_path / "compare.md").read_text(encoding="utf-8")


def test_outputs_under_another_name(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "kept").symlink_to(folders[1] / "outputs")
    _, payload = compare(str(folders[1]), str(tmp_path / "kept"), None)
    assert not any(row["moved"] for row in payload["rows"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-run"], "compare: 'no-such-run' is no folder with results, no revision or experiment"),
        (["--out", "page.pdf", "."], "--out page.pdf: does not end in .html or .md"),
        (["--end-of-options"], "No such option"),
    ],
)
def test_wrong_names_are_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "compare", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (1, 2)
    assert said in done.stderr.splitlines()[-1]


def test_runs_without_a_row_in_common(folders: tuple[Path, Path], tmp_path: Path) -> None:
    write_all(Workspace(tmp_path), small("minilm", ("sst2",)), layers=6)
    with pytest.raises(ArtifactError, match="have no task, model and criterion in common"):
        compare(str(folders[0]), str(tmp_path), None)


def test_an_empty_folder_names_the_remedy(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    with pytest.raises(ArtifactError, match=r"no results of evaluate; run `dvc repro` or `dvc pull` there"):
        compare(str(folders[0]), str(tmp_path), None)


# Trials


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of two finished trials in the working folder, of two seeds."""
    from pipeline.results import TrialResult
    from tests.test_why import Trialled, settings

    monkeypatch.chdir(tmp_path)
    made = Trialled(Path())
    keys = [made.add(settings(seed=seed)) for seed in (1, 2)]
    for key, score in zip(keys, (0.8, 0.85), strict=True):
        TrialResult(
            best_epoch=2, epochs_run=3, selection=score, train_seconds=9.0, train_seconds_to_best=6.0,
            micro_batch=None, metrics={"score_exit_01": score - 0.2}, parameters=1000, early_exit_parameters=10,
            layers=2, exits=(1, 2), weights_sha256="0", versions={"torch": f"2.{score}"},
        ).write(Workspace().trial(key) / "result.json")  # fmt: skip
    return keys


def test_two_trials(trials: list[str]) -> None:
    lines, payload = compare(trials[0], trials[1][:10], None)
    assert payload["numbers"][0] == {"name": "selection", "before": 0.8, "after": 0.85}
    assert {"name": "score_exit_01", "before": pytest.approx(0.6), "after": pytest.approx(0.65)} in payload["numbers"]
    assert payload["inputs"] == ["seed: 1 -> 2"]
    assert payload["versions"] == ["torch: 2.0.8 -> 2.0.85"]
    assert any(line.split() == ["selection", "0.8", "0.85", "+0.05"] for line in lines)


def test_a_trial_and_a_run_are_of_two_kinds(trials: list[str], folders: tuple[Path, Path]) -> None:
    with pytest.raises(ParamsError, match=r"is a trial and .* a whole run"):
        compare(trials[0], str(folders[0]), None)
    with pytest.raises(ParamsError, match=f"compare: '{trials[0][:-1]}x' is no folder"):
        compare(trials[0], f"{trials[0][:-1]}x", None)


# Revisions


@pytest.mark.slow
def test_a_revision_and_an_experiment_have_their_results_in_dvc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: tuple[Path, Path]
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)

    dvc = (sys.executable, "-m", "dvc")
    run("git", "init", "-q", "-b", "main")
    run("git", "config", "user.name", "Ann")
    run("git", "config", "user.email", "ann@example.org")
    run(*dvc, "init", "-q")
    for number, folder in enumerate(folders):
        run("cp", "-r", str(folder / "outputs"), "outputs")
        run(*dvc, "add", "-q", *(str(path) for path in Path("outputs").iterdir()))
        run("git", "add", "-A")
        run("git", "commit", "-qm", f"run {number}")
        if number == 0:
            run("rm", "-r", "outputs")
    _, expected = compare(*map(str, folders), None)
    lines, payload = compare("HEAD~1", ".", None)
    assert lines[0].startswith("before: HEAD~1 (")
    assert payload["rows"] == expected["rows"]
    assert payload["causes"] == expected["causes"]
    head = subprocess.run(["git", "rev-parse", "HEAD~1"], check=True, capture_output=True, text=True).stdout.strip()
    run("git", "update-ref", "refs/exps/ab/cdef/calm-fox", head)  # where DVC keeps experiments
    assert compare("calm-fox", "HEAD", None)[1]["rows"] == expected["rows"]
    for path in Path(".dvc/cache").rglob("*"):
        path.unlink() if path.is_file() else None
    with pytest.raises(ArtifactError, match=r"DVC does not have the results of 'HEAD~1'.*dvc fetch"):
        compare("HEAD~1", ".", None)


def test_json_is_json(folders: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "pipeline", "compare", *map(str, folders), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["before"] == str(folders[0])
