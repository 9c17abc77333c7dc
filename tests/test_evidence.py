"""What is stored behind docs/results*.md gives its tables."""

from types import ModuleType

import numpy as np
import pytest

from pipeline.identity.imports import ROOT
from pipeline.params import load_params
from tools import evidence
from tools.results import baselines, depth, real, regimes, robustness, robustness12, sst2
from tools.results.tables import stored


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *((depth, name) for name in ("exits", "bounds", "promises")),  # the quick ones
        *(
            (module, name)
            for module in (real, sst2, baselines, regimes, robustness, robustness12)
            for name in module.TABLES
        ),
    ],
)
def test_the_page_has_what_is_stored(module: ModuleType, name: str) -> None:
    """Reading a trace checks it against the hash of its index, too."""
    params = load_params(ROOT / f"profiles/{module.PROFILE}.yaml")
    table = module.TABLES[name](params, ROOT / "docs/evidence" / module.PROFILE)
    assert table.count("\n") > 3
    assert stored(module.PAGE.read_text(encoding="utf-8"), name) == table


TRACED = [profile for profile in evidence.PAGES if profile not in evidence.WITHOUT_TRACES]


@pytest.mark.parametrize("profile", TRACED)
def test_the_traces_fit_into_git(profile: str) -> None:
    sizes = [path.stat().st_size for path in (ROOT / "docs/evidence" / profile).rglob("*.safetensors")]
    assert 0 < sum(sizes) < evidence.LIMIT


def test_differences_are_paired_by_rows() -> None:
    """Two answers that differ in ten of 100 rows: the interval is that of ten rows, not of two accuracies."""
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 100).astype(np.float64)
    hard = generator.random(100) < 0.4
    first = np.where(hard, 1 - labels, labels)
    second = first.copy()
    second[np.flatnonzero(~hard)[:10]] = 1 - second[np.flatnonzero(~hard)[:10]]
    ((middle, low, high),) = depth.differences(("accuracy",), [np.stack([first, second])] * 2, [labels] * 2, [(0, 1)])
    assert middle == pytest.approx(0.1)
    assert 0.03 < low < 0.07
    assert 0.13 < high < 0.18


@pytest.mark.parametrize("profile", TRACED)
def test_the_stored_results_are_of_today_s_schema(profile: str) -> None:
    """Whoever raises a schema brings these files along: nobody can make them anew without a GPU."""
    from pipeline.results import Selected, Trials

    folder, params = ROOT / "docs/evidence" / profile, load_params(ROOT / f"profiles/{profile}.yaml")
    trials = {trial.key for trial in Trials.read(folder / "trials.json", "").trials if trial.history}
    for task in params.tasks:
        selected = Selected.read(folder / f"selected/{task}.json", "")
        modality = params.task(task).modality
        trained = [name for name, method in params.entries().items() if modality in method.modalities]
        assert [group.method for group in selected.groups] == trained
        assert {trial.key for group in selected.groups for trial in group.trials} <= trials
