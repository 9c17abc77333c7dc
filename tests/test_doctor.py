"""`python -m pipeline doctor`: what the settings need from outside, asked for real."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.__main__ import cli
from pipeline.identity.imports import ROOT
from tests.ray_cluster import free_ports, ray_cluster
from tests.s3 import s3_server
from tests.workspace import Workspace

CHECKS = ["settings", "disk", "hub", "device", "onnx", "ray", "storage", "mlflow", "dvc remote", "attack resources"]


@pytest.fixture
def here(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workspace:
    """The test's workspace, without a hub, and with an empty cache of it."""
    for name in ("HUB_MIRROR", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "EARLY_EXIT_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True)
    return Workspace(tmp_path / "repository", workspace.environment, workspace.printed)


def examined() -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code, and the state and text of each finding."""
    done = CliRunner().invoke(cli, ["doctor", "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, {row["what"]: (row["state"], row["text"]) for row in json.loads(done.stdout)}


def test_a_demo_needs_nothing(here: Workspace) -> None:
    here.write_params({"attack.tasks": {}})
    code, found = examined()
    assert code == 0, found
    assert [what for what in found if what.split()[0] not in ("data", "model")] == CHECKS
    states = {what: state for what, (state, _) in found.items()}
    unused = [what for what, state in states.items() if state == "unused"]
    assert unused == ["hub", "onnx", "storage", "dvc remote", "attack resources"]
    assert not Path("mlflow.db").exists(), "asking makes no database"
    lines = CliRunner().invoke(cli, ["doctor"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["-" if state == "unused" else "ok" for state in states.values()]


def test_onnx_is_asked_for_where_params_name_it(here: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    task = "demo-sentences"
    here.write_params({"export.tasks": [task]})
    assert examined()[1]["onnx"][0] == "ok"
    here.write_params({"export.tasks": [task], "latency": {"tasks": [task], "engines": ["pytorch", "onnx-float32"]}})
    state, text = examined()[1]["onnx"]
    assert (state, text.rpartition(", ")[2]) == ("ok", "for latency.engines")
    attacked = {"methods": ["single_exit", "joint"], "attack.tasks": {task: {"examples": 2}}}
    here.write_params({**attacked, "attack.engine": "onnx-float32"})
    state, text = examined()[1]["onnx"]
    assert (state, text.rpartition(", ")[2]) == ("ok", "for attack.engine")
    here.write_params({"latency": {"tasks": [task], "engines": ["pytorch", "onnx-float32"]}, "export.tasks": [task]})
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, found = examined()
    assert code == 1
    assert found["onnx"] == (
        "failed",
        "latency.engines: onnxscript is not installed; `pip install -e '.[deploy]'`, or take it out",
    )


def test_what_is_not_to_be_had_is_named_with_its_remedy(
    here: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    Path("own.csv").write_text("text,label\ngood,1\n")
    own: dict[str, Any] = {"text": ["text"], "label": "label", "label_names": ["neg", "pos"]}
    here.write_params(
        {
            "tasks": {
                "demo-sentences": {},
                "sst2": {},
                "own": {"source": {"train": "own.csv"}, **own},
                "gone": {"source": {"train": "gone.csv"}, **own},
            },
            "backbones": {"minilm": {}, "demo-albert": {}},
            "methods": ["single_exit", "joint"],
            "latency.tasks": [],
            "attack": {
                "tasks": {"demo-sentences": {"examples": 1}},
            },
            "runtime.storage": "s3://no-such-bucket/prefix",
            "runtime.tracking_uri": f"http://127.0.0.1:{port}",
            "runtime.ray_address": f"127.0.0.1:{port}",
        }
    )
    monkeypatch.setenv("HUB_MIRROR", str(tmp_path / "mirror"))
    with s3_server("other") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        subprocess.run([sys.executable, "-m", "dvc", "remote", "add", "-d", "store", "s3://no-bucket/x"], check=True)
        code, found = examined()
    assert (code, found["settings"][0]) == (1, "ok"), found
    says = {
        "hub": "no such folder; mend the path, or unset it",
        "data sst2": "set HUB_MIRROR",
        "data gone": "gone.csv': no such file; check the path in params.yaml",
        "model minilm": "all-MiniLM-L6-v2: in no mirror and no cache",
        "ray": "RAY_ADDRESS",
        "storage": "no-such-bucket",
        "mlflow": f"MLflow at http://127.0.0.1:{port} cannot be used",
        "attack resources": "word_vectors: the stock counter-fitted vectors are not in",
    }
    for what, part in says.items():
        state, text = found[what]
        assert (state, part in text, "\n" in text) == ("failed", True, False), (what, text)
    assert found["data own"][0] == "ok"
    assert found["data own"][1].startswith("1 file, 0.0 MiB")
    assert found["model demo-albert"][0] == "ok"


def test_wrong_settings_end_it(here: Workspace) -> None:
    Path("params.yaml").write_text("tasks: {sst3: {}}\n")
    code, found = examined()
    assert code == 1
    assert list(found) == ["settings", "disk"]
    assert "did you mean" in found["settings"][1]


def test_stores_that_answer(here: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tmp_path / "mirror/models/sentence-transformers/all-MiniLM-L6-v2"
    model.mkdir(parents=True)
    (model / "model.safetensors").touch()
    monkeypatch.setenv("HUB_MIRROR", str(tmp_path / "mirror"))
    here.write_params({"attack.tasks": {}, "latency.tasks": [], "backbones": {"minilm": {}, "resnet14": {"width": 8}}})
    subprocess.run([sys.executable, "-m", "dvc", "remote", "add", "-d", "store", str(tmp_path / "remote")], check=True)
    with s3_server("lab") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("EARLY_EXIT_STORAGE", "s3://lab/study")
        _, found = examined()
    assert found["storage"] == ("ok", "s3://lab/study: written, read and removed a probe")
    assert found["model minilm"][1].endswith(f"from the mirror {tmp_path / 'mirror'}")
    assert found["dvc remote"] == ("ok", f"{tmp_path / 'remote'} answers, and holds nothing yet")


@pytest.mark.slow
def test_a_cluster_is_joined_for_a_moment(here: Workspace) -> None:
    here.write_params({"attack.tasks": {}})
    with ray_cluster() as cluster:
        address = {"RAY_ADDRESS": f"127.0.0.1:{cluster.port}", "PYTHONPATH": str(ROOT)}
        done = here.command("-m", "pipeline", "doctor", **cluster.environment | address)
    assert f"ok      ray                    127.0.0.1:{cluster.port}: 1 node, 1 CPU" in done.out
