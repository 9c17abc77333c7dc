"""The selected model of a task in MLflow's registry: what it answers, when there is a new version, with no store."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.__main__ import cli
from pipeline.errors import TrackingError
from pipeline.layout import HERE
from pipeline.results import UnsentModel
from pipeline.running.mlflow import registry
from pipeline.running.mlflow.registry import register
from pipeline.running.mlflow.tracker import Tracker
from pipeline.running.registering import keep
from pipeline.running.store import address
from tests.selections import relabel_as_answered, untrained_images, untrained_models
from tests.test_tracking import break_database, mend_database
from tests.workspace import Workspace

TASK, NAME = "demo-sentences", "early-exit.demo-sentences"
TEXTS = ["the film was good", "nobody liked the dull plot but the end was moving", "a bad film", "good"]
CRITERIA: dict[str, dict[str, float]] = {"patience": {}, "confidence": {}}

ANSWER = """
import json, sys
import mlflow
import pandas

mlflow.set_tracking_uri("sqlite:///mlflow.db")
model = mlflow.pyfunc.load_model("models:/early-exit.demo-sentences@selected")
texts = json.loads(sys.argv[1])

def answers(**params):
    return model.predict(pandas.DataFrame({"sentence": texts}), params=params).to_dict(orient="records")

def refused(**params):
    try:
        answers(**params)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

out = {
    "default": answers(),
    "full": answers(criterion="full"),
    "confidence": answers(criterion="confidence"),
    "at once": answers(criterion="confidence", threshold=0.0),
    "wrong type": refused(threshold="high"),
    "unknown": refused(criterion="nose"),
    "no sense": refused(criterion="full", threshold=1.0),
    "no fit": refused(criterion="gates", threshold=0.9),
    "code": sys.modules["pipeline"].__file__,
    "example": json.loads(model.predict(model.input_example).to_json(orient="records")),
    "imported": sorted({name.partition(".")[0] for name in sys.modules}),
}
print(json.dumps(out))
"""


REQUEST = ("criterion", "threshold", "precision", "seconds")
"""What each answer says of its request."""


def as_served(row: dict[str, Any]) -> dict[str, Any]:
    """What `predict` says of a row, in the words of a served model."""
    names = {"label": "answer", "probabilities": "probabilities", "exit": "exit", "layer": "layers"}
    return {name: row.get(own) for name, own in names.items()}


def predicted(criterion: str, method: str) -> list[dict[str, Any]]:
    arguments = ("predict", "--task", TASK, "--method", method, "--criterion", criterion, "--json", *TEXTS)
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads(result.output)
    return rows


def versions(tracker: Tracker) -> list[Any]:
    return sorted(tracker.client.search_model_versions(f"name = '{NAME}'"), key=lambda one: int(one.version))


@pytest.mark.slow
def test_the_selected_model_answers_in_another_process_as_predict_does(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.write_params({"evaluate.criteria": CRITERIA})
    untrained_models(workspace, TASK)
    assert not list(HERE.unsent_models.iterdir()), "sent"
    tracker = Tracker()
    # Nobody trained it: it is there, and no alias names it.
    (version,) = versions(tracker)
    assert version.tags["learned"] == "nothing"
    assert tracker.client.get_registered_model(NAME).aliases == {}
    done = workspace.stage("evaluate", TASK)
    assert f"{TASK}: the selected model has learned nothing; it is registered without an alias\n" in done.out
    relabel_as_answered(TASK)
    done = workspace.stage("evaluate", TASK)
    assert "learned nothing; it is registered" not in done.out
    (version,) = versions(tracker)
    assert version.tags["learned"] == "yes"
    assert tracker.client.get_model_version_by_alias(NAME, "selected").version == version.version
    tags = version.tags
    assert (tags["task"], tags["method"], tags["key"]) == (TASK, "joint", "many")

    # From the version to the run of its row, and back; and from the stage's own run, which has the row's numbers.
    row = tracker.client.get_run(version.run_id)
    assert (row.data.tags["kind"], row.data.tags["model"]) == ("row", f"{NAME}/{version.version}")
    assert (row.data.params["criterion"], row.data.tags["keys"]) == (tags["criterion"], "many")
    assert [f"models:/{output.model_id}" for output in row.outputs.model_outputs] == [version.source]
    parent = tracker.client.get_run(row.data.tags["mlflow.parentRunId"])
    for name in ("score", "layer_speedup"):
        assert parent.data.metrics[name] == row.data.metrics[name]
    assert parent.data.params["criterion"] == tags["criterion"]
    assert "viewStateShareKey=rows" in parent.data.tags["mlflow.note.content"]
    (data,) = row.inputs.dataset_inputs
    assert (data.dataset.name, data.tags[0].value) == (TASK, row.data.params["split"])

    # The saved view asks for what rows have.
    view = json.loads(tracker.client.get_experiment(tracker.experiment_id).tags["mlflow.sharedViewState.rows"])
    found = tracker.client.search_runs(
        [tracker.experiment_id], view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"]
    )
    assert row.info.run_id in {run.info.run_id for run in found}
    for column in view["selectedColumns"]:
        kind, _, name = column.partition(".")
        if kind != "attributes":
            assert name.strip("`") in getattr(row.data, kind), column

    done = workspace.command("-c", ANSWER, json.dumps(TEXTS))
    assert done.code == 0, done.err
    out = json.loads(done.out.splitlines()[-1])
    for name, criterion in (("default", tags["criterion"]), ("full", "full"), ("confidence", "confidence")):
        asked = [{key: row[key] for key in row if key not in REQUEST} for row in out[name]]
        assert asked == [as_served(row) for row in predicted(criterion, "joint")], name
        assert all(row["seconds"] > 0 and row["precision"] == "float32" for row in out[name])
        assert {row["criterion"] for row in out[name]} == {criterion}
    assert [row["exit"] for row in out["at once"]] == [1] * len(TEXTS)
    assert [row["exit"] for row in out["full"]] == [12] * len(TEXTS)
    assert "Failed to validate type" in out["wrong type"]
    assert "unknown criterion 'nose'" in out["unknown"]
    assert "no row leaves early" in out["no sense"]
    assert "this model has no fit of it" in out["no fit"]
    assert len(out["example"]) == 1

    # It brings its own code, whose packages are pinned, and nothing that is run when it is read.
    folder = Path(out["code"]).parents[2]
    assert folder.is_relative_to(HERE.tracked_artifacts.absolute())
    files = [path for path in folder.rglob("*") if path.is_file() and "code" not in path.relative_to(folder).parts]
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".yaml", ".txt", ""}, files
    pinned = {line.partition("==")[0] for line in (folder / "requirements.txt").read_text().split()}
    heavy = {"torch", "transformers", "tokenizers", "safetensors", "scipy", "numpy", "pydantic", "pyarrow", "filelock"}
    assert heavy & set(out["imported"]) <= pinned
    assert not {"ray", "dvc", "datasets", "textattack"} & set(out["imported"])

    # Nothing changed: no version. Another threshold: another one.
    assert workspace.stage("evaluate", TASK).code == 0
    assert [one.version for one in versions(tracker)] == [version.version]
    workspace.write_params({"evaluate.criteria": CRITERIA, "evaluate.window": [3.0, 6.0]})
    assert workspace.stage("evaluate", TASK).code == 0
    assert len(versions(tracker)) == 2
    assert tracker.client.get_model_version_by_alias(NAME, "selected").version != version.version

    # A folder that moves takes its models along.
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    workspace.folder.rename(moved)
    monkeypatch.chdir(moved)
    place = Path(Tracker().client.get_model_version_download_uri(NAME, "1").removeprefix("file://"))
    assert place.is_relative_to(moved)
    assert (place / "MLmodel").is_file()


IMAGES = """
import json
import mlflow, numpy

mlflow.set_tracking_uri("sqlite:///mlflow.db")
model = mlflow.pyfunc.load_model("models:/early-exit.demo-images/1")
images = numpy.load("images.npy")
said = model.predict(images, params={"criterion": "confidence"}).to_dict(orient="records")
try:
    model.predict(images[:, :8])
    refused = ""
except Exception as error:
    refused = str(error)
print(json.dumps({"said": said, "refused": refused}))
"""


@pytest.mark.slow
def test_a_model_waits_for_a_store_that_went_away(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one of images, which are answered too."""
    from pipeline.commands.ask import open_selected, predict
    from stages import evaluate

    small = {"demo-images": {"rows": {"train": 40, "selection": 12, "report": 12}}}
    images = {"tasks": small, "backbones": {"resnet14": {"width": 4}}, "latency.tasks": []}
    workspace.write_params({**images, "evaluate.criteria": CRITERIA})
    before = evaluate.register

    def register(*arguments: Any) -> None:
        break_database()
        before(*arguments)

    monkeypatch.setattr(evaluate, "register", register)
    untrained_images(workspace)
    (folder,) = HERE.unsent_models.iterdir()
    mend_database()
    tracker = Tracker()
    assert not tracker.client.search_registered_models()
    assert workspace.command("-m", "pipeline", "sync-runs").out.endswith("0 left\n")
    assert not folder.exists()
    (version,) = tracker.client.search_model_versions("name = 'early-exit.demo-images'")
    assert version.run_id is not None

    pixels = np.load(HERE.pixels("demo-images") / "selection.images.npy")
    np.save("images.npy", pixels)
    done = workspace.command("-c", IMAGES)
    assert done.code == 0, done.err
    opened = open_selected(HERE, "demo-images", None, "joint", "confidence", "cpu")
    out = json.loads(done.out.splitlines()[-1])
    asked = [{key: row[key] for key in row if key not in REQUEST} for row in out["said"]]
    assert asked == [vars(answer) for answer in predict(opened, pixels)]
    assert "expected shape (-1, 32, 32, 3)" in out["refused"]


KEPT = UnsentModel(
    task="reviews", content="0a", run="r", made=1, place=".", backbone="albert", method="joint", criterion="full",
    threshold=None, key="k", columns=(), precisions=(), example=(), metrics={}, learned=True, tags={},
)  # fmt: skip


def test_two_drivers_keep_one_model_at_once(workspace: Workspace) -> None:
    """Two experiments of DVC whose selected model is the same."""
    files = [Path(f"outputs/{name}") for name in "abcde"]
    Path("outputs").mkdir()
    for file in files:
        file.write_text(file.name)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(keep, KEPT, files) for _ in range(60)]:
            done.result()
    (folder,) = HERE.unsent_models.iterdir()
    assert {path.name for path in (folder / "outputs").iterdir()} == {*"abcde"}


def test_two_folders_register_one_model_at_once(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal clones on one store: what one looks for, the other makes meanwhile."""
    client, experiment, packages = Tracker().client, Tracker().experiment_id, []

    def package(folder: Path, target: Path) -> None:
        packages.append(folder)
        if len(packages) == 1:
            register(client, experiment, folder, KEPT)
        target.mkdir()
        (target / "MLmodel").write_text("flavors: {}\n")

    monkeypatch.setattr(registry, "_package", package)
    register(client, experiment, tmp_path, KEPT)
    assert len(packages) == 2
    (version,) = client.search_model_versions("name = 'early-exit.reviews'")
    assert client.get_model_version_by_alias("early-exit.reviews", "selected").version == version.version


def test_the_ui_names_its_saved_views(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.commands.ui import links, serve_ui

    server = "http://127.0.0.1:5000"
    assert len(links(address(None), server)) == 1, "no run yet"
    number = Tracker().experiment_id
    _, rows, trials = links(address(None), server)
    assert rows.endswith(f"{server}/#/experiments/{number}/runs?viewStateShareKey=rows&compareRunsMode=CHART")
    assert "viewStateShareKey=trials" in trials
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@host:5000")
    with pytest.raises(TrackingError, match="'http://host:5000' is a server"):
        serve_ui(5000)
