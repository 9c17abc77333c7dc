"""The groups of a plan: tasks x backbones x methods of the same modality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import ArtifactError
from pipeline.models.names import BackboneSpec
from pipeline.models.weights import weights_identity
from pipeline.results import Manifest
from pipeline.tasks.stores import inputs_name, manifest_of
from pipeline.tasks.task import Modality, Task
from pipeline.training.code import code_key, trial_code
from pipeline.training.plan import Group, Plan
from pipeline.training.regimes import Method
from pipeline.training.settings import Grid, ImageTraining, Training

if TYPE_CHECKING:
    from pipeline.params import Params


@dataclass(frozen=True)
class Study:
    """The inputs of a plan, from params.yaml and the prepared data.

    Attributes:
        tasks: tasks with their manifests.
        grids, training: settings by modality.
        weights: backbone's name to the hash of its pretrained weights; "" for random ones.
        methods: entries of `methods`, complete.
        code: (modality, method) to the hash of the code that trains it; the method is an entry's recipe.
    """

    tasks: Sequence[tuple[Task, Manifest]]
    backbones: Sequence[BackboneSpec]
    methods: Sequence[Method]
    grids: Mapping[Modality, Grid]
    training: Mapping[Modality, Training | ImageTraining]
    weights: Mapping[str, str]
    code: Mapping[tuple[Modality, str], str]


def plan_of(params: "Params") -> Plan:
    """The plan: tasks x backbones x methods of the same modality, with grids and seeds."""
    backbones, mirror = [params.backbone(name) for name in params.backbones], params.runtime.hub_mirror
    study = Study(
        tasks=[(params.task(name), manifest_of(name)) for name in params.tasks],
        backbones=backbones,
        methods=[*params.entries().values()],
        grids=params.grids(),
        training=params.trainings(),
        weights={spec.name: weights_identity(spec.hub, mirror) if spec.hub else "" for spec in backbones},
        code={kind: code_key(trial_code(*kind)) for kind in kinds_of(params)},
    )
    return Plan(tuple(groups_of(study)), tuple(params.seeds))


def kinds_of(params: "Params") -> list[tuple[Modality, str]]:
    """The pairs of modality and method that the plan trains."""
    modalities = dict.fromkeys(params.task(name).modality for name in params.tasks)
    methods = params.entries().values()
    return [*dict.fromkeys((kind, m.info.name) for m in methods for kind in m.modalities if kind in modalities)]


def groups_of(study: Study) -> list[Group]:
    """The groups, in the order of tasks, then backbones, then methods.

    Raises:
        ArtifactError: the prepared data of a task have no tokens of a backbone.
    """
    return [
        _group(study, task, manifest, spec, method)
        for task, manifest in study.tasks
        for spec in study.backbones
        if spec.modality == task.modality
        for method in study.methods
        if task.modality in method.modalities
    ]


def _group(study: Study, task: Task, manifest: Manifest, spec: BackboneSpec, method: Method) -> Group:
    info, inputs = method.info, manifest.inputs.get(inputs_name(manifest, spec.name))
    if inputs is None:
        raise ArtifactError(
            f"data/{task.name}: no tokens of backbone {spec.name!r}; run `dvc repro prepare@{task.name}`"
        )
    prefix = f"{task.name}/{spec.name}/"
    settings: dict[str, Any] = {
        "modality": task.modality,
        "kind": task.kind,
        "outputs": task.outputs,
        "metrics": list(task.metrics),
        "data": inputs.hash,
        "backbone": spec.identity(info.multi_exit),
        "weights": study.weights[spec.name],
        "method": info.name,
        "code": study.code[task.modality, info.name],
        "training": identity_of(study.training[task.modality]),
    }
    if method.regime:
        settings["regime"] = dict(method.regime)
    if task.kind == "regression":
        settings["head_bias"] = "label mean"
    if spec.hub is None and task.modality == "text":
        settings["vocabulary"] = inputs.vocabulary
    if task.modality == "image":
        settings["colours"] = [list(values) for values in (inputs.mean or (), inputs.std or ())]
    grid = study.grids[task.modality]
    return Group(
        prefix + method.name,
        settings,
        prefix + method.parent if method.parent else None,
        names={"task": task.name, "backbone": spec.name, "hub": spec.hub, "method": method.name},
        batch_sizes=tuple(grid.batch_size),
        learning_rates=tuple(grid.learning_rate),
        search=grid.rule(),
    )


def identity_of(training: Training | ImageTraining) -> dict[str, Any]:
    """The settings of a block `training` that a trial's result depends on.

    `micro_batch` is one for images alone, whose networks normalise over the rows of a pass (BatchNorm). Settings that
    came later are left out at their defaults, so that keys of before hold.
    """
    fields = training.model_dump(mode="json", exclude={"micro_batch"} if isinstance(training, Training) else None)
    later = {"compile": False, "precision": "auto", "micro_batch": None}
    return {name: value for name, value in fields.items() if name not in later or value != later[name]}
