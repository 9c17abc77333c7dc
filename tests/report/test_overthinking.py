"""Figure 2: the epochs of trials, and error and entropy by layer."""

from dataclasses import replace

import pytest

from pipeline.layout import Workspace
from pipeline.report.collect import collect
from pipeline.report.sections.overthinking import Overthinking
from pipeline.report.stored import Stored
from tests.report.pages import small
from tests.stored_results import write_all


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    root, params = tmp_path_factory.mktemp("stored"), small("albert-base")
    write_all(Workspace(root), params)
    return collect(params, Workspace(root))


def test_every_epoch_of_every_selected_model_answers_a_pointer(stored: Stored) -> None:
    training, _ = Overthinking().plots(stored)
    assert [panel.name for panel in training.panels] == ["figure-2a-sst2-albert-base", "figure-2a-stsb-albert-base"]
    texts = [spot.text for spot in training.panels[0].spots]
    assert len(texts) == 2 * 3 * 3 * 2  # methods, seeds, epochs, loss and score
    assert "joint, seed 2, epoch 2: 0.620, kept" in texts
    assert "joint, seed 2, epoch 2: 0.900, kept" in texts
    assert sum(text.endswith("kept") for text in texts) == 12


def test_error_and_entropy_are_of_tasks_with_classes(stored: Stored) -> None:
    _, exits = Overthinking().plots(stored)
    (panel,) = exits.panels  # stsb is a regression, and the single exit has no layers to go by
    assert panel.name == "figure-2b-sst2-validation-albert-base-joint"
    (task, _) = stored.tasks
    errors = sorted(model.error[0] for model in task.early_exits if model.error)
    assert f"exit after layer 1: error {100 * errors[1]:.1f}%" in [spot.text for spot in panel.spots]
    assert len(panel.spots) == 2 * 12


def test_trials_without_epochs_have_no_panel(stored: Stored) -> None:
    """Those that failed, and those of a folder that is gone."""
    without = {key: record.model_copy(update={"history": ()}) for key, record in stored.trials.items()}
    training, _ = Overthinking().plots(replace(stored, trials=without))
    assert training.panels == ()


def test_nothing_trained_is_said(stored: Stored) -> None:
    empty = replace(stored, tasks=(), trials={})
    assert Overthinking().not_run(empty)
    assert not any(plot.panels for plot in Overthinking().plots(empty))
