"""Put the page and the Markdown file together. The same stored results and provenance give the same bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.report import cost_tables, figures, other_figures, other_tables, tables
from pipeline.report.cells import Cell, Run, Table, slug
from pipeline.report.diagnosis_table import diagnosis_table
from pipeline.report.stored import Stored
from pipeline.report.summary import cautions, findings, what_was_run
from pipeline.report.svg import Plot
from pipeline.report.verdicts import Verdict, verdicts


@dataclass(frozen=True)
class Provenance:
    """What the page's foot says of its origin."""

    git_commit: str
    params_hash: str


@dataclass(frozen=True)
class Section:
    """A heading with its figures and tables, in that order.

    Attributes:
        folded: tables that a page may show closed.
    """

    slug: str
    title: str
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    folded: bool = False


@dataclass(frozen=True)
class Report:
    """The finished report.

    Attributes:
        html: the page, self-contained.
        markdown: the same tables; its figures are the files of `figures`, beside it.
        headlines: a few numbers for the tracking server.
    """

    html: str
    markdown: str
    figures: Mapping[str, str]
    headlines: Mapping[str, float]


def build(stored: Stored, provenance: Provenance) -> Report:
    """Render everything."""
    found = [v for result in (*stored.tasks, stored.cifar) for v in verdicts(result)]
    names = _names(stored)
    sections = _sections(stored, found, names)
    context: dict[str, Any] = {
        "run": what_was_run(stored),
        "cautions": cautions(stored, found),
        "findings": findings(stored, found, names),
        "sections": sections,
        "provenance": provenance,
    }
    panels = [panel for section in sections for plot in section.plots for panel in plot.panels]
    return Report(
        _render("page.html.j2", context),
        _render("report.md.j2", context),
        {f"figures/{panel.name}.svg": panel.file() for panel in panels},
        _headlines(found),
    )


def _names(stored: Stored) -> dict[tuple[str, str], str]:
    """Task and split to the name shown."""
    return {
        (row.task, row.split): tables.heading(task, row.split) if task.name != "cifar" else row.task
        for task in (*stored.tasks, stored.cifar)
        for row in task.rows
    }


def _sections(stored: Stored, found: Sequence[Verdict], names: Mapping[tuple[str, str], str]) -> list[Section]:
    tasks, images = stored.tasks, [stored.cifar]
    sections = [
        Section(
            "verdicts",
            "Does patience win?",
            [other_figures.verdict_figure(found, names)],
            [other_tables.verdict_table(found, names, {**stored.trained, **stored.cifar_trained})],
        ),
        Section("comparison", "Comparison (Tables 1, 2 and 4)", (), tables.overview_tables(stored)),
        Section(
            "curves",
            "Speed and score",
            [
                figures.figure_3(tasks, "figure-3", "Figure 3: speed-accuracy curves"),
                figures.figure_4(tasks),
                figures.depth_figure(tasks),
            ],
        ),
        Section("diagnosis", "Diagnosis", (), [diagnosis_table(stored, names)]),
        Section("rows", "Every row, task by task", (), tables.task_tables(stored)),
        Section("cost", "Training cost (Table 3)", (), [cost_tables.cost_table(stored)]),
        Section(
            "latency",
            "Latency",
            [other_figures.latency_figure(stored.latency)],
            [cost_tables.latency_table(stored.latency, stored.trained)],
        ),
        Section(
            "robustness", "Robustness (Table 5)", (), [other_tables.robustness_table(stored.attacks, stored.trained)]
        ),
        Section(
            "cifar",
            "Image classification (Table 6)",
            [
                figures.figure_3(images, "cifar-curves", "Speed-accuracy curves of residual networks"),
                figures.depth_figure(images, "cifar-depth"),
            ],
            [other_tables.cifar_table(stored)],
        ),
        Section(
            "theory",
            "Theorem 1 and Appendix C",
            [other_figures.figure_5(stored.simulation)],
            [other_tables.theorem_table(stored), other_tables.example_table(stored)],
        ),
        Section("trials", "Trained models behind the rows", (), [cost_tables.trials_table(stored)], folded=True),
    ]
    return [Section(s.slug, s.title, [plot for plot in s.plots if plot.panels], s.tables, s.folded) for s in sections]


def _headlines(found: Sequence[Verdict]) -> dict[str, float]:
    """Patience minus each rival, in points, and how often it was told apart."""
    out: dict[str, float] = {"comparisons": float(len(found))}
    decided = [v.own_points for v in found if v.own_points.low is not None and v.own_points.high is not None]
    out["patience_ahead"] = float(sum((gap.low or 0) > 0 for gap in decided))
    out["patience_behind"] = float(sum((gap.high or 0) < 0 for gap in decided))
    for v in found:
        if v.own_points.centre is not None:
            me = v.champion
            rival = slug(v.rival).replace("-", "_")
            out[f"{slug(me.task)}.{slug(me.split)}.{slug(me.backbone)}.{slug(me.method)}.minus_{rival}"] = (
                100 * v.own_points.centre
            )
    return out


def _render(template: str, context: Mapping[str, Any]) -> str:
    """Render a template of this package; undefined names are errors, HTML is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": markdown_text, "md_cell": markdown_cell, "md_runs": markdown_runs}
    return environment.get_template(template).render(context)


def markdown_text(text: str) -> str:
    """A name as text in Markdown: nothing in it is markup, and no line or cell ends in it.

    >>> markdown_text("a|b <script>")
    'a\\\\|b &lt;script&gt;'
    """
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in ("\\", "|", "*", "_", "`", "[", "]"):
        text = text.replace(mark, "\\" + mark)
    return text


def markdown_cell(cell: Cell) -> str:
    """A cell in one line: the number, its interval, the paper's figure, flags."""
    text, lines = cell.text, cell.detail.splitlines()
    if lines and lines[0].startswith("["):  # an interval stands with its number
        text = f"{text} {lines.pop(0)}"
    parts = [markdown_text(part) for part in (text, *lines)]
    if cell.paper:
        parts.append(f"*paper: {markdown_text(cell.paper)}*")
    parts += [f"**{markdown_text(flag)}**" for flag in cell.flags]
    return "; ".join(part for part in parts if part)


def markdown_runs(runs: Sequence[Run]) -> str:
    """Keys and MLflow runs."""
    return "; ".join(f"`{run.key}`" + (f" → `{run.run_id}`" if run.run_id else "") for run in runs)
