"""The algorithms of searches, which are Ray Tune's: ASHAScheduler and OptunaSearch."""

from types import SimpleNamespace
from typing import Any

from pipeline.errors import ParamsError
from pipeline.training.halving import Cut
from pipeline.training.plan import Group, Plan
from pipeline.training.search import Engines, Suggester

DIGITS = 4
"""Significant digits of a suggested learning rate, so that another machine's arithmetic gives the same trial."""


def engines_of(plan: Plan) -> Engines | None:
    """The algorithms that a plan's searches need; None where every grid is searched whole.

    Raises:
        ParamsError: a search needs a package that is not installed.
    """
    methods = {group.search.method for group in plan.groups}
    if methods <= {"grid"}:
        return None
    if "bayes" in methods:
        try:
            import optuna
        except ImportError:
            raise ParamsError(
                "grid.search: 'bayes' needs Optuna, which is not installed; `pip install optuna`, or set asha or grid"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
    return RayEngines()


class RayEngines:
    """Ray Tune's searches; they run in the driver, and start no Ray."""

    def suggester(self, group: Group, seed: int, random: int) -> Suggester:
        return _Optuna(group, seed, random)

    def cut(self, group: Group) -> Cut:
        return _Asha(group)


class _Asha:
    """ASHAScheduler over one grid, which it knows as trials of Tune by their keys."""

    def __init__(self, group: Group) -> None:
        from ray.tune.schedulers import ASHAScheduler

        self._scheduler: Any = ASHAScheduler(
            time_attr="epoch",
            metric="selection",
            mode="max",
            max_t=group.epochs,
            grace_period=1,
            reduction_factor=group.search.reduction,
        )
        self._trials: dict[str, SimpleNamespace] = {}

    def stops(self, key: str, epoch: int, selection: float) -> bool:
        if key not in self._trials:
            self._trials[key] = SimpleNamespace(trial_id=key)
            self._scheduler.on_trial_add(None, self._trials[key])
        result = {"epoch": epoch, "selection": selection}
        return bool(self._scheduler.on_trial_result(None, self._trials[key], result) == self._scheduler.STOP)


class _Optuna:
    """OptunaSearch in the space of one grid: its batch sizes, and the range of its learning rates on a log scale."""

    def __init__(self, group: Group, seed: int, random: int) -> None:
        from optuna.distributions import CategoricalDistribution, FloatDistribution
        from optuna.samplers import TPESampler
        from ray.tune.search.optuna import OptunaSearch

        space = {
            "batch_size": CategoricalDistribution(group.batch_sizes),
            "learning_rate": FloatDistribution(min(group.learning_rates), max(group.learning_rates), log=True),
        }
        sampler = TPESampler(seed=seed, n_startup_trials=random)
        self._search: Any = OptunaSearch(space, metric="selection", mode="max", sampler=sampler)
        self._asked = 0

    def ask(self) -> tuple[int, float]:
        point = self._search.suggest(str(self._asked))
        self._asked += 1
        return int(point["batch_size"]), float(f"{point['learning_rate']:.{DIGITS}g}")

    def tell(self, number: int, selection: float | None) -> None:
        result = None if selection is None else {"selection": selection}
        self._search.on_trial_complete(str(number), result, error=selection is None)
