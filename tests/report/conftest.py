"""One large report that several files look at."""

import pytest

from pipeline.report.render import Report
from tests.report.pages import GLUE, report_of
from tests.stored_results import params_for


@pytest.fixture(scope="session")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Four tasks of GLUE and CIFAR-10, on the paper's models."""
    return report_of(tmp_path_factory.mktemp("glue"), params_for(GLUE, "albert-base"))
