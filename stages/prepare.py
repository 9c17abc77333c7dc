"""Prepare one task's splits under data/<task>, as files that trials map."""

from pipeline.layout import HERE
from pipeline.running.local_files import prepared_from
from pipeline.running.stage import Stage, run_stage
from pipeline.tasks.prepare import prepare


def main(stage: Stage) -> None:
    params, mirror = stage.params, stage.params.runtime.hub_mirror
    task = params.task(stage.instance)
    tokenizers = {}
    if task.modality == "text":
        from pipeline.models.encoders.tokenizer import tokenizer_of

        tokenizers = {spec.name: tokenizer_of(spec, task, mirror) for spec in params.backbones_for("text")}
    files = prepared_from(params, task, HERE)
    manifest = prepare(task, tokenizers, params.protocol, HERE.data(task.name), mirror, files)
    stage.run.log_artifact(HERE.manifest(task.name))
    for name, split in manifest.splits.items():
        stage.run.log_dataset(task.name, split.sha256, str(HERE.data(task.name)), name)
    stage.log_metrics({f"rows.{name}": split.rows for name, split in manifest.splits.items()})


if __name__ == "__main__":
    run_stage("prepare", main)
