"""The contract of a section: its tables, its figures, its sentences, and what it says when nothing was run."""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipeline.report.cells import Table
from pipeline.report.examples import Examples
from pipeline.report.stored import Stored
from pipeline.report.svg import Plot


@dataclass(frozen=True)
class Finding:
    """A finding for the summary: its subject, and the sentences."""

    subject: str
    text: str


class Section(ABC):
    """A part of the page. All methods are handed the same stored results; each has nothing to show until overridden."""

    slug: ClassVar[str]
    """The anchor."""
    title: ClassVar[str]
    """The heading."""
    folded: ClassVar[bool] = False
    """Whether a page may show the tables closed."""

    def not_run(self, stored: Stored) -> Sequence[str]:
        """What is missing and what params.yaml would need; sentences without a full stop, to stand after "Not run:"."""
        return ()

    def ran(self, stored: Stored) -> Sequence[str]:
        """What was run beside training, as it stands in a list: "wall time on sst2"."""
        return ()

    def findings(self, stored: Stored) -> Sequence[Finding]:
        """What it shows, for the summary."""
        return ()

    def plots(self, stored: Stored) -> Sequence[Plot]:
        """Figures; one without a panel is not shown."""
        return ()

    def tables(self, stored: Stored) -> Sequence[Table]:
        """Tables, after the figures; one without a row is not shown."""
        return ()

    def examples(self, stored: Stored) -> Sequence[Examples]:
        """Examples, after the tables; without one nothing is shown."""
        return ()


NO_TASK = "no task under tasks in params.yaml; add one, such as sst2"


def no_early_exit(stored: Stored) -> str:
    """Why there is no row under a criterion, where there is none."""
    if not stored.tasks:
        return NO_TASK
    if not any(group.multi_exit for _, group in stored.groups):
        return "no method under methods in params.yaml trains early exits; add one, such as joint"
    return "no criterion under evaluate.criteria in params.yaml serves these tasks; add one that does, such as patience"
