"""Appendix C and Theorem 1: the exact probability beside the simulation."""

from pipeline.layout import HERE
from pipeline.running.stage import Stage, run_stage
from pipeline.theory import appendix_c


def main(stage: Stage) -> None:
    settings = stage.params.simulate
    result = appendix_c(settings.layers, settings.patiences, settings.step, settings.samples, settings.seed)
    stage.write(HERE.simulation, result)
    stage.log_metrics({f"false_claims.{bound.name}": bound.false_claims for bound in result.theorem})


if __name__ == "__main__":
    run_stage("simulate", main, per_task=False)
