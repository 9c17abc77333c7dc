"""The command serve: an exported model over HTTP."""

import math
import os
from pathlib import Path
from typing import Any

import click


def _finite(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """The number; Click's ranges take NaN and infinity too."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no finite number.", context, parameter)
    return value


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--precision", default="float32", show_default=True, metavar="NAME", help="float32 or int8, as exported.")
@click.option("--replicas", default=1, show_default=True, type=click.IntRange(1, 1024), help="Processes that answer.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 1024), help="Compute threads of each.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address it listens on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--check-share", metavar="SHARE", type=click.FloatRange(0, 1), callback=_finite,
              help="Of rows, to ask the last exit too.")  # fmt: skip
@click.option(
    "--extra-layers",
    metavar="NUMBER",
    type=click.FloatRange(0, min_open=True),
    callback=_finite,
    help="Beyond the promised mean; then rows leave at the exit that was promised. Without: no cap.",
)
@click.option("--max-rows", type=click.IntRange(1, 1_000_000), help="Rows of a request.")
@click.option("--max-characters", type=click.IntRange(1, 1_000_000), help="Characters of a text.")
@click.option("--max-body", type=click.IntRange(1, 2**30), help="Bytes of a request.")
def serve(
    folder: Path,
    precision: str,
    replicas: int,
    threads: int,
    host: str,
    port: int,
    check_share: float | None,
    extra_layers: float | None,
    max_rows: int | None,
    max_characters: int | None,
    max_body: int | None,
) -> None:
    """Serve the model that `export` wrote into FOLDER, on Ray Serve: POST /answer, GET /model, /healthz, /metrics.

    On this machine alone, or on the cluster of RAY_ADDRESS; docs/guides/deploying.md has a request.
    """
    from pipeline.running.ray import serving as on_ray
    from pipeline.running.signals import stopped_by_signals
    from pipeline.serving.requests import Limits
    from pipeline.serving.settings import Serving, WatchSettings

    limits = Limits(**_given(rows=max_rows, characters=max_characters, body_bytes=max_body))
    watch = WatchSettings(**_given(check_share=check_share, extra_layers_per_minute=extra_layers))
    serving = Serving(
        folder=folder, precision=precision, replicas=replicas, threads=threads, limits=limits, watch=watch
    )
    with stopped_by_signals("serve"):
        on_ray.serve(serving, host, port, os.environ.get("RAY_ADDRESS"))


def _given(**options: Any) -> dict[str, Any]:
    """Options that were given; the others keep their defaults."""
    return {name: value for name, value in options.items() if value is not None}
