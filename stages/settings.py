"""Write what of params.yaml each stage hangs on, so that a change re-runs what it touches and nothing else."""

from pipeline.layout import HERE
from pipeline.running.stage import run_untracked
from pipeline.running.tracked import write_stage_settings


def main() -> None:
    from pipeline.params import load_params

    write_stage_settings(load_params(), HERE)


if __name__ == "__main__":
    run_untracked("settings", main)
