"""Write a selected model as an MLflow model: python -m pipeline.running.mlflow.packaging FOLDER TARGET.

A process of its own, since MLflow's models need pandas, without which the rest of MLflow is imported here (`absent`).
"""

import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.identity.imports import ROOT
from pipeline.layout import Workspace
from pipeline.results import Manifest, UnsentModel
from pipeline.serving.requests import SIDE

LOADER = "pipeline.commands.served"
"""Its `_load_pyfunc` opens the model; above this package, which only names it."""
PACKAGES = ("array-api-compat", "mlflow", "numpy", "pandas", "pydantic", "tokenizers")
PACKAGES_OF_GRAPHS = ("onnxruntime",)
PACKAGES_OF_PYTORCH = (
    *("click", "filelock", "pyarrow", "ruamel.yaml", "safetensors", "scipy"),
    *("torch", "transformers"),
)
"""What opening and asking a model imports; pinned, since to infer them takes MLflow a quarter of a minute."""


def package(folder: Path, target: Path) -> None:
    """Write an MLflow model: the folder, the code that opens it, what requests and answers are, and an example.

    Args:
        folder: laid out as a run, with the model's description.
    """
    from mlflow.pyfunc import save_model

    model = UnsentModel.of(folder)
    manifest = Manifest.read(Workspace(folder).manifest(model.task), "")
    packages = (*PACKAGES, *(PACKAGES_OF_GRAPHS if model.precisions else PACKAGES_OF_PYTORCH))
    save_model(
        str(target),
        loader_module=LOADER,
        data_path=str(folder),
        code_paths=[str(ROOT / "pipeline")],
        signature=_signature(manifest, model),
        input_example=_example(manifest, model),
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in packages],
        metadata={"content": model.content, "key": model.key},
    )
    for cache in [*target.rglob("__pycache__")]:
        shutil.rmtree(cache)


def _signature(manifest: Manifest, model: UnsentModel) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import Map

    text, classes = manifest.modality == "text", manifest.kind == "classification"
    images = [TensorSpec(np.dtype("uint8"), (-1, SIDE, SIDE, 3))]
    answers = [
        ColSpec(DataType.string if classes else DataType.double, "label"),
        ColSpec(Map(DataType.double), "probabilities", required=False),
        ColSpec(DataType.long, "exit"),
        ColSpec(DataType.long, "layer"),
        ColSpec(DataType.string, "criterion"),
        ColSpec(DataType.double, "threshold", required=False),
        ColSpec(DataType.string, "precision"),
        ColSpec(DataType.double, "seconds"),
    ]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, column) for column in manifest.columns] if text else images),
        outputs=Schema(answers),
        params=ParamSchema(
            [
                ParamSpec("criterion", DataType.string, model.criterion),
                ParamSpec("threshold", DataType.double, None),
                ParamSpec("precision", DataType.string, model.precisions[0] if model.precisions else "float32"),
            ]
        ),
    )


def _example(manifest: Manifest, model: UnsentModel) -> Any:
    import numpy as np
    import pandas as pd

    if manifest.modality == "text":
        return pd.DataFrame([dict(zip(manifest.columns, model.example, strict=True))])
    return np.zeros((1, SIDE, SIDE, 3), dtype=np.uint8)


if __name__ == "__main__":
    package(Path(sys.argv[1]), Path(sys.argv[2]))
