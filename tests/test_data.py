"""Where rows come from and how they are frozen: generators, own files, a hub mirror on disk, splits, tokens."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import yaml

from pipeline.errors import DataError, ParamsError
from pipeline.models.names import BACKBONES, BackboneSettings, resolve_backbone
from pipeline.running.local_files import source_files
from pipeline.tasks.demo import text as demo
from pipeline.tasks.names import TASKS, resolve_task
from pipeline.tasks.sources import read_file
from pipeline.tasks.task import FileSource, HubSource, Rows, Task, TaskSettings
from pipeline.tasks.text.prepare import freeze_splits
from pipeline.tasks.text.tokens import TokenStore, bucketed, by_length, load_tokenizer
from tests.prepared import prepared

GENERATORS = {"sentences": (demo.sentences, 2), "pairs": (demo.pairs, 3), "similarity": (demo.similarity, 0)}


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_are_a_function_of_rows_and_seed(name: str) -> None:
    make, classes = GENERATORS[name]
    first = make(300, seed=1)
    assert first == make(300, seed=1)
    assert first != make(300, seed=2)
    assert {len(column) for column in first.values()} == {300}
    assert len(set(first["difficulty"])) >= 3, "graded from easy to hard"
    if classes:
        counts = np.bincount(first["label"], minlength=classes)
        assert counts.max() - counts.min() <= 1
    else:
        assert 0 <= min(first["score"]) < max(first["score"]) <= 5
    words = {
        word for column in first.values() if isinstance(column[0], str) for text in column for word in text.split()
    }
    assert words <= set(demo.vocabulary())


def test_sentences_obey_their_rule() -> None:
    """An independent reading: the last clause decides, "nobody" and "not" each turn it round."""
    made = demo.sentences(400, seed=3)
    good = {w for entry in ["good", "great", "funny", "moving"] for w in [entry, *demo.synonyms()[entry]]}
    for text, label in zip(made["sentence"], made["label"], strict=True):
        words = text.split(" but ")[-1].split()
        positive = bool(good & set(words))
        assert label == (positive != ((words.count("not") + words.count("nobody")) % 2 == 1)), text


def test_a_bag_of_words_answers_easy_rows_and_not_hard_ones() -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    train, held = demo.sentences(3000, seed=0), demo.sentences(1500, seed=1)
    vectors = CountVectorizer()
    model = LogisticRegression(max_iter=500).fit(vectors.fit_transform(train["sentence"]), train["label"])
    right = model.predict(vectors.transform(held["sentence"])) == np.array(held["label"])
    level = np.array(held["difficulty"])
    assert right[level == 0].mean() > 0.9
    assert right[level == 3].mean() < 0.65


# Own files and the mirror

ROWS = {"text": ["a fine film", "a dull film", 'she said "no"', "ok", "bad", "good"], "label": [1, 0, 0, 1, 0, 1]}
WRITERS: dict[str, Callable[[pa.Table, Path], Any]] = {
    "csv": lambda table, path: pyarrow.csv.write_csv(table, path),
    "tsv": lambda table, path: path.write_text(
        "\t".join(table.column_names)
        + "\n"
        + "".join("\t".join(str(v) for v in row.values()) + "\n" for row in table.to_pylist())
    ),
    "jsonl": lambda table, path: path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist())),
    "parquet": lambda table, path: pyarrow.parquet.write_table(table, path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_own_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}"
    WRITERS[kind](pa.table(ROWS), path)
    labels = ROWS["label"] if kind == "parquet" else [str(label) for label in ROWS["label"]]
    assert read_file(path, ("text", "label")).to_pydict() == {"text": ROWS["text"], "label": labels}


def test_a_folder_of_parquet_files(tmp_path: Path) -> None:
    for part in range(2):
        table = pa.table({"text": [f"text {10 * part + i}" for i in range(10)], "label": ["neg", "pos"] * 5})
        (tmp_path / "rows.parquet").mkdir(exist_ok=True)
        WRITERS["parquet"](table, tmp_path / f"rows.parquet/{part}.parquet")
    task = own_task(FileSource(train=tmp_path / "rows.parquet"))
    assert sum(map(len, freeze_splits(task, "holdout", None).values())) == 20
    assert list(source_files(task, None)) == ["source/train/0.parquet", "source/train/1.parquet"], "DVC watches them"


def test_line_breaks_inside_quotes_of_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = {"text": [f"row {i}\nits second line,\n\nand a fourth" for i in range(60_000)], "label": [0, 1] * 30_000}
    pyarrow.csv.write_csv(pa.table(rows), path)
    assert read_file(path, ["text"])["text"].to_pylist() == rows["text"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_texts_come_as_the_file_has_them(kind: str, tmp_path: Path) -> None:
    """Also where all of a column looks like numbers, dates, truth values or nothing."""
    for given in (["007", "1.50"], ["2020-01-01", "2021-02-03"], ["NA", "null"], ["true", "TRUE"], ["", "x"], ["", ""]):
        path = tmp_path / f"rows.{kind}"
        WRITERS[kind](pa.table({"text": given, "label": [0, 1]}), path)
        held = shutil.copy(path, path.with_name(f"held.{kind}"))
        task = own_task(FileSource(train=path, report={"held": held}), selection=1)
        assert freeze_splits(task, "paper", None)["held"]["text"].to_pylist() == given


def held_of(path: Path, *names: str, **more: Any) -> pa.Table:
    """What becomes of a file as a report split."""
    held = path.with_name(f"held-{path.name}")
    if path.is_file():
        shutil.copy(path, held)
    settings = {"source": {"train": str(path), "report": {"held": str(held)}}, "text": ["text"], "label": "label"}
    settings |= {"label_names": names, "rows": {"selection": 1}, **more}
    task = resolve_task("own", TaskSettings.model_validate(settings))
    return freeze_splits(task, "holdout", None)["held"]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("rows.csv", "text,label\ncafé,1\nno,0\n".encode("latin-1"), "column 'text' is not UTF-8 (row 0); save"),
        ("rows.csv", "text,café,label\na,b,1\n".encode("latin-1"), "column names are not UTF-8; save"),
        ("rows.csv", b"text,label,text\na,1,b\nc,0,d\n", "split 'train' has 2 columns 'text'; rename"),
        ("rows.csv", b"text,label,label\na,1,1\nc,0,0\n", "split 'train' has 2 columns 'label'; rename"),
        (
            "rows.jsonl",
            b'{"text": ["a"], "label": 1}\n',
            "rows.jsonl, line 1: 'text' holds a list, neither text nor a number; mend",
        ),
    ],
)
def test_columns_that_are_no_text(file: str, content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(says)) as error:
        held_of(tmp_path / file, "neg", "pos")
    assert "\n" not in str(error.value)


NAMED: dict[str, tuple[tuple[str, ...], list[Any], list[float]]] = {
    "numbers turned round": (("1", "0"), [0, 1, 1], [1, 0, 0]),
    "numbers from 1": (("1", "2", "3"), [1, 2, 3], [0, 1, 2]),
    "numbers from 1 as floats": (("1", "2", "3"), [1.0, 2.0, 3.0], [0, 1, 2]),
    "indices beside numbers": (("1", "2", "3"), [0, 1, 2], [0, 1, 2]),
    "numbers with a nought": (("01", "1"), ["1", "01", "1"], [1, 0, 1]),
    "truth": (("true", "false"), [False, True, True], [1, 0, 0]),
    "truth in capitals": (("FALSE", "True"), [False, True, True], [0, 1, 1]),
    "indices as floats": (("neg", "pos"), [0.0, 1.0, 1.0], [0, 1, 1]),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("case", NAMED)
def test_a_label_that_is_a_name_is_that_class(case: str, kind: str, tmp_path: Path) -> None:
    names, values, labels = NAMED[case]
    path = tmp_path / f"rows.{kind}"
    WRITERS[kind](pa.table({"text": ["a", "b", "c"], "label": values}), path)
    assert held_of(path, *names)["label"].to_pylist() == labels


def test_labels_are_all_names_or_all_indices(tmp_path: Path) -> None:
    """In every split: one that happens to lack the label 0 is read as the others are."""
    for name, labels in (("train", [0, 1, 2]), ("held", [1, 2, 1])):
        WRITERS["csv"](pa.table({"text": ["a", "b", "c"], "label": labels}), tmp_path / f"{name}.csv")
    source = {"train": str(tmp_path / "train.csv"), "report": {"held": str(tmp_path / "held.csv")}}
    assert held_of(tmp_path, "1", "2", "3", source=source)["label"].to_pylist() == [1, 2, 1]
    mixed = tmp_path / "mixed.csv"
    mixed.write_text("text,label\na,3\nb,0\n")
    with pytest.raises(
        DataError, match=r"'train', row 1: label '0' is not one of 1, 2, 3, and not all labels are 0..2;"
    ):
        held_of(mixed, "1", "2", "3")
    mixed.write_text("text,label\na,1\nb,7\n")
    with pytest.raises(
        DataError, match=r"'train', row 1: label '7' is not one of 1, 2, 3 or 0..2; mend the row or tasks"
    ):
        held_of(mixed, "1", "2", "3")


@pytest.mark.parametrize(
    ("label", "number"),
    [
        *(("1", 1.0), ("1.0", 1.0), (" 1 ", 1.0), ("+1", 1.0), ("1.", 1.0), ("1e0", 1.0), ("10E-1", 1.0), (".0", 0.0)),
        *((text, None) for text in ("1_0", "0x1", "0b1", "\N{FULLWIDTH DIGIT ONE}", "\N{ARABIC-INDIC DIGIT ONE}")),
        *((text, None) for text in ("1,0", "1 0", "1e", "e1", ".", "", "+", "--1")),
        *((text, None) for text in ("nan", "inf", "-inf", "infinity", "1e999", "9" * 5000, "½", "I", "1\n2")),
    ],
)
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_numbers_are_read_as_people_write_them(label: str, number: float | None, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    WRITERS["jsonl"](pa.table({"text": ["a", "b"], "label": [label, "0"]}), path)
    names = [f"class {i}" for i in range(12)] if kind == "classification" else []
    if number is not None:
        assert held_of(path, *names, kind=kind)["label"].to_pylist() == [number, 0]
        return
    with pytest.raises(
        DataError, match=r"'train', row 0: label .* is not (one of class 0, |a number from -1e\+15 to)"
    ) as error:
        held_of(path, *names, kind=kind)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("kind", WRITERS)
def test_labels_that_training_cannot_hold(kind: str, tmp_path: Path) -> None:
    """float32 ends at 3e38, and the loss squares the labels."""
    for label, taken in ((1e308, False), (-1e16, False), (1e15, True), (-2.5, True)):
        path = tmp_path / f"rows.{kind}"
        WRITERS[kind](pa.table({"text": ["a", "b"], "label": [label, 0.0]}), path)
        if taken:
            assert held_of(path, kind="regression")["label"].to_pylist() == [label, 0]
            continue
        with pytest.raises(DataError, match=r"row 0: label .* is not a number from -1e\+15 to 1e\+15; mend the row"):
            held_of(path, kind="regression")


def test_texts_of_a_parquet_that_are_no_utf_8(tmp_path: Path) -> None:
    """The format says text, and no reader checks it."""
    ends = b"".join(end.to_bytes(4, "little") for end in (0, 4, 6))
    wrong = pa.StringArray.from_buffers(2, pa.py_buffer(ends), pa.py_buffer(b"caf\xe9ok"))
    pyarrow.parquet.write_table(pa.table({"text": wrong, "label": [0, 1]}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"split 'train': column 'text' is not UTF-8; save the file as UTF-8"):
        held_of(tmp_path / "rows.parquet", "neg", "pos")
    pyarrow.parquet.write_table(pa.table({"text": ["a", "b"], "label": wrong}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"split 'train': column 'label' is not UTF-8; save the file as UTF-8"):
        held_of(tmp_path / "rows.parquet", "neg", "pos")
    content = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "rows.parquet").write_bytes(content.replace(b"label", b"lab\xe9l"))
    with pytest.raises(DataError, match="its column names are not UTF-8; save"):
        held_of(tmp_path / "rows.parquet", "neg", "pos")


def with_classes(table: pa.Table, *names: str, column: str = "label") -> pa.Table:
    """A table with names of classes, as `datasets` writes them into its files."""
    features = {column: {"names": names, "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


CLASSES: dict[str, tuple[tuple[str, ...], tuple[str, ...], dict[str, Any], list[float] | str]] = {
    "the same": (("bad", "good", "none"), ("bad", "good", "none"), {}, [0, 1, 2]),
    "in another order": (("bad", "good", "none"), ("none", "good", "bad"), {}, [2, 1, 0]),
    "others": (
        ("bad", "good", "none"),
        ("spam", "ham", "eggs"),
        {},
        "its classes are bad, good, none, and label_names are",
    ),
    "one other": (
        ("bad", "good", "none"),
        ("bad", "good", "nine"),
        {},
        "give the source's names in tasks.own.label_names",
    ),
    "one that no row has": (("bad", "good", "none", "more"), ("good", "bad", "none"), {}, [1, 0, 2]),
    "numbers from 1": (("1", "2", "3"), ("3", "2", "1"), {}, [2, 1, 0]),
    "numbers that are no names": (("0", "1", "2"), ("bad", "good", "none"), {}, [0, 1, 2]),
    "one to leave out by name": (("bad", "good", "none"), ("good", "bad"), {"drop_label": "none"}, [1, 0]),
    "one to leave out by number": (("bad", "good", "none"), ("good", "bad"), {"drop_label": 2}, [1, 0]),
    "a number to leave out that is a name": (("1", "2", "3"), ("1", "2"), {"drop_label": 3}, [0, 1]),
    "a regression": (("bad", "good", "none"), (), {"kind": "regression"}, [0, 1, 2]),
}


@pytest.mark.parametrize("kind", ["parquet", "hub"])
@pytest.mark.parametrize("case", CLASSES)
def test_classes_that_a_source_names(case: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    source_names, names, more, labels = CLASSES[case]
    folder = tmp_path / "datasets/me/mine"
    folder.mkdir(parents=True)
    table = with_classes(pa.table({"text": ["a", "b", "c"], "label": [0, 1, 2]}), *source_names)
    for split in ("train", "validation"):
        pyarrow.parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    source: dict[str, Any] = {"hub": "me/mine", "report": {"held": "validation"}}
    if kind == "parquet":
        train, held = (str(folder / f"{split}-00000-of-00001.parquet") for split in ("train", "validation"))
        source = {"train": train, "report": {"held": held}}
    settings = {"source": source, "text": ["text"], "label": "label", "label_names": names, "rows": {"selection": 1}}
    task = resolve_task("own", TaskSettings.model_validate(settings | more))
    if isinstance(labels, str):
        with pytest.raises(DataError, match=re.escape(labels)):
            freeze_splits(task, "holdout", tmp_path)
    else:
        assert freeze_splits(task, "holdout", tmp_path)["held"]["label"].to_pylist() == labels


def test_classes_of_generated_data_are_matched() -> None:
    rows = Rows(train=20, selection=4, report=10)
    given, turned = (
        freeze_splits(resolve_task("demo-sentences", TaskSettings(rows=rows, label_names=names)), "holdout", None)
        for names in (None, ("positive", "negative"))
    )
    assert turned["validation"]["label"].to_pylist() == [
        1 - label for label in given["validation"]["label"].to_pylist()
    ]
    other = resolve_task("demo-sentences", TaskSettings(rows=rows, label_names=("spam", "ham")))
    with pytest.raises(
        DataError, match=r"label '(positive|negative)' is not one of spam, ham or 0..1; mend the row or"
    ):
        freeze_splits(other, "holdout", None)


def test_labels_to_leave_out_that_no_row_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said, and no more: a part of SNLI may lack them."""
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na,1\nb,-1\nc,0\n")
    held_of(path, "1", "0", drop_label=-1)
    assert "drop_label" not in capsys.readouterr().out
    path.write_text("text,label\na,1\nc,0\n")
    assert len(held_of(path, "1", "0", drop_label=-1)) == 2
    assert "tasks.own.drop_label: no row has the label -1; all are kept\n" in capsys.readouterr().out
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    mirror = glue_mirror(tmp_path / "hub", "train", "validation", unlabelled=0)
    splits = freeze_splits(resolve_task("snli", TaskSettings(rows=Rows(selection=2))), "holdout", mirror)
    assert len(splits["validation"]) == 12
    assert "tasks.snli.drop_label: no row has the label -1" in capsys.readouterr().out


def test_labels_to_leave_out_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na,1\nb,-1\nc,0\n")
    held = held_of(path, "1", "0", drop_label=-1)
    assert held.select(["label", "row_id"]).to_pydict() == {"label": [0, 1], "row_id": [0, 2]}


def own_task(source: HubSource | FileSource, **rows: int) -> Task:
    settings = TaskSettings(source=source, text=("text",), label="label", label_names=("neg", "pos"), rows=Rows(**rows))
    return resolve_task("own", settings)


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A hub mirror as an air-gapped cluster has it, with one data set and one tiny BERT."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    root = tmp_path / "hub"
    data = root / "datasets/someone/reviews"
    data.mkdir(parents=True)
    table = pa.table({"text": [f"film number {i}" for i in range(50)], "label": [i % 2 for i in range(50)]})
    pyarrow.parquet.write_table(table, data / "train-00000-of-00001.parquet")
    pyarrow.parquet.write_table(table.slice(0, 9), data / "validation-00000-of-00001.parquet")
    model = root / "models/someone/tiny"
    model.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "number", *(str(i) for i in range(50))]
    (model / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(model / "vocab.txt")).save_pretrained(model)
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(model)
    return root


def test_a_hub_mirror_on_disk(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    backbone = resolve_backbone("tiny", BackboneSettings(hub="someone/tiny"))
    task = own_task(HubSource(hub="someone/reviews"), selection=10)
    manifest = prepared(task, backbone, mirror=mirror, folder=tmp_path / "own")
    assert {name: split.rows for name, split in manifest.splits.items()} == {
        "train": 40,
        "selection": 10,
        "validation": 9,
    }
    assert manifest.splits["validation"].label_counts == {"neg": 5, "pos": 4}
    store = TokenStore.open(tmp_path / "own/tiny/validation.arrow")
    tokenizer = load_tokenizer(tmp_path / "own/tiny/tokenizer.json")
    assert [tokenizer.id_to_token(i) for i in store.ids[: store.offsets[1]]] == [
        "[CLS]",
        "film",
        "number",
        "0",
        "[SEP]",
    ]


PAIRS = {"a": [f"{word} {i}" for i in range(6) for word in ("one", "two", "three")], "b": ["x y", "z", "w"] * 6}
OWN: dict[str, tuple[dict[str, list[Any]], dict[str, Any], list[float]]] = {
    "one text, two classes by number": (
        {"a": PAIRS["a"], "gold": [0, 1, 1] * 6},
        {"text": ["a"], "label": "gold", "label_names": ["no", "yes"]},
        [0, 1, 1],
    ),
    "a pair, four classes by name": (
        {**PAIRS, "gold": ["red", "blue", "grey"] * 6},
        {"text": ["a", "b"], "label": "gold", "label_names": ["green", "grey", "blue", "red"]},
        [3, 2, 1],
    ),
    "columns named as ours are": (
        {"label": PAIRS["a"], "row_id": PAIRS["b"], "label_": [0, 1, 1] * 6},
        {"text": ["label", "row_id"], "label": "label_", "label_names": ["no", "yes"]},
        [0, 1, 1],
    ),
    "columns named as ours become": (
        {"label": PAIRS["a"], "label_": PAIRS["b"], "gold": [0, 1, 1] * 6},
        {"text": ["label_", "label"], "label": "gold", "label_names": ["no", "yes"]},
        [0, 1, 1],
    ),
    "a pair, regression": (
        {**PAIRS, "gold": [0.5, -1.25, 3.0] * 6},
        {"text": ["a", "b"], "label": "gold", "kind": "regression"},
        [0.5, -1.25, 3.0],
    ),
}


@pytest.mark.parametrize("kind", [*WRITERS, "hub"])
@pytest.mark.parametrize("case", OWN)
def test_own_data_by_params_alone(
    case: str, kind: str, tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    columns, settings, labels = OWN[case]
    source: dict[str, Any] = {"hub": "me/mine", "report": {"held": "validation"}}
    (mirror / "datasets/me/mine").mkdir(parents=True)
    for split, table in (("train", pa.table(columns)), ("validation", pa.table(columns).slice(0, 6))):
        if kind == "hub":
            pyarrow.parquet.write_table(table, mirror / f"datasets/me/mine/{split}-00000-of-00001.parquet")
        else:
            WRITERS[kind](table, tmp_path / f"{split}.{kind}")
            source = {
                "train": str(tmp_path / f"train.{kind}"),
                "report": {"held": str(tmp_path / f"validation.{kind}")},
            }
    task = resolve_task("mine", TaskSettings.model_validate({**settings, "source": source, "rows": {"selection": 3}}))
    manifest = prepared(task, BACKBONES["demo-albert"], mirror=mirror, folder=tmp_path / "out")
    assert {name: split.rows for name, split in manifest.splits.items()} == {
        "train": 15,
        "selection": 3,
        "held": 6,
    }
    stored = pyarrow.parquet.read_table(tmp_path / "out/text/held.parquet")
    assert len(set(stored.column_names)) == len(task.text) + 2
    for name, at in zip(task.text, task.stored_text, strict=True):
        assert stored[at].to_pylist() == columns[name][:6]
    held = TokenStore.open(tmp_path / "out/demo-albert/held.arrow")
    assert held.labels.tolist() == labels * 2
    assert set(held.types.tolist()) == ({0, 1} if len(task.text) == 2 else {0})
    assert task.outputs == len(settings.get("label_names", "1"))
    assert task.metrics == (("accuracy",) if "label_names" in settings else ("pearson", "spearman"))


def glue_mirror(root: Path, *splits: str, unlabelled: int = 1) -> Path:
    """Rows like MRPC's and SNLI's on a mirror; SNLI's last one of each split has no gold label."""
    for hub, columns in (("nyu-mll/glue/mrpc", ("sentence1", "sentence2")), ("stanfordnlp/snli", TASKS["snli"].text)):
        (root / "datasets" / hub).mkdir(parents=True)
        for split in splits:
            labels = [i % 2 for i in range(11)] + [-1 if hub == "stanfordnlp/snli" and unlabelled else 1]
            texts = {column: [f"{split} {i}" for i in range(12)] for column in columns}
            pyarrow.parquet.write_table(
                pa.table({**texts, "label": labels}), root / "datasets" / hub / f"{split}-00000-of-00001.parquet"
            )
    lines = ["---", "configs:", "- config_name: mrpc", "  data_files:"]
    lines += [f"  - {{split: {split}, path: mrpc/{split}-*}}" for split in splits]
    (root / "datasets/nyu-mll/glue/README.md").write_text("\n".join([*lines, "---", ""]))
    return root


def test_rows_without_a_gold_label_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    mirror = glue_mirror(tmp_path / "hub", "train", "validation")
    splits = freeze_splits(resolve_task("snli", TaskSettings(rows=Rows(selection=2))), "holdout", mirror)
    assert {name: len(table) for name, table in splits.items()} == {"train": 9, "selection": 2, "validation": 11}
    assert splits["validation"]["row_id"].to_pylist() == list(range(11))
    assert splits["validation"]["label"].to_pylist() == [i % 2 for i in range(11)]


def test_splits_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    mirror = glue_mirror(tmp_path / "hub", "train", "validation", "test")
    settings = {"rows": {"selection": 2, "report": 5}}
    task = resolve_task("mrpc", TaskSettings.model_validate({**settings, "test": True}))
    manifest = prepared(task, BACKBONES["demo-albert"], mirror=mirror, folder=tmp_path / "out")
    assert (manifest.report_splits, manifest.unlabelled_splits) == (("validation",), ("test",))
    assert manifest.splits["test"].label_counts is None
    store = TokenStore.open(tmp_path / "out/demo-albert/test.arrow")
    assert np.isnan(store.labels).all(), "a label column is not read"
    assert store.row_ids.tolist() == list(range(12)), "all rows, in the source's order"
    without = resolve_task("mrpc", TaskSettings.model_validate(settings))
    off = prepared(without, BACKBONES["demo-albert"], mirror=mirror, folder=tmp_path / "off")
    assert "test" not in off.splits
    hashes = [about.inputs["demo-albert"].hash for about in (manifest, off)]
    assert hashes[0] == hashes[1], "to predict changes no trial"


def test_a_mirror_without_the_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    mirror = glue_mirror(tmp_path / "hub", "train", "validation")
    with pytest.raises(
        DataError, match=r"tasks.mrpc.test: nyu-mll/glue \(mrpc\): split 'test' cannot be read .* false$"
    ):
        freeze_splits(resolve_task("mrpc", TaskSettings(test=True)), "holdout", mirror)


def test_own_files_without_labels_need_no_label_column(tmp_path: Path) -> None:
    named = files(tmp_path)
    pyarrow.parquet.write_table(pa.table({"text": ["new", "row"]}), tmp_path / "new.parquet")
    task = own_task(FileSource(train=named.train, report=named.report, test={"new": tmp_path / "new.parquet"}))
    assert task.test, "own data that names them wants them"
    splits = freeze_splits(task, "holdout", None)
    assert list(splits) == ["train", "selection", "test", "new"]
    assert splits["new"]["text"].to_pylist() == ["new", "row"]
    assert np.isnan(splits["new"]["label"].to_numpy()).all()


# Splits


def files(tmp_path: Path, train: int = 60, report: int = 20) -> FileSource:
    for name, rows, first in (("train", train, 0), ("report", report, 1000)):
        table = pa.table(
            {"text": [f"row {first + i}" for i in range(rows)], "label": [("neg", "pos")[i % 2] for i in range(rows)]}
        )
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    return FileSource(train=tmp_path / "train.parquet", report={"test": tmp_path / "report.parquet"})


def texts(splits: dict[str, pa.Table]) -> dict[str, set[str]]:
    return {name: set(table["text"].to_pylist()) for name, table in splits.items()}


def test_holdout_selects_on_rows_that_neither_train_nor_report(tmp_path: Path) -> None:
    task = own_task(files(tmp_path), train=30, selection=12, report=15)
    splits = freeze_splits(task, "holdout", None)
    found = texts(splits)
    assert {name: len(rows) for name, rows in found.items()} == {"train": 30, "selection": 12, "test": 15}
    assert not found["train"] & found["selection"]
    assert all(int(text.split()[1]) < 1000 for text in found["train"] | found["selection"])
    assert all(int(text.split()[1]) >= 1000 for text in found["test"])
    assert splits["train"]["label"].to_pylist() == [float(i % 2) for i in splits["train"]["row_id"].to_pylist()]
    again = texts(freeze_splits(task, "holdout", None))
    assert again == found, "drawn once, by the seed of the rows"
    assert texts(freeze_splits(own_task(files(tmp_path), train=30, selection=12, seed=1), "holdout", None)) != found


def repeated(folder: Path, rows: int, different: int) -> Path:
    """A table in which texts repeat, in pairs with what is new in each row."""
    path = folder / "repeated.parquet"
    columns = {"text": [f"text {i % different}" for i in range(rows)], "other": ["ab"[i % 2] for i in range(rows)]}
    pyarrow.parquet.write_table(pa.table(columns | {"label": [("neg", "pos")[i % 2] for i in range(rows)]}), path)
    return path


@pytest.mark.parametrize("protocol", ["holdout", "paper"])
def test_equal_texts_of_a_file_come_into_one_split(protocol: Any, tmp_path: Path) -> None:
    """A text that trains would be answered from memory in the rows that select or report."""
    task = own_task(FileSource(train=repeated(tmp_path, 300, 100)))
    splits = freeze_splits(task, protocol, None)
    found = texts(splits)
    assert not found["train"] & (found["selection"] | found["held_out"])
    assert protocol == "paper" or not found["selection"] & found["held_out"]
    sizes = {"train": 216, "selection": 24, "held_out": 60} if protocol == "holdout" else None
    assert sizes is None or {name: len(table) for name, table in splits.items()} == sizes
    rows = [row for name in {"train", "held_out", *(["selection"] if protocol == "holdout" else [])}
            for row in splits[name]["row_id"].to_pylist()]  # fmt: skip
    assert sorted(rows) == list(range(300)), "each row has one use"


def test_a_pair_is_equal_where_both_texts_are(tmp_path: Path) -> None:
    task = replace(own_task(FileSource(train=repeated(tmp_path, 300, 75))), text=("text", "other"))
    splits = freeze_splits(task, "holdout", None)
    pairs = {n: set(zip(t["text"].to_pylist(), t["other"].to_pylist(), strict=True)) for n, t in splits.items()}
    assert sum(map(len, pairs.values())) == 150
    assert texts(splits)["train"] & texts(splits)["held_out"], "one text of a pair may be in both"


def test_texts_that_repeat_too_often_to_be_drawn(tmp_path: Path) -> None:
    source = FileSource(train=repeated(tmp_path, 300, 3))
    with pytest.raises(
        DataError, match=r"own: rows with equal .* more often than the 60 times .* raise tasks\.own\.ro"
    ):
        freeze_splits(own_task(source), "holdout", None)
    assert len(freeze_splits(own_task(source, report=100, selection=100), "holdout", None)["train"]) == 100


def test_what_trains_does_not_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = files(tmp_path)
    (tmp_path / "link.parquet").symlink_to(source.train)
    for again in (source.train, tmp_path / "link.parquet"):
        with pytest.raises(
            ParamsError, match=r"report\.test: .*parquet' is what trains; name other rows, or take report"
        ):
            own_task(FileSource(train=source.train, report={"test": again}))
    with pytest.raises(
        ParamsError, match=r"tasks\.own\.source\.report\.held: 'train' is what trains; name other rows$"
    ):
        own_task(HubSource(hub="a/b", report={"held": "train"}))
    freeze_splits(own_task(source), "holdout", None)
    assert "beware" not in capsys.readouterr().out
    shutil.copy(source.train, source.report["test"])
    freeze_splits(own_task(source), "holdout", None)
    said = "tasks.own.source.report.test: beware, 54 of 60 rows have a text that is trained on"
    assert said in capsys.readouterr().out


def test_the_papers_protocol_selects_on_what_it_reports(tmp_path: Path) -> None:
    found = texts(freeze_splits(own_task(files(tmp_path)), "paper", None))
    assert found["selection"] == found["test"]
    assert len(found["train"]) == 60


# Tokens


def test_tokens_are_stored_once_and_padded_to_the_longest_of_a_batch(tmp_path: Path) -> None:
    task = resolve_task("demo-pairs", TaskSettings(rows=Rows(train=50, selection=10, report=10)))
    manifest = prepared(task, BACKBONES["demo-albert"], mirror=None, folder=tmp_path / "pairs")
    store = TokenStore.open(tmp_path / "pairs/demo-albert/train.arrow")
    assert len(store) == 50 == manifest.splits["train"].rows
    assert manifest.inputs["demo-albert"].tokens["train"].max == store.lengths.max()
    rows = np.array([3, 17, 40])
    batch = store.batch(rows, "cpu")
    longest = store.lengths[rows].max()
    assert batch["input_ids"].shape == (3, longest)
    for i, row in enumerate(rows):
        span = slice(store.offsets[row], store.offsets[row + 1])
        kept = slice(None, store.lengths[row])
        assert batch["input_ids"][i, kept].tolist() == store.ids[span].tolist()
        assert batch["token_type_ids"][i, kept].tolist() == store.types[span].tolist()
        assert batch["keep"][i].tolist() == [j < store.lengths[row] for j in range(longest)]
    assert set(store.types.tolist()) == {0, 1}
    same = np.flatnonzero(store.lengths == store.lengths[0])[:2]
    assert "keep" not in store.batch(same, "cpu"), "nothing padded, no mask"


@pytest.mark.parametrize("text", [("text",), ("text", "other")])
def test_tokens_made_in_parts_are_those_of_one_call(
    text: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call for all rows would hold the tokenizer's notes on every one: 20 KB for a row of a hundred tokens."""
    task = replace(own_task(FileSource(train=repeated(tmp_path, 30, 30))), text=text)
    whole = prepared(task, BACKBONES["demo-albert"], folder=tmp_path / "whole")
    monkeypatch.setattr("pipeline.tasks.text.tokenize.AT_ONCE", 7)
    assert prepared(task, BACKBONES["demo-albert"], folder=tmp_path / "parts").inputs == whole.inputs
    stores = [TokenStore.open(tmp_path / folder / "demo-albert/train.arrow") for folder in ("whole", "parts")]
    assert stores[0].ids.tolist() == stores[1].ids.tolist()
    assert stores[0].offsets.tolist() == stores[1].offsets.tolist()


def test_inputs_are_no_longer_than_the_backbone_takes(tmp_path: Path, mirror: Path) -> None:
    from transformers import RobertaConfig

    model = mirror / "models/someone/tiny"

    def refused(backbone: str, length: int) -> str | None:
        task = resolve_task("demo-pairs", TaskSettings(rows=Rows(train=9, selection=3, report=3), max_length=length))
        specs = {**BACKBONES, "tiny": resolve_backbone("tiny", BackboneSettings(hub="someone/tiny"))}
        try:
            prepared(task, specs[backbone], mirror=mirror, folder=tmp_path / "out")
        except ParamsError as error:
            return str(error)
        return None

    assert refused("demo-albert", 128) is None
    assert refused("demo-albert", 129) == (
        "tasks.demo-pairs.max_length: 129 tokens are more than backbones.demo-albert takes (128); lower it to 128, or "
        "take another backbone"
    )
    assert refused("tiny", 512) is None
    assert "max_length: 513 tokens are more than backbones.tiny takes (512);" in str(refused("tiny", 513))
    RobertaConfig(vocab_size=60, hidden_size=12, max_position_embeddings=40).save_pretrained(model)
    assert refused("tiny", 38) is None
    assert "max_length: 39 tokens are more than backbones.tiny takes (38);" in str(refused("tiny", 39))
    (model / "config.json").write_text("{")
    with pytest.raises(
        DataError, match=r"backbones\.tiny: no (tokenizer|configuration) for 'someone/tiny' \(.*HUB_MIRR"
    ):
        refused("tiny", 38)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "Albert", "DistilBert"])
def test_a_model_without_tokenizer_files(family: str, tmp_path: Path) -> None:
    import transformers

    model = tmp_path / "models/someone/bare"
    getattr(transformers, f"{family}Config")().save_pretrained(model)
    backbone = resolve_backbone("bare", BackboneSettings(hub="someone/bare"))
    with pytest.raises(
        DataError, match=r"^backbones\.bare: no tokenizer for 'someone/bare' \(.+\); check .*HUB_M"
    ) as error:
        prepared(TASKS["demo-sentences"], backbone, mirror=tmp_path, folder=tmp_path / "out")
    assert "\n" not in str(error.value)


def test_a_model_whose_tokenizer_is_slow(tmp_path: Path) -> None:
    from transformers import BertConfig, CanineTokenizer

    model = tmp_path / "models/someone/slow"
    BertConfig().save_pretrained(model)
    CanineTokenizer().save_pretrained(model)
    backbone = resolve_backbone("slow", BackboneSettings(hub="someone/slow"))
    with pytest.raises(
        DataError, match=r"^backbones\.slow: 'someone/slow' has a CanineTokenizer only, .*; take a model"
    ):
        prepared(TASKS["demo-sentences"], backbone, mirror=tmp_path, folder=tmp_path / "out")


def test_each_row_is_once_in_an_epoch(tmp_path: Path) -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 137)
    for batches in (list(bucketed(lengths, 8, np.random.default_rng(1))), list(by_length(lengths, 8))):
        assert sorted(np.concatenate(batches).tolist()) == list(range(137))
        assert max(len(rows) for rows in batches) == 8
    spread = [np.ptp(lengths[rows]) for rows in bucketed(lengths, 8, np.random.default_rng(1))]
    assert np.mean(spread) < 10, "batches of like length"


# Known tasks


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if isinstance(task.source, HubSource)])
def test_known_tasks_read_the_columns_of_their_hub_data_set(name: str, tmp_path: Path) -> None:
    """From a mirror that has the columns and splits that the hub's data set has; rows without a label are left out."""
    task = TASKS[name]
    source = task.source
    assert isinstance(source, HubSource)
    folder = tmp_path / "datasets" / source.hub / (source.config or "default")
    folder.mkdir(parents=True)
    labels: list[Any] = [i % max(task.outputs, 2) for i in range(24)]
    if task.kind == "regression":
        labels = [1.0 + label for label in labels]
    if task.drop_label is not None:
        labels[3:6] = [task.drop_label] * 3
    table = pa.table({column: [f"{column} {i}" for i in range(24)] for column in task.text} | {task.label: labels})
    if task.kind == "classification":
        table = with_classes(table, *(task.source_names or task.label_names), column=task.label)
    for split in (source.train, *source.report.values()):
        pyarrow.parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    every = (source.train, *source.report.values())
    files = [{"split": split, "path": f"{folder.name}/{split}-*"} for split in every]
    configs = [{"config_name": folder.name, "data_files": files}]
    (folder.parent / "README.md").write_text("---\n" + yaml.safe_dump({"configs": configs}) + "---\n")
    splits = freeze_splits(resolve_task(name, TaskSettings(rows=Rows(selection=6))), "holdout", tmp_path)
    rows = 24 if task.drop_label is None else 21
    assert {split: len(part) for split, part in splits.items()} == {
        "train": rows - 6,
        "selection": 6,
        **dict.fromkeys(source.report, rows),
    }
    assert splits["train"].column_names == [*task.text, "label", "row_id"]
