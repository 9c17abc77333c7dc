"""Appendix C and Theorem 1: the exact probability beside the simulation."""

from pipeline.running.stage import Stage, run_stage
from pipeline.theory import appendix_c


def main(stage: Stage) -> None:
    settings = stage.params.simulate
    result = appendix_c(settings.layers, settings.patiences, settings.step, settings.samples, settings.seed)
    stage.write_json("outputs/simulate/simulate.json", result)
    stage.log_metrics({f"false_claims.{row['name']}": row["false_claims"] for row in result["theorem"]})


if __name__ == "__main__":
    run_stage("simulate", main)
