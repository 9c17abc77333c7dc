"""The stored traces behind docs/results-depth.md give its tables."""

import numpy as np
import pytest

from pipeline.identity.imports import ROOT
from pipeline.params import load_params
from tools import depth

FOLDER = ROOT / "docs/evidence" / depth.PROFILE


@pytest.mark.parametrize("name", ["exits", "bounds", "promises"])
def test_the_page_has_what_the_traces_give(name: str) -> None:
    """Reading a trace checks it against the hash of its index, too."""
    params = load_params(ROOT / f"profiles/{depth.PROFILE}.yaml")
    stored = depth.PAGE.read_text(encoding="utf-8").split(f"<!-- table: {name} -->\n")[1].split("<!-- end -->\n")[0]
    assert stored == depth.TABLES[name](params, FOLDER)


def test_the_traces_fit_into_git() -> None:
    from tools.evidence import LIMIT

    assert 0 < sum(path.stat().st_size for path in FOLDER.rglob("*.safetensors")) < LIMIT


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


def test_the_stored_results_are_of_today_s_schema() -> None:
    """Whoever raises a schema brings these files along: nobody can make them anew without a GPU."""
    from pipeline.results import Selected, Trials

    params = load_params(ROOT / f"profiles/{depth.PROFILE}.yaml")
    trials = {trial.key for trial in Trials.read(FOLDER / "trials.json", "").trials if trial.history}
    for task in params.tasks:
        selected = Selected.read(FOLDER / f"selected/{task}.json", "")
        assert [group.method for group in selected.groups] == list(params.methods)
        assert {trial.key for group in selected.groups for trial in group.trials} <= trials
