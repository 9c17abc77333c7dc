"""Declaring a refactoring harmless: keys stay, until something else changes. In real repositories."""

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.commands.harmless import declare_harmless
from pipeline.errors import ArtifactError, ParamsError
from pipeline.identity.equivalence import FILE, UNDECLARED, canonical, read_equivalence, trained_by_other_code
from pipeline.identity.imports import ROOT
from pipeline.results import CodeEquivalence, CodePair, Declaration
from pipeline.tasks.task import Modality
from pipeline.training.code import keep_code, trial_code
from tests.test_identity import BASE, JOINT, RECIPES, edit


def git(tree: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=tree, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The library, committed."""
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def commit(tree: Path) -> None:
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "c")


def code(tree: Path, modality: Modality = "text", method: str = "joint") -> str:
    return trial_code(modality, method, tree).hash


def key(tree: Path, modality: Modality = "text", method: str = "joint") -> str:
    return canonical(code(tree, modality, method), read_equivalence(tree))


def move_losses(tree: Path) -> None:
    """Move two functions from one module to a new one."""
    text = (tree / BASE).read_text(encoding="utf-8")
    functions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    moved = [ast.get_source_segment(text, functions[name]) or "" for name in ("exit_losses", "depth_weights")]
    for source in moved:
        text = text.replace(source, "")
    line = "from pipeline.training.recipes.losses import depth_weights as depth_weights, exit_losses as exit_losses\n"
    text = text.replace("from torch import Tensor", line + "from torch import Tensor")
    (tree / BASE).write_text(text, encoding="utf-8")
    head = "import torch\nfrom torch import Tensor\nfrom torch.nn import functional\n\n\n"
    (tree / RECIPES / "losses.py").write_text(head + "\n\n\n".join(moved) + "\n", encoding="utf-8")


def rename(tree: Path) -> None:
    edit(tree, JOINT, "losses = exit_losses", "per_exit = exit_losses")
    edit(
        tree,
        JOINT,
        "(depth_weights(len(losses), losses, self.weights) * losses)",
        "(depth_weights(len(per_exit), per_exit, self.weights) * per_exit)",
    )


def test_a_declared_refactoring_moves_no_key_and_a_later_edit_does(repository: Path) -> None:
    old = {kind: key(repository, *kind) for kind in KINDS}
    move_losses(repository)
    assert key(repository) != old["text", "joint"]
    lines = declare_harmless("losses have a file of their own", "HEAD", repository)
    assert f"  {RECIPES}/losses.py (depth_weights, exit_losses)" in lines
    assert {kind: key(repository, *kind) for kind in KINDS} == old
    # A second one, compared with a commit that is not the last.
    commit(repository)
    rename(repository)
    commit(repository)
    declare_harmless("a local name", "HEAD~1", repository)
    assert {kind: key(repository, *kind) for kind in KINDS} == old
    # An edit of the loss, in the module that came with the refactoring.
    refactored = (repository / RECIPES / "losses.py").read_text(encoding="utf-8")
    edit(repository, f"{RECIPES}/losses.py", ".mean(dim=0)", ".sum(dim=0)")
    edited = key(repository)
    assert edited not in old.values()
    # A refactoring of the edited loss stays with the edited one.
    commit(repository)
    edit(repository, JOINT, "per_exit = ", "each = per_exit = ")
    declare_harmless("another name", "HEAD", repository)
    assert key(repository) == edited
    # Taken back, the loss has its old key again.
    edit(repository, JOINT, "each = per_exit = ", "per_exit = ")
    (repository / RECIPES / "losses.py").write_text(refactored, encoding="utf-8")
    assert {kind: key(repository, *kind) for kind in KINDS} == old


KINDS: list[tuple[Modality, str]] = [("text", "joint"), ("image", "joint"), ("text", "theseus")]


def test_half_of_a_declared_change_is_not_declared(repository: Path) -> None:
    # A factor moves from a loss to the loop: each module alone would train with another loss.
    before = key(repository)
    losses = (repository / JOINT).read_text(encoding="utf-8")
    edit(repository, JOINT, "* losses).sum()", "* losses).sum() / 2")
    edit(repository, BASE, "return self.loss(model(batch)", "return 2 * self.loss(model(batch)")
    declare_harmless("the factor is in the objective", "HEAD", repository)
    assert key(repository) == before
    (repository / JOINT).write_text(losses, encoding="utf-8")
    assert key(repository) != before


def test_the_report_can_tell_which_rows_other_code_trained(repository: Path) -> None:
    trained = code(repository)
    reasons = ("losses have a file of their own", "a local name")
    for reason, change in zip(reasons, (move_losses, rename), strict=True):
        change(repository)
        declare_harmless(reason, "HEAD", repository)
        commit(repository)
    today, equivalence = trial_code("text", "joint", repository), read_equivalence(repository)
    assert trained_by_other_code(trained, today, equivalence) == reasons
    assert trained_by_other_code(today.hash, today, equivalence) == ()
    assert trained_by_other_code("feed", today, equivalence) == (UNDECLARED,)


def test_comments_need_no_declaration(repository: Path) -> None:
    edit(repository, JOINT, "name = ", "# A comment.\n    name = ")
    (line,) = declare_harmless("it is a comment", "HEAD", repository)
    assert line.startswith("nothing to declare")
    assert git(repository, "status", "--porcelain") == f"M {JOINT}"


def test_a_declaration_needs_a_reason_a_commit_and_code_with_an_identity(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="--reason: empty"):
        declare_harmless(" ", "HEAD", repository)
    with pytest.raises(ParamsError, match="--since: no commit 'v9'"):
        declare_harmless("why", "v9", repository)
    shutil.rmtree(repository / "pipeline/training")
    commit(repository)
    git(repository, "checkout", "-q", "HEAD~1", "--", "pipeline")
    with pytest.raises(ArtifactError, match=r"code of HEAD gives no identity .*No module named 'pipeline.training'"):
        declare_harmless("why", "HEAD", repository)


def equal(*pairs: tuple[str, str]) -> CodeEquivalence:
    return CodeEquivalence(
        declarations=tuple(
            Declaration(
                reason=f"{one} to {other}",
                date="2026-01-01",
                since="0" * 40,
                changed=(),
                equal={"text/joint": CodePair(before=one, after=other)},
            )
            for one, other in pairs
        )
    )


def test_the_oldest_of_a_class_stands_for_it() -> None:
    chain = equal(("a", "b"), ("b", "c"), ("c", "a"), ("x", "y"), ("c", "x"))  # there, back, and two classes joined
    assert {canonical(code, chain) for code in "abcxy"} == {"a"}
    assert canonical("z", chain) == "z"
    branches = equal(("a", "b"), ("a", "c"), ("b", "d"))
    assert {canonical(code, branches) for code in "abcd"} == {"a"}


def test_a_file_that_was_damaged_is_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_text('{"schema": 2, "declarations": [{"reason": "r"}]}', encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"code-equivalence.json: declarations.0.date: .*; restore it with `git"):
        read_equivalence(tmp_path)


def test_the_projects_own_declarations_are_readable() -> None:
    assert read_equivalence() == CodeEquivalence.read(ROOT / FILE, "")


def test_a_worker_with_other_code_keeps_nothing_under_the_plan_s_key(tmp_path: Path) -> None:
    own = trial_code("text", "joint")
    with pytest.raises(ArtifactError, match="is not the code of the plan"):
        keep_code(tmp_path / "key", {"task": "t"}, own, "0123456789abcdef")
    assert not (tmp_path / "key").exists()
