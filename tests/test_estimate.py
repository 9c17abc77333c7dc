"""`python -m pipeline plan`: what runs and what is used again, and the time it takes, from what was measured."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.commands.plan import plan_lines
from pipeline.layout import HERE
from pipeline.models.size import parameters_of
from pipeline.params import load_params
from pipeline.results import Manifest, TrialResult
from pipeline.running.ray.search import engines_of
from pipeline.storage import write_json
from pipeline.tasks.stores import manifest_of
from pipeline.training.estimate import START, Estimate, compared, estimate
from pipeline.training.groups import plan_of
from pipeline.training.plan import Plan, Search, Trial, read_result
from pipeline.training.progress import Progress
from tests.prepared import prepared as prepared_task
from tests.workspace import Workspace

TASKS = {name: {"rows": {"train": 40, "selection": 12, "report": 12}} for name in ("demo-sentences", "demo-pairs")}


@pytest.fixture
def plan(workspace: Workspace) -> Plan:
    """Two tasks, a grid of two points, a further seed."""
    grid = {"batch_size": [10, 20], "learning_rate": [0.001]}
    workspace.write_params({"tasks": TASKS, "grid": grid, "seeds": [1, 2], "training.epochs": 4, "latency.tasks": []})
    params = load_params()
    for name in params.tasks:
        prepared_task(params.task(name), *params.backbones_for("text"), protocol=params.protocol)
    return plan_of(params)


def score_of(trial: Trial) -> float:
    """The smallest batch is the best."""
    return float(1.0 / (1 + trial.settings["batch_size"]))


def finish(trial: Trial, seconds: float, epochs: int, weights: bool = True) -> None:
    """A finished trial, as finetune leaves it."""
    folder = HERE.trial(trial.key)
    folder.mkdir(parents=True)
    write_json(folder / "settings.json", trial.settings)
    rows = [{"epoch": n + 1, "selection": score_of(trial), "train_seconds": seconds / epochs} for n in range(epochs)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if weights:
        (folder / "model.safetensors").write_bytes(b"toy")
    TrialResult(
        best_epoch=1,
        epochs_run=epochs,
        selection=score_of(trial),
        train_seconds=seconds,
        train_seconds_to_best=seconds,
        micro_batch=None,
        metrics={},
        parameters=1,
        early_exit_parameters=0,
        layers=1,
        exits=(1,),
        weights_sha256=hashlib.sha256(hashlib.sha256(b"toy").digest()).hexdigest(),
    ).write(folder / "result.json")


def of(plan: Plan) -> Estimate:
    return estimate(Progress(plan, HERE.trials), {name: manifest_of(name) for name in TASKS})


def tokens(name: str) -> float:
    manifest = Manifest.read(HERE.manifest(name), "")
    (inputs,) = manifest.inputs.values()
    return manifest.splits["train"].rows * inputs.tokens["train"].mean


def test_nothing_measured_means_no_time(plan: Plan) -> None:
    made = of(plan)
    assert (made.trials, made.measured, made.seconds) == (6, 0, None)
    assert [work.epochs for work in made.work] == [12.0, 12.0], "as many as params.yaml allows"


def test_a_trial_takes_as_long_as_the_most_similar_one_that_was_measured(plan: Plan) -> None:
    sentences, _ = plan.groups
    small, large = plan.grid(sentences)
    finish(small, seconds=20.0, epochs=2)
    made = of(plan)
    first, second = made.work
    assert (first.trials, first.finished, second.trials) == (2, 1, 3)
    # The other batch size was not measured, so the one that was stands for it; trials stopped after two epochs.
    assert first.steps == pytest.approx(2 * 2 * 10.0)
    assert first.seconds == pytest.approx(first.steps * (1 + 12 / 40 / 3) + 2 * START, rel=0.05)
    # Another task: in proportion to its tokens, and as many epochs as it may.
    per_epoch = 10.0 * tokens("demo-pairs") / tokens("demo-sentences")
    assert second.steps == pytest.approx(3 * 4 * per_epoch)
    finish(large, seconds=8.0, epochs=2)
    assert of(plan).work[0].steps == pytest.approx(2 * 10.0), "the further seed runs at the chosen point"


def test_an_interrupted_trial_goes_on_after_its_last_epoch(plan: Plan) -> None:
    small, large = plan.grid(plan.groups[0])
    finish(small, seconds=40.0, epochs=4)
    folder = HERE.trial(large.key)
    folder.mkdir(parents=True)
    write_json(folder / "settings.json", large.settings)
    (folder / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n')
    assert of(plan).work[0].resumed == 0, "without its state it starts anew"
    (folder / "resume.json").touch()
    work = of(plan).work[0]
    assert (work.resumed, work.epochs) == (1, 1.0 + 4.0)


def test_the_estimate_is_compared_with_what_it_took(plan: Plan) -> None:
    small, large = plan.grid(plan.groups[0])
    finish(small, seconds=20.0, epochs=2)
    before = of(plan)
    assert compared(before, Progress(plan, HERE.trials)) is None, "nothing has run"
    finish(large, seconds=10.0, epochs=2)
    finish(plan.reseeded(plan.groups[0], small, 2), seconds=22.0, epochs=2)
    line = compared(before, Progress(plan, HERE.trials))
    assert line == "training took 32 s of one slot; 40 s were estimated (+25%)"


def test_the_estimate_of_a_search_that_stops_trials_is_a_bound(plan: Plan) -> None:
    halved = Plan((replace(plan.groups[0], search=Search("asha", reduction=2)),), plan.seeds)
    small, large = halved.grid(halved.groups[0])
    finish(small, seconds=20.0, epochs=2)
    progress = Progress(halved, HERE.trials, engines_of(halved))
    before = estimate(progress, {name: manifest_of(name) for name in TASKS})
    assert before.trials == 2
    assert progress.next() == large
    assert progress.stops(large.key, 1, score_of(large))
    finish(large, seconds=8.0, epochs=1)
    progress.stop(large.key)
    further = progress.next()
    assert further is not None
    finish(further, seconds=22.0, epochs=2)
    progress.end(further.key, read_result(HERE.trial(further.key)))
    line = compared(before, progress)
    assert line == "training took 30 s of one slot; at most 40 s were estimated (+33%)"
    after = estimate(progress, {name: manifest_of(name) for name in TASKS})
    assert (after.trials, after.work[0].stopped, after.work[0].finished) == (0, 1, 3)


def test_disk_is_that_of_the_backbones_of_the_plan(plan: Plan, workspace: Workspace) -> None:
    """Of this plan alone, whatever an earlier one left in the trials' folder."""
    other = HERE.trials / "0123456789abcdef"
    other.mkdir(parents=True)
    (other / "model.safetensors").write_bytes(bytes(50 * 2**20))
    params = load_params()
    params = params.model_copy(update={"runtime": params.runtime.model_copy(update={"workers": 1})})
    line = plan_lines(of(plan), params, HERE)[-1]
    vocabulary = plan.groups[0].settings["vocabulary"]
    each = 4 * parameters_of(params.backbone("demo-albert"), None, vocabulary) / 2**20  # MiB
    kept, most = 4 * each, 6 * each + 3 * each  # of two groups two seeds each; of three trials each, one at a time
    assert 0.2 < each < 0.5
    assert line == (
        f"disk: 50 MiB in runs/trials, about {kept:.0f} MiB more in the end, {most:.0f} MiB at most while it runs"
    )


def test_the_command(plan: Plan, workspace: Workspace) -> None:
    finish(plan.grid(plan.groups[0])[0], seconds=20.0, epochs=2)
    out = workspace.command("-m", "pipeline", "plan").out
    assert "6 trials: 1 finished and used again, 5 to run" in out
    assert "demo-sentences/demo-albert/joint: 2 to run, 1 used again" in out
    assert "batch_size: 10 -> 20" in out
    assert "data: " in out
    assert "measured here)" in out
    assert out.splitlines()[-1].startswith("disk: 0 MiB in runs/trials, about 1 MiB more in the end, ")
    found = json.loads(workspace.command("-m", "pipeline", "plan", "--json").out)
    assert (found["trials"], found["reused"], found["measured"]) == (5, 1, 1)
    Path("data/demo-pairs/manifest.json").unlink()
    line = workspace.command("-m", "pipeline", "plan").error()
    assert "data/demo-pairs/manifest.json: no such file; run `dvc repro prepare@demo-pairs`" in line
