"""The sections of the report, a file each, in their order on the page: a new one is a file and a line here."""

from pipeline.report.sections.base import Finding, Section
from pipeline.report.sections.budget import Budget
from pipeline.report.sections.comparison import Comparison
from pipeline.report.sections.cost import TrainingCost
from pipeline.report.sections.curves import SpeedAndScore
from pipeline.report.sections.diagnosis import Diagnosis
from pipeline.report.sections.images import Images
from pipeline.report.sections.latency import Latency
from pipeline.report.sections.overthinking import Overthinking
from pipeline.report.sections.paying import DoesItPay
from pipeline.report.sections.robustness import Robustness
from pipeline.report.sections.rows import EveryRow
from pipeline.report.sections.theory import Theory
from pipeline.report.sections.trials import TrainedModels
from pipeline.report.sections.verdicts import DoesPatienceWin

__all__ = ["FIRST", "SECTIONS", "Finding", "Section"]

FIRST = DoesItPay()
"""What stands above the summary."""

SECTIONS: tuple[Section, ...] = (
    DoesPatienceWin(),
    Comparison(),
    SpeedAndScore(),
    Overthinking(),
    Budget(),
    Diagnosis(),
    EveryRow(),
    TrainingCost(),
    Latency(),
    Robustness(),
    Images(),
    Theory(),
    TrainedModels(),
)
