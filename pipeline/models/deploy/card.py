"""The card of an exported model: what it is, what it was measured at, where it comes from."""

from collections.abc import Iterable, Sequence

from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.diagnosis import NOTHING
from pipeline.results import Exported, OverSeeds, Row

HEAD = ("precision", "criterion", "split", "threshold", "score", "layer speed-up", "FLOP speed-up")


def card(exported: Exported, rows: Sequence[Row]) -> str:
    """The card as Markdown.

    Args:
        rows: of evaluate, for the model's backbone and method: what all seeds reached in PyTorch.
    """
    classes = ", ".join(exported.label_names) or "a value"
    own = [(name, row, False) for name, precision in exported.precisions.items() for row in precision.rows]
    seeds = [("PyTorch, float32", row, True) for row in rows]
    count = len(rows[0].seeds) if rows else 0
    return "\n".join(
        (
            f"# {exported.task}: {exported.backbone}, {exported.method}",
            "",
            f"A model of {exported.exits[-1]} layers with an exit after {_places(exported.exits)}, "
            f"{exported.parameters:,} parameters; it answers {classes}.",
            "",
            *(() if exported.learned else (f"**Beware: {NOTHING}.**", "")),
            "## This model, through the graphs in this folder",
            "",
            "Thresholds were chosen on selection rows and scores are of the split named, both on what these graphs "
            "answered.",
            "",
            *_table(own),
            "",
            f"## The same settings in PyTorch, median over {count} seeds and its interval",
            "",
            *_table(seeds),
            "",
            "Speed-ups count layers and FLOPs; wall time depends on the machine.",
            "",
            "## Where it comes from",
            "",
            *(f"- {name}: `{value}`" for name, value in _origin(exported)),
            "",
        )
    )  # fmt: skip


def _places(exits: Sequence[int]) -> str:
    return "every layer" if tuple(exits) == tuple(range(1, exits[-1] + 1)) else f"layers {', '.join(map(str, exits))}"


def _origin(exported: Exported) -> Iterable[tuple[str, str]]:
    yield "trial", f"{exported.key}, seed {exported.seed}"
    yield "weights", exported.weights_sha256
    for split, value in exported.data_sha256.items():
        yield f"rows of {split}", value
    for name, precision in exported.precisions.items():
        if (costs := precision.costs) is not None:
            every = ", ".join(_plain(ms, "") for ms in costs.ms)
            yield f"milliseconds to each exit in {name}", f"{every} on {costs.machine}, threads: {costs.threads}"
    yield from exported.versions.items()


def _table(rows: Iterable[tuple[str, Row, bool]]) -> Iterable[str]:
    yield f"| {' | '.join(HEAD)} |"
    yield f"|{'---|' * len(HEAD)}"
    for precision, row, intervals in rows:
        criterion = "all layers" if row.criterion is None else CRITERIA[row.criterion].title
        limits = {point.threshold for point in row.points}
        limit = next(iter(limits)) if len(limits) == 1 else None
        threshold = "" if row.criterion is None else "by seed" if len(limits) > 1 else _plain(limit, "never")
        numbers = (row.score, row.layer_speedup, row.flop_speedup)
        cells = (precision, criterion, row.split, threshold, *(_number(number, intervals) for number in numbers))
        yield f"| {' | '.join(cells)} |"


def _number(number: OverSeeds, interval: bool) -> str:
    median = _plain(number.median, "not defined")
    if not interval or number.low is None or number.high is None:
        return median
    return f"{median} [{_plain(number.low, '')}, {_plain(number.high, '')}]"


def _plain(value: float | None, absent: str) -> str:
    return absent if value is None else f"{value:.4g}"
