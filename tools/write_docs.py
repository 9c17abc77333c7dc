"""Write the parts of docs/ that are generated from the code: python -m tools.write_docs.

docs/criteria.svg, the table of criteria in docs/criteria.md, docs/results-schema.md, docs/settings.md, and the front
page's figure and table.
"""

import dataclasses
import math
from pathlib import Path

from pipeline.evaluation.criteria import CRITERIA, make
from pipeline.evaluation.sweep import sweep
from pipeline.evaluation.trace import load_trace
from pipeline.report.replayed import draw
from tools import schema_page, settings_page

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "docs/results-schema.md"
SETTINGS = ROOT / "docs/settings.md"
PAGE = ROOT / "docs/criteria.md"
PICTURE = ROOT / "docs/criteria.svg"
FRONT = ROOT / "docs/index.md"
EVIDENCE = ROOT / "docs/evidence/sst2-joint.safetensors"
SWEEP = ("<!-- sweep -->\n", "<!-- end of sweep -->\n")
START, END = "<!-- table -->\n", "<!-- end of table -->\n"


def rows(text: str) -> dict[str, list[str]]:
    """The cells of the page's table, by criterion name."""
    lines = text.split(START)[1].split(END)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row for row in cells}


def table(text: str) -> str:
    """The table from the classes; the second column is kept from the page."""
    cells_by_name = rows(text)
    lines = ["| name | score after exit j | settings | reads | regression | from |", "|---|---|---|---|---|---|"]
    for name, cls in CRITERIA.items():
        fields = dataclasses.fields(cls)
        learned = any(f.metadata.get("fitted") for f in fields)
        settings = ["learned"] * learned + [f"`{f.name}`" for f in fields if not f.metadata.get("fitted")]
        description = (
            cells_by_name[name][1] if name in cells_by_name else (cls.__doc__ or "").splitlines()[0].rstrip(".")
        )
        cells = [
            f"`{name}`",
            description,
            ", ".join(settings),
            cls.reads,
            "yes" if cls.regression else "no",
            cls.source,
        ]
        lines.append("".join(f"| {cell} " if cell else "| " for cell in cells) + "|")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with its table replaced."""
    before, rest = text.split(START)
    return before + START + table(text) + END + rest.split(END)[1]


SCORES = {
    "A": (0.30, 0.62, 0.86, 0.9, 0.93, 0.95),
    "B": (0.2, 0.45, 0.35, 0.66, 0.84, 0.9),
    "C": (0.15, 0.3, 0.25, 0.4, 0.35, 0.5),
}
"""Scores of three rows after six exits."""
LOOKS = {"A": ("#0072b2", ""), "B": ("#d55e00", "7 3"), "C": ("#009e73", "2 3")}
THRESHOLDS = {"lower threshold": 0.55, "higher threshold": 0.8}


def picture() -> str:
    """Scores over exits as lines, thresholds as levels, a ring where a row leaves; plain SVG."""

    def x(exit_number: int) -> float:
        return 70 + 100 * (exit_number - 1)

    def y(score: float) -> float:
        return 270 - 240 * score

    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 330" font-family="sans-serif" font-size="14">',
        '<rect width="720" height="330" fill="#ffffff"/>',
        f'<path d="M50 20V{y(0):g}H610" fill="none" stroke="#555555"/>',
        '<text x="330" y="318" text-anchor="middle">exit</text>',
        '<text x="20" y="150" transform="rotate(-90 20 150)" text-anchor="middle">score</text>',
    ]
    out += [f'<text x="{x(j):g}" y="292" text-anchor="middle">{j}</text>' for j in range(1, 7)]
    for name, level in THRESHOLDS.items():
        out.append(f'<path d="M50 {y(level):g}H590" stroke="#999999" stroke-dasharray="1 4"/>')
        out.append(f'<text x="600" y="{y(level) + 5:g}" fill="#555555">{name}</text>')
    for row, scores in SCORES.items():
        colour, dash = LOOKS[row]
        line = " ".join(f"{x(j):g},{y(s):g}" for j, s in enumerate(scores, 1))
        out.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        out += [f'<circle cx="{x(j):g}" cy="{y(s):g}" r="3" fill="{colour}"/>' for j, s in enumerate(scores, 1)]
        out.append(f'<text x="{x(6) + 13:g}" y="{y(scores[-1]) + 5:g}" fill="{colour}">{row}</text>')
        for level in THRESHOLDS.values():
            left = next((j for j, s in enumerate(scores, 1) if s >= level), len(scores))
            out.append(f'<circle cx="{x(left):g}" cy="{y(scores[left - 1]):g}" r="9" fill="none" stroke="{colour}"/>')
    return "\n".join([*out, "</svg>"]) + "\n"


def front(text: str) -> str:
    """The front page with its table replaced by the sweep of patience over the stored trace."""
    trace = load_trace(EVIDENCE)
    swept = sweep(trace, make("patience"))
    scores, speeds = swept.metrics(("accuracy",))["accuracy"], swept.layer_speedup
    rows = [
        f"| {'all layers' if math.isinf(t) else f'{t:g}'} | {100 * score:.1f} | {speed:.2f}x |\n"
        for t, score, speed in zip(swept.thresholds, scores, speeds, strict=True)
    ]
    head = "| patience t | accuracy | speed-up in layers |\n|---|---|---|\n"
    before, rest = text.split(SWEEP[0])
    return before + SWEEP[0] + head + "".join(rows) + SWEEP[1] + rest.split(SWEEP[1])[1]


def curves(out: Path) -> Path:
    """The front page's figure."""
    trace, names = load_trace(EVIDENCE), ("patience", "confidence", "fixed")
    return draw({name: sweep(trace, make(name)) for name in names}, ("accuracy",), EVIDENCE.stem, out)


def main() -> None:
    """Write all generated parts."""
    FRONT.write_text(front(FRONT.read_text(encoding="utf-8")), encoding="utf-8")
    curves(EVIDENCE.with_suffix(".svg"))
    SCHEMA.write_text(schema_page.page(), encoding="utf-8")
    SETTINGS.write_text(settings_page.page(), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
