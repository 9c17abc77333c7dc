"""The command `why`: the input that made a trial or a stage run, or that nothing did."""

import difflib

from pipeline.commands.why_stage import stage_names, why_stage
from pipeline.commands.why_trial import trial_keys, why_trial
from pipeline.errors import ParamsError
from pipeline.layout import HERE, Workspace


def why(name: str, workspace: Workspace = HERE) -> list[str]:
    """Lines to print about a trial (its key, or the beginning of it) or a stage (its name in dvc.yaml).

    Raises:
        ParamsError: no trial or stage has the name, or several trials' keys begin with it.
    """
    stages = stage_names(workspace)
    if name in stages or name.partition("@")[0] in stages:
        return why_stage(name, workspace)
    keys = trial_keys(workspace)
    matches = [key for key in keys if name and key.startswith(name)]
    if len(matches) > 1:
        shown = ", ".join(matches[:3])
        raise ParamsError(f"why: {len(matches)} trials begin with {name!r} ({shown}, ...); give more of the key")
    if matches:
        return why_trial(matches[0], workspace)
    near = difflib.get_close_matches(name, [*stages, *keys], n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    names = ", ".join(stage for stage in stages if "@" not in stage)
    raise ParamsError(
        f"why: no trial and no stage {name!r}{hint} (stages: {names}; {len(keys)} trials in {workspace.trials})"
    )
