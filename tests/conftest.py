"""What several test files share: a folder for real stages, with an MLflow database that is initialised once."""

import os
import shutil
from pathlib import Path

import pytest

from pipeline.identity.imports import ROOT
from tests.workspace import Workspace

POINTERS = ("RAY_", "MLFLOW_", "HUB_MIRROR", "EARLY_EXIT_")
"""Variables that would lead a test to a cluster, server or mirror of the machine's."""


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: its migrations take seconds, so they run once."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def workspace(
    tmp_path: Path, mlflow_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Workspace:
    """An empty project folder, and the working directory; its params.yaml is the small demo's."""
    made = open_workspace(tmp_path, mlflow_store, capsys)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(POINTERS)]:
        monkeypatch.delenv(name)
    return made


def open_workspace(folder: Path, mlflow_store: Path, capsys: pytest.CaptureFixture[str]) -> Workspace:
    for name in ("pipeline", "stages", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(mlflow_store, folder / "mlflow.db")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(POINTERS)}
    environment = kept | {"OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "hf")}
    made = Workspace(folder, environment, capsys.readouterr)
    made.write_params()
    return made


@pytest.fixture(scope="session")
def texts_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported text model that nobody trained, in float32 and int8; read only."""
    from tests.exported_folders import texts_folder

    return texts_folder(tmp_path_factory.mktemp("exported") / "texts")


@pytest.fixture(scope="session")
def images_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for images, in float32."""
    from tests.exported_folders import images_folder

    return images_folder(tmp_path_factory.mktemp("exported") / "images")
