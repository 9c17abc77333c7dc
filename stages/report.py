"""Build the report, a page and a Markdown file, from the stored results."""

import shutil

from pipeline.layout import HERE
from pipeline.report.collect import collect
from pipeline.report.flat import headlines, operating_points, tables
from pipeline.report.render import Provenance, build
from pipeline.running.stage import Stage, run_stage
from pipeline.storage import whole_folder, write_text


def main(stage: Stage) -> None:
    stored = collect(stage.params, HERE)
    report = build(stored, Provenance(stage.tags["git_commit"], stage.tags["params_hash"]))
    shutil.rmtree(HERE.report / "figures", ignore_errors=True)  # removes figures of old tasks
    for name, svg in report.figures.items():
        stage.write_text(HERE.report / name, svg)
    stage.write_text(HERE.report / "report.md", report.markdown)
    for folder, files in (
        (HERE.metrics, headlines(stored)),
        (HERE.points, operating_points(stored)),
        (HERE.plots, tables(stored)),
    ):
        with whole_folder(folder) as partial:
            for name, text in files.items():
                write_text(partial / name, text)
    page = stage.write_text(HERE.report / "index.html", report.html)
    stage.log_metrics(report.headlines)
    print(f"report: {page.resolve()}")


if __name__ == "__main__":
    run_stage("report", main, per_task=False)
