"""The command `submission`: one model's predictions as a zip file for GLUE's server."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.commands.output import refuse_output, writing
from pipeline.errors import ArtifactError, ParamsError, unknown
from pipeline.layout import HERE
from pipeline.params import load_params
from pipeline.results import PredictionFile, Predictions
from pipeline.storage import file_hash, whole_file
from pipeline.tasks.names import TASKS
from pipeline.tasks.task import Task

ALWAYS_MISSING = ("AX.tsv", "WNLI.tsv")
"""Files that the server needs and no task here makes: the diagnostic set, and a task that the paper left out."""
FIRST_DAY = (1980, 1, 1, 0, 0, 0)
"""The date of every file in an archive, so that equal predictions give equal archives."""


@dataclass(frozen=True)
class Zipped:
    """A file of the archive; threshold None: all layers."""

    file: str
    task: str
    rows: int
    seed: int
    threshold: float | None


@dataclass(frozen=True)
class Submission:
    """An archive for GLUE's server, and the files that the server needs beside it."""

    archive: str
    files: tuple[Zipped, ...]
    missing: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """What is in the archive and what is missing, to print."""
        lines = []
        for part in self.files:
            knob = "all layers" if part.threshold is None else f"threshold {part.threshold:g}"
            lines.append(f"{part.file:<11} {part.task}: {part.rows:,} rows, seed {part.seed}, {knob}")
        needs = f"the server also needs {', '.join(self.missing)}: add them from its sample archive"
        return [*lines, f"{self.archive}: {len(self.files)} files; {needs}"]


def make_submission(model: str, out: Path) -> Submission:
    """Zip a model's predictions for the tasks with `test: true`.

    Args:
        model: a name from `predictions.model_of`.

    Raises:
        ParamsError: `out` is no zip file's name, there is no such model, or no task has `test: true`.
        ArtifactError: a file of predictions is missing or was changed, or `out` cannot be written.
    """
    refuse_output(out, [".zip"])
    params = load_params()
    tasks = [task for name in params.tasks if (task := params.task(name)).server and task.unlabelled]
    entries = _entries(tasks, model)
    files = {Path(entry.file).name: HERE.predictions(name) / entry.file for name, entry in entries}
    with writing(out):
        write_archive(out, files)
    zipped = tuple(
        Zipped(Path(entry.file).name, name, entry.rows, entry.seed, entry.point.threshold) for name, entry in entries
    )
    server_files = [name for task in TASKS.values() if task.server for name in task.server.names.values()]
    missing = tuple(name for name in (*server_files, *ALWAYS_MISSING) if name not in files)
    return Submission(str(out), zipped, missing)


def _entries(tasks: Sequence[Task], model: str) -> list[tuple[str, PredictionFile]]:
    """Task and index entry of each of the model's files; refuses files that were changed."""
    if not tasks:
        raise ParamsError("tasks: no task of GLUE has test: true; set tasks.<name>.test and run `dvc repro`")
    entries, models = [], set()
    for task in tasks:
        index = Predictions.read(HERE.predictions_index(task.name), f"run `dvc repro evaluate@{task.name}`")
        for entry in index.files:
            models.add(entry.model)
            if entry.model != model:
                continue
            path = HERE.predictions(task.name) / entry.file
            if not path.is_file() or file_hash(path) != entry.sha256:
                raise ArtifactError(
                    f"{path}: gone or changed since it was written; run `dvc repro -f evaluate@{task.name}`"
                )
            entries.append((task.name, entry))
    if not entries:
        raise unknown("model (backbone.method.criterion)", model, models, key="submission")
    return entries


def write_archive(out: Path, files: Mapping[str, Path]) -> None:
    """Zip files under their names, without folders; the archive appears when it is complete."""
    with whole_file(out) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, FIRST_DAY)
            archive.writestr(info, files[name].read_bytes(), zipfile.ZIP_DEFLATED)
