"""An exported model that answers: texts or images in, labels out, each row from its own exit.

    from pipeline.models.deploy.runtime import Deployed

    model = Deployed.open("folder", precision="int8")
    for answer in model.answer(["a fine film", "dull"], criterion="patience", threshold=3):
        print(answer.label, answer.probabilities, answer.layer)

It needs NumPy, ONNX Runtime, tokenizers and array-api-compat, and neither PyTorch nor Transformers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ArtifactError, ParamsError, PipelineError, UnsupportedError
from pipeline.evaluation.asked import Decision, asked, decision_of, default_of
from pipeline.evaluation.criteria.base import log_probabilities
from pipeline.evaluation.leaving import Leaving
from pipeline.models.deploy.folder import DESCRIPTION, FLOAT32, REMEDY, TOKENIZER, read_description
from pipeline.models.deploy.segments import Arrays, Segments

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

    @property
    def probability(self) -> float | None:
        """Of the label; None for a regression."""
        return None if self.probabilities is None else self.probabilities[str(self.label)]


def answers_of(
    label_names: Sequence[str], exits: Sequence[int], logits: np.ndarray, exit_index: np.ndarray
) -> list[Answer]:
    """What is said of logits; every engine says it in this form.

    Args:
        label_names: by class; empty for a regression.
        exits: layers with an exit, counted from 1.
        logits: of the exit that answered each row, (n, outputs).
        exit_index: that exit, counted from 0, (n,).
    """
    indices = exit_index.tolist()
    if not label_names:
        return [Answer(value, None, i + 1, exits[i]) for value, i in zip(logits[:, 0].tolist(), indices, strict=True)]
    shares = np.exp(log_probabilities(logits)).tolist()
    return [
        Answer(label_names[best], dict(zip(label_names, row, strict=True)), i + 1, exits[i])
        for best, row, i in zip(logits.argmax(axis=1).tolist(), shares, indices, strict=True)
    ]


class Deployed:
    """A model that `python -m pipeline export` wrote.

    Args:
        folder: where it lies.
        description: its model.json.
        segments: its graphs in one precision.
        precision: which one.

    Attributes:
        points: the operating points chosen for this precision, by criterion.

    Raises:
        ArtifactError: an operating point that no criterion has.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any], segments: Segments, precision: str) -> None:
        self.description, self.segments, self.precision = description, segments, precision
        stored = description["precisions"][precision]["points"]
        try:
            self.points = {point["criterion"]: decision_of(point, REMEDY) for point in stored}
        except PipelineError as error:
            raise ArtifactError(f"{folder / DESCRIPTION}: {error}") from None
        self.tokenizer: Any = None
        if description["modality"] == "text":
            from tokenizers import Tokenizer

            self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))

    @property
    def default(self) -> str:
        """The criterion where none is asked for; all layers where there are no operating points."""
        return default_of(self.points)

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
            criterion: None: the one that selection rows prefer, or all layers without any; "full": all layers.
            threshold: None: the one that was chosen for this precision.
            settings: of the criterion; None: those of its exported point, where it has one.

        Raises:
            ParamsError: no row, or as `asked`.
            UnsupportedError: rows of the other kind, or as `Rule`.
        """
        chosen, limit = self.criterion(criterion, threshold, settings)
        rule = self.segments.rule(chosen, limit)
        return self.answers(self.segments.answer(self.inputs(rows), rule))

    def criterion(
        self, name: str | None, threshold: float | None, settings: Mapping[str, float] | None = None
    ) -> Decision:
        """A criterion with its threshold; the arguments are `answer`'s; raises as `asked`."""
        return asked(self.points, name, threshold, settings)

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
        return answers_of(self.description["label_names"], self.segments.exits, leaving.logits, leaving.exit_index)
