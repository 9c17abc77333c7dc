"""Every stored file: read back equal, and refused in one line when a field is gone, wrong or of another schema."""

import copy
import json
import math
import shutil
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import pytest
from pydantic import JsonValue, ValidationError

from pipeline import results
from pipeline.errors import ArtifactError, ParamsError
from pipeline.evaluation.criteria import CRITERIA, make
from pipeline.evaluation.point import criterion_of, point_of, sweep_at
from pipeline.evaluation.sweep import NEVER, sweep
from pipeline.evaluation.trace import Trace
from pipeline.layout import HERE, Workspace
from pipeline.results import (
    ALL_LAYERS,
    FILES,
    CurvePoint,
    Evaluated,
    Latency,
    LatencyRow,
    Measured,
    OperatingPoint,
    OverSeeds,
    Part,
    Result,
    Roof,
    curves_text,
    read_curves,
)
from tests.stored_files import write_every
from tests.test_choosing import made_up_trace
from tools.fuzz.outcome import Tally
from tools.fuzz.stored import fuzz_json, fuzz_table
from tools.schema_page import place

REMEDY = "run the stage that makes it"
Edit = Callable[[Any], Any]
"""Changes a payload in place."""


def inner(annotation: Any) -> Any:
    """The type itself, without its range, and where None is allowed beside it."""
    if get_origin(annotation) is Annotated:
        return inner(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        (kept,) = [argument for argument in get_args(annotation) if argument is not type(None)]
        return inner(kept)
    return annotation


def wrong(annotation: Any) -> list[Any]:
    """Values of other types, by hand: nothing here asks the classes what they take."""
    kept = inner(annotation)
    if kept is JsonValue:
        return []
    by_type: dict[Any, list[Any]] = {
        str: [17, ["name"]],
        int: ["3", 1.5, True],
        float: ["0.25", True, [0.25]],
        bool: [1, "true"],
        tuple: ["?", {"0": 1}, 3],
        dict: ["?", [], 3],
        Literal: ["?", 17],
    }
    values = by_type.get(get_origin(kept) or kept, ["?", 3, []])
    optional = get_origin(annotation) in (Union, types.UnionType)
    return values if optional else [*values, None]


Place = tuple[str | int, ...]


def fields_of(annotation: Any, value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Place and type of every field of every part within a value of JSON, of lists and mappings of the last entry."""
    kept = inner(annotation)
    origin, arguments = get_origin(kept), get_args(kept)
    if value is None:
        return
    if isinstance(kept, type) and issubclass(kept, Part):
        for name, field in kept.model_fields.items():
            yield (*place, name), field.annotation
            yield from fields_of(field.annotation, value[name], (*place, name))
    elif origin is tuple and value:
        yield from fields_of(arguments[0], value[-1], (*place, len(value) - 1))
    elif origin is dict and kept is not JsonValue:
        for name in list(value)[-1:]:
            yield from fields_of(arguments[1], value[name], (*place, name))


def edited(payload: Any, place: Place, value: Any = None, *, gone: bool = False) -> Any:
    out = copy.deepcopy(payload)
    holder = out
    for step in place[:-1]:
        holder = holder[step]
    if gone:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return out


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[type[Result], Path]:
    """One file of every class, as the stages leave it."""
    return write_every(tmp_path_factory.mktemp("stored"))


def refusal(cls: type[Result], path: Path, content: Any) -> str:
    """The one line that ends reading this content in the file's place; it names file and remedy."""
    before = path.read_text(encoding="utf-8")
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    try:
        with pytest.raises(ArtifactError) as error:
            cls.read(path, REMEDY)
    finally:
        path.write_text(before, encoding="utf-8")
    line = str(error.value)
    assert line.startswith(f"{path}: ")
    assert line.endswith(f"; {REMEDY}")
    assert "\n" not in line
    return line


FILE = pytest.mark.parametrize("cls", FILES, ids=lambda cls: cls.__name__)


@FILE
def test_a_file_is_read_back_equal(cls: type[Result], files: dict[type[Result], Path], tmp_path: Path) -> None:
    result = cls.read(files[cls], REMEDY)
    path = tmp_path / "sst2/file.json"
    assert result.write(path) == path
    assert cls.read(path, REMEDY) == result
    assert path.read_text(encoding="utf-8") == result.text() == files[cls].read_text(encoding="utf-8")
    payload = json.loads(result.text())
    assert payload["schema"] == cls.schema_version
    assert list(payload) == sorted(payload)
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


@FILE
def test_every_field_that_is_gone_or_wrong_is_refused_by_its_name(
    cls: type[Result], files: dict[type[Result], Path]
) -> None:
    path = files[cls]
    payload = json.loads(path.read_text(encoding="utf-8"))
    places = list(fields_of(cls, payload))
    assert {place[0] for place, _ in places} == set(payload) - {"schema"}
    for where, annotation in places:
        dotted = ".".join(map(str, where))
        assert f": {dotted}: field required; " in refusal(cls, path, edited(payload, where, gone=True))
        for value in wrong(annotation):
            assert f": {dotted}" in refusal(cls, path, edited(payload, where, value)), value
    assert ": unheard_of: extra inputs" in refusal(cls, path, payload | {"unheard_of": 1})


def test_an_attack_of_before_is_migrated(files: dict[type[Result], Path], tmp_path: Path) -> None:
    """Version 4 knew no adaptive attack, nor another engine than PyTorch."""
    path = files[results.Attack]
    payload = json.loads(path.read_text(encoding="utf-8")) | {"schema": 4}
    rows = [row for attacked in payload["attacked"] for row in attacked["rows"]]
    assert rows
    for row in rows:
        del row["scores"]
    for attacked in payload["attacked"]:
        del attacked["engine"]
    older = tmp_path / path.parent.name / path.name
    older.parent.mkdir()
    older.write_text(json.dumps(payload), encoding="utf-8")
    assert results.Attack.read(older, REMEDY) == results.Attack.read(path, REMEDY)
    for content in ({"schema": 4}, {"schema": 4, "attacked": 3}, {"schema": 4, "attacked": [{"rows": ["x"]}]}):
        assert "no content of schema 4" in refusal(results.Attack, path, content)


@FILE
def test_another_schema_and_what_is_no_file_of_ours(cls: type[Result], files: dict[type[Result], Path]) -> None:
    path = files[cls]
    whole = path.read_text(encoding="utf-8")
    payload = json.loads(whole)
    for schema in (
        min((cls.schema_version, *cls.older)) - 1,
        cls.schema_version + 1,
        str(cls.schema_version),
        True,
        None,
    ):
        line = refusal(cls, path, payload | {"schema": schema})
        assert f"schema {schema!r} is not {cls.schema_version}" in line
    del payload["schema"]
    assert "schema None" in refusal(cls, path, payload)
    for content in ("[]", "3", "null"):
        assert "schema None" in refusal(cls, path, content)
    for content in ("", whole[: len(whole) // 2], "[" * 100_000):
        assert "unreadable or cut short" in refusal(cls, path, content)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ArtifactError, match="unreadable or cut short"):
        cls.read(path, REMEDY)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"no such file; {REMEDY}"):
        cls.read(path, REMEDY)
    path.write_text(whole, encoding="utf-8")


@FILE
def test_a_single_edit_is_taken_or_refused_in_one_line(cls: type[Result], files: dict[type[Result], Path]) -> None:
    path, tally = files[cls], Tally(cls.__name__)
    fuzz_json(path, lambda: cls.read(path, REMEDY), tally, every=3)
    assert tally.findings == []
    assert tally.counts["refused"] > 10


def first(payload: Any, *names: str | int) -> Any:
    for name in names:
        payload = payload[name]
    return payload


def cut(*place: str | int) -> Edit:
    """Take the last entry of a list away."""
    return lambda payload: first(payload, *place).pop()


def put(value: Any, *place: str | int) -> Edit:
    """Put another value somewhere."""

    def edit(payload: Any) -> None:
        first(payload, *place[:-1])[place[-1]] = value

    return edit


def again(*place: str | int) -> Edit:
    """Repeat the first entry of a list at its end."""
    return lambda payload: first(payload, *place).append(copy.deepcopy(first(payload, *place)[0]))


EDITS: list[tuple[type[Result], Edit, str]] = [
    (results.Evaluated, cut("rows", 0, "seeds"), "rows.0: keys has 3 entries for 2 seeds"),
    (results.Evaluated, cut("rows", 0, "points"), "rows.0: points has 2 entries for 3 seeds"),
    (results.Evaluated, put([7, 7, 8], "rows", 0, "seeds"), "rows.0: seeds: 7 is there twice"),
    (results.Evaluated, cut("rows", 0, "score", "values"), "rows.0.score: median"),
    (results.Evaluated, put([None] * 3, "rows", 0, "score", "values"), "rows.0.score: median"),
    (results.Evaluated, put(-0.5, "rows", 0, "score", "low"), "rows.0.score: low -0.5 is not that of values"),
    (results.Evaluated, put(None, "rows", 0, "score", "low"), "rows.0.score: low and high: one end is missing"),
    (results.Evaluated, put({}, "rows", 0, "metrics"), "rows.0: metrics: there is none"),
    (results.Evaluated, put(["f1"], "metrics"), "metrics: 'accuracy' names nothing"),
    (results.Evaluated, put("risk", "rows", 0, "rule"), "rule and risk are not those of choosing"),
    (results.Evaluated, cut("rows"), "diagnosis: ("),
    (results.Evaluated, again("rows"), "is there twice"),
    (results.Evaluated, put("other", "rows", 0, "split"), "rows: ("),
    (results.Evaluated, cut("exits"), "exits: ("),
    (results.Evaluated, put([], "exits"), "exits: ("),
    (results.Evaluated, put(99, "exits", 0, "seed"), "is no model of the rows"),
    (results.Evaluated, cut("exits", 0, "scores"), "exits.0: scores has"),
    (results.Evaluated, put([3, 2], "exits", 0, "layers"), "exits.0: layers: (3, 2) do not ascend"),
    (results.Evaluated, cut("diagnosis"), "diagnosis: ("),
    (results.Evaluated, cut("diagnosis", 3, "agreement"), "diagnosis.3: agreement has 11 entries for 12 exits"),
    (results.Evaluated, cut("diagnosis", 3, "agreement", 0), "diagnosis.3: agreement has 11 entries"),
    (results.Evaluated, cut("diagnosis", 3, "calibration", "error"), "diagnosis.3: calibration has 11 entries"),
    (results.Evaluated, put(9999, "diagnosis", 3, "rows"), "rows leave, of 9999"),
    (results.Evaluated, put([], "diagnosis", 0, "classes"), "diagnosis.0: classes: rows are not 80 in all"),
    (results.Evaluated, put(79, "diagnosis", 0, "classes", 0, "rows"), "diagnosis.0: classes: rows are not 80 in all"),
    (results.Evaluated, put(79, "diagnosis", 0, "classes", 0, "right"), "diagnosis.0.classes.0: right: 79 of"),
    (results.Evaluated, put(None, "diagnosis", 3, "classes"), "some parts are those of a regression and some are not"),
    (
        results.Evaluated,
        put([80, 0], "diagnosis", 3, "criteria", 0, "lost_by_class"),
        "lost_by_class: 80 rows, and lost",
    ),
    (results.Evaluated, put(None, "diagnosis", 3, "criteria", 0, "won_by_class"), "by row and by class, are missing"),
    (results.Evaluated, put([2.0, 1.0], "choosing", "window"), "choosing: window [2.0, 1.0] is empty"),
    (results.Evaluated, put("speedup", "choosing", "rule"), "choosing: target is missing"),
    (results.Evaluated, put("sst3", "task"), "task: 'sst3' is not the task whose file this is"),
    (results.Evaluated, put("two\nlines", "rows", 0, "backbone"), "rows.0.backbone: string should match"),
    (results.Selected, put([], "groups", 0, "trials"), "groups.0: trials: there is none"),
    (results.Selected, again("groups"), "is there twice"),
    (results.Selected, put("x", "groups", 0, "method"), "is not its task, backbone and method"),
    (results.Selected, put([13], "groups", 0, "exits"), "groups.0: exits: 13 is beyond the 12 layers"),
    (results.Selected, again("groups", 0, "trials"), "groups.0: trials: 1 is there twice"),
    (results.Selected, put([], "groups", 0, "grid"), "groups.0: grid: the chosen point (32, 2e-05) is not in it"),
    (results.Selected, put(1, "groups", 0, "grid", 0, "stopped_after"), "groups.0: grid: the chosen point was stopped"),
    (results.Selected, put(1, "groups", 0, "search", "stopped"), "groups.0: search.stopped: 1, and 0 points of the"),
    (results.Trials, put(1, "trials", 0, "stopped_after"), "trials.0: stopped_after 1 of a trial that ran to its end"),
    (results.Trials, again("trials"), "trials: "),
    (results.Trials, put(None, "trials", 0, "best_epoch"), "trials.0: some of train_seconds"),
    (results.TrialResult, put(4, "best_epoch"), "best_epoch 4 of 3 epochs"),
    (results.TraceIndex, cut("traces"), "traces: ("),
    (results.TraceIndex, put("../up", "traces", 0, "file"), "traces.0: file: '../up' is not named by key and split"),
    (results.TraceIndex, cut("unlabelled"), "unlabelled: ("),
    (results.TraceIndex, put(False, "traces", -1, "multi_exit"), "multi_exit differs"),
    (results.Predictions, put("../up.tsv", "files", 0, "file"), "files.0: file: '../up.tsv' lies in another folder"),
    (results.Predictions, put("other", "files", 0, "model"), "files.0: model: 'other' is not backbone, method"),
    (results.Predictions, again("files"), "is there twice"),
    (results.Latency, again("measured", "rows"), "measured: rows: "),
    (results.Latency, put(0.0, "measured", "rows", 0, "own_layer_speedup"), "own_layer_speedup: input should be gr"),
    (results.Latency, put(-1, "measured", "rows", 0, "threads"), "measured.rows.0.threads: input should be greater"),
    (results.Latency, again("measured", "roofs"), "measured: roofs: "),
    (results.Latency, put(7, "measured", "roofs", 0, "threads"), "roofs: ('albert-base', 'joint', 'batch 1', 7) names"),
    (results.Latency, again("measured", "memory"), "measured: memory: "),
    (results.Attack, again("attacked"), "attacked: 'validation' is there twice"),
    (results.Attack, put([], "attacked", 0, "rows"), "attacked.0: rows: there is none"),
    (results.Attack, put(21, "attacked", 0, "examples"), "accuracies are not over 21 examples"),
    (results.Attack, put(None, "attacked", 0, "rows", 1, "against_first"), "against_first does not go with"),
    (results.Attack, put(1.5, "attacked", 0, "rows", 0, "attack_success_rate", "value"), "is above 1"),
    (results.Attack, put(0, "attacked", 0, "rows", 0, "queries", "n"), "queries: value"),
    (results.ShardRecords, put(None, "records", 0, "changed"), "records.0: changed does not go with outcome"),
    (results.ShardRecords, put([], "records", 0, "original"), "records.0: original and changed"),
    (results.ShardRecords, put(None, "point", "criterion"), "point: criterion is missing for a threshold"),
    (results.Simulation, put(99, "theorem", 0, "false_claims"), "theorem.0: claims"),
    (results.Simulation, again("rows"), "rows: (1, 0.5) is there twice"),
    (results.Simulation, cut("example"), "rows and example have other patiences"),
    (results.Simulation, put(13.0, "example", 0, "mean_layers"), "mean_layers exceed the 12 layers"),
    (results.Manifest, put(["gone"], "report_splits"), "'gone' names nothing in splits"),
    (results.Manifest, put([], "report_splits"), "report_splits: there is none"),
    (results.Manifest, put([], "label_names"), "label_names: () do not go with kind 'classification'"),
    (results.Manifest, put("image", "modality"), "does not go with modality 'image'"),
    (results.Manifest, put({}, "inputs", "albert-base", "splits"), "inputs.albert-base.splits: 'selection' is missing"),
]


@pytest.mark.parametrize(("cls", "edit", "said"), EDITS, ids=[f"{c.__name__}-{said[:40]}" for c, _, said in EDITS])
def test_parts_that_do_not_go_together_are_refused(
    cls: type[Result], edit: Edit, said: str, files: dict[type[Result], Path]
) -> None:
    payload = json.loads(files[cls].read_text(encoding="utf-8"))
    edit(payload)
    assert said in refusal(cls, files[cls], payload)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_no_file_holds_what_is_no_number(value: float, files: dict[type[Result], Path]) -> None:
    path = files[Latency]
    payload = json.loads(path.read_text(encoding="utf-8"))
    place = ("measured", "rows", 0, "ms_per_example")
    assert f": {'.'.join(map(str, place))}: " in refusal(Latency, path, edited(payload, place, value))
    with pytest.raises(ValidationError, match="finite number"):
        OverSeeds(median=value)
    with pytest.raises(ValidationError, match="finite number"):
        OperatingPoint(criterion="temperature", fitted={"temperatures": [value]})


def test_a_result_does_not_change(files: dict[type[Result], Path]) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Latency.read(files[Latency], REMEDY).task = "other"


def test_docstrings_say_where_the_files_lie() -> None:
    task, key = "<task>", "<key>"
    places = {
        "Manifest": HERE.manifest(task),
        "TrialResult": HERE.trial(key) / "result.json",
        "TrialCode": HERE.trial(key) / "code.json",
        "CodeEquivalence": Path("pipeline/code-equivalence.json"),
        "Trials": HERE.trials_table,
        "Selected": HERE.selected(task),
        "TraceIndex": HERE.trace_index(task),
        "Evaluated": HERE.evaluated(task),
        "Predictions": HERE.predictions_index(task),
        "Latency": HERE.latency(task),
        "Exports": HERE.exports(task),
        "Exported": HERE.exported(task, "<backbone>", "<method>"),
        "ShardRecords": HERE.shard(task, key),
        "PoolAnswers": HERE.pooled(task, key),
        "Attack": HERE.attack(task),
        "Simulation": HERE.simulation,
        "StoredMetrics": Path("docs/demo-metrics.json"),
        "UnsentRun": HERE.unsent / "<id>.json",
        "UnsentModel": HERE.unsent_model("<content>") / f"{task}.json",
    }
    assert {cls.__name__: Path(place(cls)) for cls in FILES} == places
    assert len(set(places.values())) == len(FILES)


def test_a_workspace_elsewhere_has_the_same_paths_below_its_root() -> None:
    there = Workspace(Path("/somewhere"))
    assert there.evaluated("sst2") == Path("/somewhere") / HERE.evaluated("sst2")


# The table beside evaluate's file


@pytest.fixture
def curves(files: dict[type[Result], Path], tmp_path: Path) -> tuple[Evaluated, Path]:
    """Evaluate's results, and a copy of the curves beside them."""
    copied = tmp_path / "curves.csv"
    shutil.copy(files[Evaluated].with_name("sst2.curves.csv"), copied)
    return Evaluated.read(files[Evaluated], REMEDY), copied


def test_curves_are_read_back_equal(curves: tuple[Evaluated, Path]) -> None:
    evaluated, path = curves
    points = read_curves(path, evaluated, REMEDY)
    assert curves_text(points) == path.read_text(encoding="utf-8")
    assert {point.threshold for point in points} >= {0.0, math.inf}
    changed = [points[0]._replace(score=math.nan), *points[1:]]
    path.write_text(curves_text(changed), encoding="utf-8")
    assert math.isnan(read_curves(path, evaluated, REMEDY)[0].score)


HEAD = ",".join(CurvePoint._fields)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: [], "its columns are not"),
        (lambda lines: ["backbone,method"], "its columns are not backbone, method, criterion"),
        (lambda lines: lines[:1], r"curves: \('albert-base', .*\) is missing"),
        (lambda lines: [line for line in lines if "entropy" not in line], r"curves: .*'entropy'.* is missing"),
        (lambda lines: [*lines, lines[1]], "is there twice"),
        (lambda lines: [*lines, lines[1].replace("joint", "other")], "names nothing"),
        (lambda lines: [HEAD, f"{lines[1]}9", *lines[1:]], r"is there twice"),
        (lambda lines: [HEAD, "b,joint,patience,1,validation,2,0.5,fast,1"], "line 2: 'fast' is not a number"),
        (lambda lines: [HEAD, "b,joint,patience,1"], "line 2: 4 values for 9 columns"),
        (lambda lines: [HEAD, "b,joint,patience,1,validation,2,1.5,1,1"], "line 2: score 1.5 is outside"),
        (lambda lines: [HEAD, "b,joint,patience,1,validation,2,0.5,0,1"], "line 2: speed-ups 0.0 and 1.0 are not"),
        (lambda lines: [HEAD, "b,joint,patience,1,validation,nan,0.5,1,1"], "line 2: threshold nan is no number"),
    ],
    ids=["empty", "columns", "none", "fewer", "again", "unknown", "twice", "number", "short", "score", "speed", "nan"],
)
def test_curves_that_are_not_as_they_were_written(
    change: Callable[[list[str]], list[str]], problem: str, curves: tuple[Evaluated, Path]
) -> None:
    evaluated, path = curves
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=problem) as error:
        read_curves(path, evaluated, REMEDY)
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).endswith(f"; {REMEDY}")


def test_a_single_edit_of_the_curves_is_taken_or_refused(curves: tuple[Evaluated, Path]) -> None:
    evaluated, path = curves
    tally = Tally("stored")
    fuzz_table(path, lambda: read_curves(path, evaluated, REMEDY), tally)
    assert tally.findings == []
    assert tally.counts["refused"] > 100


# The operating point


def traces() -> Iterator[Trace]:
    from dataclasses import replace

    lte = np.random.default_rng(3).random((150, 5)).astype(np.float32)
    for classes in (2, 3):
        yield replace(made_up_trace(150, exits=5, classes=classes, seed=classes), channels={"lte": lte})
    trace = made_up_trace(150, exits=5)
    yield replace(trace, kind="regression", logits=trace.logits[:, :, :1], channels={"lte": lte})


def read_back(point: OperatingPoint, path: Path) -> OperatingPoint:
    """The point as the next stage has it, out of a file."""
    row = LatencyRow(
        backbone="b", method="joint", key="k", point=point, engine="pytorch", precision="float32", score=0.5,
        mode="batch 1", threads=1, examples=1, exits=(1,), ms_per_example=1.0, repeats_ms=(1.0,), p50_ms=1.0,
        p99_ms=1.0,
        measured_speedup=1.0, own_layer_speedup=1.0, own_flop_speedup=1.0,
    )  # fmt: skip
    roof = Roof(backbone="b", method="joint", mode="batch 1", threads=1, shapes=(), rates={}, reached=())
    Latency(
        task=path.stem, measured=Measured(device="cpu", machine="m", node=None, rows=(row,), roofs=(roof,), memory=())
    ).write(path)
    measured = Latency.read(path, REMEDY).measured
    assert measured is not None
    return measured.rows[0].point


@pytest.mark.parametrize("name", CRITERIA)
def test_a_stored_point_decides_as_the_criterion_did(name: str, tmp_path: Path) -> None:
    tried = 0
    for trace in traces():
        criterion = make(name)
        if not criterion.applies_to(trace):
            continue
        fitted = criterion.fit(trace)
        thresholds = criterion.thresholds(trace.exits, trace.classes)
        for threshold in (*thresholds[:: max(1, len(thresholds) // 3)], NEVER):
            point = point_of(fitted, {}, threshold)
            again = read_back(point, tmp_path / "point.json")
            assert again == point
            assert criterion_of(again) == fitted
            assert again.limit == threshold
            before, after = sweep(trace, fitted, np.array([threshold])), sweep_at(trace, again)
            np.testing.assert_array_equal(after.exit_index, before.exit_index)
            np.testing.assert_array_equal(after.predictions, before.predictions)
            tried += 1
    assert tried


def test_settings_that_were_given_are_kept_and_no_others(tmp_path: Path) -> None:
    for settings in ({}, {"tau": 1.5}):
        point = point_of(make("patience", settings), settings, 3.0)
        assert point.settings == settings
        assert criterion_of(read_back(point, tmp_path / "point.json")) == make("patience", settings)


def test_all_layers_is_a_point(tmp_path: Path) -> None:
    assert point_of(None, {}, NEVER) == ALL_LAYERS == read_back(ALL_LAYERS, tmp_path / "point.json")
    assert (criterion_of(ALL_LAYERS), ALL_LAYERS.limit, ALL_LAYERS.name) == (None, math.inf, "full")
    trace = made_up_trace(50)
    np.testing.assert_array_equal(sweep_at(trace, ALL_LAYERS).exit_index[0], trace.exits - 1)


@pytest.mark.parametrize(
    ("point", "problem"),
    [
        ({"criterion": "patiense"}, "unknown criterion 'patiense'; did you mean 'patience'"),
        ({"criterion": "patience", "settings": {"tua": 1.0}}, "unknown setting of patience 'tua'; did you mean 'tau'"),
        ({"criterion": "patience", "fitted": {"tau": [1.0]}}, r"fitted\.tau: 'patience' does not learn that"),
        (
            {"criterion": "temperature", "fitted": {"temperatures": "warm"}},
            r"fitted\.temperatures: 'warm' is not lists",
        ),
        (
            {"criterion": "ensemble", "fitted": {"biases": [], "weights": [[1.0], ["a"]]}},
            r"fitted\.weights: .* is not lists of",
        ),
        ({"criterion": "temperature"}, r"fitted\.temperatures: missing, and 'temperature' learns it"),
        ({"criterion": "temperature", "fitted": {"temperatures": [1.0, -1.0]}}, "are not all above 0"),
        ({"criterion": "temperature", "fitted": {"temperatures": [[1.0]]}}, "are not all above 0"),
    ],
)
def test_a_point_that_no_criterion_has(point: dict[str, Any], problem: str) -> None:
    with pytest.raises((ArtifactError, ParamsError), match=problem) as error:
        criterion_of(OperatingPoint(**point, threshold=1.0))
    assert "\n" not in str(error.value)
