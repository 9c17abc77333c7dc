"""The command export: a selected model as a folder that answers without this project's training code."""

from pathlib import Path

import click

from pipeline.errors import ParamsError


@click.command()
@click.argument("task", metavar="TASK")
@click.option("--to", "folder", type=click.Path(path_type=Path), required=True, metavar="FOLDER")
@click.option("--backbone", metavar="NAME", help="May be left out where there is one.")
@click.option("--method", metavar="NAME", help="Without: the first with early exits.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="NAME",
    help="float32, or int8; twice for both.",
)
def export(task: str, folder: Path, backbone: str | None, method: str | None, precisions: tuple[str, ...]) -> None:
    """Write a selected model of TASK as ONNX graphs into FOLDER, with thresholds, tokenizer and card."""
    from pipeline.commands.export_task import export_task
    from pipeline.evaluation.diagnosis import NOTHING
    from pipeline.params import load_params

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ParamsError(f"--to {folder}: is there already; name a new folder, or empty it")
    exported = export_task(load_params(), task, backbone, method, precisions or ("float32",), folder)
    for name, precision in exported.precisions.items():
        for row in precision.rows:
            score = "not defined" if row.score.median is None else f"{row.score.median:.4f}"
            speed = row.layer_speedup.median
            click.echo(f"{name:<8} {row.split:<12} {row.criterion or 'full':<20} score {score}  layers {speed:.2f}x")
    if not exported.learned:
        click.echo(f"beware: {NOTHING}", err=True)
    click.echo(f"written: {folder}")
