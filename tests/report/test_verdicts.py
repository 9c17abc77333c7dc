"""Patience against its rivals, paired by seed."""

import statistics
from pathlib import Path

import numpy as np
import pytest

from pipeline.layout import Workspace
from pipeline.report.collect import collect
from pipeline.report.sections.theory import Theory
from pipeline.report.stored import Stored
from pipeline.report.verdicts import score_at, verdicts, word
from pipeline.results import Curve, CurvePoint, OverSeeds
from tests import stored_results
from tests.report.pages import TIMES, Page, report_of, small
from tests.stored_results import params_for, write_all, write_simulation


def test_verdicts_pair_by_seed(tmp_path: Path) -> None:
    params = params_for({"sst2": {}, "stsb": {}, "cifar10": {}}, "albert-base")
    write_all(Workspace(tmp_path), params)
    sst2, stsb, cifar10 = collect(params, Workspace(tmp_path)).tasks
    by_name = {(v.champion.method, v.name): v for v in verdicts([sst2])}
    rivals = {"confidence", "entropy", "all layers", "single exit"}
    assert set(by_name) == {(method, rival) for method in ("joint", "two_stage") for rival in rivals}
    v = by_name["joint", "confidence"]
    gaps = [a - b for a, b in zip(v.champion.score.values, v.rival.score.values, strict=True) if a and b]
    assert v.own_points.centre == pytest.approx(statistics.median(gaps))
    assert (v.own_points.low, v.own_points.high) == pytest.approx((min(gaps), max(gaps)))
    assert v.same_speed is not None
    assert {v.name for v in verdicts([stsb])} == {"all layers", "single exit"}
    assert {v.name for v in verdicts([cifar10])} == rivals


def test_smaller_models_are_rivals_of_their_own_name_and_bounds_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("oracle", "random"):
        monkeypatch.setitem(stored_results.CRITERIA, bound, {})
    params = params_for({"sst2": {}}, "albert-base", methods=["single_exit", "first_half", "joint"])
    report = report_of(tmp_path, params)
    rivals = {v.name: v.rival.method for v in verdicts(collect(params, Workspace(tmp_path)).tasks)}
    assert rivals == {
        "confidence": "joint",
        "entropy": "joint",
        "all layers": "joint",
        "single exit": "single_exit",
        "first half": "first_half",
    }
    row = Page(report.html).row("Does patience win?", "sst2")
    single, half = (f"sst2.validation.albert-base.joint.minus_{name}" for name in ("single_exit", "first_half"))
    assert {single, half} < set(report.headlines)
    assert row["Against first half"].split()[0] in ("ahead", "behind", "not", "equal")
    assert report.html.count("the plainly trained model (") == 1
    assert "the model made smaller by first half (" in report.html
    figures = [figure for name, figure in report.figures.items() if "figure-3-sst2" in name]
    assert [figure.count(">single exit<") for figure in figures] == [1]
    # The oracle is shown where it stands, not where a window would have put it.
    oracle = Page(report.html).row("sst2", "joint, oracle (bound)")
    assert "outside" not in oracle["Score"]
    assert float(oracle["Layer ratio"].split(TIMES)[0]) > 2


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    page = Page(report_of(tmp_path, small("albert-base"), seeds=(1,)).html)
    row = page.row("Does patience win?", "sst2")
    assert row["Against confidence"].split("(")[1].startswith("one seed)")
    assert "[" not in page.row("sst2", "joint, patience (PABEE)")["Score"]


def test_between_two_settings_a_curve_is_what_mixing_them_gives() -> None:
    model = ("b", "joint", "fixed", 1, "validation")
    points = (CurvePoint(*model, 1.0, 0.8, 6.0, 6.0), CurvePoint(*model, 2.0, 0.5, 12.0, 12.0))
    curve = Curve(*model, points)
    # Half of the rows at 6x (a sixth of the layers) and half at 12x run an eighth of them.
    assert score_at(curve, 8.0) == pytest.approx(0.65)
    assert score_at(curve, 6.0) == pytest.approx(0.8)
    assert score_at(curve, 12.5) is None


def test_a_figure_goes_between_two_settings_as_a_verdict_does() -> None:
    """Both seeds' thin lines, the median of a criterion of few settings, and that of one of many."""
    from matplotlib.figure import Figure

    from pipeline.report.lines import criterion_lines

    def curve(seed: int, count: int) -> Curve:
        model = ("b", "joint", "entropy", seed, "validation")
        speeds = np.geomspace(1, 12, count)
        return Curve(*model, tuple(CurvePoint(*model, -i, 0.9 - i / count / 2, s, s) for i, s in enumerate(speeds)))

    for count in (3, 60):
        curves = [curve(1, count), curve(2, count)]
        axes = Figure().subplots()
        criterion_lines(axes, curves, "entropy", ("entropy",))
        assert len(axes.lines) == 3
        for line in axes.lines:
            speeds, scores = (np.asarray(values, dtype=float) for values in (line.get_xdata(), line.get_ydata()))
            assert len(speeds) >= 80
            expected = [score_at(curves[0], speed) for speed in speeds]
            if line is not axes.lines[-1] or count == 3:
                np.testing.assert_allclose(scores, 100 * np.array(expected, dtype=float), rtol=1e-12)
            else:  # a line of many settings is itself read off at the grid's speeds
                np.testing.assert_allclose(scores, 100 * np.array(expected, dtype=float), atol=0.05)
        markers = axes.lines[-1].get_markevery()
        assert (None if markers is None else len(markers)) == (3 if count == 3 else None)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.2, "ahead"),
        (-0.2, -0.1, "behind"),
        (-0.1, 0.1, "not told apart"),
        (0.0, 0.2, "not told apart"),
        (0.0, 0.0, "equal"),
    ],
)
def test_words(low: float, high: float, verdict: str) -> None:
    assert word(OverSeeds(median=(low + high) / 2, low=low, high=high, coverage=0.9375)) == verdict


@pytest.mark.parametrize(("layers", "start"), [(12, 4), (24, 5)])
def test_the_bound_of_theorem_1_is_computed_for_the_layers_simulated(tmp_path: Path, layers: int, start: int) -> None:
    simulation = write_simulation(Workspace(tmp_path), range(1, 12), layers)
    (finding,) = Theory().findings(Stored((), {}, simulation))
    assert f"promises it from t = {start} only" in finding.text
