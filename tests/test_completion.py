"""Shell completion of `python -m pipeline`: in a real bash, and the protocol of the others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands.completion import SCRIPTS, VARIABLE, script
from pipeline.identity.imports import ROOT

TRY = """
eval "$({python} -m pipeline completion bash)"
complete -p python3
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
_early_exit_completion 2>/dev/null
echo "${{COMPREPLY[*]}}"
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-m pipeline list cr", "criteria"),
        ("-m pipeline profile pap", "paper"),
        ("-m pipeline why fine", "finetune"),
        ("-m pipeline compare --j", "--json"),
        ("-m pip", ""),
    ],
)
def test_bash_completes_commands_options_and_names(words: str, expected: str) -> None:
    text = TRY.format(python=sys.executable, words=f"{sys.executable} {words}")
    done = subprocess.run(["bash", "--norc", "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
    registered, answer = done.stdout.splitlines()[:2]
    assert "_early_exit_completion" in registered
    assert answer == expected


@pytest.mark.parametrize("shell", SCRIPTS)
def test_every_script_asks_click(shell: str, tmp_path: Path) -> None:
    """The protocol of that shell's script, from a folder without a project."""
    assert f"{VARIABLE}={shell}_complete" in script(shell)
    asked = {VARIABLE: f"{shell}_complete", "COMP_WORDS": "pipeline li", "COMP_CWORD": "li" if shell == "fish" else "1"}
    environment = os.environ | asked | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "list" in done.stdout
    assert done.stderr == ""
