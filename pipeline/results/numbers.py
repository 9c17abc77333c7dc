"""Numbers with their intervals. None stands for "not defined", never 0."""

from abc import abstractmethod

from pipeline.results.base import Part


class Interval(Part):
    """A number and its interval."""

    low: float | None = None
    """Lower end; None where there is no interval."""
    high: float | None = None
    """Upper end; None where there is no interval."""

    @property
    @abstractmethod
    def centre(self) -> float | None:
        """The number itself; None where it is not defined."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Seeds or examples behind it."""


class OverSeeds(Interval):
    """A median over seeds, with the seeds' range."""

    median: float | None
    """Median over seeds; None where one seed's value is not defined."""
    coverage: float | None = None
    """Chance that the range holds the population's median; None with one seed."""
    values: tuple[float | None, ...] = ()
    """Each seed's value."""

    @property
    def centre(self) -> float | None:
        return self.median

    @property
    def count(self) -> int:
        return len(self.values)


class OverExamples(Interval):
    """A share or a mean over examples, with a 95% interval."""

    value: float | None
    """The share or mean; None without examples."""
    n: int
    """Examples."""

    @property
    def centre(self) -> float | None:
        return self.value

    @property
    def count(self) -> int:
        return self.n


class Share(Part):
    """Some rows of all."""

    rows: int
    """How many."""
    share: float
    """Their share of all rows."""
