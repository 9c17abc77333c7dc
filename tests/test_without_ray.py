"""The runner for a machine with neither Ray, MLflow nor DVC: it trains, judges, attacks and packs."""

import csv
import os
import tarfile

import pytest

from pipeline.identity.imports import ROOT
from pipeline.layout import HERE
from pipeline.layout import Workspace as Folder
from pipeline.results import Attack, Selected
from pipeline.storage import write_text
from tests.workspace import Workspace
from tools.evidence import keep

TASK = "demo-sentences"
ABSENT = ("ray", "mlflow", "dvc")
ATTACKED = {
    "methods": ["single_exit", "joint"],
    "attack.tasks": {TASK: {"examples": 4}},
    "attack.scores": ["answered", "deepest"],
    "attack.criteria": ["patience", "confidence"],
}


@pytest.mark.slow
def test_a_profile_is_trained_attacked_and_kept(workspace: Workspace) -> None:
    workspace.write_params(ATTACKED)
    assert workspace.stage("prepare", TASK).code == 0
    for name in ABSENT:
        write_text(workspace.folder / f"absent/{name}.py", f"raise ImportError('no {name} here')")
    path = os.pathsep.join([str(workspace.folder / "absent"), str(ROOT)])
    done = workspace.command("-m", "tools.without_ray", "--workers", "1", "--out", "out", PYTHONPATH=path)
    assert done.code == 0, done.err
    names = {path.name for path in (workspace.folder / "out").iterdir()}
    assert names == {"trials.tar.gz", f"{TASK}.tar.gz"}
    with tarfile.open(workspace.folder / "out" / f"{TASK}.tar.gz") as packed:
        inside = set(packed.getnames())
    assert {str(HERE.selected(TASK)), str(HERE.attack(TASK)), str(HERE.attack_records(TASK))} <= inside

    kept = workspace.folder / "kept"
    keep(Folder(), kept)
    (attacked,) = Attack.read(kept / f"attack/{TASK}.json", "").attacked
    defences = [row.defence for row in attacked.rows]
    assert defences == ["single exit", "patience", "patience, adaptive", "confidence", "confidence, adaptive"]
    assert not any(row.shown for row in attacked.rows), "texts stay where they are"
    with (kept / f"attack/{TASK}.csv").open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    assert [record["defence"] for record in records] == [name for name in defences for _ in range(4)]
    assert "original" not in records[0]
    seeds = [trial.seed for group in Selected.read(kept / f"selected/{TASK}.json", "").groups for trial in group.trials]
    assert seeds == [1, 1]


def test_what_an_attack_needs_is_missed_before_anything_is_trained(workspace: Workspace) -> None:
    vectors = {"nltk_data": "there", "word_vectors": "no.npz", "sentence_encoder": "there"}
    workspace.write_params(ATTACKED | {"attack.resources": vectors})
    line = workspace.command("-m", "tools.without_ray", "--out", "out", PYTHONPATH=str(ROOT)).error()
    assert line.startswith("without_ray: attack.resources."), line
    assert not (workspace.folder / "runs").exists()
