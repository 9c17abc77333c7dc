"""What the paper printed, and what stands beside a row of ours."""

import statistics

import pytest

from pipeline.report import paper


def test_macro_scores_are_the_means_of_their_rows() -> None:
    complete = [row for row in paper.ROWS if row.macro is not None]
    assert len(complete) == 8
    for row in complete:
        values = [value for value in row.scores.values() if value is not None]
        # The paper rounds each score first; its test rows hold it to within a tenth.
        assert statistics.fmean(values) == pytest.approx(row.macro, abs=0.11), row


@pytest.mark.parametrize(
    ("task", "backbone", "key", "text"),
    [
        ("sst2", "albert-base", ("joint", "patience"), "93.0"),
        ("mrpc", "albert-base", ("joint", "patience"), "90.0"),
        ("mrpc", "albert-base", ("joint", "confidence"), "87.1"),
        ("cola", "albert-base", ("joint", "entropy"), "55.2"),
        ("rte", "albert-base", ("single_exit", None), "78.6"),
        ("stsb", "albert-base", ("joint", "confidence"), "“-”"),
        ("mnli", "bert-base", ("two_stage", "entropy"), "80.7"),
        ("sst2", "albert-base", ("two_stage", "entropy"), paper.NONE),
        ("sst2", "albert-base", ("joint", None), paper.NONE),
        ("sst2", "minilm", ("joint", "patience"), paper.NOT_COMPARABLE),
        ("cola", "bert-base", ("joint", "patience"), paper.NOT_COMPARABLE),
        ("demo-pairs", "albert-base", ("joint", "patience"), paper.NONE),
    ],
)
def test_what_stands_beside_a_row(task: str, backbone: str, key: paper.Key, text: str) -> None:
    assert paper.beside(task, backbone, 12, key).text == text


def test_a_cut_backbone_has_no_counterpart() -> None:
    assert paper.beside("sst2", "albert-base", 6, ("joint", "patience")).text == paper.NOT_COMPARABLE
    assert paper.beside("sst2", "albert-large", 24, ("joint", "patience")).text == "95.2"


def test_image_counterparts() -> None:
    patience = paper.beside("cifar100", "resnet56", 27, ("joint", "patience"))
    assert (patience.speedup, patience.value, patience.label) == (1.22, 69.1, "PABEE")
    assert paper.beside("cifar10", "resnet56", 27, ("shallow_deep", "confidence")).text == "91.6"
    assert paper.beside("cifar10", "resnet56", 27, ("single_exit", None)).text == "91.8"
    assert paper.beside("cifar10", "resnet56", 27, ("joint", None)).text == paper.NONE
    assert paper.beside("cifar10", "resnet20", 9, ("joint", "patience")).text == paper.NOT_COMPARABLE
    assert paper.beside("demo-images", "resnet56", 27, ("joint", "patience")).text == paper.NONE
