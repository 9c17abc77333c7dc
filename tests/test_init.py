"""`python -m pipeline init`: a table of a user's own becomes a params.yaml that runs, or one line says what lacks."""

import csv
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from pipeline.__main__ import cli, main
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
    assert "10 rows repeat a text: rows of one text come into one split" in output
    splits = freeze_splits(load_params().task("a"), "holdout", None)
    assert sum(len(set(table["text"].to_pylist())) for table in splits.values()) == 50


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


def test_columns_that_are_neither_text_nor_label_are_passed_over(project: Path) -> None:
    extra: dict[str, Any] = {"meta": {"a": 1}, "tags": [], "x": float("nan")}
    rows = [{"text": text, "label": "ab"[i % 2], **extra} for i, text in enumerate(reviews(60))]
    file = project / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    init(file)
    task = load_params().task("a")
    assert (task.text, task.label) == (("text",), "label")
    assert len(freeze_splits(task, "holdout", None)["train"]) == 36
    rows[3]["label"] = float("nan")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"a\.jsonl, row 3: column 'label' has no value, as in 1 row"):
        init(file)


@pytest.mark.parametrize("names", [["neg", "pos"], ["0", "1"]])
def test_classes_that_a_file_names_are_called_so(names: list[str], project: Path) -> None:
    """As `datasets` writes them into its files."""
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    columns = {"text": reviews(60), "label": [0, 1] * 30}
    pyarrow.parquet.write_table(pa.table(columns).replace_schema_metadata(metadata), project / "a.parquet")
    init(project / "a.parquet")
    task = load_params().task("a")
    assert task.label_names == tuple(names)
    train = freeze_splits(task, "holdout", None)["train"]
    assert train["label"].to_pylist() == [float(i % 2) for i in train["row_id"].to_pylist()]
    pyarrow.parquet.write_table(
        pa.table({**columns, "label": [*[0, 1] * 29, 0, -1]}).replace_schema_metadata(metadata), project / "a.parquet"
    )
    if names == ["neg", "pos"]:
        with pytest.raises(DataError, match="row 59: column 'label' has no value, as in 1 row"):
            init(project / "a.parquet")


@pytest.mark.parametrize("label", [lambda i: float(i % 2), lambda i: i / 7])
def test_nan_is_no_class(label: Callable[[int], float], project: Path) -> None:
    values = [float("nan") if i % 9 == 4 else label(i) for i in range(60)]
    pyarrow.parquet.write_table(pa.table({"text": reviews(60), "label": values}), project / "a.parquet")
    with pytest.raises(DataError, match="row 4: column 'label' has no value, as in 7 rows"):
        init(project / "a.parquet")


@pytest.mark.parametrize("kind", [None, "classification", "regression"])
def test_nan_among_numbers_is_no_value_in_any_file(kind: Any) -> None:
    labels = [" NaN" if i == 7 else str(i % 3) for i in range(60)]
    with pytest.raises(DataError, match="row 7: column 'label' has no value, as in 1 row"):
        guess(table(label=labels), "a.csv", kind=kind)
    assert guess(table(label=["nan", "roti"] * 30), "a.csv").label_names == ("nan", "roti"), "bread"


def test_texts_without_spaces_have_words(project: Path) -> None:
    texts = ["\u8fd9\u90e8\u7535\u5f71\u5f88\u597d\u770b" * 10 + str(i) for i in range(60)]
    columns = {"opinion": texts, "label": ["\u597d", "\u574f"] * 30}
    init(written(project / "a.csv", columns))
    task = load_params().task("a")
    assert (task.text, task.max_length) == (("opinion",), 112)


def test_numbers_with_decimal_commas_are_no_names() -> None:
    labels = [["1,5", "2", "3,5"][i % 3] for i in range(60)]
    for kind in (None, "regression"):
        with pytest.raises(DataError, match=r"'label' holds numbers with commas \(1,5, 3,5\); write them without"):
            guess(table(label=labels), "a.csv", kind=kind)
    assert guess(table(label=labels), "a.csv", kind="classification").kind == CLASSES
    assert guess(table(label=["1,2", "b"] * 30), "a.csv").label_names == ("1,2", "b")


def test_classes_that_look_alike_are_said(project: Path) -> None:
    labels = ["good", "Good", "good ", "caf\u00e9", "cafe\u0301", "1", "1.0", "2", "bad", "worse"] * 6
    output = init(written(project / "a.csv", {**table(), "label": labels})).output
    assert output.count("are different classes") == 3
    assert "beware    'Good' and 'good' and 'good ' are different classes" in output
    assert "beware    '1' and '1.0' are different classes" in output


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
        (
            {"a": reviews(60), "n": [str(i) for i in range(60)]},
            {},
            "no column is like a label .it has a, n.; name one with --label, such as --label n, whose numbers make",
        ),
        (
            {"price in €": [f"{i / 7:.2f}" for i in range(60)], "a": reviews(60), "b": reviews(60, 1)},
            {},
            "such as --label 'price in €', whose numbers make a regression",
        ),
        ({"a": reviews(60), "b": reviews(60, 1)}, {}, "name one with --label$"),
        (table(text=[*reviews(57), "", " ", None]), {}, "a.csv, row 57: no text in text, as in 3 rows; write one, or"),
        (table(text=[*reviews(59), ""]), {}, "a.csv, row 59: no text in text, as in 1 row; write one, or take such ro"),
        (table(label=["1", "x"] * 30), {"kind": "regression"}, "'label' holds x, and a regression needs numbers"),
        (table(label=["1.5"] * 60), {}, "column 'label' holds 1.5 only; a label has two or more"),
        (table(label=[str(i) for i in range(120)]), {"kind": "classification"}, "120 different values, too many for"),
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
def test_what_is_not_found_is_one_line(columns: Columns, said: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        guess(columns, "a.csv", **said)


def test_nothing_is_written_where_it_cannot_run(project: Path) -> None:
    before = (project / "params.yaml").read_bytes()
    short = {name: list(values)[:20] for name, values in table().items()}
    for file, says in (
        (written(project / "short.csv", short), "20 rows with a label; give 30 or more"),
        (project / "none.csv", r"none\.csv: no such file; check the path$"),
    ):
        with pytest.raises(DataError, match=says):
            init(file)
    twice = project / "twice.csv"
    twice.write_text("text,text,label\n" + "a b,c d,x\n" * 40)
    with pytest.raises(DataError, match="two columns are called 'text'; rename one"):
        init(twice)
    assert (project / "params.yaml").read_bytes() == before


def test_a_pair_may_have_one_empty_text_and_a_row_without_a_label_none() -> None:
    pair = {"premise": [*reviews(58), "", "a b"], "hypothesis": [*reviews(58, 1), "so it is", ""]}
    assert guess({"label": ["a", "b"] * 30, **pair}, "a.csv").text == ("premise", "hypothesis")
    assert guess(table(text=[*reviews(59), ""], label=[*["a", "b"] * 29, "a", ""]), "a.csv").unlabelled == 1


@pytest.mark.parametrize(
    ("labels", "kind", "found", "says"),
    [
        ([str(i % 5 + 1) for i in range(60)], None, CLASSES, "--kind regression for amounts"),
        ([str(i % 5 + 1) for i in range(60)], "regression", "regression", None),
        ([f"{i % 5 + 1}.0" for i in range(60)], None, CLASSES, "--kind regression for amounts"),
        ([str(i) for i in range(60)], None, "regression", "--kind classification for classes, 100 at most"),
        ([str(i % 30) for i in range(60)], "classification", CLASSES, None),
        ([f"{i / 7:.2f}" for i in range(60)], None, "regression", None),
        (["0", "1"] * 30, None, CLASSES, None),
        (["no", "yes"] * 30, None, CLASSES, None),
    ],
)
def test_numbers_are_classes_or_amounts(
    labels: list[str], kind: str | None, found: str, says: str | None, project: Path
) -> None:
    output = init(written(project / "a.csv", {**table(), "label": labels}), *(("--kind", kind) if kind else ())).output
    assert load_params().task("a").kind == found
    assert ("--kind" in output) == (says is not None)
    assert says is None or says in output


@pytest.mark.parametrize(
    ("counts", "classes", "metrics"),
    [
        ({"film": 48, "sport": 9, "business": 3}, "film: 80%, sport: 15%, business: 5%; always film: 80% right", True),
        ({"film": 43, "sport": 17}, "film: 72%, sport: 28%; always film: 72% right", True),
        ({"film": 42, "sport": 18}, "film: 70%, sport: 30%; always film: 70% right", False),
        ({"b": 30, "a": 30}, "a: 50%, b: 50%; always a: 50% right", False),
        ({"x": 300, "y": 2}, "x: 99%, y: under 1%; always x: 99% right", True),
        ({f"c{i:02}": 40 for i in range(12)}, "c08: 8%, c09: 8% and 2 more; always c00: 8% right", False),
    ],
)
def test_classes_of_uneven_size_are_said_and_scored_each(
    counts: dict[str, int], classes: str, metrics: bool, project: Path
) -> None:
    labels = [name for name, count in counts.items() for _ in range(count)]
    output = init(written(project / "a.csv", {"text": reviews(len(labels)), "label": labels})).output
    assert classes in output
    assert load_params().task("a").metrics == (("accuracy", "macro_f1") if metrics else ("accuracy",))
    assert ("accuracy and macro_f1" in output) == metrics


@pytest.mark.parametrize(("unit", "tau"), [(1.0, 0.49), (0.2, 0.098), (1e-4, 4.9e-5), (1000.0, 490.0), (1e6, 490000.0)])
def test_patience_agrees_in_the_unit_of_the_labels(unit: float, tau: float, project: Path) -> None:
    """A third of the standard deviation: 0.5 on 0..5, as for STS-B."""
    labels = [f"{(i % 51) / 10 * unit:.8f}" for i in range(204)]
    output = init(written(project / "a.csv", {"text": reviews(204), "label": labels})).output
    assert f"tau       {tau:g}: exits that differ by less agree" in output
    assert ("beware    the labels' standard deviation is" in output) == (unit >= 1000)
    assert unit < 1000 or f"Divide the labels in the file, such as by {unit:.0f}\n" in output
    params = load_params()
    assert params.task("a").metrics == ("pearson", "spearman")
    assert params.evaluate.criteria == {"patience": {"tau": tau}}
    assert "a third of the standard deviation of the labels" in (project / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--name", "my task"), "error: --name 'my task' is no name; begin with a letter or digit, then letters"),
        (("--name", "a/b"), "error: --name 'a/b' is no name"),
        (("--name", ""), "error: --name '' is no name"),
        (("--name", "x" * 65), "error: --name 'xxxx"),
        (("--name", "stsb"), "error: --name stsb: a task of this project has that name; give another"),
        (("--text", "text", "--text", "id", "--text", "label"), "error: --text text, id, label: 3 columns; a row has"),
        (("--text", "text", "--text", "text"), "tasks.a.text: text, text names one column twice"),
        (("--text", "label", "--label", "label"), "tasks.a.label: 'label' is a text column too"),
    ],
)
def test_options_that_cannot_be_taken_are_one_line(
    options: tuple[str, ...],
    says: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (project / "params.yaml").read_bytes()
    file = written(project / "a.csv", dict(table()))
    monkeypatch.setattr("sys.argv", ["pipeline", "init", str(file), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert (ended.value.code, error.count("\n")) == (1, 1), error
    assert says in error
    assert (project / "params.yaml").read_bytes() == before


def test_quotes_are_of_csv_and_tsv(project: Path) -> None:
    (project / "a.jsonl").write_text('{"text": "a b", "label": "x"}\n' * 40)
    for option in ("--quoted", "--plain"):
        with pytest.raises(ParamsError, match=rf"{option}: .*a\.jsonl is no \.csv or \.tsv; take it out"):
            init(project / "a.jsonl", option)


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_a_csv_of_a_spreadsheet_with_decimal_commas(mark: str, name: str, project: Path) -> None:
    rows = [f"{text}, and so on{mark}{'ab'[i % 2]}\n" for i, text in enumerate(reviews(60))]
    (project / "a.csv").write_text(f"text{mark}label\n" + "".join(rows))
    assert init(project / "a.csv").output.count(f"a.csv: fields are separated by {name}\n") == 1
    task = load_params().task("a")
    assert (task.text, task.label_names) == (("text",), ("a", "b"))
    assert "and so on" in freeze_splits(task, "holdout", None)["train"]["text"][0].as_py()


def test_one_row_is_said_as_one(project: Path) -> None:
    texts = reviews(60)
    columns = {"text": [*texts[:59], texts[0]], "label": [*["a", "b"] * 29, "a", ""]}
    output = init(written(project / "a.csv", columns)).output
    assert "left out  1 row without a label\n" in output
    assert "note      1 row repeats a text" in output
