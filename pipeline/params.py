"""params.yaml, validated. Every key is documented here and nowhere else; an unknown or impossible one is refused.

All blocks but `runtime` change results and are tracked by DVC; `runtime` only says how and where to run.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.errors import ParamsError, unknown
from pipeline.evaluation.criteria import CRITERIA, make
from pipeline.models.names import BackboneSettings, BackboneSpec, resolve_backbone
from pipeline.settings import Block, Count, NonNegativeFloat, OpenShare, PositiveFloat, PositiveInt, Share
from pipeline.tasks.names import resolve_task
from pipeline.tasks.task import HubSource, Rows, Task, TaskSettings
from pipeline.training.methods import METHODS


class Grid(Block):
    """The grid that every (task, backbone, method) searches with the first seed."""

    batch_size: list[PositiveInt] = Field(min_length=1)
    learning_rate: list[PositiveFloat] = Field(min_length=1)


class Training(Block):
    """AdamW with linear warm-up and decay; early stopping on the selection score."""

    epochs: PositiveInt = 3
    stop_after: PositiveInt = 2
    """Epochs without a better selection score before training stops."""
    warmup: Share = 0.1
    weight_decay: NonNegativeFloat = 0.01
    clip_norm: PositiveFloat = 1.0
    micro_batch: PositiveInt | None = None
    """Rows that go through a model at a time, where a batch does not fit into memory; gradients are added up. None:
    the whole batch, and half as many rows again and again on a GPU that runs out of memory."""
    compile: bool = False
    """Whether torch.compile makes the model's forward pass: some minutes per trial at its start, less per step. Recipes
    that do not train on it (berxit, layer_drop, theseus, patient_distillation) gain nothing."""


class Choose(Block):
    """How an operating point is chosen on selection rows (pipeline/evaluation/choosing.py says each rule in full).

    window: the best score in the speed-up window. speedup: the setting nearest to a layer speed-up of `target`, at or
    above it. risk: the fastest setting whose loss against the full model is at most `epsilon` with probability
    1 - `delta`.
    """

    rule: Literal["window", "speedup", "risk"] = "window"
    target: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    epsilon: OpenShare | None = None
    """Share of rows that may be lost: 0.02 is two points of accuracy at most."""
    delta: OpenShare | None = None
    loss: Literal["gap", "consistency"] | None = None
    """gap (the default): a row is lost when it is wrong and the full model is right; consistency: when the answer is
    another than the full model's."""
    tolerance: PositiveFloat | None = None
    """Regression only: label units that an answer may be further off without being lost."""

    @model_validator(mode="after")
    def _complete(self) -> "Choose":
        needed = {"window": (), "speedup": ("target",), "risk": ("epsilon", "delta")}[self.rule]
        allowed = {"rule", *needed, *(("loss", "tolerance") if self.rule == "risk" else ())}
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"rule {self.rule!r} needs {name}; add it")
        for name, value in self:
            if value is not None and name not in allowed:
                raise ValueError(f"rule {self.rule!r} has no {name}; take it out")
        return self

    def lacks_tolerance(self) -> bool:
        """Whether the rule cannot be applied to a regression."""
        return self.rule == "risk" and self.tolerance is None


class Evaluate(Block):
    """Criteria and their settings, and how an operating point is chosen."""

    criteria: dict[str, dict[str, float]] = Field(min_length=1)
    window: tuple[PositiveFloat, PositiveFloat] = (1.30, 1.96)
    """Layer speed-ups that an operating point may have under the rule `window`."""
    choose: Choose = Choose()

    @field_validator("criteria")
    @classmethod
    def _known(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for name, settings in value.items():
            make(name, settings, key=f"{cls.__name__.lower()}.criteria")  # cifar has them too
        return value

    @model_validator(mode="after")
    def _ordered(self) -> "Evaluate":
        if self.window[0] > self.window[1]:
            raise ValueError(f"window {list(self.window)} is empty; give [low, high]")
        return self


class Latency(Block):
    """Wall time of the live engine, on `rows` report rows of each task named."""

    tasks: list[str]
    rows: PositiveInt = 64
    batch_size: PositiveInt = 32
    repeats: PositiveInt = 3


class AttackResources(Block):
    """Local resources of a recipe; all None fetches the stock ones (network needed)."""

    nltk_data: Path | None = None
    word_vectors: Path | None = None
    sentence_encoder: Path | None = None
    masked_lm: Path | None = None
    """Folder of a masked language model; BAE's."""
    sentence_threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Smallest cosine between original and changed window; None: the recipe's own (TextFooler: 0.8776)."""


class AttackTask(Block):
    """What to attack a task's models with: a data set of its own (a hub name), or the task's report split."""

    examples: PositiveInt
    source: HubSource | None = None
    text: list[str] | None = None
    """The set's text columns, where it names them otherwise than the task."""

    @model_validator(mode="after")
    def _of_source(self) -> "AttackTask":
        if self.text is not None and self.source is None:
            raise ValueError("text names columns of source, which is not there; add source, or take text out")
        return self


class Attack(Block):
    """A published attack on the live model at the operating points that evaluate chose."""

    tasks: dict[str, AttackTask]
    recipe: Literal["textfooler", "pwws", "textbugger", "deepwordbug", "bae"] = "textfooler"
    goal: Literal["misclassify", "slow_down"] = "misclassify"
    """slow_down: make it run through all layers, its answer unchanged."""
    attacker: Literal["own", "textattack"] = "own"
    """textattack: the reference, whose outcomes, queries and texts ours equals, slower."""
    criteria: list[str] = ["confidence", "entropy", "patience"]
    single_exit: str = "single_exit"
    multi_exit: str = "joint"
    resources: AttackResources | Literal["stock", "demo"] = "stock"
    seed: Count = 0
    max_queries: PositiveInt | None = None

    @field_validator("criteria")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in CRITERIA:
                raise unknown("criterion", name, CRITERIA, key="attack.criteria")
            if not CRITERIA[name].causal:
                raise ParamsError(f"attack.criteria: {name!r} is a bound for replay, no model runs it; take it out")
        return value


class Cifar(Block):
    """Residual networks with exits on 32x32 images."""

    datasets: list[Literal["demo-images", "cifar10", "cifar100"]]
    methods: list[Literal["plain", "joint", "shallow_deep"]]
    rows: Rows = Rows()
    depth: PositiveInt = 56
    """Layers of the CIFAR ResNet, 6n + 2."""
    width: PositiveInt = 16
    exits: Literal["every_two_convs", "six"] = "every_two_convs"
    grid: Grid = Grid(batch_size=[128], learning_rate=[0.1])
    seeds: list[Count] = Field(default=[1], min_length=1)
    epochs: PositiveInt = 100
    weight_decay: NonNegativeFloat = 1e-4
    augment: bool = True
    criteria: dict[str, dict[str, float]]
    window: tuple[PositiveFloat, PositiveFloat] = (1.20, 1.40)
    choose: Choose = Choose()

    _known = field_validator("criteria")(Evaluate._known.__func__)  # type: ignore[attr-defined]

    @field_validator("depth")
    @classmethod
    def _resnet(cls, value: int) -> int:
        if value < 8 or (value - 2) % 6:
            raise ValueError(f"depth {value} is not 6n + 2; take 8, 14, 20, 32, 44, 56 or 110")
        return value


class Simulate(Block):
    """Appendix C and Theorem 1."""

    layers: PositiveInt = 12
    patiences: list[Count] = list(range(1, 12))
    step: Annotated[float, Field(gt=0, le=0.5)] = 0.01
    samples: PositiveInt = 10_000
    seed: Count = 0


class Runtime(Block):
    """Where and how to run. Never a DVC dependency: nothing here may change a result on one device."""

    workers: PositiveInt | None = None
    """Trials side by side when Ray is our own; None: as many as cores / threads, or GPUs / gpus_per_trial."""
    threads: PositiveInt = 1
    gpus_per_trial: NonNegativeFloat | None = None
    """Share of a GPU per trial: 0.25 packs four trials on one. None: as many as fit at `gpu_memory` each."""
    gpu_memory: PositiveFloat = 12.0
    """GiB of GPU memory that a trial may need."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    retries: Count = 2
    ray_address: str | None = None
    """A running cluster to join; the environment's RAY_ADDRESS comes first."""
    tracking_uri: str | None = None
    """MLflow server or database; the environment's MLFLOW_TRACKING_URI comes first."""
    hub_mirror: Path | None = None
    """Folder in the hub's layout; the environment's HUB_MIRROR comes first."""
    progress: bool = True


class Params(Block):
    """The whole of params.yaml."""

    protocol: Literal["holdout", "paper"] = "holdout"
    """holdout: selection rows come out of the training split, the official validation split only reports.
    paper: select on the official validation split, as the paper did; every row then says so."""
    tasks: dict[str, TaskSettings] = Field(min_length=1)
    backbones: dict[str, BackboneSettings] = Field(min_length=1)
    methods: list[str] = Field(min_length=1)
    grid: Grid
    seeds: list[Count] = Field(min_length=1)
    training: Training
    evaluate: Evaluate
    latency: Latency
    attack: Attack
    cifar: Cifar
    simulate: Simulate
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _names(self) -> "Params":
        for name in self.tasks:
            if self.task(name).kind == "regression" and self.evaluate.choose.lacks_tolerance():
                raise ParamsError(f"evaluate.choose: rule 'risk' needs tolerance for the regression {name!r}; add it")
        for name in self.backbones:
            self.backbone(name)
        for name in self.methods:
            if name not in METHODS:
                raise unknown("method", name, METHODS, key="methods")
            parent = METHODS[name].parent
            if parent and parent not in self.methods:
                raise ParamsError(f"methods: {name!r} starts from {parent!r}; add {parent!r} to the list")
        for name in self.evaluate.criteria:
            method = CRITERIA[name].recorded_by
            if method and method not in self.methods:
                raise ParamsError(
                    f"evaluate.criteria: {name!r} reads what models of {method!r} record; add {method!r} to methods"
                )
        for name in self.cifar.criteria:
            if CRITERIA[name].recorded_by:
                raise ParamsError(f"cifar.criteria: {name!r} reads what no image method records; take it out")
        for key, names in (("latency.tasks", self.latency.tasks), ("attack.tasks", list(self.attack.tasks))):
            for name in names:
                if name not in self.tasks:
                    raise unknown("task", name, self.tasks, key=key)
        _refuse_repeats(self, "methods", "seeds")
        _refuse_repeats(self.cifar, "datasets", "methods", "seeds", prefix="cifar.")
        for grid, prefix in ((self.grid, "grid."), (self.cifar.grid, "cifar.grid.")):
            _refuse_repeats(grid, "batch_size", "learning_rate", prefix=prefix)
        return self

    def task(self, name: str) -> Task:
        """The complete task of an entry of `tasks`."""
        if name not in self.tasks:
            raise unknown("task", name, self.tasks, key="tasks")
        return resolve_task(name, self.tasks[name])

    def backbone(self, name: str) -> BackboneSpec:
        """The complete backbone of an entry of `backbones`."""
        if name not in self.backbones:
            raise unknown("backbone", name, self.backbones, key="backbones")
        return resolve_backbone(name, self.backbones[name])


def _refuse_repeats(block: Block, *names: str, prefix: str = "") -> None:
    for name in names:
        values = getattr(block, name)
        if len(set(values)) != len(values):
            raise ParamsError(f"{prefix}{name}: {values} has one twice; give distinct ones")


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and validate the settings.

    Raises:
        ParamsError: missing or unreadable file, unknown name, wrong type or impossible value: one line with the key.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; copy one of profiles/*.yaml there") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ParamsError(f"{path}: not valid YAML ({reason}); mend it or copy one of profiles/*.yaml") from None
    if not isinstance(raw, dict):
        raise ParamsError(f"{path}: holds {type(raw).__name__}, not a mapping; copy one of profiles/*.yaml")
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(f"{path}: {_first_problem(error)}") from None
    return params.model_copy(update={"runtime": _environment(params.runtime)})


def _first_problem(error: ValidationError) -> str:
    """The first validation error as one line: key, value, remedy."""
    first = error.errors(include_url=False)[0]
    variants = ("HubSource", "FileSource", "DemoSource", "AttackResources")
    key = ".".join(str(part) for part in first["loc"] if part not in variants)
    if first["type"] == "extra_forbidden":
        return f"{key}: no such setting; see pipeline/params.py for the known ones"
    if first["type"] == "missing":
        return f"{key}: missing; add it (profiles/demo.yaml has every key)"
    message = first["msg"].removeprefix("Value error, ")
    value: Any = first["input"]
    shown = repr(value) if not isinstance(value, dict) else ""
    return f"{key}: {shown + ': ' if shown else ''}{message[0].lower() + message[1:]}"


def _environment(runtime: Runtime) -> Runtime:
    """The environment's addresses come before the file's: they belong to the machine, not to the experiment."""
    names = {"ray_address": "RAY_ADDRESS", "tracking_uri": "MLFLOW_TRACKING_URI", "hub_mirror": "HUB_MIRROR"}
    found = {field: os.environ[name] for field, name in names.items() if os.environ.get(name)}
    return Runtime.model_validate(runtime.model_dump() | found)
