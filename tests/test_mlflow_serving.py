"""A selected model as MLflow's server serves it: through exported graphs, without PyTorch; bad requests get a line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.commands.served import Graphs, Served
from pipeline.layout import HERE
from pipeline.models.deploy.runtime import Deployed
from pipeline.running.mlflow.tracker import Tracker
from tests.selections import untrained_models
from tests.test_registry import CRITERIA, REQUEST, TASK, TEXTS, versions
from tests.workspace import Workspace

SERVE = """
import json, sys
import mlflow, pandas
from fastapi.testclient import TestClient
from mlflow.pyfunc import scoring_server

mlflow.set_tracking_uri("sqlite:///mlflow.db")
model = mlflow.pyfunc.load_model("models:/early-exit.demo-sentences/1")
texts, requests = json.loads(sys.argv[1]), json.loads(sys.argv[2])
table = pandas.DataFrame({"sentence": texts * 30})
own = json.loads(model.predict(table, params={"criterion": "confidence"}).to_json(orient="records"))
client = TestClient(scoring_server.init(model), raise_server_exceptions=False)
said = []
for request in requests:
    body = request if isinstance(request, str) else json.dumps(request)
    answer = client.post("/invocations", content=body, headers={"Content-Type": "application/json"})
    said.append([answer.status_code, answer.json()])
print(json.dumps({"own": own, "said": said, "imported": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def inputs(*texts: Any, **params: Any) -> dict[str, Any]:
    return {"inputs": {"sentence": list(texts)}} | ({"params": params} if params else {})


ASKED = (
    inputs(*TEXTS),
    inputs(*TEXTS, criterion="confidence", threshold=0.9),
    inputs(*TEXTS, criterion="confidence", precision="int8"),
    inputs(*TEXTS, criterion="full"),
    {"dataframe_split": {"columns": ["sentence"], "data": [[text] for text in TEXTS]}},
)
REFUSED = (
    (inputs("a", criterion="nose"), "criterion: unknown criterion 'nose'"),
    (inputs("a", criterion="confidense"), "did you mean 'confidence'"),
    (inputs("a", criterion="entropy"), "criterion 'entropy': no threshold was chosen for it"),
    (inputs("a", precision="int4"), "precision: unknown precision 'int4'; did you mean 'int8'"),
    (inputs("a", threshold="high"), "threshold"),
    (inputs("a", criterion="patience", threshold=float("nan")), "threshold: nan is not finite"),
    ({"dataframe_split": {"columns": ["sentence"], "data": [["a"], [None]]}}, "rows.1: nan is not a text"),
    (inputs(), "rows: [] holds no row"),
    (inputs("a" * 10_001), "rows.0: 10,001 characters are more than 10,000"),
    (inputs(*["a"] * 65), "rows: 65 are more than 64"),
    ({"inputs": {"text": ["a"]}}, "sentence"),
    ({"rows": ["a"]}, "inputs"),
    ("{", "JSON"),
)


def test_images_are_answered_as_the_graphs_do(images_model: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (70, 32, 32, 3), dtype=np.uint8)  # more than run together
    served = Served(Graphs(images_model, ("float32",)), (), "confidence")
    rows = served.predict(images, {"threshold": 0.6, "precision": "float32"}).to_dict(orient="records")
    model = Deployed.open(images_model)
    alone = [answer for part in (images[:64], images[64:]) for answer in model.answer(part, "confidence", 0.6)]
    assert [{key: row[key] for key in row if key not in REQUEST} for row in rows] == [vars(one) for one in alone]
    with pytest.raises(Exception, match=r"rows\.0: .* is no image") as raised:
        served.predict(images[:, :8])
    assert raised.value.get_http_status_code() == 400  # type: ignore[attr-defined]
    with pytest.raises(Exception, match=r"unknown precision 'int8'"):
        served.predict(images, {"precision": "int8"})


@pytest.mark.slow
def test_mlflows_server_answers_through_the_exported_graphs(workspace: Workspace) -> None:
    workspace.write_params(
        {"evaluate.criteria": CRITERIA, "export.tasks": [TASK], "export.precisions": ["float32", "int8"]}
    )
    untrained_models(workspace, TASK)
    tracker = Tracker()
    assert versions(tracker) == [], "the stage export registers it"
    done = workspace.stage("export", TASK)
    assert done.code == 0, done.err
    (version,) = versions(tracker)
    assert (version.tags["key"], version.tags["learned"]) == ("many", "nothing")
    row = tracker.client.get_run(version.run_id)
    assert (row.data.params["criterion"], row.data.params["mode"]) == (version.tags["criterion"], "float32")

    requests = [*ASKED, *(request for request, _ in REFUSED)]
    done = workspace.command("-c", SERVE, json.dumps(TEXTS), json.dumps(requests))
    assert done.code == 0, done.err
    out = json.loads(done.out.splitlines()[-1])
    folder = HERE.exported(TASK, "demo-albert", "joint").parent
    check_answers(folder, version.tags["criterion"], out)
    for (request, words), (status, said) in zip(REFUSED, out["said"][len(ASKED) :], strict=True):
        assert status == 400, (request, said)
        assert words in said["message"], (request, said)
        assert "stack_trace" not in said, request
        assert "Traceback" not in json.dumps(said), request
    assert not {"torch", "transformers", "ray", "dvc", "onnx"} & set(out["imported"])

    # The same graphs again: no version. Its files are those of the folder.
    assert workspace.stage("export", TASK).code == 0
    assert [one.version for one in versions(tracker)] == [version.version]
    place = Path(
        tracker.client.get_model_version_download_uri("early-exit.demo-sentences", "1").removeprefix("file://")
    )
    files = [path for path in place.rglob("*") if path.is_file() and "code" not in path.relative_to(place).parts]
    assert {path.suffix for path in files} <= {".json", ".onnx", ".npz", ".yaml", ".txt", ""}, files
    pinned = {line.partition("==")[0] for line in (place / "requirements.txt").read_text().split()}
    assert {"onnxruntime", "tokenizers", "numpy", "pydantic"} <= pinned
    assert "torch" not in pinned


def check_answers(folder: Path, criterion: str, out: dict[str, Any]) -> None:
    """What the server said is what the exported folder answers here."""
    models = {name: Deployed.open(folder, name) for name in ("float32", "int8")}
    cases = (("float32", criterion, None), ("float32", "confidence", 0.9), ("int8", "confidence", None),
             ("float32", "full", None), ("float32", criterion, None))  # fmt: skip
    for (precision, name, threshold), (status, said) in zip(cases, out["said"], strict=False):
        assert status == 200, said
        model, rows = models[precision], said["predictions"]
        expected = [vars(answer) for answer in model.answer(TEXTS, name, threshold)]
        assert [{key: row[key] for key in row if key not in REQUEST} for row in rows] == expected
        limit = None if name == "full" else model.criterion(name, threshold)[1]
        assert {(row["criterion"], row["threshold"], row["precision"]) for row in rows} == {(name, limit, precision)}
        assert all(row["seconds"] > 0 for row in rows)
    assert len(out["own"]) == 30 * len(TEXTS), "a process may ask about a large table of its own"
    alone = models["float32"].answer(TEXTS, "confidence")
    assert [row["exit"] for row in out["own"][: len(TEXTS)]] == [answer.exit for answer in alone]
