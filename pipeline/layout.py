"""The layout of a run: every folder and file below its root, each defined here once."""

from dataclasses import dataclass
from pathlib import Path

EXPERIMENTS = (".dvc", "tmp", "exps")
"""Where DVC makes a temporary folder for each experiment that does not run in the project's folder itself."""


@dataclass(frozen=True)
class Workspace:
    """The folders and files of one run.

    DVC manages data/ and outputs/. runs/ is a cache beside DVC, addressed by content: it is never stale, and its
    removal costs time but no result. The other files belong to this machine. An experiment in a temporary folder has
    data/ and outputs/ of its own, and the cache and MLflow's store of its project (docs/design/experiments.md).

    Attributes:
        root: folder of the run; empty: the working directory.
    """

    root: Path = Path()

    @property
    def home(self) -> Path:
        """The project's folder: the root, unless DVC runs an experiment there."""
        parts = self.root.absolute().parts
        for i in range(len(parts) - len(EXPERIMENTS)):
            if parts[i : i + len(EXPERIMENTS)] == EXPERIMENTS:
                return Path(*parts[:i])
        return self.root

    @property
    def place(self) -> str:
        """The root as seen from the project's folder: "." or an experiment's temporary folder."""
        return self.root.absolute().relative_to(self.home.absolute()).as_posix()

    # Settings

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def profiles(self) -> Path:
        return self.root / "profiles"

    @property
    def settings(self) -> Path:
        """The settings that each stage depends on, a file per stage."""
        return self.outputs / "settings"

    def stage_settings(self, stage: str, task: str = "") -> Path:
        """The settings that a stage, or a task's instance of it, depends on."""
        return self.settings / stage / f"{task}.json" if task else self.settings / f"{stage}.json"

    @property
    def local_files(self) -> Path:
        """Links to the local files that stages read; DVC watches their content."""
        return self.outputs / "local"

    # Prepared data

    def data(self, task: str) -> Path:
        """Prepared splits of a task."""
        return self.root / "data" / task

    def manifest(self, task: str) -> Path:
        return self.data(task) / "manifest.json"

    def texts(self, task: str, split: str) -> Path:
        """The rows of a text split, before tokens are made."""
        return self.data(task) / "text" / f"{split}.parquet"

    def tokens(self, task: str, backbone: str, split: str) -> Path:
        return self.data(task) / backbone / f"{split}.arrow"

    def tokenizer(self, task: str, backbone: str) -> Path:
        return self.data(task) / backbone / "tokenizer.json"

    def pixels(self, task: str) -> Path:
        """Decoded images."""
        return self.data(task) / "pixels"

    # The cache: addressed by content

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def trials(self) -> Path:
        """One folder per trial, named by its key."""
        return self.runs / "trials"

    def trial(self, key: str) -> Path:
        return self.trials / key

    @property
    def recorded(self) -> Path:
        """Traces, each under a key of its model and rows."""
        return self.runs / "traces"

    @property
    def attacked(self) -> Path:
        """Records of attacked examples, a folder per task."""
        return self.runs / "attack"

    def shard(self, task: str, key: str) -> Path:
        """Records of some examples against one defence."""
        return self.attacked / task / f"{key}.json"

    def pooled(self, task: str, key: str) -> Path:
        """One defence's answers to the texts that broke any defence."""
        return self.attacked / task / "pooled" / f"{key}.json"

    def graphs(self, key: str) -> Path:
        """A model as ONNX graphs, for the attack, under a key of its weights."""
        return self.runs / "graphs" / key

    @property
    def hashes(self) -> Path:
        """Cached hashes of weights and data."""
        return self.runs / "hashes.json"

    @property
    def unsent(self) -> Path:
        """What the tracking server lacks, a file per run; empty while it answers."""
        return self.runs / "tracking"

    @property
    def unsent_models(self) -> Path:
        """The selected models that MLflow's registry lacks, a folder per content, laid out as a run."""
        return self.runs / "models"

    def unsent_model(self, content: str) -> Path:
        return self.unsent_models / content

    @property
    def weights(self) -> Path:
        """Cached hashes of pretrained weights."""
        return self.runs / "weights.json"

    @property
    def mirror(self) -> Path:
        """Pretrained weights in the hub mirror's layout, on a worker that shares no disk with the project."""
        return self.runs / "hub"

    def sent(self, path: Path) -> Path:
        """Where a file from anywhere on the driver's disk lies on a worker that shares no disk with it."""
        return self.runs / "files" / path.absolute().relative_to("/")

    @property
    def claims(self) -> Path:
        """Locks of what is made in the cache, a file per key."""
        return self.runs / "locks"

    @property
    def trials_used(self) -> Path:
        """Lock of the weights that no plan selected, which go once no plan runs."""
        return self.claims / "trials.db"

    @property
    def tune(self) -> Path:
        """Ray Tune's own files, while it runs."""
        return self.runs / ".tune"

    @property
    def gpu_memory(self) -> Path:
        """What kinds of trial were seen to need of a GPU's memory."""
        return self.runs / "gpu-memory.json"

    # Outputs

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def all_models(self) -> Path:
        """The selected models, a folder per task."""
        return self.outputs / "models"

    def models(self, task: str) -> Path:
        """The selected models of a task, a folder per trial."""
        return self.all_models / task

    def model(self, task: str, key: str) -> Path:
        return self.models(task) / key

    @property
    def all_selected(self) -> Path:
        return self.outputs / "selected"

    def selected(self, task: str) -> Path:
        return self.all_selected / f"{task}.json"

    @property
    def trials_table(self) -> Path:
        """Every trial of the plan."""
        return self.outputs / "finetune" / "trials.json"

    def traces(self, task: str) -> Path:
        return self.outputs / "traces" / task

    def trace_index(self, task: str) -> Path:
        return self.traces(task) / "index.json"

    def trace(self, task: str, key: str, split: str) -> Path:
        return self.traces(task) / f"{key}.{split}.safetensors"

    def evaluated(self, task: str) -> Path:
        return self.outputs / "evaluate" / f"{task}.json"

    def curves(self, task: str) -> Path:
        return self.outputs / "evaluate" / f"{task}.curves.csv"

    def predictions(self, task: str) -> Path:
        return self.outputs / "predictions" / task

    def predictions_index(self, task: str) -> Path:
        return self.predictions(task) / "index.json"

    def latency(self, task: str) -> Path:
        return self.outputs / "latency" / f"{task}.json"

    def all_exported(self, task: str) -> Path:
        """The exported models of a task, a folder per backbone and method."""
        return self.outputs / "exported" / task

    def exports(self, task: str) -> Path:
        return self.all_exported(task) / "index.json"

    def exported(self, task: str, backbone: str, method: str) -> Path:
        """The description of an exported model, in its folder."""
        return self.all_exported(task) / f"{backbone}.{method}" / "model.json"

    def attack(self, task: str) -> Path:
        return self.outputs / "attack" / f"{task}.json"

    def attack_records(self, task: str) -> Path:
        return self.outputs / "attack" / f"{task}.parquet"

    def attack_page(self, task: str) -> Path:
        return self.outputs / "attack" / f"{task}.html"

    @property
    def simulation(self) -> Path:
        return self.outputs / "simulate" / "simulate.json"

    @property
    def report(self) -> Path:
        return self.outputs / "report"

    # What DVC's own views show

    @property
    def metrics(self) -> Path:
        """What a change is judged by: a flat file per task."""
        return self.outputs / "metrics"

    @property
    def points(self) -> Path:
        """Every operating point as a flat file."""
        return self.outputs / "points"

    @property
    def plots(self) -> Path:
        """The tables behind DVC's plots."""
        return self.outputs / "plots"

    # Files of this machine

    @property
    def locks(self) -> Path:
        return self.root / ".locks"

    def lock(self, stage: str, task: str = "") -> Path:
        return self.locks / f"{stage}{f'@{task}' if task else ''}.lock"

    @property
    def graph(self) -> Path:
        return self.root / "dvc.yaml"

    @property
    def dvc_readers(self) -> Path:
        """What DVC knows of who reads and writes which paths; DVC writes it under a lock beside it."""
        return self.root / ".dvc" / "tmp" / "rwlock"

    @property
    def tracking_lock(self) -> Path:
        """Lock of the opening of the tracking store."""
        return self.home / ".locks" / "mlflow.lock"

    @property
    def folder_id(self) -> Path:
        """Identifies this folder's tracked runs on a shared server."""
        return self.home / ".locks" / "folder-id"

    @property
    def tracking_store(self) -> Path:
        return self.home / "mlflow.db"

    @property
    def tracked_artifacts(self) -> Path:
        return self.home / "mlartifacts"


HERE = Workspace()
"""The run in the working directory, which stages, commands and workers use."""
