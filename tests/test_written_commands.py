"""Commands and settings in the documentation exist, in blocks that run nowhere too: each is parsed by its program."""

import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from dvc.cli import DvcParserError, parse_args

from pipeline.__main__ import cli
from pipeline.identity.imports import ROOT
from pipeline.params import Params
from pipeline.storage import parse_yaml
from tests.documents import PAGES, Block, blocks_of

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
VARIABLES = {"PROFILE", "HUB_MIRROR", "ARGS", "UPGRADE", "PYTHON", "UI_PORT"}
ELSEWHERE = {
    *(".", "cat", "cd", "cp", "curl", "docker", "echo", "export", "git", "hf", "kill", "kubectl", "mkdir", "printf"),
    *("sed", "unset"),
}
"""Programs that are not this project's: their arguments are not read."""
REFUSALS = (click.ClickException, AssertionError, DvcParserError)
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SCRIPTS = [block for block in BLOCKS if block.language in ("sh", "bash")]
IN_SENTENCES = re.compile(r"`(?:python -m pipeline (\w[\w-]*)([^`]*)|make ([a-z][\w-]*)[^`]*)`")


def commands(script: str) -> Iterator[list[str]]:
    """The words of each simple command of a script, without assignments and redirections."""
    script = re.sub(r"<<'END'.*?^END$", "", re.sub(r"\\\n", " ", script), flags=re.DOTALL | re.MULTILINE)
    script = re.sub(r" 2>&1", "", script)
    script = re.sub(r"\$\(([^()]*(?:\([^()]*\))?[^()]*)\)", "VALUE", script)
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        given = iter([*lexer, ";"])
        for word in given:
            if word in ("<", ">", ">>"):
                next(given, None)
            elif re.fullmatch(r"[;&|]+", word):
                if words:
                    yield words
                words = []
            elif words or not re.fullmatch(r"\w+=.*", word, re.DOTALL):
                words.append(word)


def parse(command: click.Command, words: list[str], name: str) -> None:
    """Raise click's error for words that the command does not take; it is not run."""
    if not isinstance(command, click.Group):
        command.make_context(name, list(words))
    elif not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"{name}: no command {words[0]}"
        parse(found, words[1:], words[0])


def check_command(words: list[str], where: str) -> None:
    program, *rest = words
    if program in ("python", "python3") and rest[:1] == ["-m"]:
        module, *arguments = rest[1:]
        if module == "pipeline":
            parse(cli, arguments, module)
        elif module.startswith("ray_jobs."):
            parse(importlib.import_module(module).cli, arguments, module)
        elif module not in ("pip", "pytest", "json.tool"):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), where
    elif program == "python":
        assert rest[0] == "-" or list(ROOT.glob(rest[0])), f"{where}: no file {rest[0]}"
    elif program == "make":
        names = [word.partition("=") for word in rest if not word.startswith("-")]
        assert {name for name, equals, _ in names if not equals} <= TARGETS, where
        assert {name for name, equals, _ in names if equals} <= VARIABLES, where
    elif program == "dvc":
        parse_args(rest)
    elif program == "mlflow":
        from mlflow.models.cli import commands as mlflow_models

        assert rest[0] == "models", f"{where}: nothing checks mlflow {rest[0]}"
        parse(mlflow_models, rest[1:], "models")
    elif program == "ray":
        from ray.scripts.scripts import cli as ray

        parse(ray, rest, "ray")
    elif not program.startswith("../"):  # beside the project
        assert program in ELSEWHERE, f"{where}: nothing checks {program}; name it in ELSEWHERE, or add a check"


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_the_commands_of_each_block_exist(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for words in commands(block.text):
        check_command(words, f"{block}: {shlex.join(words)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_commands_in_sentences_exist(page: Path) -> None:
    for name, rest, target in IN_SENTENCES.findall(page.read_text(encoding="utf-8")):
        assert not target or target in TARGETS, f"make {target}"
        if name:
            assert name in cli.commands, name
            options = {option for parameter in cli.commands[name].params for option in parameter.opts}
            assert set(re.findall(r"(?<!\S)--[\w-]+", rest)) <= options, f"{name}{rest}"


def test_a_command_that_is_not_there_is_found() -> None:
    for line in ("python -m pipeline replya x", "python -m pipeline plan --jsn", "make reprot", "dvc repoo", "wget x"):
        with pytest.raises(REFUSALS):
            check_command(line.split(), "a page")


SETTINGS = [block for block in BLOCKS if block.language == "yaml"]


@pytest.mark.parametrize("block", SETTINGS, ids=str)
def test_the_settings_of_each_block_are_settings(block: Block) -> None:
    """A block may name a task that another block of its page has."""
    own = [parse_yaml(other.text).get("tasks", {}) for other in SETTINGS if other.page == block.page]
    tasks = {name: task for part in own for name, task in part.items()}
    whole = {"tasks": {"demo-sentences": {}, **tasks}, "backbones": {"demo-albert": {}}}
    Params.model_validate(whole | parse_yaml(block.text))


def test_every_block_is_of_a_known_kind() -> None:
    assert len(BLOCKS) > 40
    assert {block.language for block in BLOCKS} <= {"sh", "bash", "python", "diff", "yaml", "text"}
    guides = [block for block in BLOCKS if block.page.parent.name == "guides"]
    assert not {block.language for block in guides} & {"bash"}
    assert sum(bool(block.elsewhere) for block in guides) < len(guides) / 4
