"""What finetune would do: which trials run and why, which are used again, how long it takes, and how much disk."""

import os
from typing import Any

from pipeline.commands.why_trial import why_it_will_run
from pipeline.layout import Workspace
from pipeline.models.size import parameters_of
from pipeline.params import Params
from pipeline.running.ray.search import engines_of
from pipeline.running.storage import storage_of
from pipeline.running.trial_files import Home
from pipeline.tasks.stores import manifest_of
from pipeline.training.estimate import Estimate, Work, estimate
from pipeline.training.groups import plan_of
from pipeline.training.progress import Progress

SHOWN = 4
"""Reasons of a group that are printed."""


def plan_lines(made: Estimate, params: Params, workspace: Workspace) -> list[str]:
    """The plan as lines to print."""
    finished, runs = sum(work.finished for work in made.work), made.trials
    resumed = sum(work.resumed for work in made.work)
    more = f", of which {resumed} go on after an epoch" if resumed else ""
    stopped = sum(work.stopped for work in made.work)
    some = f" ({stopped} of them stopped by their search)" if stopped else ""
    lines = [f"{finished + runs} trials: {finished} finished and used again{some}, {runs} to run{more}"]
    before: list[str] = []
    for work in made.work:
        if work.trials:
            first, *reasons = _why(work, workspace)
            same = bool(reasons) and reasons == before
            lines.append(f"{work.group.name}: {work.trials} to run, {work.finished} used again")
            lines += [first, *_some(reasons)] if not same else ["  for the same reasons"]
            before = reasons
    return [*lines, _time(made, params), _disk(made, params, workspace)]


def of_params(params: Params, workspace: Workspace) -> Estimate:
    """The estimate of today's plan.

    Raises:
        ArtifactError: a task is not prepared, so that its trials are not known yet.
    """
    manifests = {name: manifest_of(name) for name in params.tasks}
    plan = plan_of(params)
    home = Home(storage_of(params.runtime), workspace.trials)
    return estimate(Progress(plan, workspace.trials, engines_of(plan), home.hashes), manifests)


def as_json(made: Estimate, params: Params) -> Any:
    """The plan for JSON: counts and seconds, whole and by group; null for what cannot be estimated."""
    return {
        "trials": made.trials,
        "reused": sum(work.finished for work in made.work),
        "seconds": made.seconds,
        "slots": slots(params),
        "measured": made.measured,
        "groups": {
            work.group.name: {
                "trials": work.trials,
                "reused": work.finished,
                "stopped": work.stopped,
                "resumed": work.resumed,
                "epochs": round(work.epochs, 1),
                "seconds": work.seconds,
            }
            for work in made.work
        },
    }


def slots(params: Params) -> int | None:
    """Trials side by side on this machine; None on a cluster, which may grow."""
    if params.runtime.ray_address:
        return None
    cores = max(1, len(os.sched_getaffinity(0)) // params.runtime.threads)
    return min(cores, params.runtime.workers or cores)


def duration(seconds: float) -> str:
    """A time as a person says it.

    >>> duration(40), duration(300), duration(9000)
    ('40 s', '5 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _why(work: Work, workspace: Workspace) -> list[str]:
    """Why the first of a group's trials runs: what no finished trial has."""
    return why_it_will_run(work.known[0], workspace) if work.known else ["  they start from trials that are to run"]


def _some(reasons: list[str]) -> list[str]:
    return reasons if len(reasons) <= SHOWN else [*reasons[:SHOWN], f"    and {len(reasons) - SHOWN} more"]


def _time(made: Estimate, params: Params) -> str:
    epochs = sum(work.epochs for work in made.work)
    if not made.trials:
        return "time: none"
    if made.seconds is None:
        without = [work.group.name for work in made.work if work.trials and work.seconds is None]
        return f"time: about {epochs:.0f} epochs; how long is not known before a trial like {without[0]} has run here"
    at_once = slots(params)
    side = f", {duration(made.seconds / at_once)} on {at_once} slots" if at_once and at_once > 1 else ""
    about = "at most" if any(work.group.search.method == "asha" for work in made.work if work.trials) else "about"
    return (
        f"time: {about} {epochs:.0f} epochs, {duration(made.seconds)} of one slot{side} "
        f"(from {made.measured} trials measured here)"
    )


def _disk(made: Estimate, params: Params, workspace: Workspace) -> str:
    """What the trials' folder has, and what running trials add: each its weights, of which those that are chosen stay,
    and those that run at once a state to go on from, of three times that size."""
    used = sum(path.stat().st_size for path in workspace.trials.glob("*/*") if path.is_file())
    line = f"disk: {_size(used)} in {workspace.trials}"
    if not made.trials:
        return line
    each = {work.group.name: _weights(work, params) for work in made.work if work.trials}
    kept = sum(min(work.trials, len(params.seeds)) * each[work.group.name] for work in made.work if work.trials)
    written = sum(work.trials * each[work.group.name] for work in made.work if work.trials)
    running = min(slots(params) or made.trials, made.trials) * 3 * max(each.values())
    return f"{line}, about {_size(kept)} more in the end, {_size(written + running)} at most while it runs"


def _weights(work: Work, params: Params) -> int:
    """Bytes of a trial's weights, float32."""
    spec, vocabulary = params.backbone(work.group.names["backbone"]), work.group.settings.get("vocabulary")
    return 4 * parameters_of(spec, params.runtime.hub_mirror, vocabulary)


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
