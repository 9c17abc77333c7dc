"""The defences under attack: the single-exit model, and the multi-exit model under each criterion."""

from dataclasses import dataclass
from typing import Any

from pipeline.attacks.setting import Scores
from pipeline.attacks.settings import Attack
from pipeline.errors import ArtifactError, ParamsError, unknown
from pipeline.results import ALL_LAYERS, Evaluated, ModelGroup, OperatingPoint, Selected


@dataclass(frozen=True)
class Defence:
    """A trained model with the operating point at which it exits, and what its attacker sees of it.

    Attributes:
        name: "single exit", or the criterion's name; with ", adaptive" where the search follows the deepest exit.
        backbone, method, key, seed: of the trained model.
        point: the operating point; "all layers" runs the last exit only.
        weights_sha256: hash of the selected model's file.
        scores: the exit whose probabilities the search follows.
    """

    name: str
    backbone: str
    method: str
    key: str
    seed: int
    point: OperatingPoint = ALL_LAYERS
    weights_sha256: str = ""
    scores: Scores = "answered"

    def columns(self) -> dict[str, Any]:
        """The columns that identify the defence in the table of attacked examples."""
        return {
            "defence": self.name,
            "backbone": self.backbone,
            "method": self.method,
            "scores": self.scores,
            "criterion": self.point.criterion,
            "threshold": self.point.threshold,
            "key": self.key,
            "seed": self.seed,
        }


def find_defences(settings: Attack, selected: Selected, evaluated: Evaluated, split: str) -> list[Defence]:
    """The defences that the settings name, from finetune's and evaluate's results.

    The models of the first backbone are attacked: of each method the first seed, at the operating points that
    evaluate chose for that seed, once for each of `attack.scores`. The single exit is both in one.

    Args:
        split: the report split whose rows to read; a point is the same on every split.

    Raises:
        ParamsError: a method without a trained model, or a criterion without an operating point.
        ArtifactError: the selected models are not those that were evaluated.
    """
    if not selected.groups:
        raise ArtifactError(f"{selected.task}: no model is selected; run `dvc repro finetune`")
    backbone = selected.groups[0].backbone
    groups = {group.method: group for group in selected.groups if group.backbone == backbone}
    single, many = (_group(groups, settings, name) for name in ("single_exit", "multi_exit"))
    if not many.multi_exit:
        raise ParamsError(f"attack.multi_exit: {many.method!r} has one exit only; name a method with early exits")
    rows = {
        row.criterion: row
        for row in evaluated.rows
        if (row.backbone, row.method, row.split) == (backbone, many.method, split)
    }
    plain, exits = single.trials[0], many.trials[0]
    defences = [
        Defence("single exit", backbone, single.method, plain.key, plain.seed, weights_sha256=plain.weights_sha256)
    ]
    for name in settings.criteria:
        if name not in rows:
            raise ParamsError(
                f"attack.criteria: {name!r} has no operating point for {many.method!r}; add it to evaluate.criteria"
            )
        point = rows[name].point(exits.key)
        for scores in settings.scores:
            called = name if scores == "answered" else f"{name}, adaptive"
            trained = (backbone, many.method, exits.key, exits.seed)
            defences.append(Defence(called, *trained, point, exits.weights_sha256, scores))
    return defences


def _group(groups: dict[str, ModelGroup], settings: Attack, setting: str) -> ModelGroup:
    method: str = getattr(settings, setting)
    if method not in groups:
        raise unknown("method", method, groups, key=f"attack.{setting}")
    return groups[method]
