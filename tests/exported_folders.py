"""Folders as `python -m pipeline export` writes them, of small models that nobody trained, within seconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation.asked import FULL
from pipeline.models.deploy.folder import DESCRIPTION, SCHEMA, TOKENIZER, hash_of
from pipeline.models.deploy.runtime import Deployed

WORDS = tuple(f"w{i}" for i in range(4, 50))
"""Words of the tokenizer."""
POINTS: tuple[dict[str, Any], ...] = (
    {"criterion": "patience", "settings": {}, "fitted": {}, "threshold": 1.0},
    {"criterion": "confidence", "settings": {}, "fitted": {}, "threshold": 0.6},
)


def texts_folder(into: Path, family: str = "albert") -> Path:
    """A model of four layers, three classes and channel "lte", in float32 and int8; ALBERT's has two groups."""
    from tests.test_deploy import exported, text_model

    into.mkdir()
    shape = exported(text_model(family), into)
    _word_tokenizer().save(str(into / TOKENIZER))
    _described(into, shape, "text", ["sentence"], ["bad", "so-so", "good"])
    _promise(into, texts(200, seed=9))
    return into


def images_folder(into: Path) -> Path:
    """A residual network of three classes, in float32."""
    from pipeline.models.deploy.graphs import shape_of, write_graphs
    from tests.replayed import residual_model

    into.mkdir()
    model, _ = residual_model()
    shape = shape_of(model, {"float32": write_graphs(model, into, images=True)})
    _described(into, shape, "image", ["image"], ["cat", "dog", "frog"])
    _promise(into, np.random.default_rng(9).integers(0, 255, (20, 32, 32, 3), dtype=np.uint8))
    return into


def texts(count: int, seed: int = 0, longest: int = 24) -> list[str]:
    """Texts of 1 to `longest` known words."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(1, longest + 1))) for _ in range(count)]


def _described(into: Path, shape: dict[str, Any], modality: str, columns: list[str], labels: list[str]) -> None:
    origin = {"task": "reviews", "backbone": "small", "method": "joint", "seed": 1, "key": "0123456789abcdef"}
    description = {
        **{"schema": SCHEMA, "modality": modality, "kind": "classification", "columns": columns},
        **{"label_names": labels, "weights_sha256": "0" * 64, "data_sha256": {}, "parameters": 1, "versions": {}},
        **origin,
        **shape,
        "files": {path.name: hash_of(path) for path in sorted(into.iterdir())},
    }
    for precision in description["precisions"].values():
        precision |= {"points": POINTS, "promises": [], "rows": []}
    (into / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")


def _promise(folder: Path, selection: Any) -> None:
    """Fill in where selection rows leave, as export does."""
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    for name, precision in description["precisions"].items():
        model = Deployed.open(folder, name)
        full = [answer.label for answer in model.answer(selection, FULL)]
        for point in POINTS:
            answers = model.answer(selection, point["criterion"])
            counts = np.bincount([answer.exit - 1 for answer in answers], minlength=len(description["exits"]))
            difference = np.mean([answer.label != last for answer, last in zip(answers, full, strict=True)])
            precision["promises"].append({"exit_counts": counts.tolist(), "difference": float(difference)})
    (folder / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")


def _word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.enable_truncation(32)
    return tokenizer
