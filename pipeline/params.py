"""params.yaml, validated: its blocks, each documented beside the code that it sets.

All blocks but `runtime` change results and are tracked by DVC; `runtime` sets how and where to run. Only `tasks` is
required. Other keys default to the paper's settings, and an empty block is not run.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from pipeline.attacks.settings import Attack, refuse_task
from pipeline.errors import ParamsError, redacted, shown, unknown
from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.settings import Evaluate
from pipeline.layout import HERE
from pipeline.models.names import BackboneSettings, BackboneSpec, resolve_backbone
from pipeline.models.settings import Export, Latency
from pipeline.running.address import VARIABLE
from pipeline.running.settings import Runtime
from pipeline.settings import UNKNOWN, Block, Distinct, Name, Seed, check_distinct
from pipeline.storage import read_yaml
from pipeline.tasks.names import resolve_task
from pipeline.tasks.task import Modality, Task, TaskSettings
from pipeline.theory import Simulate
from pipeline.training.methods import METHODS
from pipeline.training.regimes import Method, MethodSettings, resolve_methods
from pipeline.training.settings import Grid, Images, ImageTraining, Training


def _named(methods: Any) -> Any:
    """A list of methods as names without settings."""
    if not isinstance(methods, list) or not all(isinstance(name, str) for name in methods):
        return methods
    for name in check_distinct(methods):
        if name not in METHODS:
            raise unknown("method", name, METHODS, key="methods")
    return {name: {} for name in methods}


class Params(Block):
    """The whole of params.yaml."""

    protocol: Literal["holdout", "paper"] = "holdout"
    """holdout: selection rows come out of the training split, the official validation split only reports.
    paper: the official validation split also selects, as in the paper; every row of the report then says so."""
    on_missing: Literal["refuse", "report"] = "refuse"
    """What finetune does about points of a grid that failed for good, when all other trials have run. refuse: it ends
    with their names, and nothing is chosen. report: it chooses among the others, and the report names those."""
    tasks: dict[Name, TaskSettings] = Field(min_length=1)
    backbones: dict[Name, BackboneSettings] = Field(default={"minilm": BackboneSettings()}, min_length=1)
    """A task is run on every backbone of its modality."""
    methods: Annotated[dict[Name, MethodSettings], BeforeValidator(_named)] = Field(
        default={"single_exit": MethodSettings(), "joint": MethodSettings()}, min_length=1
    )
    """A backbone is trained by every method of its modality. A list of names, or names with settings."""
    grid: Grid = Grid()
    """For text tasks; images have their own."""
    seeds: Annotated[list[Seed], Distinct] = Field(default=[1, 2, 3, 4, 5], min_length=1)
    training: Training = Training()
    """For text tasks; images have their own."""
    images: Images = Images()
    evaluate: Evaluate = Evaluate()
    latency: Latency = Latency()
    export: Export = Export()
    attack: Attack = Attack()
    simulate: Simulate = Simulate()
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _names(self) -> "Params":
        self._check_tasks()
        self._check_methods()
        self._check_searches()
        for name in self.evaluate.criteria:
            method = CRITERIA[name].recorded_by
            if method and all(own.info.name != method for own in self.entries().values()):
                raise ParamsError(
                    f"evaluate.criteria: {name!r} reads a channel that {method!r} records; add {method!r} to methods"
                )
        for key, names in (
            ("latency.tasks", self.latency.tasks),
            ("export.tasks", self.export.tasks),
            ("attack.tasks", list(self.attack.tasks)),
        ):
            for name in names:
                if name not in self.tasks:
                    raise unknown("task", name, self.tasks, key=key)
        self._check_engines()
        self._check_attack()
        return self

    def _check_engines(self) -> None:
        """Check that what latency times is exported."""
        for engine in self.latency.engines:
            kind, _, precision = engine.partition("-")
            if kind != "onnx" or not self.latency.tasks:
                continue
            where = f"latency.engines: {engine!r} times what export leaves"
            if precision not in self.export.precisions:
                raise ParamsError(f"{where}; add {precision!r} to export.precisions, or take it out")
            for name in self.latency.tasks:
                if name not in self.export.tasks:
                    raise ParamsError(f"{where}; add {name!r} to export.tasks, or take it out")

    def _check_searches(self) -> None:
        """Check that what may stop a trial early has an epoch to stop it after."""
        for modality, grid in self.grids().items():
            block = "" if modality == "text" else "images."
            if grid.search == "asha" and self.trainings()[modality].epochs == 1:
                raise ParamsError(
                    f"{block}grid.search: 'asha' stops trials after an epoch, and {block}training.epochs is 1; set grid"
                )

    def _check_tasks(self) -> None:
        """Check that every task is complete and has a backbone of its modality."""
        serving = {self.backbone(name).modality for name in self.backbones}
        for name in self.tasks:
            task = self.task(name)
            self.evaluate.choose.refuse_task(name, task.kind)
            if task.modality not in serving:
                example = "resnet20" if task.modality == "image" else "minilm"
                raise ParamsError(
                    f"backbones: no backbone serves {task.modality}s, which task {name!r} has; add {example}"
                )

    def _check_methods(self) -> None:
        """Check that every method exists and has its parent, and that every task's modality has a method."""
        methods = self.entries()
        for name in self.tasks:
            modality = self.task(name).modality
            if not any(modality in method.modalities for method in methods.values()):
                raise ParamsError(f"methods: task {name!r} has {modality}s, and no method trains on them; add joint")

    def _check_attack(self) -> None:
        """Check that what is attacked is trained and evaluated, where a task is attacked at all."""
        attack = self.attack
        for name, chosen in attack.tasks.items():
            task = self.task(name)
            refuse_task(task)
            columns = chosen.text or task.text
            if len(columns) != len(task.text):
                raise ParamsError(
                    f"attack.tasks.{name}.text: {', '.join(columns)}; name one column for each of "
                    f"{', '.join(task.text)}"
                )
        if not attack.tasks:
            return
        for key, many in (("single_exit", False), ("multi_exit", True)):
            method = getattr(attack, key)
            methods = self.entries()
            fit = [n for n, one in methods.items() if one.info.multi_exit == many and "text" in one.modalities]
            if method not in (*METHODS, *methods):
                raise unknown("method", method, METHODS, key=f"attack.{key}")
            if method not in self.methods:
                raise ParamsError(
                    f"attack.{key}: {method!r} is not in methods; add it there, or set attack.tasks to {{}}"
                )
            if method not in fit:
                has = "one exit" if many else "early exits"
                raise ParamsError(f"attack.{key}: {method!r} has {has}; name one of {', '.join(fit) or 'none here'}")
        for name in attack.criteria:
            needed = CRITERIA[name].recorded_by
            if name not in self.evaluate.criteria:
                raise ParamsError(
                    f"attack.criteria: {name!r} is not in evaluate.criteria; add it there, or take it out"
                )
            if needed not in (None, self.entries()[attack.multi_exit].info.name):
                raise ParamsError(
                    f"attack.criteria: {name!r} needs attack.multi_exit {needed!r}; set it, or take it out"
                )

    def task(self, name: str) -> Task:
        """The complete task of an entry of `tasks`."""
        if name not in self.tasks:
            raise unknown("task", name, self.tasks, key="tasks")
        return resolve_task(name, self.tasks[name])

    def entries(self) -> dict[str, Method]:
        """The complete methods of the entries of `methods`."""
        return resolve_methods(self.methods)

    def backbone(self, name: str) -> BackboneSpec:
        """The complete backbone of an entry of `backbones`."""
        if name not in self.backbones:
            raise unknown("backbone", name, self.backbones, key="backbones")
        return resolve_backbone(name, self.backbones[name])

    def backbones_for(self, modality: Modality) -> list[BackboneSpec]:
        """The backbones that serve a modality."""
        return [spec for spec in map(self.backbone, self.backbones) if spec.modality == modality]

    def window(self, modality: Modality) -> tuple[float, float]:
        """Lowest and highest layer speed-up for the rule `window`."""
        return self.images.window if modality == "image" else self.evaluate.window

    def grids(self) -> dict[Modality, Grid]:
        """The grid of each modality."""
        return {"text": self.grid, "image": self.images.grid}

    def trainings(self) -> dict[Modality, Training | ImageTraining]:
        """The training settings of each modality."""
        return {"text": self.training, "image": self.images.training}


def load_params(path: Path = HERE.params) -> Params:
    """Read and validate the settings.

    Raises:
        ParamsError: missing or unreadable file, unknown name, wrong type or impossible value.
    """
    try:
        raw = read_yaml(path)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; copy one of profiles/*.yaml there") from None
    except ValueError as error:
        raise ParamsError(f"{path}: not valid YAML ({error}); mend it or copy one of profiles/*.yaml") from None
    if not isinstance(raw, dict):
        holds = "is empty" if raw is None else f"holds {shown(raw)}, not blocks"
        raise ParamsError(f"{path}: {holds}; copy one of profiles/*.yaml")
    _refuse_secrets(path, raw)
    params = validated(raw, str(path))
    return params.model_copy(update={"runtime": _environment(params.runtime)})


def validated(raw: Any, where: str) -> Params:
    """The settings that the blocks of params.yaml hold.

    Args:
        where: what holds them, for messages.

    Raises:
        ParamsError: unknown name, wrong type or impossible value.
    """
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(f"{where}: {_first_problem(error)}") from None


def _refuse_secrets(path: Path, value: Any, key: str = "") -> None:
    """Refuse passwords and tokens: the file is committed, and its settings stand in runs and results."""
    if isinstance(value, str) and redacted(value) != value:
        raise ParamsError(
            f"{path}: {key}: {shown(redacted(value))} holds a password or token, and this file is committed; take it "
            "out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, HF_TOKEN or AWS_* in the environment"
        )
    if isinstance(value, (dict, list)):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            _refuse_secrets(path, part, f"{key}.{name}" if key else str(name))


def _first_problem(error: ValidationError) -> str:
    """The first validation error as one line: key, value, remedy."""
    first = error.errors(include_url=False)[0]
    variants = ("HubSource", "FileSource", "DemoSource", "AttackResources")
    places = [part for part in first["loc"] if part not in (*variants, "[key]")]
    if first["type"] == UNKNOWN:
        places.append(first["ctx"]["key"])
    key = ".".join(str(part) if isinstance(part, int) else shown(part).strip("'\"") for part in places)
    if first["type"] == "missing":
        return f"{key}: missing; add it (profiles/demo.yaml has every key)"
    message = first["msg"].removeprefix("Value error, ")
    message = message if message.startswith("'") else message[0].lower() + message[1:]
    if first["type"] == UNKNOWN or isinstance(first["input"], dict) or message.startswith(shown(first["input"])):
        return f"{key}: {message}" if key else message
    return f"{key}: {shown(first['input'])}: {message}"


def _environment(runtime: Runtime) -> Runtime:
    """The block with the environment's addresses, which override those of params.yaml."""
    names = {"ray_address": "RAY_ADDRESS", "tracking_uri": "MLFLOW_TRACKING_URI", "hub_mirror": "HUB_MIRROR"}
    names |= {"storage": VARIABLE}
    overrides = {field: os.environ[name] for field, name in names.items() if os.environ.get(name)}
    return Runtime.model_validate(runtime.model_dump() | overrides)
