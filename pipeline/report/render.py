"""Put the page and the Markdown file together. The same stored results and provenance give the same bytes."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipeline.attacks.view import Piece
from pipeline.layout import HERE
from pipeline.report import paper
from pipeline.report.cells import Cell, Run, Table
from pipeline.report.examples import Examples
from pipeline.report.sections import FIRST, SECTIONS, Section
from pipeline.report.stored import Stored
from pipeline.report.summary import cautions, what_was_run
from pipeline.report.svg import Plot
from pipeline.report.verdicts import headlines, verdicts


@dataclass(frozen=True)
class Provenance:
    """What the page's foot says of its origin."""

    git_commit: str
    params_hash: str


@dataclass(frozen=True)
class Content:
    """A section with all that it shows, in that order: sentences on what was not run, figures, tables, examples.

    One with nothing but such sentences has no heading: the summary says what was not run.
    """

    slug: str
    title: str
    not_run: Sequence[str]
    plots: Sequence[Plot]
    tables: Sequence[Table]
    folded: bool
    examples: Sequence[Examples] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show below its heading."""
        return not (self.plots or self.tables or self.examples)

    @classmethod
    def of(cls, section: Section, stored: Stored) -> "Content":
        plots = [plot for plot in section.plots(stored) if plot.panels]
        tables = [table for table in section.tables(stored) if table.rows]
        examples = [part for part in section.examples(stored) if part.examples]
        return cls(section.slug, section.title, section.not_run(stored), plots, tables, section.folded, examples)

    @classmethod
    def shown(cls, title: str, slug: str, tables: Sequence[Table]) -> "Content":
        """Tables without more; those without a row are left out."""
        return cls(slug, title, (), (), [table for table in tables if table.rows], folded=False)


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
    every = verdicts(stored.tasks)
    first, *sections = [Content.of(section, stored) for section in (FIRST, *SECTIONS)]
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    context: dict[str, Any] = {
        "reproduction": any(paper.has_task(task.name) for task in stored.tasks),
        "answer": FIRST.answer(stored),
        "answers": FIRST.findings(stored),
        "first": first,
        "script": script,
        "script_hash": b64encode(sha256(script.encode()).digest()).decode(),
        "run": what_was_run(stored, [part for section in SECTIONS for part in section.ran(stored)]),
        "cautions": cautions(stored, every),
        "findings": [finding for section in SECTIONS for finding in section.findings(stored)],
        "sections": sections,
        "provenance": provenance,
        "trial_folder": HERE.trial("KEY").relative_to(HERE.home).as_posix(),
    }
    panels = [panel for section in (first, *sections) for plot in section.plots for panel in plot.panels]
    return Report(
        _render("page.html.j2", context),
        _render("report.md.j2", context),
        {f"figures/{panel.name}.svg": panel.file() for panel in panels},
        headlines(every),
    )


def render_sections(title: str, answer: str, sections: Sequence[Content], suffix: str) -> str:
    """A small page of its own, as .html or .md; sections without a table are left out.

    Args:
        answer: the sentence at its top.
    """
    shown = [section for section in sections if section.tables]
    return _render(f"compare{suffix}.j2", {"title": title, "answer": answer, "sections": shown})


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
    environment.filters |= {
        "md": markdown_text,
        "md_cell": markdown_cell,
        "md_runs": markdown_runs,
        "md_pieces": markdown_pieces,
    }
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


def markdown_pieces(pieces: Sequence[Piece]) -> str:
    """A changed text: struck out what was removed, bold what was inserted.

    >>> markdown_pieces([Piece("same", "a "), Piece("removed", "bad"), Piece("inserted", "*fine*")])
    'a ~~bad~~**\\\\*fine\\\\***'
    """
    marks = {"same": "", "removed": "~~", "inserted": "**"}
    out = []
    for kind, text in pieces:
        inner = text.strip()
        before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
        shown = f"{marks[kind]}{markdown_text(inner)}{marks[kind]}" if inner else ""
        out.append(f"{' ' * bool(before)}{shown}{' ' * bool(after and inner)}")
    return "".join(out)


def markdown_runs(runs: Sequence[Run]) -> str:
    """Keys and MLflow runs."""
    return "; ".join(f"`{run.key}`" + (f" → `{run.run_id}`" if run.run_id else "") for run in runs)
