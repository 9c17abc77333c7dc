"""`python -m pipeline why`: which input made a trial or a stage run, or that nothing did."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.why import why
from pipeline.errors import ParamsError
from pipeline.identity.equivalence import FILE, read_equivalence
from pipeline.identity.imports import ROOT
from pipeline.layout import Workspace
from pipeline.results import TrialCode, TrialRecord, Trials
from pipeline.storage import content_key, write_json
from pipeline.training.code import FILE as CODE
from pipeline.training.code import code_key, trial_code
from tests.test_harmless import commit, equal

# Trials


def settings(**changed: Any) -> dict[str, Any]:
    """A trial's settings, with some replaced by dotted name (two underscores for a dot)."""
    made: dict[str, Any] = {
        "modality": "text",
        "method": "joint",
        "data": "d" * 16,
        "weights": "w" * 16,
        "code": code_key(trial_code("text", "joint")),
        "backbone": {"pooling": "first"},
        "training": {"epochs": 3, "warmup": 0.1},
        "batch_size": 32,
        "learning_rate": 2e-5,
        "seed": 1,
    }
    for name, value in changed.items():
        block, _, inner = name.rpartition("__")
        (made[block] if block else made)[inner] = value
    return made


class Trialled:
    """A workspace whose trials begin one after another."""

    def __init__(self, root: Path) -> None:
        self.workspace, self.clock = Workspace(root), 1_000_000

    def add(self, made: Mapping[str, Any], task: str = "sst2", definitions: Mapping[str, Any] | None = None) -> str:
        key = content_key(made)
        self.clock += 10
        path = write_json(self.workspace.trial(key) / "settings.json", made)
        os.utime(path, (self.clock, self.clock))
        code = trial_code("text", "joint")
        names = {"task": task, "backbone": "minilm", "hub": "org/minilm"}
        parts = {p: dict(d) for p, d in (definitions or code.definitions).items()}
        trained_by = code.hash if made["code"] == code_key(code) else made["code"]
        TrialCode(names=names, code=trained_by, definitions=parts).write(path.with_name(CODE))
        write_json(path.with_name("result.json"), {})
        return key

    def lines(self, name: str) -> list[str]:
        return why(name, self.workspace)


@pytest.fixture
def trials(tmp_path: Path) -> Trialled:
    return Trialled(tmp_path)


def test_the_first_trial_has_none_before_it(trials: Trialled) -> None:
    key = trials.add(settings())
    title, reason, today = trials.lines(key[:6])
    assert title == f"{key}: sst2/minilm/joint batch_size=32 learning_rate=2e-05 seed=1, finished"
    assert reason == "It ran because no trial had run before it."
    assert today == "Today's code is the code that trained it."


def test_it_names_each_input_that_differs_from_the_nearest_trial_before(trials: Trialled) -> None:
    first = trials.add(settings())
    trials.add(settings(seed=2, data="e" * 16))
    trials.add(settings(data="c" * 16, weights="v" * 16, training__epochs=5), task="rte")  # nearer, but another task
    key = trials.add(settings(data="e" * 16, weights="v" * 16, training__epochs=5, training__clip_norm=1.0))
    trials.add(settings(data="e" * 16, weights="v" * 16))  # nearer, and later: it cannot have been what ran before
    lines = trials.lines(key)
    assert first in lines[1]
    assert lines[2:6] == [
        f"  data: {'d' * 16} -> {'e' * 16} (other rows, labels or tokens)",
        "  training.clip_norm: not set -> 1.0",
        "  training.epochs: 3 -> 5",
        f"  weights: {'w' * 16} -> {'v' * 16} (other pretrained weights)",
    ]
    seed = trials.add(settings(seed=3))
    assert trials.lines(seed)[1:3] == [
        f"It ran because no trial before it had its inputs. The nearest is {first}, which differs in",
        "  seed: 1 -> 3",
    ]


def test_it_names_the_definitions_of_the_code_that_differ(trials: Trialled) -> None:
    code = {path: dict(names) for path, names in trial_code("text", "joint").definitions.items()}
    older = code | {"pipeline/training/recipes/joint.py": {"Joint": "0" * 16, "RECIPE": "1" * 16, "gone": "2" * 16}}
    trials.add(settings(code="0" * 16), definitions=older)
    key = trials.add(settings())
    lines = trials.lines(key)
    assert lines[2] == "  code: pipeline/training/recipes/joint.py (Joint, RECIPE, gone)"
    # The older one would be trained anew, as another trial.
    old = trials.lines(content_key(settings(code="0" * 16)))
    assert old[2:] == [
        "Today's code differs, so it would be trained again:",
        "  code: pipeline/training/recipes/joint.py (Joint, RECIPE, gone)",
    ]


def test_a_parent_leads_to_its_own_reason(trials: Trialled) -> None:
    trials.add(settings(parent="a" * 16))
    key = trials.add(settings(parent="b" * 16))
    assert trials.lines(key)[2] == f"  parent: {'a' * 16} -> {'b' * 16} (`python -m pipeline why {'b' * 16}` says why)"


def test_code_that_was_declared_equal_is_named_with_its_reason(
    trials: Trialled, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    today = trial_code("text", "joint").hash
    equal(("0" * 16, today)).write(tmp_path / FILE)
    monkeypatch.setattr("pipeline.commands.why_trial.read_equivalence", lambda: read_equivalence(tmp_path))
    key = trials.add(settings(code="0" * 16))
    reason = f"{'0' * 16} to {today}"
    assert trials.lines(key)[2] == f"Today's code differs and was declared to train alike: {reason}"


def test_a_trial_of_the_last_plan_is_not_run_again(trials: Trialled) -> None:
    key, other = trials.add(settings()), trials.add(settings(seed=2))
    empty = dict.fromkeys(("train_seconds", "train_seconds_to_best", "epochs_run", "best_epoch", "mlflow_run_id"))
    record = TrialRecord(key=key, group="sst2/minilm/joint", settings=settings(), **empty)
    Trials(trials=(record,)).write(trials.workspace.trials_table)
    assert trials.lines(key)[-1] == ("The last plan has it. It is not run again while its inputs stay the same.")
    assert trials.lines(other)[-1] == "The last plan does not have it."
    Trials(trials=(record.model_copy(update={"stopped_after": 2}),)).write(trials.workspace.trials_table)
    stopped = "The last plan has it. Its search stopped it after epoch 2, from where another search lets it go on."
    assert trials.lines(key)[-1] == stopped


def test_names_that_are_none_are_one_line(trials: Trialled) -> None:
    keys = [trials.add(settings(seed=seed)) for seed in range(40)]
    start = max({key[0] for key in keys}, key=[key[0] for key in keys].count)
    with pytest.raises(ParamsError, match=rf"why: \d+ trials begin with '{start}' \({start}"):
        trials.lines(start)
    near = ("f" if keys[0][0] != "f" else "e") + keys[0][1:]
    with pytest.raises(ParamsError, match=f"no trial and no stage '{near}'; did you mean '{keys[0]}'"):
        trials.lines(near)


def test_the_command_says_it_in_one_line() -> None:
    run = [sys.executable, "-m", "pipeline", "why", "finetun"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: why: no trial and no stage 'finetun'; did you mean 'finetune'? (stages: ")


# Stages

GRAPH = """
stages:
  settings:
    cmd: mkdir -p outputs/settings && cp params.yaml outputs/settings/make.json
    deps: [params.yaml]
    outs: [outputs/settings]
  make:
    foreach: [one, two]
    do:
      cmd: mkdir -p out && cp code.py out/${item}.txt
      deps: [code.py, in.txt, outputs/settings/make.json]
      outs:
        - out/${item}.txt
  use:
    cmd: cp out/one.txt used.txt
    deps: [out/one.txt]
    outs: [used.txt]
"""


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.mark.slow
def test_a_stage_s_inputs_are_named(tmp_path: Path) -> None:
    def put(name: str, text: str) -> None:
        (tmp_path / name).write_text(text, encoding="utf-8")

    workspace = Workspace(tmp_path)
    put("dvc.yaml", GRAPH)
    put("params.yaml", json.dumps({"size": 1, "deep": {"er": [1, 2]}}))
    put("code.py", "1")
    put("in.txt", "1")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    dvc(tmp_path, "init", "-q")
    assert why("use", workspace)[:2] == ["use will run:", "  it has not run here"]
    dvc(tmp_path, "repro", "-q")
    commit(tmp_path)
    assert why("use", workspace) == ["nothing: it is up to date"]

    # Before it runs: what changed.
    put("params.yaml", json.dumps({"size": 2, "deep": {}}))
    dvc(tmp_path, "repro", "-q", "settings")
    put("code.py", "2")
    (tmp_path / "in.txt").unlink()
    (tmp_path / "used.txt").unlink()
    assert why("make@one", workspace) == [
        "make@one will run:",
        "  code.py: changed",
        "  in.txt: is gone",
        "  deep.er: [1, 2] -> not set",
        "  size: 1 -> 2",
    ]
    both = [line for line in why("make", workspace) if "will run" in line]
    assert both == ["make@one will run:", "make@two will run:"]
    assert why("use", workspace) == [
        "use will run:",
        "  its output used.txt is gone",
        "make@one, on which it depends, will run first (`python -m pipeline why make@one` says why)",
    ]

    # After it ran: what made it run.
    put("in.txt", "1")
    dvc(tmp_path, "repro", "-q")
    assert why("make@two", workspace) == [
        "nothing: it is up to date",
        "make@two last ran, after the last commit of dvc.lock, because of",
        "  code.py: changed",
        "  deep.er: [1, 2] -> not set",
        "  size: 1 -> 2",
    ]
    # Without DVC's copy of the settings of before.
    md5 = hashlib.md5(json.dumps({"size": 1, "deep": {"er": [1, 2]}}).encode()).hexdigest()
    (tmp_path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink()
    assert "  outputs/settings/make.json: changed" in why("make@two", workspace)
    with pytest.raises(ParamsError, match=r"did you mean 'make'\? \(stages: settings, make, use; 0 trials"):
        why("mak", workspace)
