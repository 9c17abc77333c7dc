"""A legend stays on its figure, however many exit rules it names."""

from pathlib import Path

import pytest

from pipeline.evaluation.criteria import CRITERIA
from pipeline.report.svg import canvas, look


@pytest.mark.parametrize("count", [1, 6, len(CRITERIA)])
def test_a_legend_is_no_wider_than_its_figure_and_leaves_the_axes_their_place(count: int, tmp_path: Path) -> None:
    names = sorted(CRITERIA, key=len, reverse=True)[:count]
    with canvas("many", "Many rules.") as drawing:
        (axes,) = drawing.axes
        for index, name in enumerate(names):
            axes.plot([1, 2], [index, index + 1], color=look(name, tuple(names)).colour, label=name)
        drawing.finish("task: model, method")
        drawing.figure.draw_without_rendering()
        legend = axes.get_legend()
        assert legend is not None
        assert {text.get_text() for text in legend.get_texts()} == set(names)
        assert legend.get_window_extent().x1 <= drawing.figure.bbox.x1
        inches = axes.get_window_extent().transformed(drawing.figure.dpi_scale_trans.inverted())
        assert inches.width > 2.5
        assert inches.height > 1.2
