"""How figures look, and the only import of matplotlib: small panels as SVG, the same bytes for the same data.

Colours are Okabe and Ito's, told apart by colour-blind readers, and every series has a marker or dash of its own.
Inline, each colour becomes a CSS variable, so that a panel follows the page into dark mode; as a file it keeps its
colours on white.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID, BAND = "#1b1f24", "#6b7280", "#d9dde3", "#eef1f5"
BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
MANY = 6
"""Entries of a legend for which every figure has room."""
LEGEND_ROW = 0.17
"""Inches."""
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    BAND: "band",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    PURPLE: "purple",
    AMBER: "amber",
    SKY: "sky",
}
"""Colour to the page's CSS variable."""


@dataclass(frozen=True)
class Look:
    """How one series is drawn."""

    colour: str
    marker: str
    dash: str = "-"


KNOWN = {
    "patience": Look(BLUE, "o"),
    "confidence": Look(ORANGE, "s", "--"),
    "entropy": Look(GREEN, "^", "-."),
    "all layers": Look(MUTED, "D"),
    "single exit": Look(PURPLE, "v"),
}
_SPARE = (
    Look(AMBER, "P", ":"),
    Look(SKY, "X", ":"),
    Look(PURPLE, "v", "--"),
    Look(MUTED, "*", ":"),
    Look(BLUE, "<", "-."),
    Look(ORANGE, ">", ":"),
    Look(GREEN, "h", "--"),
    Look(AMBER, "d", "-"),
    Look(SKY, "p", "-."),
    Look(PURPLE, "X", "-"),
)


def look(name: str, names: tuple[str, ...] = ()) -> Look:
    """The look of a series; one without a look of its own gets a spare by its place among `names`."""
    if name in KNOWN:
        return KNOWN[name]
    others = [other for other in names if other not in KNOWN]
    return _SPARE[others.index(name) % len(_SPARE)] if name in others else _SPARE[0]


@dataclass(frozen=True)
class Spot:
    """A place of a panel that answers a pointer.

    Attributes:
        x, y: in the units of the SVG's view box.
        text: what it says.
        link: id of the row that it stands for; empty: none.
    """

    x: float
    y: float
    text: str
    link: str = ""

    def markup(self) -> str:
        """An invisible circle with a title; a link where it stands for a row, which the keyboard reaches too."""
        text = escape(self.text, quote=True)
        inside = f'<title>{text}</title><circle cx="{self.x:.1f}" cy="{self.y:.1f}" r="5"/>'
        if self.link:
            return f'<a class="spot" href="#{escape(self.link, quote=True)}" aria-label="{text}">{inside}</a>'
        return f'<g class="spot">{inside}</g>'


@dataclass(frozen=True)
class Panel:
    """One finished panel: its SVG, what it shows in a sentence for those who cannot see it, and its spots."""

    name: str
    svg: str
    alt: str
    spots: tuple[Spot, ...] = ()

    def inline(self) -> str:
        """For the page: no prolog, colours as CSS variables, spots that answer a pointer."""
        svg = re.sub("#[0-9a-f]{6}", _variable, self.svg)
        end = svg.rindex("</svg>")
        return svg[:end] + "\n".join(spot.markup() for spot in self.spots) + svg[end:]

    def file(self) -> str:
        """For a file of its own: on white."""
        start = self.svg.index(">") + 1
        prolog = '<?xml version="1.0" encoding="utf-8"?>\n'
        return f'{prolog}{self.svg[:start]}<rect width="100%" height="100%" fill="#ffffff"/>{self.svg[start:]}\n'


def _variable(match: re.Match[str]) -> str:
    name = VARIABLES.get(match[0])
    return f"var(--{name}, {match[0]})" if name else match[0]


@dataclass(frozen=True)
class Plot:
    """A named figure of several panels with its caption."""

    slug: str
    title: str
    caption: str
    panels: tuple[Panel, ...]


STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
}


class Canvas:
    """One panel while it is drawn.

    Attributes:
        axes: of its rows, top to bottom; they share the x axis.
    """

    def __init__(self, name: str, alt: str, height: float, ratios: Sequence[float], width: float) -> None:
        from matplotlib.figure import Figure

        self.name, self.alt = name, alt
        self._spots: list[tuple[Axes, float, float, str, str]] = []
        self.figure: Figure = Figure(figsize=(width, height), layout="constrained")
        rows = len(ratios)
        grid = self.figure.subplots(rows, 1, sharex=rows > 1, squeeze=False, gridspec_kw={"height_ratios": ratios})
        self.axes: list[Axes] = list(grid[:, 0])

    def spot(self, axes: "Axes", x: float, y: float, text: str, link: str = "") -> None:
        """Let a point answer a pointer; later ones lie above earlier ones.

        Args:
            x, y: in the units of the data.
            link: id of the row that it stands for.
        """
        self._spots.append((axes, x, y, text, link))

    def _placed(self) -> tuple[Spot, ...]:
        """The spots in the units of the view box, 72 to an inch, from the top; to be called after the layout."""
        width, height = self.figure.get_size_inches() * 72
        to_figure = self.figure.transFigure.inverted()
        out = []
        for axes, x, y, text, link in self._spots:
            left, bottom = to_figure.transform(axes.transData.transform((x, y)))
            out.append(Spot(left * width, (1 - bottom) * height, text, link))
        return tuple(out)

    def finish(self, title: str, columns: int = 3) -> Panel:
        """Title, one legend above the axes, without repeats, and the SVG."""
        self.figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        handles: dict[str, Any] = {}
        for axes in self.axes:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        if handles:
            self._legend(handles, columns)
        text = io.StringIO()
        self.figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        return Panel(self.name, _clean(text.getvalue()), self.alt, self._placed())

    def _legend(self, handles: Mapping[str, Any], columns: int) -> None:
        """One legend above the axes: in fewer columns where it is wider than the figure, and then on a higher one."""
        width, height = self.figure.get_size_inches()
        for count in range(columns, 0, -1):
            if len(handles) > MANY:  # room first: what does not fit collapses the axes, of which matplotlib warns
                rows = -(-len(handles) // count) - -(-MANY // columns)
                self.figure.set_size_inches(width, height + rows * LEGEND_ROW)
            legend = self.axes[0].legend(
                list(handles.values()),
                list(handles),
                loc="lower left",
                bbox_to_anchor=(0, 1.01),
                borderaxespad=0,
                ncols=count,
            )
            if len(handles) <= MANY:
                return
            self.figure.draw_without_rendering()
            if legend.get_window_extent().x1 <= self.figure.bbox.x1:
                return


@contextmanager
def canvas(
    name: str, alt: str, height: float = 3.1, ratios: Sequence[float] = (1,), width: float = 4.2
) -> Iterator[Canvas]:
    """Draw one panel under the house style; matplotlib's own settings are as before afterwards."""
    import matplotlib

    # The salt makes matplotlib's ids a function of the content; the name keeps the panels of one page apart.
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        yield Canvas(name, alt, height, ratios, width)


def _font(match: re.Match[str]) -> str:
    """The reader's own sans-serif: narrower than the one that the layout was made for, so nothing runs into another."""
    weight = f"font-weight: {match[1]}; " if match[1] else ""
    return f"{weight}font-size: {match[2]}px; font-family: system-ui, sans-serif"


def _clean(svg: str) -> str:
    """Drop what a page does not need: prolog, metadata, names of groups, digits beyond a hundredth of a point."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z.0-9]*[a-z]_\d+"', "", svg)
    svg = re.sub(r"font: (?:(\d+) )?([\d.]+)px [^;\"]*", _font, svg)
    svg = re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", svg)
    return re.sub(r"\n\s*", "\n", svg).strip()
