"""An exported model that answers: texts or images in, labels out, each row from its own exit.

    from pipeline.models.deploy.runtime import Deployed

    model = Deployed.open("folder", precision="int8")
    for answer in model.answer(["a fine film", "dull"], criterion="patience", threshold=3):
        print(answer.label, answer.probabilities, answer.layer)

It needs NumPy, ONNX Runtime, tokenizers and array-api-compat, and neither PyTorch nor Transformers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ParamsError, UnsupportedError, unknown
from pipeline.evaluation.criteria import CRITERIA, Criterion, make
from pipeline.evaluation.criteria.base import log_probabilities
from pipeline.evaluation.leaving import Leaving
from pipeline.models.deploy.folder import FLOAT32, TOKENIZER, read_description
from pipeline.models.deploy.segments import Arrays, Segments

FULL = "full"
"""The name of all layers, where a criterion's is asked for."""
Text = str | tuple[str, str]


@dataclass(frozen=True)
class Answer:
    """The answer to a row.

    Attributes:
        label: name of the class; the value of a regression.
        probabilities: by class; None for a regression.
        exit: the exit that answered, counted from 1.
        layer: layers that were run.
    """

    label: str | float
    probabilities: dict[str, float] | None
    exit: int
    layer: int


class Deployed:
    """A model that `python -m pipeline export` wrote.

    Args:
        folder: where it lies.
        description: its model.json.
        segments: its graphs in one precision.
        precision: which one.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any], segments: Segments, precision: str) -> None:
        self.description, self.segments, self.precision = description, segments, precision
        self.points = {point["criterion"]: point for point in description["precisions"][precision]["points"]}
        self.tokenizer: Any = None
        if description["modality"] == "text":
            from tokenizers import Tokenizer

            self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))

    @property
    def default(self) -> str:
        """The criterion where none is asked for: patience, or the first that was exported."""
        return "patience" if "patience" in self.points or not self.points else next(iter(self.points))

    @classmethod
    def open(cls, folder: str | Path, precision: str = FLOAT32, threads: int = 1) -> "Deployed":
        """Read a folder, and check the hashes of its files.

        Raises:
            ArtifactError: a file is missing or was changed.
            ParamsError: a precision that was not exported.
        """
        folder = Path(folder)
        description = read_description(folder)
        return cls(folder, description, Segments.open(folder, description, precision, threads), precision)

    def answer(
        self,
        rows: Sequence[Text] | np.ndarray,
        criterion: str | None = None,
        threshold: float | None = None,
        settings: Mapping[str, float] | None = None,
    ) -> list[Answer]:
        """Answer texts (pairs as tuples), or images, (n, 32, 32, 3) uint8, in one batch.

        Args:
            criterion: None: patience, or the first that was exported; "full": all layers.
            threshold: None: the one that was chosen for this precision.
            settings: of the criterion; None: those of its exported point, where it has one.

        Raises:
            ParamsError: an unknown criterion or setting, no row, or no threshold for a criterion that has no point.
            UnsupportedError: rows of the other kind, or as `Rule`.
        """
        chosen, limit = self.criterion(criterion, threshold, settings)
        rule = self.segments.rule(chosen, limit)
        return self.answers(self.segments.answer(self.inputs(rows), rule))

    def criterion(
        self, name: str | None, threshold: float | None, settings: Mapping[str, float] | None = None
    ) -> tuple[Criterion | None, float]:
        """A criterion with its threshold; the arguments are `answer`'s."""
        if name is None:
            name = self.default
        if name == FULL:
            return None, math.inf
        if name not in CRITERIA:
            raise unknown("criterion", name, [*CRITERIA, FULL], key="criterion")
        point = self.points.get(name, {})
        if not point and threshold is None:
            raise ParamsError(f"criterion {name!r}: no threshold was chosen for it; give one, or take another")
        limit = point["threshold"] if threshold is None else threshold
        given = point.get("settings", {}) if settings is None else settings
        return make(name, given, point.get("fitted")), math.inf if limit is None else float(limit)

    def inputs(self, rows: Sequence[Text] | np.ndarray) -> Arrays:
        """Rows as the graphs take them; raises as `answer` does."""
        if not len(rows):
            raise ParamsError("rows: there is none; give one or more")
        if self.tokenizer is None:
            if not isinstance(rows, np.ndarray) or rows.shape[1:] != (32, 32, 3) or rows.dtype != np.uint8:
                raise UnsupportedError("this model answers images; give an array (n, 32, 32, 3) of uint8")
            return {"image": rows}
        columns = len(self.description["columns"])
        kind = str if columns == 1 else tuple
        if not all(isinstance(row, kind) and (columns == 1 or len(row) == columns) for row in rows):
            raise UnsupportedError(f"this model answers {'texts' if columns == 1 else 'pairs of texts'}; give such")
        encoded = self.tokenizer.encode_batch(list(rows))
        lengths = np.array([len(row.ids) for row in encoded])
        ids, types = np.zeros((2, len(encoded), int(lengths.max())), dtype=np.int64)
        for i, row in enumerate(encoded):
            ids[i, : len(row.ids)], types[i, : len(row.ids)] = row.ids, row.type_ids
        return {"input_ids": ids, "token_type_ids": types, "keep": np.arange(ids.shape[1]) < lengths[:, None]}

    def answers(self, leaving: Leaving) -> list[Answer]:
        """What is said to rows that left."""
        names, exits = self.description["label_names"], self.segments.exits
        indices = leaving.exit_index.tolist()
        if not names:
            values = leaving.logits[:, 0].tolist()
            return [Answer(value, None, i + 1, exits[i]) for value, i in zip(values, indices, strict=True)]
        shares = np.exp(log_probabilities(leaving.logits))
        return [
            Answer(names[int(row.argmax())], dict(zip(names, row.tolist(), strict=True)), i + 1, exits[i])
            for row, i in zip(shares, indices, strict=True)
        ]
