"""Numbers with their intervals. An undefined number is None, never 0."""

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
        """The number; None where it is undefined."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of seeds or examples."""


class OverSeeds(Interval):
    """A median over seeds, with the range of the seeds as interval."""

    median: float | None
    """Median over seeds; None where a seed's value is undefined."""
    coverage: float | None = None
    """Probability that the range covers the population median; None with one seed."""
    values: tuple[float | None, ...] = ()
    """Value of each seed."""

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
    """Number of examples."""

    @property
    def centre(self) -> float | None:
        return self.value

    @property
    def count(self) -> int:
        return self.n


class Share(Part):
    """A number of rows, and its share of all rows."""

    rows: int
    """Number of rows."""
    share: float
    """Share of all rows."""
