"""What is attacked: the single-exit model, and the multi-exit model under each criterion at its operating point."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.attacks.settings import Attack
from pipeline.errors import ParamsError, unknown
from pipeline.evaluation.criteria import Criterion, make


@dataclass(frozen=True)
class Defence:
    """A trained model and how it leaves.

    Attributes:
        name: "single exit", or the criterion's name.
        backbone, method, key, seed: of the trained model.
        criterion: None asks the last exit only.
        threshold: of the criterion; infinity never leaves early.
    """

    name: str
    backbone: str
    method: str
    key: str
    seed: int
    criterion: Criterion | None = None
    threshold: float = np.inf

    def labels(self) -> dict[str, Any]:
        """What identifies it in a result row; JSON."""
        return {
            "defence": self.name,
            "backbone": self.backbone,
            "method": self.method,
            "criterion": self.criterion.name if self.criterion else None,
            "threshold": None if np.isinf(self.threshold) else float(self.threshold),
            "key": self.key,
            "seed": self.seed,
        }


def find_defences(
    settings: Attack, selected: Mapping[str, Any], evaluated: Mapping[str, Any], split: str
) -> list[Defence]:
    """The defences that the settings name, from finetune's and evaluate's results.

    The first backbone's models are attacked, each method's with its first seed; thresholds are those that evaluate
    chose for that seed.

    Args:
        split: the report split whose rows to read (a threshold is the same on all of them).

    Raises:
        ParamsError: a method without a trained model, or a criterion without an operating point.
    """
    backbone = selected["groups"][0]["backbone"]
    groups = {g["method"]: g for g in selected["groups"] if g["backbone"] == backbone}

    def trial(method: str, setting: str) -> Mapping[str, Any]:
        if method not in groups:
            raise unknown("method", method, groups, key=f"attack.{setting}")
        found: Mapping[str, Any] = groups[method]["trials"][0]
        return found

    plain = trial(settings.single_exit, "single_exit")
    defences = [Defence("single exit", backbone, settings.single_exit, plain["key"], plain["seed"])]
    method = settings.multi_exit
    many = trial(method, "multi_exit")
    if not groups[method]["multi_exit"]:
        raise ParamsError(f"attack.multi_exit: {method!r} has one exit only; name a method with early exits")
    rows = {
        r["criterion"]: r
        for r in evaluated["rows"]
        if (r["backbone"], r["method"], r["split"]) == (backbone, method, split) and r["criterion"]
    }
    for name in settings.criteria:
        if name not in rows:
            raise ParamsError(
                f"attack.criteria: {name!r} has no operating point for {method!r}; add it to evaluate.criteria"
            )
        member = rows[name]["keys"].index(many["key"])
        threshold = rows[name]["thresholds"][member]
        point = np.inf if threshold is None else float(threshold)
        criterion = make(name, rows[name]["settings"], rows[name]["fitted"][member])
        defences.append(Defence(name, backbone, method, many["key"], many["seed"], criterion, point))
    return defences
