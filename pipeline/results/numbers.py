"""Numbers with their intervals. An undefined number is None, never 0."""

from abc import abstractmethod
from statistics import median

from pipeline.results.base import Amount, Count, Fraction, Part, Value

ROUNDED = 2e-6
"""Largest difference of two numbers that were each rounded to six places."""


class Interval(Part):
    """A number and its interval."""

    low: Value | None = None
    """Lower end; None where there is no interval."""
    high: Value | None = None
    """Upper end; None where there is no interval."""

    def check(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high: one end is missing")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")

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

    median: Value | None
    """Median over seeds; None where a seed's value is undefined."""
    coverage: Fraction | None = None
    """Probability that the range covers the population median; None with one seed."""
    values: tuple[Value | None, ...] = ()
    """Value of each seed."""

    def check(self) -> None:
        super().check()
        defined = [value for value in self.values if value is not None]
        if not defined or len(defined) < len(self.values):
            expected = {"median": self.median if not self.values else None, "low": self.low, "high": self.high}
        else:
            single = len(defined) == 1
            ends = (None, None) if single else (min(defined), max(defined))
            expected = {"median": median(defined), "low": ends[0], "high": ends[1]}
        for name, of_values in expected.items():
            stored = getattr(self, name)
            if (stored is None) != (of_values is None) or abs((stored or 0) - (of_values or 0)) > ROUNDED:
                raise ValueError(f"{name} {stored} is not that of values")

    @property
    def centre(self) -> float | None:
        return self.median

    @property
    def count(self) -> int:
        return len(self.values)


class OverExamples(Interval):
    """A share or a mean over examples, with a 95% interval."""

    value: Amount | None
    """The share or mean; None without examples."""
    n: Count
    """Number of examples."""

    def check(self) -> None:
        super().check()
        if (self.value is None) != (self.n == 0):
            raise ValueError(f"value {self.value} of {self.n} examples")

    @property
    def centre(self) -> float | None:
        return self.value

    @property
    def count(self) -> int:
        return self.n


class Share(Part):
    """A number of rows, and its share of all rows."""

    rows: Count
    """Number of rows."""
    share: Fraction
    """Share of all rows."""
