"""Command line: python -m pipeline."""

import shutil
from pathlib import Path
from typing import Literal

import click

from pipeline.commands import ask_lines, completion, import_trace, rescore
from pipeline.commands import export as export_command
from pipeline.commands import replay as replay_commands
from pipeline.commands import serve as serve_command
from pipeline.commands.output import print_json, refuse_edits
from pipeline.errors import exit_with_one_line, unknown
from pipeline.layout import HERE


@click.group()
def cli() -> None:
    """Early-exit experiments: lists, profiles and stored results. Stages run through `dvc repro`."""


@cli.command("list")
@click.argument("what", type=click.Choice(["criteria", "tasks", "backbones", "methods", "profiles"]))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_names(what: str, as_json: bool) -> None:
    """List the names that params.yaml can use, or profiles; one per line, with title and source."""
    summaries = dict(sorted(_lines(what).items()))
    if as_json:
        print_json(summaries)
        return
    for name, summary in summaries.items():
        click.echo(f"{name:<22} {summary}")


def _lines(what: str) -> dict[str, str]:
    if what == "criteria":
        from pipeline.evaluation.criteria import CRITERIA

        return {name: f"{cls.title}: {(cls.__doc__ or '').splitlines()[0]}" for name, cls in CRITERIA.items()}
    if what == "tasks":
        from pipeline.tasks.names import TASKS

        return {
            name: f"{t.source}: {t.kind}, {' + '.join(t.columns)}, {' and '.join(t.metrics)}"
            for name, t in TASKS.items()
        }
    if what == "profiles":
        texts = {path.stem: path.read_text(encoding="utf-8") for path in HERE.profiles.glob("*.yaml")}
        return {name: text.partition("\n")[0].removeprefix("# ").partition(". ")[0] for name, text in texts.items()}
    if what == "backbones":
        from pipeline.models.names import BACKBONES

        return {name: f"{spec.hub or 'made here'}: {spec.summary}" for name, spec in BACKBONES.items()}
    from pipeline.training.methods import METHODS

    return {name: info.source for name, info in METHODS.items()}


@cli.command()
@click.argument("name", shell_complete=completion.profiles)
def profile(name: str) -> None:
    """Copy profiles/NAME.yaml to params.yaml; refuses to overwrite your edits."""
    profiles = {path.stem: path for path in HERE.profiles.glob("*.yaml")}
    if name not in profiles:
        raise unknown("profile", name, profiles, key="PROFILE")
    refuse_edits(f"profile {name!r}")
    shutil.copyfile(profiles[name], HERE.params)
    click.echo(f"{HERE.params} is now profile {name!r}")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--text", multiple=True, metavar="COLUMN", help="The column of the text; give it twice for two texts.")
@click.option("--label", metavar="COLUMN", help="The column of the label.")
@click.option("--kind", type=click.Choice(["classification", "regression"]), help="What the labels are.")
@click.option("--name", metavar="NAME", help="The task's name; without: made of the file's.")
@click.option("--quoted/--plain", default=None, help="CSV and TSV: quotes enclose fields, or are plain characters.")
@click.option("--force", is_flag=True, help="Overwrite edits of yours in params.yaml.")
def init(
    file: Path,
    text: tuple[str, ...],
    label: str | None,
    kind: Literal["classification", "regression"] | None,
    name: str | None,
    quoted: bool | None,
    force: bool,
) -> None:
    """Write params.yaml for a table of your own (.csv, .tsv, .jsonl, .parquet); guesses columns and says so."""
    from pipeline.commands import init as writing

    if not force:
        refuse_edits("init", ", or give --force")
    for line in writing.init(file, name, text, label, quoted, kind):
        click.echo(line)
    click.echo(f"written   {HERE.params}; look it over, then run `dvc repro`")
    click.echo("          `dvc repro prepare`, then `python -m pipeline plan`, tells first what will be trained")


@cli.command("compare-metrics")
@click.argument("stored", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path), default=Path())
@click.option("--exact", is_flag=True, help="Report any difference, however small.")
@click.option("--write", is_flag=True, help="Write STORED from RUN instead of comparing.")
@click.option("--json", "as_json", is_flag=True, help="Print what moved as JSON.")
def compare_metrics(stored: Path, run: Path, exact: bool, write: bool, as_json: bool) -> None:
    """Compare the metrics of a finished run in folder RUN with STORED; exit code 1 where one differs too much."""
    from pipeline.commands.compare_metrics import collect, differences, read_stored
    from pipeline.commands.output import refuse_output, writing
    from pipeline.layout import Workspace

    if write:
        refuse_output(stored, (), "compare-metrics --write")
        fresh = collect(Workspace(run))
        with writing(stored, "compare-metrics --write"):
            fresh.write(stored)
        click.echo(f"{sum(map(len, fresh.metrics.values()))} metrics in {stored}")
        return
    fresh = collect(Workspace(run))
    before = read_stored(stored)
    moved = differences(before, fresh, exact=exact)
    if as_json:
        print_json([move._asdict() for move in moved])
    else:
        for move in moved:
            click.echo(str(move))
        click.echo(f"{len(moved)} of {sum(map(len, before.metrics.values()))} metrics moved or are missing")
    raise SystemExit(1 if moved else 0)


@cli.command()
@click.option("--backbone", required=True, metavar="NAME")
@click.option("--method", required=True, metavar="NAME")
@click.option("--criterion", metavar="NAME", help="The criterion, at its operating point; without: all layers.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("submission.zip"), metavar="FILE.zip")
@click.option("--json", "as_json", is_flag=True, help="Print the files as JSON.")
def submission(backbone: str, method: str, criterion: str | None, out: Path, as_json: bool) -> None:
    """Zip the predictions of one model and criterion for GLUE's server, for the tasks with `test: true`."""
    from pipeline.commands.submission import make_submission
    from pipeline.tasks.predictions import model_of

    made = make_submission(model_of(backbone, method, criterion), out)
    if as_json:
        import dataclasses

        print_json(dataclasses.asdict(made))
        return
    for line in made.lines:
        click.echo(line)


@cli.command()
@click.argument("before", metavar="RUN", shell_complete=completion.runs)
@click.argument("after", metavar="[RUN]", default=".", shell_complete=completion.runs)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Also write a page: .html or .md.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(before: str, after: str, out: Path | None, as_json: bool) -> None:
    """Set two runs side by side, and say which inputs differ: why is this number another one?

    \b
    A RUN is one of
      a folder      a project's, or its outputs/ under any name; "." is this one, and the default of the second
      a revision    of git, or the name of a DVC experiment, whose results DVC has in its cache or a remote
      a trial       its key (or the beginning), or its run in MLflow, as the report's rows name them; then both are

    Scores, speed-ups and settings stand beside each other, differences are paired by seed, and where both runs answered
    the same examples these are compared one by one.

    \b
      python -m pipeline compare HEAD~1
      python -m pipeline compare HEAD my-experiment --out compare.html
    """
    from pipeline.commands.compare import compare as compared

    lines, payload = compared(before, after, out)
    if as_json:
        print_json(payload)
        return
    for line in lines:
        click.echo(line)


@cli.command()
@click.argument("name", metavar="TRIAL|STAGE", shell_complete=completion.stages_and_trials)
def why(name: str) -> None:
    """Print which input made a trial (its key, or the beginning of it) or a stage run, or that nothing did."""
    from pipeline.commands.why import why as lines_of

    for line in lines_of(name):
        click.echo(line)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print counts and seconds as JSON.")
def plan(as_json: bool) -> None:
    """Which trials would run and why, which are used again, how long it takes, and how much disk."""
    from pipeline.commands import plan as planning
    from pipeline.params import load_params

    params = load_params()
    made = planning.of_params(params, HERE)
    if as_json:
        print_json(planning.as_json(made, params))
        return
    for line in planning.plan_lines(made, params, HERE):
        click.echo(line)


@cli.command("sync-runs")
def sync_runs() -> None:
    """Send to MLflow what stages could not while it was away."""
    from pipeline.params import load_params
    from pipeline.running.mlflow.tracker import Tracker

    tracker = Tracker(load_params().runtime.tracking_uri)
    sent, left = tracker.sync()
    models = tracker.send_models()
    click.echo(f"{sent} runs sent, {left} left" + (f"; {models} models are left" if models else ""))


@cli.command()
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
def ui(port: int) -> None:
    """Open MLflow's pages on this project's runs, on this machine alone."""
    from pipeline.commands.ui import serve_ui

    serve_ui(port)


@cli.command("tracking-server")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("tracking-server"), show_default=True
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address it listens on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--postgres", is_flag=True, help="Start PostgreSQL in the folder, without a port; else SQLite.")
@click.option("--artifacts", metavar="s3://BUCKET/PATH", help="Where artifacts go; without: the folder.")
@click.option("--allowed-hosts", metavar="NAMES", help="Host names that clients use, separated by commas.")
def tracking_server(
    folder: Path, host: str, port: int, postgres: bool, artifacts: str | None, allowed_hosts: str | None
) -> None:
    """Run MLflow for several folders and machines, with users and host checks; docs/tracking-server.md."""
    from pipeline.commands.tracking_server import Server, serve

    serve(Server(folder, host, port, postgres, artifacts, allowed_hosts))


@cli.command()
@click.option(
    "--reason", required=True, metavar="TEXT", help="Why the change changes no result; the declaration keeps it."
)
@click.option("--since", default="HEAD", show_default=True, metavar="REV", help="The commit to compare with.")
def harmless(reason: str, since: str) -> None:
    """Declare that the code trains as it did at REV, so that trials keep their keys and are not run again."""
    from pipeline.commands.harmless import declare_harmless

    for line in declare_harmless(reason, since):
        click.echo(line)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Ask for what the settings need from outside: data, models, GPU, Ray, storage, MLflow, DVC's remote, attacks.

    Exit code 1 where something that they need is not to be had.
    """
    from pipeline.commands.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            click.echo(str(finding))
    if as_json:
        import dataclasses

        print_json([dataclasses.asdict(finding) for finding in findings])
    raise SystemExit(1 if any(finding.state == "failed" for finding in findings) else 0)


@cli.command("completion")
@click.argument("shell", type=click.Choice(list(completion.SCRIPTS)))
def print_completion(shell: str) -> None:
    """Print a script with which a shell completes `python -m pipeline`.

    \b
    bash, in ~/.bashrc:   eval "$(python -m pipeline completion bash)"
    zsh, in ~/.zshrc:     eval "$(python -m pipeline completion zsh)"
    fish:                 python -m pipeline completion fish | source
    """
    click.echo(completion.script(shell), nl=False)


cli.add_command(ask_lines.predict)
cli.add_command(ask_lines.explain)
cli.add_command(export_command.export)
cli.add_command(serve_command.serve)
cli.add_command(replay_commands.replay)
cli.add_command(replay_commands.diagnose)
cli.add_command(import_trace.import_trace)
cli.add_command(rescore.rescore)


def main() -> None:
    """Run the command line; errors of the input are one line and exit code 1."""
    with exit_with_one_line():
        cli(prog_name="python -m pipeline", complete_var=completion.VARIABLE)


if __name__ == "__main__":
    main()
