"""Jobs that do nothing in no time; Ray workers import this."""

from pathlib import Path

from pipeline.errors import DataError


def run(job: str) -> str:
    if job == "poor":
        raise DataError("poor: no such job; name another")
    if job == "full":
        Path("/dev/full").write_text("x")
    (Path("out") / job).touch()
    return job.upper()
