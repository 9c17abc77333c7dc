"""Write the settings that each stage depends on, so that a change re-runs only the stages that it affects."""

from pipeline.layout import HERE
from pipeline.running.stage import run_untracked
from pipeline.running.tracked import write_stage_settings


def main() -> None:
    from pipeline.params import load_params

    write_stage_settings(load_params(), HERE)


if __name__ == "__main__":
    run_untracked("settings", main)
