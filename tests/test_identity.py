"""The identity of code: what of an edit moves a trial's key, and what does not."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from fnmatch import fnmatch
from pathlib import Path

import pytest

from pipeline.identity.code import CodeIdentity, code_identity
from pipeline.identity.imports import ROOT, imported_names
from pipeline.identity.modules import read_module
from pipeline.identity.reach import PLUMBING, reach
from pipeline.identity.versions import LIBRARIES, library_versions
from pipeline.tasks.task import Modality
from pipeline.training.code import BOOKKEEPING, STATED, trial_code
from tests.workspace import NO_NETWORK, Workspace

RECIPES = "pipeline/training/recipes"
JOINT, BASE, FIT = f"{RECIPES}/joint.py", f"{RECIPES}/base.py", "pipeline/training/fit.py"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the library to edit."""
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def edit(tree: Path, path: str, old: str, new: str) -> None:
    text = (tree / path).read_text(encoding="utf-8")
    assert old in text, f"{path} has no {old!r} any more: take another line for this test"
    (tree / path).write_text(text.replace(old, new, 1), encoding="utf-8")


def joint(tree: Path, modality: Modality = "text") -> CodeIdentity:
    return trial_code(modality, "joint", tree)


# Edits of the recipes that there are

HARMLESS: dict[str, tuple[str, str, str]] = {
    "a comment": (JOINT, "        losses = exit", "        # As in the paper.\n        losses = exit"),
    "a comment behind code": (JOINT, 'name = "joint"', 'name = "joint"  # for params.yaml'),
    "a docstring": (JOINT, "L = sum_j w_j L_j", "The loss is sum_j w_j L_j"),
    "a new docstring": (JOINT, "        losses = exit", '        """The loss."""\n        losses = exit'),
    "an attribute's docstring": (JOINT, 'name = "joint"', 'name = "joint"\n    """Its name."""'),
    "line breaks": (
        JOINT,
        "return (depth_weights(len(losses), losses, self.weights) * losses).sum()",
        "return (\n            depth_weights(\n                len(losses),\n                losses,\n"
        "                self.weights,\n            )\n"
        "            * losses\n        ).sum()",
    ),
    "quotes": (JOINT, '"joint"', "'joint'"),
    "imports in another order": (
        JOINT,
        "Moment, Recipe, depth_weights, exit_losses",
        "exit_losses, Moment, Recipe, depth_weights",
    ),
    "an import that nobody uses": (JOINT, "from torch import Tensor", "import math\n\nfrom torch import Tensor"),
    "a type": (JOINT, "-> list[float]", "-> Sequence[float]"),
    "a type of a local variable": (JOINT, "total = ", "total: float = "),
    "a type's import": (JOINT, "import Mapping, Sequence\n", "import Mapping, Sequence\nfrom typing import Any\n"),
    "the text of an error": (BASE, 'ValueError("', 'ValueError("sorry: '),
    "the place of a function": (BASE, "def exit_losses", "def unused() -> None: ...\n\n\ndef exit_losses"),
    "an import in an unused function": (
        FIT,
        "def run_fit",
        "def unused():\n    import pipeline.theory\n\n\ndef run_fit",
    ),
    "another recipe's loss": (f"{RECIPES}/two_stage.py", "return ", "return 2 * "),
    "the other modality's model": ("pipeline/models/residual.py", "stride", "step"),
    "a further method": (
        "pipeline/training/methods.py",
        "    for info in (\n",
        '    for info in (\n        MethodInfo("new", "new", "a new one"),\n',
    ),
    "a further field of a result": (
        "pipeline/results/trials.py",
        "    best_epoch: Natural\n",
        "    best_epoch: Natural\n    x: int = 0\n",
    ),
    "a rule of the hash": ("pipeline/identity/code.py", "[:16]", "[:16].lower()"),
}
CHANGES: dict[str, tuple[str, str, str]] = {
    "a factor in a loss": (JOINT, "* losses).sum()", "* losses).sum() * 2"),
    "a constant in a loss": (JOINT, "(exits + 1) / 2", "(exits + 2) / 2"),
    "a loss that the recipe takes from elsewhere": (BASE, ".view(n, exits).mean(dim=0)", ".view(n, exits).sum(dim=0)"),
    "a default argument": (JOINT, "labels: Tensor) ->", "labels: Tensor, power: float = 1.0) ->"),
    "a default's value": ("pipeline/models/multi_exit.py", "dropout: float = 0.0", "dropout: float = 0.1"),
    "another function under an old name": (BASE, "from torch.nn import functional", "from mine import functional"),
    "a name's module": (
        JOINT,
        "import Moment, Recipe, depth_weights, exit_losses",
        "import Moment, Recipe, exit_losses, exit_losses as depth_weights",
    ),
    "a decorator": (BASE, "def exit_losses", "@torch.no_grad()\ndef exit_losses"),
    "what runs at an import": (FIT, "Report = ", "torch.set_default_dtype(torch.float64)\nReport = "),
    "a schedule": ("pipeline/training/optimisation.py", "(1.0 - done)", "(1.1 - done)"),
    "batches": ("pipeline/tasks/text/tokens.py", "pool = 50", "pool = 51"),
    "an encoder's default": ("pipeline/models/encoders/families.py", 'chain: str = "encoder"', 'chain: str = "other"'),
    "a score that picks the epoch": (
        "pipeline/evaluation/metrics.py",
        "def accuracy",
        "def accuracy(*a): ...\ndef accuracy_",
    ),
    # A name is not followed to what it stands for: that it changes nothing has to be declared.
    "a local variable's name": (JOINT, "exits = len(costs)", "exits = count = len(costs)"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_an_edit_that_changes_no_result_moves_no_key(tree: Path, name: str) -> None:
    before = joint(tree)
    edit(tree, *HARMLESS[name])
    assert joint(tree).differences(before) == []
    assert joint(tree).hash == before.hash


@pytest.mark.parametrize("name", CHANGES)
def test_an_edit_that_may_change_a_result_moves_the_key(tree: Path, name: str) -> None:
    path, old, new = CHANGES[name]
    before = joint(tree)
    edit(tree, path, old, new)
    after = joint(tree)
    assert after.hash != before.hash
    assert path in [line.partition(" ")[0] for line in after.differences(before)]


def test_edits_of_one_recipe_concern_those_that_build_on_it(tree: Path) -> None:
    names = [path.stem for path in (tree / RECIPES).glob("*.py") if path.stem not in ("__init__", "base")]
    before = {name: trial_code("text", name, tree).hash for name in names}
    edit(tree, f"{RECIPES}/first_half.py", "* share // 1", "* share // 2")
    moved = {name for name in names if trial_code("text", name, tree).hash != before[name]}
    assert moved == {"first_half", "first_three_quarters", "patient_distillation", "theseus"}


def test_images_have_their_own_code(tree: Path) -> None:
    text, image = joint(tree), joint(tree, "image")
    edit(tree, "pipeline/tasks/image/pixels.py", "PADDING = 4", "PADDING = 5")
    assert joint(tree).hash == text.hash
    assert joint(tree, "image").differences(image) == ["pipeline/tasks/image/pixels.py (PADDING)"]


def test_reading_the_library_twice_gives_one_hash(tree: Path) -> None:
    # Also from another folder, as in a Ray job, and without git.
    assert joint(tree).hash == trial_code("text", "joint").hash == joint(tree).hash


# The same on every Python

SOURCE = '''
"""A module."""
import a.b, math as m
from c import d as e, f
x: int = 1
y, z = 0x10, 1_000.5e-3
text = "one" 'two' f"{x!r:>{y}.{z}} three {x=} {{}}" f"" "four"
raw = rb"\\x00" + b"e" if False else "\\u00e9\\U0001f600 é"
@e.g(h=f"{m.pi:{x}}")
async def function(p, /, q: int = 1, *r, s=None, **t) -> "Any":
    """Docstring."""
    import typing
    if (n := len(r)) > 1 and not q: yield {**t, "k": [*r, n]}
    with open(p) as one, open(q) as two: pass
    match p:
        case {"k": [1, *rest], **others} | A(b=None) if rest: raise E(f"no {p}", 1) from None
        case _: return
    try: await p
    except* (A, B) as error: del error
    else: [i async for i in p if i]
    return lambda v, *w: v[1:2, ..., ::3] @ -w
class C(Base, metaclass=M):
    field: int = 1
    other: list[int]
    def method(self): return super().method() <= 1 is not None
'''
ROOTS = ["pipeline.training.trial", "pipeline.models.recording", RECIPES.replace("/", ".")]
CODE = f"""
import sys
from pathlib import Path
sys.path[0] = {str(ROOT)!r}
from pipeline.identity.code import code_identity
print(code_identity(["pipeline.sample"], (), Path(".")).hash, code_identity({ROOTS}).hash)
"""


def interpreters() -> list[tuple[str, dict[str, str]]]:
    """Other Pythons of this machine that start."""
    names = [f"3.{minor}" for minor in range(11, 16) if minor != sys.version_info.minor]
    candidates = [
        (path, os.environ | {"PYENV_VERSION": name}) for name in names if (path := shutil.which(f"python{name}"))
    ]
    return [
        (p, env) for p, env in candidates if subprocess.run([p, "-c", ""], env=env, capture_output=True).returncode == 0
    ]


def test_the_hash_is_the_same_on_every_python(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/sample.py").write_text(SOURCE, encoding="utf-8")
    sample = "1abdd3a6d8dde3ba"
    assert code_identity(["pipeline.sample"], (), tmp_path).hash == sample
    ours = code_identity(ROOTS)
    assert len(ours.definitions) > 40
    expected = f"{sample} {ours.hash}"
    for python, environment in interpreters():
        run = [python, "-c", CODE]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected, python


# What counts as reached


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / "pipeline" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")


def reached(root: Path, *roots: str, without: tuple[str, ...] = ()) -> dict[str, list[str]]:
    return {path.removeprefix("pipeline/"): list(names) for path, names in reach(roots, without, root=root).items()}


def test_what_is_used_counts_and_what_is_beside_it_does_not(tmp_path: Path) -> None:
    files = {
        "a": """
            from pipeline.b import f as g, h
            import pipeline.whole
            K = 2
            def run():
                from pipeline.c import late
                return g(K) + late + pipeline.whole.x
            def beside():
                return h
        """,
        "b": """
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from pipeline.types import T
            def f(x: "T"):
                return helper(x)
            def helper(x):
                return x
            def h():
                pass
        """,
        "c": "late = 1; other = 2",
        "types": "class T: ...",
        "whole": "x = 1; y = 2",
    }
    write(tmp_path, files)
    assert reached(tmp_path, "pipeline.a:run") == {
        "a.py": ["K", "run"],
        "b.py": ["f", "helper"],
        "c.py": ["late"],
        "whole.py": ["x", "y"],
    }
    without = ("pipeline.b:helper", "pipeline.c", "pipeline.whole")
    assert reached(tmp_path, "pipeline.a:run", without=without) == {"a.py": ["K", "run"], "b.py": ["f"]}


def test_what_a_module_does_at_its_import_counts_wherever_it_is_imported(tmp_path: Path) -> None:
    files = {
        "a": """
            import pipeline.p.quiet
            from pipeline.p.loud import nothing
            def run():
                return 1
        """,
        "p/__init__": """
            TABLE = {}
            def register(cls):
                TABLE[cls.__name__] = cls
                return cls
            unused = 1
        """,
        "p/quiet": "x = 1",
        "p/loud": """
            from pipeline.p import register
            nothing = 0
            @register
            class Entry:
                size = 3
            for _ in range(2):
                pass
        """,
    }
    write(tmp_path, files)
    assert reached(tmp_path, "pipeline.a:run") == {
        "a.py": ["run"],
        "p/__init__.py": ["TABLE", "register"],
        "p/loud.py": ["Entry", "_ (2)"],
    }


def test_names_that_go_through_others_are_followed(tmp_path: Path) -> None:
    files = {
        "a": """
            from pipeline.pack import f
            from pipeline import b
            from pipeline.stars import *
            RUNNER = "pipeline.c:go"
            def run():
                return f(), b.x, starred
        """,
        "pack/__init__": "from .inner import f",
        "pack/inner": "def f(): return 1",
        "b": "x = 1",
        "c": "def go(): return 1\nrest = 2",
        "stars": "starred = 1",
    }
    write(tmp_path, files)
    assert reached(tmp_path, "pipeline.a:run") == {
        "a.py": ["run"],
        "b.py": ["x"],
        "pack/inner.py": ["f"],
        "stars.py": ["starred"],
    }
    # A text that names a function, as Ray's workers are told which to call, is a use of it.
    assert reached(tmp_path, "pipeline.a:RUNNER") == {"a.py": ["RUNNER"], "c.py": ["go"]}


def test_the_order_of_constants_counts_where_it_may_matter(tmp_path: Path) -> None:
    def hash_of(text: str) -> str:
        write(tmp_path, {"a": text})
        return code_identity(["pipeline.a"], (), tmp_path).hash

    assert hash_of("x = 1\ny = 2\n") == hash_of("y = 2\nx = 1\n")
    assert hash_of("x = 1\ny = x\nx = 2\n") != hash_of("x = 1\nx = 2\ny = x\n")
    assert hash_of("x = []\nx.append(1)\ny = len(x)\n") != hash_of("x = []\ny = len(x)\nx.append(1)\n")
    assert hash_of("def f(): return 1\ndef f(): return 2\n") != hash_of("def f(): return 2\ndef f(): return 1\n")


def test_a_stage_reaches_every_recipe_and_its_worker() -> None:
    files = reach(["stages.finetune"])
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / RECIPES).glob("*.py") if path.stem != "__init__"}
    assert recipes <= files.keys()
    assert "train" in files["pipeline/training/trial.py"]
    assert not [path for path in files if any(fnmatch(path, pattern) for pattern in PLUMBING)]


def test_relative_and_type_only_imports_are_named(tmp_path: Path) -> None:
    text = """
        from . import b
        from ..c import d
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import torch
        else:
            import math
    """
    write(tmp_path, {"p/a": text})
    names = imported_names(Path("pipeline/p/a.py"), for_types=False, root=tmp_path)
    assert {"pipeline.p.b", "pipeline.c.d", "math"} <= names
    assert "torch" not in names
    assert "torch" in imported_names(Path("pipeline/p/a.py"), root=tmp_path)


# Nothing that a trial runs is missing

SMALL = {"rows": {"train": 40, "selection": 12, "report": 12}}


@pytest.mark.slow
def test_everything_that_a_trial_runs_is_in_its_identity(workspace: Workspace) -> None:
    methods = sorted(path.stem for path in (ROOT / RECIPES).glob("*.py") if path.stem not in ("__init__", "base"))
    methods.sort(key=lambda name: ("single_exit", "joint").index(name) if name in ("single_exit", "joint") else 2)
    workspace.write_params(
        {
            "tasks": dict.fromkeys(("demo-sentences", "demo-similarity", "demo-images"), SMALL),
            "backbones": {"demo-albert": {}, "resnet14": {"width": 8}},
            "methods": methods,
            "images.training.epochs": 1,
            "latency.tasks": [],
            "attack.tasks": {},
        }
    )
    for name in ("demo-sentences", "demo-similarity", "demo-images"):
        assert workspace.stage("prepare", name).code == 0
    done = workspace.command("-m", "tests.traced_trials", PYTHONPATH=str(ROOT), **NO_NETWORK)
    assert done.code == 0, done.err
    kinds = json.loads(done.out.splitlines()[-1])
    assert len(kinds) == len(methods) + 4  # of text all but shallow_deep, of images five
    for kind, places in kinds.items():
        assert len(places) > 100, kind
        missing = not_in(trial_code(*kind.split("/")), places)
        assert missing == set(), kind


def not_in(code: CodeIdentity, places: list[tuple[str, int]]) -> set[str]:
    """Definitions that ran and are neither in an identity nor declared to change no result."""
    missing = set()
    for path, line in places:
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for definition in read_module(path, ROOT).definitions:
            statement = definition.statement
            first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
            if first <= line <= (statement.end_lineno or first):
                names = ", ".join(sorted(definition.names))
                left_out = any(fnmatch(path, pattern) for pattern in PLUMBING) or f"{module}:{names}" in STATED
                left_out = left_out or any(f"{module}.".startswith(f"{name}.") for name in BOOKKEEPING)
                if names not in code.definitions.get(path, {}) and not left_out:
                    missing.add(f"{module}:{names}")
    return missing


# Versions


def test_versions_are_told_without_importing_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARLY_EXIT_COMMIT", "0123abc")
    versions = library_versions()
    assert versions["commit"] == "0123abc"
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(LIBRARIES) <= versions.keys()
    assert versions["processor"]
    assert versions["numpy"] == importlib.import_module("numpy").__version__
    code = "from pipeline.identity.versions import library_versions as v; v(); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "transformers", "numpy", "pyarrow", "datasets"}
