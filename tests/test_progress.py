"""Bars: on a terminal, below the lines that are printed; elsewhere nothing."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.identity.imports import ROOT
from pipeline.params import Params
from pipeline.running import stage

CODE = """
import copy
import sys
from pipeline.running.progress import Bar
with Bar("trials", 3, done=1, show={show}) as bar:
    print("first line", flush=True)
    bar.step()
    bar.note("7 epochs trained")
    bar.step(3)
    copy.deepcopy(bar).step()  # shows nothing, and can be made: Tune pickles what it is given
    print("second", end=" ")
    print("line")
print("third line")
"""


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def on_terminal(show: bool = True, **variables: str) -> str:
    """What a terminal gets."""
    plain = {name: value for name, value in os.environ.items() if name not in ("CI", "TERM")}
    with terminal() as (ours, theirs):
        subprocess.run(
            [sys.executable, "-c", CODE.format(show=show)], cwd=ROOT, env=plain | {"TERM": "xterm"} | variables,
            stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, check=True,
        )  # fmt: skip
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 65536):
                text += part
        except OSError:  # Linux's end of a terminal
            pass
    return text.decode()


def test_a_bar_stands_below_the_lines() -> None:
    text = on_terminal()
    assert "trials:  33%" in text
    assert "7 epochs trained" in text
    left = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").strip("\n").split("\n")]
    assert left == ["first line", "second line", "third line"], "and goes when the work is done"


@pytest.mark.parametrize("quiet", [{"CI": "true"}, {"TERM": "dumb"}])
def test_no_bar_in_ci(quiet: dict[str, str]) -> None:
    assert on_terminal(**quiet).split() == ["first", "line", "second", "line", "third", "line"]


def test_no_bar_where_settings_ask_for_none() -> None:
    assert "%" not in on_terminal(show=False)


def test_no_bar_in_a_log() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(show=True)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["first line", "second line", "third line"]
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [[], ["--quiet"]])
def test_a_stage_is_quiet_where_it_is_asked_to_be(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def run(name: str, instance: str, params: Params, *others: object) -> None:
        seen.append(params.runtime.progress)

    monkeypatch.setattr(stage, "_locked", run)
    monkeypatch.setattr(sys, "argv", ["finetune", *arguments])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        stage.run_stage("finetune", lambda stage: None, per_task=False)
    assert not ended.value.code
    assert seen == [not arguments]
