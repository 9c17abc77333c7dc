"""`python -m pipeline init`: a table of a user's own becomes a params.yaml that runs, or one line says what lacks."""

import csv
import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from pipeline.__main__ import cli
from pipeline.errors import DataError, ParamsError, PipelineError
from pipeline.identity.imports import ROOT
from pipeline.params import load_params
from pipeline.tasks.guess import Columns, guess
from pipeline.tasks.text.prepare import freeze_splits

WORDS = ("good", "film", "bad", "plot", "long", "and", "dull", "warm")


CLASSES = "classification"


def reviews(rows: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(4, 12))) for _ in range(rows)]


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A fresh clone's settings, and no hub."""
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HUB_MIRROR", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def written(file: Path, columns: dict[str, list[str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, delimiter="\t" if file.suffix == ".tsv" else ",")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return file


def init(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(cli, ["init", *map(str, arguments)])
    if isinstance(result.exception, PipelineError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def table(**changes: list[str]) -> Columns:
    n = 60
    columns = {"id": [str(i) for i in range(n)], "text": reviews(n), "label": ["neg", "pos"] * (n // 2)}
    return columns | changes


def test_a_table_of_reviews_runs_as_it_is(project: Path) -> None:
    rows = 300
    texts = [f'{text},\nand "so"' for text in reviews(rows)]
    columns = {"id": [str(i) for i in range(rows)], "Review": texts, "Sentiment": ["positive", "negative"] * 150}
    result = init(written(project / "my reviews (1).csv", columns))
    params = load_params()
    (name,) = params.tasks
    assert name == "my-reviews-1"
    task = params.task(name)
    assert (task.text, task.label, task.label_names) == (("Review",), "Sentiment", ("negative", "positive"))
    assert params.latency.tasks == [name]
    assert list(params.backbones) == ["demo-albert"]
    for part in (
        "classification of 300 rows",
        "Review",
        "2 classes (negative, positive)",
        "random weights",
        "dvc repro",
    ):
        assert part in result.output
    splits = freeze_splits(task, params.protocol, None)
    assert {split: len(table) for split, table in splits.items()} == {"train": 180, "selection": 60, "held_out": 60}
    assert set(splits["held_out"]["Review"].to_pylist()) <= set(texts)
    # In the settings, the file's path is relative, so that the folder may be moved.
    assert str(project) not in (project / "params.yaml").read_text()


def test_a_pretrained_model_is_taken_where_it_is_to_be_had(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "mirror/models/sentence-transformers/all-MiniLM-L6-v2").mkdir(parents=True)
    monkeypatch.setenv("HUB_MIRROR", str(project / "mirror"))
    output = init(written(project / "a.csv", dict(table()))).output
    assert list(load_params().backbones) == ["minilm"]
    assert f"pretrained, from the mirror {project / 'mirror'}" in output


def test_repeated_texts_are_counted(project: Path) -> None:
    texts = reviews(60)
    output = init(written(project / "a.csv", {**table(), "text": [*texts[:50], *texts[:10]]})).output
    assert "10 rows repeat a text: the same text may train and be reported" in output


def test_edits_are_not_overwritten(project: Path) -> None:
    file = written(project / "a.csv", dict(table()))
    init(file)
    init(file)  # what init itself wrote is no edit
    with (project / "params.yaml").open("a") as out:
        out.write("# a note of mine\n")
    first = (project / "params.yaml").read_text()
    with pytest.raises(ParamsError, match=r"holds edits of yours that init would overwrite; .* or give --force"):
        init(file, "--name", "again")
    assert (project / "params.yaml").read_text() == first
    init(file, "--name", "again", "--force")
    assert list(load_params().tasks) == ["again"]


def test_how_quotes_are_read_is_said_once(project: Path) -> None:
    columns = {"text": [f'{text}\n"so"' for text in reviews(60)], "label": ["a", "b"] * 30}
    assert init(written(project / "a.tsv", columns)).output.count("quotes enclose fields") == 1


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_type_of_file(kind: str, project: Path) -> None:
    columns = {"text": reviews(60), "label": ["1", "0", "2"] * 20}
    file = project / f"sst2.{kind}"
    if kind == "jsonl":
        rows = [{"text": text, "label": int(label)} for text, label in zip(*columns.values(), strict=True)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "parquet":
        values = {**columns, "label": [float(label) for label in columns["label"]], "other": [[1]] * 60}
        pyarrow.parquet.write_table(pa.table(values), file)
    else:
        written(file, columns)
    init(file)
    params = load_params()
    assert list(params.tasks) == ["own-sst2"], "a name that is not taken"
    task = params.task("own-sst2")
    assert [float(name) for name in task.label_names] == [0, 1, 2]
    counts = freeze_splits(task, "holdout", None)["train"]["label"].value_counts()
    assert len(counts) == 3


def test_rows_without_a_label_and_classes_of_few_rows(project: Path) -> None:
    labels = ["neg", "pos"] * 27 + ["odd", "odd", "", "", "", ""]
    output = init(written(project / "a.csv", {**table(), "label": labels})).output
    assert "4 rows without a label" in output
    assert "odd: fewer than 10 rows" in output
    assert "repeat a text" not in output
    task = load_params().task("a")
    assert sum(map(len, freeze_splits(task, "holdout", None).values())) == 56


@pytest.mark.parametrize(
    ("columns", "text", "label", "kind"),
    [
        (table(), ("text",), "label", CLASSES),
        # By name, whatever stands beside it; then by the values.
        (table(title=reviews(60, 1), category=["x"] * 60), ("text",), "label", CLASSES),
        ({"a": reviews(60), "b": ["yes", "no"] * 30, "c": ["u", "v", "w"] * 20}, ("a",), "b", CLASSES),
        ({"b": ["yes", "no"] * 30, "c": ["u", "v"] * 30, "a": reviews(60)}, ("a",), "c", CLASSES),
        ({"stars": [str(i % 5 + 1) for i in range(60)], "comment": reviews(60)}, ("comment",), "stars", CLASSES),
        ({"score": [f"{i / 7:.2f}" for i in range(60)], "body": reviews(60)}, ("body",), "score", "regression"),
        ({"score": [str(i) for i in range(60)], "body": reviews(60)}, ("body",), "score", "regression"),
        (table(premise=reviews(60, 1), hypothesis=reviews(60, 2)), ("premise", "hypothesis"), "label", CLASSES),
    ],
)  # fmt: skip
def test_columns_are_found(columns: Columns, text: tuple[str, ...], label: str, kind: str) -> None:
    found = guess(columns, "a.csv")
    assert (found.text, found.label, found.kind) == (text, label, kind)


def test_names_of_classes_are_sorted_as_numbers_or_words() -> None:
    labels = [str(i % 12) for i in range(60)]
    assert guess(table(label=labels), "a.csv").label_names == tuple(str(i) for i in range(12))
    assert guess(table(title=reviews(60, 1)), "a.csv").other == ("title",)


@pytest.mark.parametrize(
    ("columns", "said", "message"),
    [
        ({"a": reviews(60), "n": [str(i) for i in range(60)]}, {}, "no column is like a label .it has a, n.; name one"),
        (
            {"label": ["a", "b"] * 30, "n": ["x"] * 60},
            {},
            "no column is like text .it has label, n.; name one with --te",
        ),
        (table(), {"label": "lable"}, "has no column 'lable' .it has id, text, label.; name one of these"),
        (table(label=["pos", None] * 30), {}, "a.csv, row 1: column 'label' has no value, as in 30 rows; fill it in"),
        (table(label=["pos"] * 60), {}, "column 'label' holds pos only; a label has two or more"),
        (table(label=[f"w{i}" for i in range(120)]), {"label": "label"}, "120 different values, too many for classes"),
    ],
)
def test_what_is_not_found_is_one_line(columns: Columns, said: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        guess(columns, "a.csv", **said)


def test_nothing_is_written_where_it_cannot_run(project: Path) -> None:
    before = (project / "params.yaml").read_bytes()
    short = {name: list(values)[:20] for name, values in table().items()}
    for file, says in (
        (written(project / "short.csv", short), "20 rows with a label; give 30 or more"),
        (project / "none.csv", "no such file"),
    ):
        with pytest.raises(DataError, match=says):
            init(file)
    twice = project / "twice.csv"
    twice.write_text("text,text,label\n" + "a b,c d,x\n" * 40)
    with pytest.raises(DataError, match="two columns are called 'text'; rename one"):
        init(twice)
    assert (project / "params.yaml").read_bytes() == before
