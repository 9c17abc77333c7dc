"""How numbers look in tables and sentences."""

from collections.abc import Iterable, Sequence
from math import floor, log10

from pipeline.evaluation.criteria import make
from pipeline.results import Interval, OperatingPoint

UNDEFINED = "n/a"
"""Not defined here (a correlation of constants, confidence on a regression); never shown as 0."""
MINUS = "\u2212"
TIMES = "\u00d7"
EQUALS = "\xa0=\xa0"
"""An equals sign that no line breaks at."""


def number(value: float | None, digits: int = 1) -> str:
    """A number, or n/a where it is not defined; a true minus sign.

    >>> number(None), number(-0.04), number(1234.5)
    ('n/a', '0.0', '1,234.5')
    """
    if value is None or value != value:
        return UNDEFINED
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float | None, digits: int = 1) -> str:
    r"""A difference, with its sign.

    >>> signed(0.31), signed(-0.31), signed(0.0)
    ('+0.3', '\u22120.3', '0.0')
    """
    text = number(value, digits)
    return f"+{text}" if value and value > 0 and text.strip("0.,") else text


def difference(gap: Interval, absent: str) -> str:
    """A difference of scores in points with its interval, where it has one.

    Args:
        absent: what to say where there is no difference.
    """
    if gap.centre is None:
        return absent
    text = signed(100 * gap.centre)
    if gap.low is None or gap.high is None:
        return text
    return f"{text} [{signed(100 * gap.low)}, {signed(100 * gap.high)}]"


def points(value: float | None) -> float | None:
    """A share or correlation in points, as the paper prints scores."""
    return None if value is None else 100 * value


def times(value: float | None) -> str:
    r"""A ratio as the paper prints speed-ups.

    >>> times(1.568), times(None)
    ('1.57\xd7', 'n/a')
    """
    return UNDEFINED if value is None else f"{number(value, 2)}{TIMES}"


def bounds(interval: Interval, digits: int = 1, scale: float = 1.0) -> str:
    """The interval in brackets; nothing where there is none."""
    if interval.low is None or interval.high is None:
        return ""
    return f"[{number(scale * interval.low, digits)}, {number(scale * interval.high, digits)}]"


def count(value: int | None) -> str:
    """Parameters: 68.1K, 12.0M.

    >>> count(68120), count(11_700_000), count(850), count(None)
    ('68.1K', '11.7M', '850', 'n/a')
    """
    if value is None:
        return UNDEFINED
    for size, unit in ((1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return str(value)


def duration(seconds: float | None) -> str:
    """Seconds below two minutes, minutes above.

    >>> duration(11.73), duration(234 * 60), duration(None)
    ('11.7 s', '234.0 min', 'n/a')
    """
    if seconds is None:
        return UNDEFINED
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds / 60:,.1f} min"


def setting(points: Sequence[OperatingPoint], *, regression: bool) -> str:
    r"""An operating point, one threshold per seed, with the settings that decide; "never" leaves at the last exit only.

    >>> near_one = [OperatingPoint(criterion="confidence", threshold=t) for t in (0.9996, 0.99999, 0.8214)]
    >>> setting(near_one, regression=False)
    'θ\xa0=\xa00.9996, 0.99999, 0.821'
    >>> patience = [OperatingPoint(criterion="patience", threshold=t) for t in (8.0, 5.0)]
    >>> setting(patience, regression=True), setting(patience, regression=False)
    ('t\xa0=\xa08, 5 (tau\xa0=\xa00.5)', 't\xa0=\xa08, 5')
    >>> setting([OperatingPoint()], regression=False)
    'none'
    """
    first = points[0]
    if first.criterion is None:
        return "none"
    shown = [_threshold(point.threshold) for point in points]
    values = shown[:1] if len(set(shown)) == 1 else shown
    criterion = make(first.criterion, first.settings)
    used = criterion.used_settings(regression=regression)
    more = ", ".join(f"{name}{EQUALS}{value:g}" for name, value in used.items())
    return f"{criterion.symbol}{EQUALS}{', '.join(values)}" + (f" ({more})" if more else "")


def _threshold(value: float | None) -> str:
    if value is None:
        return "never"
    if value == int(value):
        return f"{value:g}".replace("-", MINUS)
    # Near 1, where a confidence's settings crowd, as many digits as tell them apart: 0.9996 is not 1.
    left = 1 - abs(value)
    digits = max(3, 1 - floor(log10(left))) if 0 < left < 0.1 else 3
    return f"{value:.{digits}g}".replace("-", MINUS)


def listed(items: Iterable[str]) -> str:
    """Words as a list in a sentence.

    >>> listed(["a", "b", "c"]), listed(["a"]), listed([])
    ('a, b and c', 'a', 'none')
    """
    words = [*items]
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1] if words else "none"
