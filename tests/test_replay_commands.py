"""The commands on a trace file: the same numbers as the library, one-line errors, and no Torch."""

import csv
import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from pipeline.__main__ import main
from pipeline.evaluation.criteria import make
from pipeline.evaluation.diagnosis import diagnose
from pipeline.evaluation.point import point_of
from pipeline.evaluation.preferred import preferred
from pipeline.evaluation.sweep import NEVER, sweep
from pipeline.evaluation.trace import Trace, load_trace, save_trace
from pipeline.layout import HERE
from pipeline.results import Evaluated, TraceIndex, curves_of, read_curves
from tests import stored_results
from tests.test_choosing import made_up_trace


def regression_trace() -> Trace:
    trace = made_up_trace(200, exits=5)
    return replace(trace, kind="regression", logits=trace.logits[:, :, :1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("traces")
    save_trace(made_up_trace(300), root / "classes.safetensors")
    save_trace(made_up_trace(300, classes=2, seed=5), root / "binary.safetensors")
    save_trace(made_up_trace(300, exits=4), root / "shallow.safetensors")
    save_trace(regression_trace(), root / "real.safetensors")
    save_trace(replace(regression_trace(), labels=np.r_[np.nan, np.ones(199)]), root / "unknown.safetensors")
    constant = regression_trace()
    save_trace(replace(constant, labels=np.ones(200)), root / "constant.safetensors")
    infinite = made_up_trace(300)
    infinite.logits[3, 1] = -np.inf
    save_trace(infinite, root / "infinite.safetensors")
    save_trace(made_up_trace(300, exits=1), root / "one.safetensors")
    (root / "folder.svg").mkdir()
    return root


class Ran:
    """What a command line gave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[Any]) -> None:
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        self.code = ended.value.code
        self.out, self.error = capsys.readouterr()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *words: Ran(monkeypatch, capsys, list(words))


def test_a_point_as_json(folder: Path, run: Any) -> None:
    file = folder / "binary.safetensors"
    ran = run("replay", file, "--criterion", "patience", "--threshold", 2, "--metric", "f1", "--metric", "accuracy")
    point = sweep(load_trace(file), make("patience"), np.array([2.0]))
    values = {name: float(value[0]) for name, value in point.metrics(("f1", "accuracy")).items()}
    assert (ran.code, ran.error) == (0, "")
    assert json.loads(ran.out) == {
        "criterion": "patience",
        "settings": {"tau": 0.5},
        "threshold": 2.0,
        "rows": 300,
        "score": values.pop("score"),
        "metrics": values,
        "layer_speedup": float(point.layer_speedup[0]),
        "flop_speedup": float(point.flop_speedup[0]),
        "exits": point.exit_counts[0].tolist(),
    }


def test_settings_and_metrics_of_a_regression(folder: Path, run: Any) -> None:
    file = folder / "real.safetensors"
    found = [
        json.loads(run("replay", file, "--criterion", "patience", "--threshold", 2, "--set", f"tau={tau}").out)
        for tau in (0.5, 3)
    ]
    assert [set(point["metrics"]) for point in found] == [{"pearson", "spearman"}] * 2
    assert [point["settings"] for point in found] == [{"tau": 0.5}, {"tau": 3.0}]
    assert found[0]["layer_speedup"] < found[1]["layer_speedup"]


def test_metrics_of_several_classes(folder: Path, run: Any) -> None:
    file = folder / "classes.safetensors"
    options = ("--criterion", "patience", "--threshold", 2, "--metric", "macro_f1", "--metric", "matthews")
    found = json.loads(run("replay", file, *options).out)["metrics"]
    point = sweep(load_trace(file), make("patience"), np.array([2.0]))
    labels, answers = load_trace(file).labels, point.predictions[0]
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, answers, average="macro"))
    assert found["matthews"] == pytest.approx(sk.matthews_corrcoef(labels, answers))


def test_what_is_not_defined_is_null(folder: Path, run: Any) -> None:
    ran = run("replay", folder / "constant.safetensors", "--criterion", "patience", "--threshold", "never")
    point = json.loads(ran.out)
    assert (point["threshold"], point["score"], point["metrics"]["pearson"]) == (None, None, None)
    assert point["layer_speedup"] == 1.0


def test_a_sweep_as_csv(folder: Path, run: Any) -> None:
    file = folder / "classes.safetensors"
    rows = list(csv.DictReader(io.StringIO(run("replay", file, "--criterion", "entropy", "--sweep").out)))
    found = sweep(load_trace(file), make("entropy"))
    assert list(rows[0]) == ["threshold", "accuracy", "layer_speedup", "flop_speedup"]
    for column, values in (("threshold", found.thresholds), ("layer_speedup", found.layer_speedup)):
        np.testing.assert_allclose([float(row[column]) for row in rows], values, rtol=1e-9)
    np.testing.assert_allclose([float(r["accuracy"]) for r in rows], found.metrics(("accuracy",))["score"], rtol=1e-9)
    assert rows[-1]["threshold"] == "inf"
    real = run("replay", folder / "real.safetensors", "--criterion", "patience", "--sweep").out
    assert real.startswith("threshold,score,pearson,spearman,layer_speedup,flop_speedup\n")


def test_a_criterion_that_learns_takes_its_rows_from_a_file(folder: Path, run: Any) -> None:
    file = folder / "classes.safetensors"
    words = ("replay", file, "--criterion", "temperature", "--threshold", 0.9)
    before, after = (json.loads(run(*words, *more).out) for more in ((), ("--fit", file)))
    assert before["settings"] != after["settings"]
    fitted = sweep(load_trace(file), make("temperature").fit(load_trace(file)), np.array([0.9]))
    assert after["exits"] == fitted.exit_counts[0].tolist()


def test_a_figure_of_several(folder: Path, run: Any, tmp_path: Path) -> None:
    names = "patience,confidence,entropy,voting"
    for file, out in (("classes", "new/figure.svg"), ("classes", "figure.png")):
        ran = run(
            "replay", folder / f"{file}.safetensors", "--compare", names, "--out", tmp_path / out, "--set", "tau=1"
        )
        assert (ran.code, ran.out) == (0, f"drawn: {tmp_path / out}\n")
    svg = (tmp_path / "new/figure.svg").read_text(encoding="utf-8")
    texts = " ".join(
        "".join(element.itertext()) for element in ET.fromstring(svg).iter() if element.tag.endswith("text")
    )
    for said in (*names.split(","), "all layers", "accuracy (points)", "classes"):
        assert said in texts
    assert (tmp_path / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["figure.png", "figure.svg", "new"]


def test_a_diagnosis_as_json(folder: Path, run: Any) -> None:
    file = folder / "classes.safetensors"
    assert json.loads(run("diagnose", file).out) == diagnose(load_trace(file), ("accuracy",)).model_dump(mode="json")
    ran = run("diagnose", file, "--criterion", "fixed", "--threshold", 2)
    assert json.loads(ran.out)["criteria"][0]["exits"] == [0, 300, 0, 0, 0, 0]
    ran = run("diagnose", file, "--criterion", "entropy", "--threshold", "never")
    expected = diagnose(load_trace(file), ("accuracy",), [point_of(make("entropy"), {}, NEVER)])
    assert json.loads(ran.out) == expected.model_dump(mode="json")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("replay {f}/gone.safetensors --criterion patience --threshold 6", "no such trace"),
        ("replay {f}/classes.safetensors", "none given; give one of --threshold, --sweep and --compare"),
        ("replay {f}/classes.safetensors --criterion patience --threshold 6 --sweep", "--threshold, --sweep given"),
        ("replay {f}/classes.safetensors --sweep", "give --criterion with"),
        ("replay {f}/classes.safetensors --compare patience", "draws into --out"),
        ("replay {f}/classes.safetensors --compare patience --out {f}/a.pdf", "does not end in .svg or .png"),
        ("replay {f}/classes.safetensors --compare patience --out {f}/classes.safetensors/a.png", "cannot be written"),
        ("replay {f}/classes.safetensors --compare patience --out {f}/folder.svg", "is a folder; name a file in it"),
        ("replay {f}/gone.safetensors --compare patience --out {f}/folder.svg", "is a folder; name a file in it"),
        (
            "replay {f}/infinite.safetensors --criterion patience --threshold 1",
            "infinite.safetensors: logits of row 3",
        ),
        (
            "diagnose {f}/infinite.safetensors",
            "{f}/infinite.safetensors: logits of row 3 at exit 2 are [-inf,",
        ),
        ("replay {f}/classes.safetensors --criterion temperature --sweep --fit {f}/infinite.safetensors", "/infinite"),
        (
            "replay {f}/classes.safetensors --criterion learned --threshold 1",
            "classes.safetensors: no channel 'lte'",
        ),
        ("replay {f}/classes.safetensors --criterion patience --threshold 1_0", "--threshold 1_0: is not a number"),
        ("replay {f}/classes.safetensors --criterion patience --threshold 1 --set tau=1_0", "'1_0' is not a number"),
        ("replay {f}/classes.safetensors --criterion patience --sweep --set tau=1 --set tau=2", "tau is set twice"),
        ("replay {f}/classes.safetensors --compare patince --out {f}/a.svg", "did you mean 'patience'"),
        ("replay {f}/classes.safetensors --compare patience --set tua=1 --out {f}/a.svg", "did you mean 'tau'"),
        ("replay {f}/classes.safetensors --criterion patince --threshold 6", "did you mean 'patience'"),
        ("replay {f}/classes.safetensors --criterion patience --threshold six", "--threshold six: is not a number"),
        ("replay {f}/classes.safetensors --criterion patience --threshold nan", "--threshold nan: is not a number"),
        ("replay {f}/classes.safetensors --criterion patience --threshold -inf", "--threshold -inf: is not a number"),
        ("diagnose {f}/classes.safetensors --criterion patience --threshold -inf", "--threshold -inf: is not a number"),
        (
            "replay {f}/classes.safetensors --criterion patience --threshold 6 --set tau=inf",
            "--criterion.patience.tau: inf is not a finite number; give one",
        ),
        (
            "replay {f}/classes.safetensors --compare random --out {f}/a.svg --set seed=-1",
            "--criterion.random.seed: -1.0 is not a whole number from 0",
        ),
        ("replay {f}/classes.safetensors --criterion patience --threshold 6 --set tau", "is not NAME=VALUE"),
        ("replay {f}/classes.safetensors --criterion patience --threshold 6 --set tau=a", "'a' is not a number"),
        ("replay {f}/classes.safetensors --criterion patience --threshold 6 --set t=1", "unknown setting of patience"),
        (
            "replay {f}/classes.safetensors --criterion patience --threshold 6 --metric f1",
            "of 3 classes; use accuracy or macro_f1 or m",
        ),
        ("replay {f}/real.safetensors --criterion patience --threshold 6 --metric accuracy", "use pearson or spearman"),
        ("replay {f}/real.safetensors --criterion patience --threshold 6 --metric rmse", "unknown metric 'rmse'"),
        ("replay {f}/real.safetensors --criterion entropy --threshold -0.1", "the trace is a regression"),
        ("replay {f}/unknown.safetensors --criterion patience --threshold 1", "1 of 200 rows have no label"),
        (
            "replay {f}/classes.safetensors --criterion temperature --threshold 0.9 --fit {f}/shallow.safetensors",
            "/shallow.safetensors: exits 4, but {f}/classes.safetensors has exits 6; record both with one model",
        ),
        ("replay {f}/classes.safetensors --criterion ensemble --sweep --fit {f}/binary.safetensors", "has classes 3;"),
        (
            "replay {f}/classes.safetensors --compare temperature --out {f}/a.svg --fit {f}/real.safetensors",
            "/real.safetensors: kind regression, but {f}/classes.safetensors has kind classification;",
        ),
        (
            "diagnose {f}/classes.safetensors --criterion ensemble --threshold 1 --fit {f}/shallow.safetensors",
            "exits 4",
        ),
        ("diagnose {f}/classes.safetensors --criterion patience", "give both or none"),
        ("diagnose {f}/classes.safetensors --set tau=1", "belong to a --criterion"),
        ("diagnose {f}/one.safetensors", "{f}/one.safetensors: this trace has one exit, so that nothing can leave"),
        ("replay {f}/one.safetensors --criterion patience --sweep", "has one exit, so that nothing can leave early"),
        ("replay {f}/one.safetensors --compare patience --out {f}/a.svg", "has one exit, so that nothing can leave"),
    ],
)
def test_errors_are_one_line(folder: Path, run: Any, words: str, said: str) -> None:
    ran = run(*(word.format(f=folder) for word in words.split()))
    assert (ran.code, ran.out) == (1, "")
    assert ran.error.startswith("error: ")
    assert ran.error.count("\n") == 1
    assert said.format(f=folder) in ran.error
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("confidence --threshold 90", "confidence gives 0.3333 to 1 here, so every row runs all layers"),
        ("confidence --threshold 0.2", "confidence gives 0.3333 to 1 here, so every row leaves at the first exit"),
        ("entropy --threshold 0.3", "entropy gives -1.099 to 0 here, so every row runs all layers"),
        ("patience --threshold 6", "patience gives 0 to 5 here, so every row runs all layers"),
        ("patience --threshold -1", "so every row leaves at the first exit"),
        ("fixed --threshold 0", "fixed gives 1 to 6 here, so every row leaves at the first exit"),
        ("confidence --threshold 0.9", ""),
        ("confidence --threshold 1", ""),
        ("entropy --threshold 0", ""),
        ("patience --threshold 0", ""),
        ("patience --threshold 5", ""),
        ("patience --threshold never", ""),
    ],
)
def test_a_threshold_that_no_score_reaches_is_said(folder: Path, run: Any, words: str, said: str) -> None:
    file, options = folder / "classes.safetensors", words.split()
    for command in ("replay", "diagnose"):
        ran = run(command, file, "--criterion", *options)
        line = f"warning: --threshold {options[-1]}: " if said else ""
        assert ran.code == 0
        assert ran.error.startswith(line)
        assert ran.error.removesuffix("\n").endswith(said)
        assert ran.error.count("\n") == bool(said)
    exits = json.loads(run("replay", file, "--criterion", *options).out)["exits"]
    if said:
        assert exits[-1 if "all layers" in said else 0] == 300


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the traces and results of two tasks, each with a model of one exit and two with exits."""
    monkeypatch.chdir(tmp_path)
    params = stored_results.params_for({"sst2": {}, "cola": {}}, "minilm")
    stored_results.write_all(HERE, params, layers=6)
    stored_results.write_traces(HERE, params, layers=6)
    return tmp_path


def test_a_task_stands_for_the_trace_that_it_prefers(tasks: Path, run: Any) -> None:
    evaluated = Evaluated.read(HERE.evaluated("sst2"), "")
    best = preferred(evaluated.rows, [*curves_of(read_curves(HERE.curves("sst2"), evaluated, ""))], "validation")
    assert best is not None
    file = HERE.trace("sst2", best.keys[0], "validation")
    said = f"sst2: taken is {file} (minilm, {best.method}, seed 1, rows of validation)\n"
    for words in (("replay", "--criterion", "patience", "--threshold", 2), ("diagnose",)):
        by_name, by_file = (run(words[0], name, *words[1:]) for name in ("sst2", file))
        assert (by_name.code, by_name.out, by_name.error) == (0, by_file.out, said)
        assert by_file.error == ""
    ran = run("replay", "sst2", "--compare", "patience,entropy", "--out", "curves.svg")
    assert (ran.code, ran.out, ran.error) == (0, "drawn: curves.svg\n", said)
    HERE.evaluated("cola").unlink()  # then the first with exits
    first = next(entry for entry in TraceIndex.read(HERE.trace_index("cola"), "").traces if entry.multi_exit)
    assert first.key in run("diagnose", "cola").error


def test_a_name_that_stands_for_no_trace_with_exits_is_one_line(tasks: Path, run: Any) -> None:
    index = TraceIndex.read(HERE.trace_index("sst2"), "")
    one = next(entry for entry in index.traces if not entry.multi_exit and entry.split == "validation")
    several = [str(HERE.traces("sst2") / e.file) for e in index.traces if e.multi_exit and e.split == "validation"]
    ran = run("diagnose", HERE.traces("sst2") / one.file)
    assert (ran.code, ran.out, ran.error.count("\n")) == (1, "", 1)
    assert f"this trace has one exit (single_exit, minilm, seed 1); those with exits: {', '.join(several)}" in ran.error
    assert "unknown task 'sst3'; did you mean 'sst2'? (known: cola, sst2)" in run("diagnose", "sst3").error
    plain = tuple(entry for entry in index.traces if not entry.multi_exit)
    index.model_copy(update={"traces": plain}).write(HERE.trace_index("sst2"))
    assert "those with exits: none, add joint" in run("diagnose", HERE.traces("sst2") / one.file).error
    assert "sst2: none of its models has early exits (single_exit); add joint to meth" in run("diagnose", "sst2").error
    Path("sst2").write_text("a file comes first")
    assert "sst2: unreadable" in run("diagnose", "sst2").error


def test_the_documented_commands_run(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parent.parent / "docs/trace-format.md").read_text(encoding="utf-8")
    lines = [line.split()[3:] for line in page.splitlines() if line.startswith("python -m pipeline ")]
    commands = ["import-trace"] * 2 + ["replay"] * 3 + ["diagnose"] + ["rescore"] * 2
    assert [words[0] for words in lines] == commands
    monkeypatch.chdir(tmp_path)
    save_trace(made_up_trace(100), Path("validation.safetensors"))
    Path("exits.csv").write_text("id,gold,e3,e6,e9,e12\n7,1,0,1,1,1\n8,0,1,1,0,0\n")
    np.savez("outputs.npz", logits=np.full((4, 3, 2), 0.5), label=np.zeros(4))
    for words in lines[:6]:  # tests/test_imported.py has those of rescore
        assert run(*words).code == 0
    assert Path("curves.svg").is_file()


@pytest.mark.parametrize(
    ("words", "light"),
    [
        ("replay {f} --criterion entropy --threshold -0.1", ("pydantic",)),
        ("replay {f} --criterion temperature --threshold 0.9 --fit {f}", ("pydantic",)),
        ("diagnose {f} --criterion entropy --threshold -0.1", ()),
    ],
    ids=["replay", "fit", "diagnose"],
)
def test_starts_without_what_is_heavy(folder: Path, words: str, light: tuple[str, ...]) -> None:
    heavy = {"torch", "scipy.stats", "matplotlib", "ray", "mlflow", "pyarrow", *light}
    code = f"""
import sys
from pipeline.__main__ import cli
cli(sys.argv[1:], standalone_mode=False)
print({heavy} & sys.modules.keys())
"""
    arguments = words.format(f=folder / "classes.safetensors").split()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_replay_needs_numpy_and_scipy_alone(folder: Path) -> None:
    """Whoever has a trace evaluates it without the pipeline's other libraries."""
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        allowed = {"numpy", "scipy", "safetensors", "array_api_compat", "pipeline"} | sys.stdlib_module_names
        if name.partition(".")[0] not in allowed and not name.startswith("_"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from pathlib import Path
from pipeline.evaluation import choosing, metrics, sweep, trace
from pipeline.evaluation.criteria import CRITERIA, make
rows = trace.load_trace(Path(sys.argv[1]))
for name in CRITERIA:
    criterion = make(name)
    if criterion.applies_to(rows):
        for rule in (choosing.Window(1.3, 1.96), choosing.Risk(0.1, 0.1)):
            fitted, choice = choosing.fit_and_choose(criterion, rows, ("accuracy",), rule)
            print(name, choice.threshold, metrics.score(("accuracy",), rows.answers().T, rows.labels)[-1])
"""
    arguments = [sys.executable, "-c", code, str(folder / "classes.safetensors")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") > 20
