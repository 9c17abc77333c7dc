"""Every stored file: read back equal, and refused in one line when a field is gone, wrong or of another schema."""

import copy
import json
import math
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import pytest
from pydantic import JsonValue, ValidationError

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
    Latency,
    LatencyRow,
    Measured,
    OperatingPoint,
    OverSeeds,
    Part,
    Result,
    curves_text,
    read_curves,
)
from tests.test_choosing import made_up_trace
from tools.schema_page import place

REMEDY = "run the stage that makes it"


def inner(annotation: Any) -> Any:
    """The type itself, where None is allowed beside it."""
    if get_origin(annotation) in (Union, types.UnionType):
        (kept,) = [argument for argument in get_args(annotation) if argument is not type(None)]
        return kept
    return annotation


def sample(annotation: Any, number: int = 0) -> Any:
    """A value of a type, every optional one there; another `number` gives another value."""
    annotation = inner(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is JsonValue:
        return {"any": [1, 0.5, None, "ü", [True]], "number": number}
    if origin is Literal:
        return arguments[number % len(arguments)]
    if origin is tuple:
        count = 2 if arguments[-1] is ... else len(arguments)
        return tuple(sample(arguments[0], number + i) for i in range(count))
    if origin is dict:
        return {sample(arguments[0], i): sample(arguments[1], number + i) for i in range(2)}
    plain = {str: f"name {number}", int: 3 + number, float: 0.1 + number / 3, bool: bool(number % 2)}
    return plain[annotation] if annotation in plain else made(annotation, number)


def made(cls: type[Part], number: int = 0) -> Any:
    return cls(
        **{name: sample(field.annotation, number + i) for i, (name, field) in enumerate(cls.model_fields.items())}
    )


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
    return values if kept is not annotation else [*values, None]


Place = tuple[str | int, ...]


def fields_of(annotation: Any, value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Place and type of every field of every part within a value of JSON."""
    kept = inner(annotation)
    origin, arguments = get_origin(kept), get_args(kept)
    if isinstance(kept, type) and issubclass(kept, Part):
        for name, field in kept.model_fields.items():
            yield (*place, name), field.annotation
            yield from fields_of(field.annotation, value[name], (*place, name))
    elif origin is tuple:
        for i, item in enumerate(value):
            yield from fields_of(arguments[0], item, (*place, i))
    elif origin is dict and kept is not JsonValue:
        for name, item in value.items():
            yield from fields_of(arguments[1], item, (*place, name))


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


def refusal(cls: type[Result], path: Path, content: Any) -> str:
    """The one line that ends reading this content; it names file and remedy."""
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(ArtifactError) as error:
        cls.read(path, REMEDY)
    line = str(error.value)
    assert line.startswith(f"{path}: ")
    assert line.endswith(f"; {REMEDY}")
    assert "\n" not in line
    return line


FILE = pytest.mark.parametrize("cls", FILES, ids=lambda cls: cls.__name__)


@FILE
def test_a_file_is_read_back_equal(cls: type[Result], tmp_path: Path) -> None:
    path = tmp_path / "folder/result.json"
    for number in range(3):
        result = made(cls, number)
        assert result.write(path) == path
        assert cls.read(path, REMEDY) == result
        assert path.read_text(encoding="utf-8") == result.text()
        assert json.loads(result.text())["schema"] == cls.schema_version
        assert list(json.loads(result.text())) == sorted(json.loads(result.text()))
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]


@FILE
def test_every_field_that_is_gone_or_wrong_is_refused_by_its_name(cls: type[Result], tmp_path: Path) -> None:
    payload = json.loads(made(cls).text())
    places = list(fields_of(cls, payload))
    assert {place[0] for place, _ in places} == set(payload) - {"schema"}
    path = tmp_path / "result.json"
    for where, annotation in places:
        dotted = ".".join(map(str, where))
        assert f": {dotted}: field required; " in refusal(cls, path, edited(payload, where, gone=True))
        for value in wrong(annotation):
            assert f": {dotted}" in refusal(cls, path, edited(payload, where, value)), value
    assert ": unheard_of: extra inputs" in refusal(cls, path, payload | {"unheard_of": 1})


@FILE
def test_another_schema_and_what_is_no_file_of_ours(cls: type[Result], tmp_path: Path) -> None:
    payload = json.loads(made(cls).text())
    path = tmp_path / "result.json"
    for schema in (cls.schema_version - 1, cls.schema_version + 1, str(cls.schema_version), True, None):
        line = refusal(cls, path, payload | {"schema": schema})
        assert f"schema {schema!r} is not {cls.schema_version}" in line
    del payload["schema"]
    assert "schema None" in refusal(cls, path, payload)
    for content in ("[]", "3", "null"):
        assert "schema None" in refusal(cls, path, content)
    whole = made(cls).text()
    for content in ("", whole[: len(whole) // 2], "[" * 100_000):
        assert "unreadable or cut short" in refusal(cls, path, content)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ArtifactError, match="unreadable or cut short"):
        cls.read(path, REMEDY)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"no such file; {REMEDY}"):
        cls.read(path, REMEDY)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_no_file_holds_what_is_no_number(value: float, tmp_path: Path) -> None:
    payload = json.loads(made(Latency).text())
    place = ("measured", "rows", 0, "ms_per_example")
    assert f": {'.'.join(map(str, place))}: " in refusal(Latency, tmp_path / "r.json", edited(payload, place, value))
    with pytest.raises(ValidationError, match="finite number"):
        OverSeeds(median=value)
    with pytest.raises(ValidationError, match="finite number"):
        OperatingPoint(criterion="temperature", fitted={"temperatures": [value]})


def test_a_result_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        made(Latency).task = "other"


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
        "ShardRecords": HERE.shard(task, key),
        "PoolAnswers": HERE.pooled(task, key),
        "Attack": HERE.attack(task),
        "Simulation": HERE.simulation,
        "StoredMetrics": Path("docs/demo-metrics.json"),
        "UnsentRun": HERE.unsent / "<id>.json",
    }
    assert {cls.__name__: Path(place(cls)) for cls in FILES} == places
    assert len(set(places.values())) == len(FILES)


def test_a_workspace_elsewhere_has_the_same_paths_below_its_root() -> None:
    there = Workspace(Path("/somewhere"))
    assert there.evaluated("sst2") == Path("/somewhere") / HERE.evaluated("sst2")


# The table beside evaluate's file


def test_curves_are_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    points = [
        CurvePoint("b", "joint", "patience", 1, "validation", 2.0, 0.1 + 0.2, 1.5, 1 / 3),
        CurvePoint("b,c", 'a "name"', "entropy", 2, "new\nline", -0.5, 0.5, 1.0, 1.0),
        CurvePoint("b", "joint", "patience", 1, "validation", math.inf, 0.5, 1.0, 1.0),
    ]
    path.write_text(curves_text(points), encoding="utf-8")
    assert read_curves(path, REMEDY) == points
    path.write_text(curves_text([points[0]._replace(score=math.nan)]), encoding="utf-8")
    assert math.isnan(read_curves(path, REMEDY)[0].score)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "its columns are not"),
        ("backbone,method\n", "its columns are not backbone, method, criterion"),
        (",".join(CurvePoint._fields) + "\nb,joint,patience,1,validation,2,0.5,fast,1\n", "line 2: could not convert"),
        (",".join(CurvePoint._fields) + "\nb,joint,patience,1\n", "line 2: "),
    ],
    ids=["empty", "columns", "number", "short"],
)
def test_curves_that_are_not_as_they_were_written(content: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match=problem) as error:
        read_curves(path, REMEDY)
    assert str(error.value).endswith(f"; {REMEDY}")


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
    row = made(LatencyRow).model_copy(update={"point": point})
    Latency(task="t", measured=Measured(device="cpu", threads=1, rows=(row,))).write(path)
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
        ({"criterion": "ensemble", "fitted": {"weights": [[1.0], ["a"]]}}, r"fitted\.weights: .* is not lists of"),
    ],
)
def test_a_point_that_no_criterion_has(point: dict[str, Any], problem: str) -> None:
    with pytest.raises((ArtifactError, ParamsError), match=problem) as error:
        criterion_of(OperatingPoint(**point, threshold=1.0))
    assert "\n" not in str(error.value)
