"""Files that were cut or overwritten are found and made again, and the results are those of an undisturbed run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ArtifactError
from pipeline.layout import HERE
from pipeline.params import load_params
from pipeline.results import TrialResult
from pipeline.tasks.stores import manifest_of, open_store
from pipeline.tasks.task import Rows
from pipeline.training.trial import train
from tests.prepared import prepared as prepared_task
from tests.test_images import KilledError, prepared, settings_of
from tests.workspace import Workspace

NAMES = {"task": "demo-images", "backbone": "resnet8", "hub": None}
CONTEXT = {"threads": 1, "device": "cpu", "mirror": None, "micro_batch": {"image": None}}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def trained(key: str, last: int = 9) -> tuple[list[int], TrialResult | None]:
    """The epochs that a small trial trains in this attempt, and its result; killed after epoch `last`."""
    epochs: list[int] = []

    def report(row: dict[str, Any]) -> None:
        epochs.append(row["epoch"])
        if row["epoch"] == last:
            raise KilledError

    try:
        return epochs, train(settings_of(width=4, depth=8, epochs=2), NAMES, HERE.trial(key), CONTEXT, report)
    except KilledError:
        return epochs, None


@pytest.mark.slow
@pytest.mark.parametrize("damage", [cut, overwrite, empty])
def test_a_trial_whose_file_is_damaged_is_trained_again_to_the_same_weights(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepared("demo-images", Rows(train=40, selection=12, report=12))
    epochs, whole = trained("whole")
    assert whole is not None
    assert epochs == [1, 2]
    assert trained("whole") == ([], whole)
    for file in ("result.json", "model.json", "model.safetensors"):
        damage(HERE.trial("whole") / file)
        epochs, again = trained("whole")
        assert epochs == [1, 2], file
        assert again is not None
        assert again.weights_sha256 == whole.weights_sha256, file
    for file in ("resume.json", "resume-1.safetensors", "metrics.jsonl", "model.json"):
        assert trained(file, last=1) == ([1], None)
        assert (HERE.trial(file) / file).is_file(), file
        damage(HERE.trial(file) / file)
        epochs, again = trained(file)
        assert epochs[-1] == 2, file
        assert again is not None
        assert again.weights_sha256 == whole.weights_sha256, file
        assert trained(file) == ([], again), file


@pytest.mark.parametrize("damage", [cut, overwrite, empty])
def test_prepared_rows_that_are_damaged_are_one_line(damage: Callable[[Path], None], workspace: Workspace) -> None:
    workspace.write_params()
    params = load_params()
    prepared_task(params.task("demo-sentences"), params.backbone("demo-albert"))
    damage(HERE.tokens("demo-sentences", "demo-albert", "selection"))
    with pytest.raises(ArtifactError, match=r"selection\.arrow: .*`dvc repro -f prepare") as refused:
        open_store(manifest_of("demo-sentences"), "demo-albert", "selection", "cpu")
    assert "\n" not in str(refused.value)
