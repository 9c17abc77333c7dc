"""Draw the results of a profile again from its stored traces, without a model: make evidence PROFILE=depth12.

docs/evidence/PROFILE holds what finetune and trace left of the models behind docs/results-*.md: traces, selections and
the table of trials. The stages evaluate and report run on them in a scratch folder, as they would after a training.
What they write goes to docs/evidence/PROFILE, and the tables of the page are made from the same. Where only records
are stored (of trials, of attacks), the page's tables are all that is made.

    python -m tools.evidence PROFILE           draw it again
    python -m tools.evidence PROFILE --keep    first take the traces of the finished run in this folder
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from pipeline.errors import ArtifactError, PipelineError
from pipeline.identity.versions import COMMIT_VARIABLE, git_commit
from pipeline.layout import Workspace
from pipeline.params import load_params
from pipeline.results import Attack
from tools.results import baselines, depth, real, regimes, robustness, robustness12, sst2
from tools.results.tables import page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {module.PROFILE: module for module in (real, sst2, baselines, depth, regimes, robustness, robustness12)}
"""By profile: the page and its tables."""
WITHOUT_TRACES = (regimes.PROFILE,)
LIMIT = 20 * 2**20
"""Most bytes of one profile's traces in git."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", choices=sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml")))
    parser.add_argument("--keep", action="store_true", help="take the traces of the finished run in this folder")
    arguments = parser.parse_args()
    folder = ROOT / "docs/evidence" / arguments.profile
    try:
        if arguments.keep:
            keep(Workspace(), folder)
        if arguments.profile not in WITHOUT_TRACES:
            draw(arguments.profile, folder)
        if arguments.profile in PAGES:
            write_page(arguments.profile, folder)
    except PipelineError as error:
        sys.exit(f"evidence: {error}")


def keep(here: Workspace, folder: Path) -> None:
    """Copy what the results rest on from a finished run: traces, selections, trials, wall times, attacks without texts.

    An attack on the speed has a folder of its own, since it stands beside one on the answers.

    Raises:
        ArtifactError: the run is not finished, or its traces are too large for git.
    """
    parts = {"traces": here.outputs / "traces", "selected": here.all_selected, "trials.json": here.trials_table}
    params = load_params(here.root / "params.yaml")
    tasks = params.attack.tasks
    timed = [task for task in params.latency.tasks if here.latency(task).exists()]  # without Ray nothing is timed
    for path in (*parts.values(), *map(here.attack_records, tasks)):
        if not path.exists():
            raise ArtifactError(f"{path}: no such file; run the profile to its report first")
    size = sum(path.stat().st_size for path in parts["traces"].rglob("*.safetensors"))
    if size > LIMIT:
        raise ArtifactError(f"{parts['traces']}: {size / 2**20:.0f} MiB; git takes {LIMIT >> 20}, keep fewer tasks")
    for name, path in parts.items():
        shutil.rmtree(folder / name, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, folder / name)
        else:
            shutil.copy2(path, folder / name)
    for task in timed:
        (folder / "latency").mkdir(exist_ok=True)
        shutil.copy2(here.latency(task), folder / "latency")
    for task in tasks:
        name = task if params.attack.goal == "misclassify" else f"{params.attack.goal}/{task}"
        result = Attack.read(here.attack(task), "")
        plain = [
            one.model_copy(update={"rows": tuple(row.model_copy(update={"shown": ()}) for row in one.rows)})
            for one in result.attacked
        ]
        result.model_copy(update={"attacked": tuple(plain)}).write(folder / f"attack/{name}.json")
        robustness.keep_records(here.attack_records(task), folder / f"attack/{name}.csv")


def draw(profile: str, folder: Path) -> None:
    """Run evaluate and report on the stored traces, and keep what they write.

    Raises:
        ArtifactError: no traces are stored, or a stage refused them.
    """
    if not (folder / "traces").is_dir():
        raise ArtifactError(
            f"{folder.relative_to(ROOT)}: no stored traces; run `make demo PROFILE={profile}` with the hub or a "
            f"mirror, then `python -m tools.evidence {profile} --keep`"
        )
    with tempfile.TemporaryDirectory() as scratch:
        here = Workspace(Path(scratch))
        raw = yaml.safe_load((ROOT / f"profiles/{profile}.yaml").read_text(encoding="utf-8"))
        raw["latency"]["tasks"], raw["attack"]["tasks"] = [], {}  # both need the models
        (here.root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        shutil.copytree(folder / "traces", here.outputs / "traces")
        shutil.copytree(folder / "selected", here.all_selected)
        here.trials_table.parent.mkdir(parents=True)
        shutil.copy2(folder / "trials.json", here.trials_table)
        for task in raw["tasks"]:
            for stage in ("evaluate", "latency", "attack"):
                _run(here.root, stage, task)
        for stage in ("simulate", "report"):
            _run(here.root, stage)
        shutil.copy2(here.report / "report.md", folder / "report.md")
        for source, name in ((here.report / "figures", "figures"), (here.evaluated("").parent, "evaluated")):
            shutil.rmtree(folder / name, ignore_errors=True)
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("*curves*"))


def write_page(profile: str, folder: Path) -> None:
    """Make the tables of a profile's page anew."""
    module, params = PAGES[profile], load_params(ROOT / f"profiles/{profile}.yaml")
    text = page(module.PAGE.read_text(encoding="utf-8"), module.TABLES, params, folder)
    module.PAGE.write_text(text, encoding="utf-8")


def _run(folder: Path, stage: str, *task: str) -> None:
    command = [sys.executable, "-m", f"stages.{stage}", *task]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), COMMIT_VARIABLE: git_commit()}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ArtifactError(" ".join([stage, *task]) + f": {(done.stderr.strip() or done.stdout.strip())[-500:]}")


if __name__ == "__main__":
    main()
