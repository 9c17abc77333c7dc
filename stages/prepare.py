"""Freeze one task's splits and tokens under data/tasks/<task>."""

from pipeline.running.stage import Stage, run_stage
from pipeline.storage import DATA
from pipeline.tasks.prepare import prepare


def main(stage: Stage) -> None:
    params = stage.params
    task = params.task(stage.instance)
    backbones = [params.backbone(name) for name in params.backbones]
    folder = DATA / task.name
    manifest = prepare(task, backbones, params.protocol, folder, params.runtime.hub_mirror)
    stage.run.log_artifact(folder / "manifest.json")
    for name, split in manifest["splits"].items():
        stage.run.log_dataset(task.name, split["sha256"], str(folder / "text" / f"{name}.parquet"), name)
    stage.log_metrics({f"rows.{name}": split["rows"] for name, split in manifest["splits"].items()})


if __name__ == "__main__":
    run_stage("prepare", main)
