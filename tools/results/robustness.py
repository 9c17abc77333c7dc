"""The tables of docs/results-robustness.md, from the results of attacks and the records of attacked texts."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
from scipy.stats import binomtest

from pipeline.evaluation.intervals import proportion_interval
from pipeline.params import Params
from pipeline.results import Attack, DefenceRow, OverExamples
from tools.results.scores import exits, scores
from tools.results.tables import Table, markdown

PROFILE = "robustness"
PAGE = Path(__file__).resolve().parents[2] / "docs/results-robustness.md"
ADAPTIVE = ", adaptive"
Records = Mapping[tuple[str, str], Mapping[str, str]]
"""One encoder's records of a defence: by seed and row."""


HEADER = ("encoder", "defence", "texts", "original", "own attack", "adaptive attack", "p", "queries", "layers")
COLUMNS = {
    **{"backbone": "encoder", "seed": "seed", "defence": "defence", "threshold": "threshold", "row_id": "row"},
    **{name: name for name in ("label", "outcome", "answer_before", "answer_after", "queries", "words")},
    **{name: name for name in ("words_changed", "layers_before", "layers_under_attack", "layers_after")},
}
"""What is kept of a run's records, by its name there: all but the texts."""


def adaptive(params: Params, folder: Path) -> str:
    """Accuracy under the plain and the adaptive attack, on the texts that all searches of an encoder attacked."""
    return markdown(HEADER, list(compared(params, folder / "attacks.csv")))


def attacked(params: Params, folder: Path, task: str) -> str:
    """The same of a task's whole attack, and accuracy on all texts that broke any of the models."""
    rows, stored = [], defences(folder / f"attack/{task}.json")
    for encoder, defence, *cells in compared(params, folder / f"attack/{task}.csv"):
        rows.append([encoder, defence, *cells[:4], interval(stored[defence].pooled_accuracy), *cells[4:]])
    return markdown((*HEADER[:6], "on all texts found", *HEADER[6:]), rows)


def slow_down(params: Params, folder: Path) -> str:
    """The attack on the speed."""
    rows = []
    for name, row in defences(folder / "attack/slow_down/rotten_tomatoes.json").items():
        if row.point.criterion is None:
            continue  # it runs all layers as it is
        layers = (row.layers_before, row.layers_after)
        means = (f"{one.value:.1f}" for one in (row.perturbed_words, row.queries) if one.value is not None)
        rows.append([name, interval(row.attack_success_rate), *(interval(one, 1) for one in layers), *means])
    return markdown(("defence", "end in all layers", "layers before", "layers after", "words changed", "queries"), rows)


def defences(stored: Path) -> dict[str, DefenceRow]:
    """Each defence of a task's attack, which has one split."""
    (one,) = Attack.read(stored, "").attacked
    return {row.defence: row for row in one.rows}


def interval(value: OverExamples, scale: int = 100) -> str:
    """A share or mean with its interval, scaled; empty where it is not defined."""
    if value.value is None or value.low is None or value.high is None:
        return ""
    return f"{scale * value.value:.1f} [{scale * value.low:.1f}, {scale * value.high:.1f}]"


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


TABLES: dict[str, Table] = {
    "adaptive": adaptive,
    "mr": partial(attacked, task="rotten_tomatoes"),
    "sick": partial(attacked, task="sick"),
    "slow_down": slow_down,
    "models": scores,
    "model_exits": exits,
}


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
    return interval(proportion_interval(count, n))


def _mean(records: Sequence[Mapping[str, str]], name: str) -> float:
    """Over the sentences that were attacked."""
    values = [float(one[name]) for one in records if one["outcome"] != "skipped" and one[name]]
    return sum(values) / len(values)
