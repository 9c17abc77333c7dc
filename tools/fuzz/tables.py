"""Tables for `init`: what it writes must be settings that prepare takes, and what it refuses one line."""

import contextlib
import io
import os
import random
import tempfile
from functools import partial
from pathlib import Path

from pipeline.commands.init import init
from pipeline.errors import PipelineError
from pipeline.params import load_params
from pipeline.tasks.text.prepare import freeze_splits
from tools.fuzz.bytes import mutated
from tools.fuzz.data import PIECES, Row, writings
from tools.fuzz.outcome import Tally


def rows_of(generator: random.Random) -> list[Row]:
    """A table that is large enough for `init`."""
    texts = [" ".join(generator.choices(PIECES, k=generator.randint(1, 3))) for _ in range(generator.randint(30, 60))]
    return [(text, i % 2) for i, text in enumerate(texts)]


def run(path: Path) -> int:
    """Rows that prepare would store for a table after `init`.

    Raises:
        PipelineError: `init` refused the table.
        AssertionError: `init` took it, and prepare refuses what it wrote.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        init(path, "own", (), None, None)
        try:
            params = load_params()
            return sum(map(len, freeze_splits(params.task("own"), params.protocol, None).values()))
        except PipelineError as error:
            raise AssertionError(f"init wrote what prepare refuses: {error}") from None


def fuzz(count: int, seed: int = 0) -> Tally:
    """Try about `count` tables, a third of them as programs write them; in a folder of their own, without a hub."""
    from huggingface_hub import constants

    generator, tally = random.Random(seed), Tally("init")
    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            while tally.counts["tried"] < count:
                rows = rows_of(generator)
                for label, kind, content, _ in writings(rows, generator):
                    path = Path(f"rows.{kind}")
                    for written in (content, mutated(content, generator), mutated(content, generator)):
                        path.write_bytes(written)
                        tally.run(f"{label}: {written[:200]!r}", partial(run, path))
        finally:
            os.chdir(here)
            constants.HF_HUB_OFFLINE = offline
    return tally
