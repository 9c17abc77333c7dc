"""The table of adaptive attacks in docs/results-robustness.md, from the records of attacked sentences."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
from scipy.stats import binomtest

from pipeline.params import Params
from tools.tables import Table, markdown

PROFILE = "robustness"
PAGE = Path(__file__).resolve().parent.parent / "docs/results-robustness.md"
ADAPTIVE = ", adaptive"
Records = Mapping[tuple[str, str], Mapping[str, str]]
"""One encoder's records of a defence: by seed and row."""


HEADER = ("encoder", "defence", "sentences", "original", "own attack", "adaptive attack", "p", "queries", "layers")
COLUMNS = {
    **{"backbone": "encoder", "seed": "seed", "defence": "defence", "threshold": "threshold", "row_id": "row"},
    **{name: name for name in ("label", "outcome", "answer_before", "answer_after", "queries", "words")},
    **{name: name for name in ("words_changed", "layers_before", "layers_under_attack", "layers_after")},
}
"""What is kept of a run's records, by its name there: all but the texts."""


def adaptive(params: Params, folder: Path) -> str:
    """Accuracy under the plain and the adaptive attack, on the sentences that all searches of an encoder attacked."""
    return markdown(HEADER, list(compared(params, folder / "attacks.csv")))


def compared(params: Params, stored: Path) -> Iterator[list[str]]:
    """The rows of that table, from stored records."""
    with stored.open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    for encoder in dict.fromkeys(one["encoder"] for one in records):
        plain = {name: _of(records, encoder, name) for name in ("single exit", *params.attack.criteria)}
        other = {name: _of(records, encoder, name + ADAPTIVE) or plain[name] for name in plain}
        every = sorted(set.intersection(*(set(found) for found in (*plain.values(), *other.values()))))
        for name in plain:
            yield [encoder, name, *_cells([plain[name][k] for k in every], [other[name][k] for k in every])]


def keep_records(stored: Path, path: Path) -> None:
    """Write the records of a finished attack, Parquet, as a CSV without the texts."""
    table = pyarrow.parquet.read_table(stored, columns=list(COLUMNS)).rename_columns(list(COLUMNS.values()))
    pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(quoting_style="needed"))


TABLES: dict[str, Table] = {"adaptive": adaptive}


def _of(records: Sequence[Mapping[str, str]], encoder: str, defence: str) -> Records:
    return {(r["seed"], r["row"]): r for r in records if (r["encoder"], r["defence"]) == (encoder, defence)}


def _cells(plain: Sequence[Mapping[str, str]], other: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """The cells of a defence; the p-value is of McNemar's exact test over the sentences that one attack alone broke."""
    n = len(plain)
    yield str(n)
    yield _share(sum(one["answer_before"] == one["label"] for one in plain), n)
    kept, left = ([one["outcome"] == "failed" for one in attack] for attack in (plain, other))
    yield _share(sum(kept), n)
    if plain is other or kept == left:
        yield "" if plain is other else _share(sum(left), n)
        yield ""
    else:
        yield _share(sum(left), n)
        one, two = (sum(a and not b for a, b in zip(*pair, strict=True)) for pair in ((kept, left), (left, kept)))
        yield f"{binomtest(one, one + two).pvalue:.2g}" if one + two else ""
    yield ", ".join(dict.fromkeys(f"{_mean(attack, 'queries'):.0f}" for attack in (plain, other)))
    yield f"{_mean(plain, 'layers_before'):.1f}, {_mean(plain, 'layers_under_attack'):.1f}"


def _share(count: int, n: int) -> str:
    interval = binomtest(count, n).proportion_ci(method="wilson")
    return share(count / n, interval.low, interval.high)


def share(value: float, low: float, high: float) -> str:
    """A share with its interval, in percent."""
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _mean(records: Sequence[Mapping[str, str]], name: str) -> float:
    """Over the sentences that were attacked."""
    values = [float(one[name]) for one in records if one["outcome"] != "skipped" and one[name]]
    return sum(values) / len(values)
