"""The classes of stored results, through which alone results are written and read.

Each field has a docstring; `python -m tools.write_docs` makes docs/results-schema.md from them.
"""

from pipeline.results.attack import Attack, Attacked, DefenceRow, Paired, PoolAnswers, Record, ShardRecords
from pipeline.results.base import Part, Result
from pipeline.results.code import CodeEquivalence, CodePair, Declaration, TrialCode
from pipeline.results.curves import Curve, CurvePoint, curves_of, curves_text, read_curves
from pipeline.results.data import Inputs, Manifest, Split, TokenCounts
from pipeline.results.diagnosis import Calibration, Constant, Diagnosis, Findings, OfClass, Oracle, Outcome
from pipeline.results.evaluated import Choosing, Evaluated, ExitCosts, ExitScores, Row
from pipeline.results.exported import Exported, ExportedPrecision, Exports, Promise
from pipeline.results.latency import Latency, LatencyRow, Measured, Memory, Reached, Roof
from pipeline.results.metrics import StoredMetrics
from pipeline.results.numbers import Interval, OverExamples, OverSeeds, Share
from pipeline.results.point import ALL_LAYERS, OperatingPoint
from pipeline.results.predictions import PredictionFile, Predictions
from pipeline.results.simulation import Bound, Counterexample, ExamplePoint, RequiredAccuracy, Simulation
from pipeline.results.traces import TraceEntry, TraceIndex
from pipeline.results.tracking import LoggedData, LoggedMetric, RunStatus, UnsentModel, UnsentRun, registered_name
from pipeline.results.trials import (
    Epoch,
    FailedTrial,
    GridPoint,
    ModelGroup,
    Searched,
    Selected,
    SelectedTrial,
    TrialRecord,
    TrialResult,
    Trials,
)

FILES: tuple[type[Result], ...] = (
    Manifest,
    TrialCode,
    TrialResult,
    Trials,
    Selected,
    TraceIndex,
    Evaluated,
    Predictions,
    Latency,
    Exports,
    Exported,
    ShardRecords,
    PoolAnswers,
    Attack,
    Simulation,
    StoredMetrics,
    CodeEquivalence,
    UnsentRun,
    UnsentModel,
)
"""Every stored JSON file, in the order of the stages."""

__all__ = [
    "ALL_LAYERS",
    "FILES",
    "Attack",
    "Attacked",
    "Bound",
    "Calibration",
    "Choosing",
    "CodeEquivalence",
    "CodePair",
    "Constant",
    "Counterexample",
    "Curve",
    "CurvePoint",
    "Declaration",
    "DefenceRow",
    "Diagnosis",
    "Epoch",
    "Evaluated",
    "ExamplePoint",
    "ExitCosts",
    "ExitScores",
    "Exported",
    "ExportedPrecision",
    "Exports",
    "FailedTrial",
    "Findings",
    "GridPoint",
    "Inputs",
    "Interval",
    "Latency",
    "LatencyRow",
    "LoggedData",
    "LoggedMetric",
    "Manifest",
    "Measured",
    "Memory",
    "ModelGroup",
    "OfClass",
    "OperatingPoint",
    "Oracle",
    "Outcome",
    "OverExamples",
    "OverSeeds",
    "Paired",
    "Part",
    "PoolAnswers",
    "PredictionFile",
    "Predictions",
    "Promise",
    "Reached",
    "Record",
    "RequiredAccuracy",
    "Result",
    "Roof",
    "Row",
    "RunStatus",
    "Searched",
    "Selected",
    "SelectedTrial",
    "ShardRecords",
    "Share",
    "Simulation",
    "Split",
    "StoredMetrics",
    "TokenCounts",
    "TraceEntry",
    "TraceIndex",
    "TrialCode",
    "TrialRecord",
    "TrialResult",
    "Trials",
    "UnsentModel",
    "UnsentRun",
    "curves_of",
    "curves_text",
    "read_curves",
    "registered_name",
]
