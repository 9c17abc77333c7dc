"""A user's files: every row of the file is a row of the table, as written, or one line says where it cannot be."""

import csv
import gzip
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.tasks.files import read_file
from pipeline.tasks.sources import load_splits
from pipeline.tasks.task import FileSource, Task

COLUMNS = ("text", "label")


def texts_of(path: Path, content: str | bytes, quoted: bool | None = None) -> list[Any]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    texts: list[Any] = read_file(path, COLUMNS, quoted)["text"].to_pylist()
    return texts


def refused(path: Path, content: str | bytes, quoted: bool | None = None) -> str:
    with pytest.raises(DataError) as error:
        texts_of(path, content, quoted)
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 500
    assert line.startswith(str(path))
    return line.removeprefix(str(path))


# Rows


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        (["text", "good", "", "bad", "fine"], ["good", "", "bad", "fine"]),
        (["text", "", "", "bad"], ["", "", "bad"]),
        (["text", "good", ""], ["good", ""]),  # as a program writes an empty last text
        (["text", "good", " "], ["good", " "]),
        (["text,label", "good,1", ",0", "bad,"], ["good", "", "bad"]),
        (["text,label", "good,1", "bad,0", "", ""], ["good", "bad"]),  # no row stands behind these lines
        (["\ufefftext,label", "good,1"], ["good"]),
    ],
)
def test_a_blank_line_is_a_row_of_one_column(
    lines: list[str], texts: list[str], kind: str, end: str, tmp_path: Path
) -> None:
    content = "".join(line.replace(",", "\t") if kind == "tsv" else line for line in (f"{line}{end}" for line in lines))
    assert texts_of(tmp_path / f"rows.{kind}", content) == texts
    if texts[-1].strip():
        assert texts_of(tmp_path / f"rows.{kind}", content.rstrip(end)) == texts, "without a line break at the end"


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("rows.csv", "text,label\ngood,1\n\nbad,0\n", ", line 3: blank, before other rows; delete the line, or write"),
        ("rows.tsv", "text\tlabel\ngood\t1\n\n\nbad\t0\n", ", line 3: blank, before other rows"),
        ("rows.jsonl", '{"text": "good"}\n\n{"text": "bad"}\n', ", line 2: blank, before other rows"),
        ("rows.csv", "text,label\ngood,1\nbad\n", ", line 3: 1 field, and the header has 2; mend the line"),
        ("rows.csv", "text,label\ngood,1\nbad, very,0\n", ", line 3: 3 fields, and the header has 2"),
        ("rows.tsv", "text\tlabel\ngood\tfine\t1\n", ", line 2: 3 fields, and the header has 2"),
        ("rows.csv", "\ntext,label\ngood,1\n", ", line 1: blank; begin the file with the names of its columns"),
        ("rows.csv", "text,label\n", ": no rows below the header; give a file with rows"),
        ("rows.csv", "text,label", ": no rows below the header"),
        ("rows.jsonl", "\n\n", ": no rows; give a file with rows"),
        ("rows.csv", "", ": the file is empty"),
        ("rows.jsonl", '{"text": "good"}\ngarbage\n', ", line 2: no JSON (Expecting value); write one object"),
        ("rows.jsonl", '[{"text": "good"}]\n', ", line 1: no JSON object; write one object on each line"),
        ("rows.jsonl", '{\n"text": "good"\n}\n', ", line 1: no JSON (Expecting property name"),
        ("rows.jsonl", "[" * 100_000, ", line 1: no JSON (maximum recursion"),
        ("rows.jsonl", '{"text": "a", "text": "b"}\n', ", line 1: no JSON (the key 'text' stands twice)"),
        ("rows.jsonl", '{"text": "a", "label": NaN}\n', ", line 1: 'label' holds nan, neither text nor a number"),
        ("rows.jsonl", '{"text": ["a"]}\n', ", line 1: 'text' holds a list"),
        ("rows.jsonl", '{"text": "a"}\n{"text": {"b": 1}}\n', ", line 2: 'text' holds an object"),
    ],
)
def test_a_line_that_is_no_row(file: str, content: str, says: str, tmp_path: Path) -> None:
    assert says in refused(tmp_path / file, content)


def test_rows_beyond_a_readers_block(tmp_path: Path) -> None:
    """Longer than Arrow's block of 1 MiB and than the limit of Python's csv."""
    long = "good film, " * 200_000
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": t, "label": 1}) + "\n" for t in (long, "bad")))
    assert read_file(tmp_path / "rows.jsonl", COLUMNS)["text"].to_pylist() == [long, "bad"]
    assert texts_of(tmp_path / "rows.csv", f'text,label\n"{long}",1\nbad,0\n') == [long, "bad"]
    assert texts_of(tmp_path / "rows.tsv", f"text\tlabel\n{long}\t1\nbad\t0\n") == [long, "bad"]


@pytest.mark.parametrize(
    ("content", "rows", "said"),
    [
        ("text;label\na film, and good;1\nbad;0\n", ["a film, and good", "bad"], "semicolons"),
        ('"text";"label"\r\n"a film; and good";1\r\nbad;0\r\n', ["a film; and good", "bad"], "semicolons"),
        ('text;label\n"a film\nand ""good""";1\nbad;0\n', ['a film\nand "good"', "bad"], "semicolons"),
        ("text\tlabel\na film, and good\t1\nbad; so bad\t0\n", ["a film, and good", "bad; so bad"], "tabs"),
        ("text\tlabel\tone;two\na film\t1\tx\nbad\t0\ty\n", ["a film", "bad"], "tabs"),
        ("text,label\na film; and good,1\n", ["a film; and good"], ""),
        ("text,one;two;three\na film,x\n", ["a film"], ""),
        ('text,"one;two",label\na film,x,1\n', ["a film"], ""),
        ("text\na film; and good\nbad\n", ["a film; and good", "bad"], ""),
    ],
)
def test_what_separates_fields_is_seen_in_the_header(
    content: str, rows: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert texts_of(tmp_path / "rows.csv", content) == rows
    line = f"{tmp_path / 'rows.csv'}: fields are separated by {said}\n" if said else ""
    assert capsys.readouterr().out == line


def test_a_line_that_is_no_row_where_semicolons_separate(tmp_path: Path) -> None:
    assert ", line 3: 3 fields, and the header has 2" in refused(tmp_path / "rows.csv", "text;label\na;1\nb;c;0\n")
    plain = texts_of(tmp_path / "rows.csv", 'text;label\n"a;1\nb;0\n', quoted=False)
    assert plain == ['"a', "b"]


# Quotes


def of_30(changed: dict[int, str]) -> str:
    return "label,text\n" + "".join(f"{changed.get(i, f'{i % 2},film {i}')}\n" for i in range(30))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (of_30({20: '1,"film 20'}), ", line 22: a quote is never closed; close it"),
        (of_30({20: '1,"film 20', 29: '1,"the last"'}), ", line 22: a quote closes on line 31 and text follows it"),
        (of_30({4: '0,"film, 4', 7: '1,the "film" 7'}), ", line 6: a quote closes on line 9 and text follows it"),
        (of_30({4: '0,"film" 4'}), ", line 6: a quote closes and text follows it; close it and double the quotes"),
        (of_30({4: '0,"film 4', 7: '1,ends here"'}), ", line 6: the quotes may enclose a field of several lines, or"),
        ('text\n"a film.\nIt is good."\n', ", line 2: the quotes may enclose a field of several lines"),
    ],
)
def test_a_quote_that_swallows_rows(content: str, says: str, tmp_path: Path) -> None:
    """Arrow's reader made 21 rows of the first file's 30."""
    line = refused(tmp_path / "rows.csv", content)
    assert says in line
    assert "quoted: false" in line
    if "film, 4" not in content:
        rows = [re.sub("^[01],", "", row) for row in content.splitlines()[1:]]
        assert texts_of(tmp_path / "rows.csv", content, quoted=False) == rows


def test_the_setting_decides(tmp_path: Path) -> None:
    for kind, mark in (("csv", ","), ("tsv", "\t")):
        content = f'text{mark}label\n"good"{mark}1\n"a{mark}0\nb"{mark}1\n'
        assert texts_of(tmp_path / f"rows.{kind}", content, quoted=True) == ["good", f"a{mark}0\nb"]
        assert texts_of(tmp_path / f"rows.{kind}", content, quoted=False) == ['"good"', '"a', 'b"']
    line = refused(tmp_path / "rows.tsv", 'text\tlabel\n"two\nlines"\t1\n', quoted=False)
    assert ", line 2: 1 field, and the header has 2; mend the line, or set quoted: true in the source" in line


def read_as_task(path: Path, content: str, names: tuple[str, ...] = ("neg", "pos")) -> list[tuple[str, str]]:
    path.write_bytes(content.encode())
    held = shutil.copy(path, path.with_name(f"held{path.suffix}"))
    source = FileSource(train=path, report={"held": held})
    task = Task("own", source, "classification", ("text",), "label", names, ("accuracy",))
    table = load_splits(task, None)["train"]
    return list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))


BY_LABEL = {
    # A comma in each further line: every line could be a row, but "so they say" is no label.
    "rows.csv": (
        'label,text\npos,"a film\nso they say, good"\nneg,bad\n',
        [("a film\nso they say, good", "pos"), ("bad", "neg")],
    ),
    # Quotes around what has a comma and around labels.
    "rows.tsv": ('text\tlabel\n"good, very"\t"pos"\nbad\t"neg"\n', [("good, very", "pos"), ("bad", "neg")]),
}


@pytest.mark.parametrize("file", BY_LABEL)
def test_labels_settle_a_doubt(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, rows = BY_LABEL[file]
    assert read_as_task(tmp_path / file, content) == rows
    assert "quotes enclose fields; for plain characters set quoted: false" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "content"),
    [
        # One of the swallowed rows has a label: a forgotten quote.
        ("rows.csv", 'label,text\npos,"a film\nneg, bad\nso they say, good"\nneg,bad\n'),
        # A row has no label, whichever way.
        ("rows.csv", 'label,text\npos,"a film\nso they say, good"\nneither,bad\n'),
        # Labels are the same both ways.
        ("rows.tsv", 'text\tlabel\n"good, very"\tpos\nbad\tneg\n'),
    ],
)
def test_a_doubt_that_labels_do_not_settle(file: str, content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="set quoted: true or quoted: false in the source"):
        read_as_task(tmp_path / file, content)


def test_the_setting_needs_a_file_with_delimiters() -> None:
    about = {"train": "a.jsonl", "report": {"held": "b.parquet"}}
    with pytest.raises(ValueError, match=r"no file of the source is \.csv or \.tsv; take it out"):
        FileSource.model_validate({**about, "quoted": True})
    assert FileSource.model_validate({**about, "test": {"new": "c.TSV"}, "quoted": False}).quoted is False
    with pytest.raises(ValueError, match="valid boolean"):
        FileSource.model_validate({"train": "a.csv", "report": {"held": "b.csv"}, "quoted": "no"})


TSV: dict[str, tuple[str, list[str] | None, str]] = {
    # GLUE's files: quotes are characters of the sentences, balanced or not.
    "a quote that is not closed": ('"It is good .\t1\nbad\t0\n', ['"It is good .', "bad"], "plain"),
    "a speech over two rows": ('"It is good .\t1\nSo they say . "\t0\n', ['"It is good .', 'So they say . "'], "plain"),
    "a quoted word": ('"Fine" , they say\t1\nbad\t0\n', ['"Fine" , they say', "bad"], "plain"),
    "one sentence in quotes": ('"Fine ."\t1\nbad, very\t0\n', ['"Fine ."', "bad, very"], "plain"),
    "quotes inside": ('the "fine" film\t1\n"bad"\t0\n', ['the "fine" film', '"bad"'], "plain"),
    # As spreadsheets and pandas write them.
    "line breaks": ('"two\nlines"\t1\nbad\t0\n', ["two\nlines", "bad"], "enclose"),
    "line breaks of Windows": ('"two\r\nlines"\t1\r\nbad\t0\r\n', ["two\r\nlines", "bad"], "enclose"),
    "line breaks in the last field": ("", ["two\nlines"], "enclose"),
    "tabs": ('"two\twords"\t1\nbad\t0\n', ["two\twords", "bad"], "enclose"),
    "doubled quotes": ('"the ""fine"" film"\t1\nbad\t0\n', ['the "fine" film', "bad"], "enclose"),
    "all texts": ('"good"\t1\n"bad"\t0\n', ["good", "bad"], "enclose"),
    "no quotes": ("good\t1\nbad\t0\n", ["good", "bad"], ""),
    # Neither is sure.
    "only what has a comma": ('"good, very"\t1\nbad\t0\n', None, "quotes may enclose fields or be plain characters"),
    "most texts": ('"good"\t1\n"bad"\t0\nNA\t0\n', None, "quotes may enclose fields or be plain characters"),
    # Both fail.
    "a quote in a short row": ('"two\nlines\t1\n', None, "line 2: 1 field, and the header has 2; with quotes that"),
}


@pytest.mark.parametrize("case", TSV)
def test_quotes_of_a_tsv(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, texts, says = TSV[case]
    content = f"text\tlabel\n{rows}" if rows else 'label\ttext\n1\t"two\nlines"\n'
    if texts is None:
        assert says in refused(tmp_path / "rows.tsv", content)
        return
    assert texts_of(tmp_path / "rows.tsv", content) == texts
    printed = capsys.readouterr().out
    assert printed.count("\n") == bool(says)
    assert says in printed
    assert not says or f"set quoted: {str(says == 'plain').lower()} in the source" in printed


def test_quotes_of_a_tsv_of_one_column_or_with_a_quoted_header(tmp_path: Path) -> None:
    assert texts_of(tmp_path / "rows.tsv", '"text"\t"label"\n"good"\t"1"\n"bad"\t"0"\n') == ["good", "bad"]
    assert texts_of(tmp_path / "rows.tsv", 'text\n"good\n') == ['"good']
    assert ", line 2: the quotes may enclose" in refused(tmp_path / "rows.tsv", 'text\n"two\nlines"\n')


def attempt(path: Path) -> int | str:
    """Number of rows, or why the file is refused."""
    try:
        return read_file(path, COLUMNS).num_rows
    except DataError as error:
        return str(error)


# Without \r, which Python 3.11's writer leaves bare.
FIELD = st.text(alphabet="ab\"',\t\n \ufeffé", max_size=6)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=6),
    kind=st.sampled_from(["csv", "tsv"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_writer_of_csv_wrote(
    rows: list[tuple[str, str]], kind: str, quoting: int, end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = io.StringIO()
    mark = "," if kind == "csv" else "\t"
    csv.writer(out, delimiter=mark, quoting=quoting, lineterminator=end).writerows([COLUMNS, *rows])  # type: ignore[arg-type]
    path = tmp_path_factory.mktemp("written") / f"rows.{kind}"
    path.write_bytes(out.getvalue().encode())
    assert read_file(path, COLUMNS, quoted=True).to_pylist() == [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    if kind == "csv":  # without the setting, the same or refused
        found = attempt(path)
        assert found == len(rows) or "set quoted: true or quoted: false" in str(found)


LINE = st.text(alphabet="ab\"', é", max_size=6)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.tuples(LINE, LINE), min_size=1, max_size=6))
def test_what_glue_wrote(rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("plain") / "rows.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in [COLUMNS, *rows]), encoding="utf-8")
    wanted = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    assert read_file(path, COLUMNS, quoted=False).to_pylist() == wanted


# Columns and contents


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("rows.jsonl", b'{"text": "good", "label": 1, "id": 7}\n{"text": "bad", "label": 0, "id": "x8"}\n'),
        ("rows.jsonl", b'{"text": "good", "label": 1, "id": NaN}\n{"text": "bad", "label": 0, "id": [{}]}\n'),
        ("rows.jsonl", b'{"text": "good", "label": 1, "id": "caf\xe9"}\n{"text": "bad", "label": 0}\n'),
        ("rows.csv", b"text,label,id\ngood,1,caf\xe9\nbad,0,8\n"),
        ("rows.csv", b"text,id,label,id\ngood,7,1,8\nbad,x,0,y\n"),
    ],
)
def test_a_column_that_nobody_reads_does_not_matter(file: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(content)
    table = read_file(tmp_path / file, COLUMNS)
    assert table.select(COLUMNS).to_pydict() == {"text": ["good", "bad"], "label": ["1", "0"]}
    assert table["id"].null_count == 2 if table.column_names.count("id") == 1 else True


def test_columns_of_a_parquet_that_nobody_reads(tmp_path: Path) -> None:
    table = pa.table([["good"], [1], [b"\xff"], [2], [3]], names=["text", "label", "id", "twice", "twice"])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    read = read_file(tmp_path / "rows.parquet", COLUMNS)
    assert read.column_names == table.column_names
    assert read.select([0, 1]).to_pydict() == {"text": ["good"], "label": [1]}
    assert read["id"].null_count == 1


def test_values_of_a_jsonl_come_as_written(tmp_path: Path) -> None:
    rows = '{"text": 1.50, "label": true}\n{"text": null}\n{"label": "1", "text": "2020-01-01"}\n'
    assert texts_of(tmp_path / "rows.jsonl", rows) == ["1.50", None, "2020-01-01"]
    assert read_file(tmp_path / "rows.jsonl", COLUMNS)["label"].to_pylist() == ["true", None, "1"]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("rows.csv", "text,label\ngood,1\n".encode("utf-16"), ": it is UTF-16; save it as UTF-8"),
        ("rows.tsv", "text\tlabel\ngood\t1\n".encode("utf-16-le"), ": it is no text in UTF-8; save it as UTF-8"),
        ("rows.jsonl", '{"text": "a"}\n'.encode("utf-16-be"), ": it is no text in UTF-8; save it as UTF-8"),
        ("rows.csv", gzip.compress(b"text,label\ngood,1\n"), ": it is compressed (gzip); unpack it"),
        (
            "rows.csv.gz",
            gzip.compress(b"text,label\ngood,1\n"),
            "'.gz'; give one of .csv, .tsv, .jsonl, .parquet (unpack",
        ),
        ("rows.csv", b"PK\x03\x04 and so on", ": it is a zip archive or a spreadsheet; export the sheet as CSV"),
        ("rows.csv", b"PAR1 and so on", ": it is a Parquet file; name it .parquet"),
        ("rows.jsonl", b'{"text": "caf\xe9 0"}\n', ": column 'text' is not UTF-8 (row 0); save the file as UTF-8"),
        ("rows.jsonl", b'{"text": "a"}\n{"text": "\\ud83d"}\n', ": column 'text' is not UTF-8 (row 1); save"),
        ("rows.jsonl", b'{"text": "a", "caf\xe9": 1}\n', ": its column names are not UTF-8; save the file as UTF-8"),
    ],
)
def test_files_that_are_something_else(file: str, content: bytes, says: str, tmp_path: Path) -> None:
    assert says in refused(tmp_path / file, content)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.csv")  # to open it would wait for ever
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    for name, says in {
        "rows.csv": "no ordinary file",
        "none.csv": "no such file",
        "loop.csv": "no such file",
        "x" * 300 + ".csv": "unreadable as csv (File name too long)",
        "": "unknown file type ''",
    }.items():
        with pytest.raises(DataError, match=re.escape(says)):
            read_file(tmp_path / name, COLUMNS)


def test_the_ends_of_names_may_be_capitals(tmp_path: Path) -> None:
    assert texts_of(tmp_path / "rows.CSV", "text,label\ngood,1\n") == ["good"]
