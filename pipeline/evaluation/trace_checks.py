"""What a trace must hold: one rule per array, each with the row or the exit and the way to write it right.

A trace may come from any program, so a message ends in what to write, not in a command of this project.
"""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ArtifactError, InvalidLogitsError, shown

if TYPE_CHECKING:
    from pipeline.evaluation.trace import Trace

SMALLEST, LARGEST = 1e-12, 1e18
"""Bounds on costs, so that sums, ratios and their roundings stay numbers."""
BEYOND = 1e30
"""Bound on labels and values of a regression."""


def refuse_faults(trace: "Trace") -> None:
    """Check every array and the names of a trace.

    Raises:
        ArtifactError: the first fault, with its row or exit.
    """
    _refuse_kind(trace)
    _refuse_shapes(trace)
    if trace.hard and trace.kind == "regression":
        raise ArtifactError("trace: answers of a regression are no classes; take 'answers' out of the metadata")
    _refuse_row_ids(trace)
    if trace.kind == "classification":
        _refuse_classes(trace)
    else:
        _refuse_values(trace)
    _refuse_layers(trace)
    _refuse_costs(trace)
    _refuse_names(trace)


def _refuse_kind(trace: "Trace") -> None:
    if trace.kind not in ("classification", "regression"):
        raise ArtifactError(
            f"trace: kind {shown(trace.kind)} is neither classification nor regression; write one of them as metadata"
        )


def _refuse_shapes(trace: "Trace") -> None:
    shape = trace.logits.shape
    if len(shape) != 3 or 0 in shape[1:]:
        raise ArtifactError(f"trace: logits have shape {shape}; write them as (rows, exits, classes)")
    n, exits, classes = shape
    expected = {"labels": (n,), "row_ids": (n,), "layers": (exits,), "flops": (n, exits), "full_flops": (n,)}
    if trace.last_flops is not None:
        expected["last_flops"] = (n,)
    for name, wanted in expected.items():
        given = getattr(trace, name).shape
        if given != wanted:
            raise ArtifactError(
                f"trace: {name} has shape {given}, expected {wanted} beside logits {shape}; write it in that shape"
            )
    for name, values in trace.channels.items():
        if values.shape[:2] != (n, exits) or values.ndim not in (2, 3):
            raise ArtifactError(
                f"trace: channel {name!r} has shape {values.shape}, expected ({n}, {exits}) or ({n}, {exits}, k); "
                "write a value, or k values, per row and exit"
            )
    if trace.kind == "classification" and classes < 2:  # with one class all exits would agree and be certain
        raise ArtifactError(
            f"trace: classification needs a logit per class, found {classes} per exit; "
            "write two for a binary task, or give kind regression"
        )
    if trace.kind == "regression" and classes != 1:
        raise ArtifactError(
            f"trace: regression needs one output per exit, found {classes}; write one, or give kind classification"
        )


def _refuse_row_ids(trace: "Trace") -> None:
    """A fraction or a repeat would stand for another row in predictions, in diagnoses and in the bound `random`."""
    ids, advice = trace.row_ids, "write a whole number of its own for each row, such as 0 to n-1"
    whole = is_whole(ids)
    if not whole.all():
        at = int(np.argmin(whole))
        raise ArtifactError(f"trace: row_ids[{at}] is {ids[at]}, which is no whole number of int64; {advice}")
    order = np.argsort(ids, kind="stable")
    repeats = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(repeats):
        first, second = (int(order[repeats[0] + i]) for i in (0, 1))
        raise ArtifactError(f"trace: row_ids[{first}] and row_ids[{second}] are both {int(ids[first])}; {advice}")


def is_whole(ids: np.ndarray) -> np.ndarray:
    """Whether int64 holds each number as it is; False for NaN."""
    if ids.dtype.kind in "iu":
        return np.asarray(ids <= np.iinfo(np.int64).max)
    wide = ids.astype(np.float64)
    return np.asarray((np.abs(wide) < 2.0**53) & (wide == np.floor(wide)))


def _refuse_classes(trace: "Trace") -> None:
    """A label that is no class index would silently count as wrong at every exit."""
    labels = trace.labels
    valid = (labels >= 0) & (labels < trace.classes) & (labels == np.floor(labels))
    bad = ~(valid | np.isnan(labels))
    if bad.any():
        row = int(np.argmax(bad))
        raise ArtifactError(
            f"trace: label {labels[row]:g} of row {int(trace.row_ids[row])} is no class index 0..{trace.classes - 1}; "
            "count classes from 0 and write NaN where a label is unknown"
        )


def _refuse_values(trace: "Trace") -> None:
    bad = ~((np.abs(trace.labels) <= BEYOND) | np.isnan(trace.labels))
    if bad.any():
        row = int(np.argmax(bad))
        raise ArtifactError(
            f"trace: label {trace.labels[row]:g} of row {int(trace.row_ids[row])} is beyond {BEYOND:g}; "
            "write it in a larger unit, and NaN where a label is unknown"
        )


def _refuse_layers(trace: "Trace") -> None:
    """Layers that fall, or start at 0, would give speed-ups that are wrong or infinite."""
    layers = trace.layers
    if not (_in_range(layers).all() and np.all(layers[1:] >= layers[:-1])):
        raise ArtifactError(
            f"trace: layers {layers.tolist()} do not ascend from a number above 0; "
            "write the layers run at each exit, counted from 1, the earliest exit first"
        )
    if not _in_range(np.array(trace.all_layers)):
        raise ArtifactError(f"trace: full_layers {trace.all_layers:g} is not above 0; write the plain model's layers")


def _refuse_costs(trace: "Trace") -> None:
    """A cost of 0 or below would give an infinite or a negative speed-up, NaN none; a later exit is never cheaper."""
    advice = "write costs in any unit, above 0, that do not fall from exit to exit; layers will do"
    costs = {"flops": trace.flops, "full_flops": trace.full_flops[:, None]}
    if trace.last_flops is not None:
        costs["last_flops"] = trace.last_flops[:, None]
    for name, values in costs.items():
        bad = ~_in_range(values)
        if bad.any():
            row, j = (int(i[0]) for i in np.nonzero(bad))
            where = f"row {int(trace.row_ids[row])}" + (f" at exit {j + 1}" if name == "flops" else "")
            raise ArtifactError(f"trace: {name} of {where} are {values[row, j]:g}, which is no cost; {advice}")
    falls = trace.flops[:, 1:] < trace.flops[:, :-1]
    if falls.any():
        row, j = (int(i[0]) for i in np.nonzero(falls))
        before, after = trace.flops[row, j : j + 2]
        raise ArtifactError(
            f"trace: flops of row {int(trace.row_ids[row])} fall from {before:g} at exit {j + 1} to {after:g} at exit "
            f"{j + 2}; {advice}"
        )


def _refuse_names(trace: "Trace") -> None:
    names = trace.label_names
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ArtifactError(
            f"trace: label_names {shown(names)} is no list of strings; write one name per class, or leave it out"
        )
    if len(names) not in (0, trace.classes):
        raise ArtifactError(
            f"trace: label_names has {len(names)} names for {trace.classes} outputs; write one per class, or leave it "
            "out"
        )
    if not isinstance(trace.provenance, dict):
        raise ArtifactError(
            f"trace: provenance {shown(trace.provenance)} is no mapping; write a JSON object, or leave it out"
        )


def _in_range(values: np.ndarray) -> np.ndarray:
    """Whether each value can be a cost; False for NaN."""
    return (values >= SMALLEST) & (values <= LARGEST)


def refuse_undefined(trace: "Trace") -> None:
    """Refuse logits that give no answer: NaN, plus infinity, or minus infinity in every class.

    Minus infinity in some classes rules them out, and the others answer.

    Raises:
        InvalidLogitsError: with row and exit.
    """
    logits = trace.logits if trace.logits.dtype.itemsize > 2 else trace.logits.astype(np.float32)
    regression = trace.kind == "regression"
    if np.isfinite(logits).all() and not (regression and np.any(np.abs(logits) > BEYOND)):
        return
    refuse_nan(trace, "logits", logits, "the model diverged: lower its learning rate and train it again")
    highest = logits.max(axis=2)
    bad = ~(np.abs(highest) <= BEYOND) if regression else ~np.isfinite(highest)
    if bad.any():
        row, j = (int(i[0]) for i in np.nonzero(bad))
        advice = (
            "a number in the labels' unit" if regression else "finite logits, or -inf for a class that is ruled out"
        )
        raise InvalidLogitsError(
            f"trace: logits of row {int(trace.row_ids[row])} at exit {j + 1} are {shown(logits[row, j].tolist())}, "
            f"which is no answer; write {advice}"
        )


def refuse_nan(trace: "Trace", name: str, values: np.ndarray, remedy: str) -> None:
    """Raise InvalidLogitsError, with row and exit, where `values` (n, exits[, k]) has a NaN."""
    bad = np.isnan(values)
    if bad.any():
        row, j = (int(i[0]) for i in np.nonzero(bad)[:2])
        raise InvalidLogitsError(f"trace: {name} of row {int(trace.row_ids[row])} are NaN at exit {j + 1}; {remedy}")
