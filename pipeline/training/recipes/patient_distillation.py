"""Patient knowledge distillation (BERT-PKD, Sun et al. 2019): half of the layers, taught by every other one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.base import Moment
from pipeline.training.recipes.first_half import FirstHalf

ALPHA, BETA, TEMPERATURE = 0.5, 100.0, 10.0
"""From Sun et al.'s grids: alpha 0.2, 0.5, 0.7; beta 10, 100, 500, 1000; temperature 5, 10, 20."""


class PatientDistillation(FirstHalf):
    """L = (1 - alpha) L_CE + alpha L_DS + beta L_PT (equation 8 of Sun et al.), alpha .5, beta 100.

    L_DS is the cross-entropy with the teacher's softmax at temperature 10 (equation 5); for regression, the squared
    distance to its answer. L_PT = mean_x sum_i || h_i/||h_i|| - t_I(i)/||t_I(i)|| ||^2 (equation 7) over the student's
    layers but the last. I(i) are every other layer of the teacher, "PKD-skip": 2, 4, ..., 10 of 12 for 6. h is the
    vector that the pooler reads: the first token as in the paper, or the mean for backbones with mean pooling.

    The student starts from the first layers of the pretrained model, as in the paper.
    """

    name = "patient_distillation"

    def objective(self, model: MultiExit, batch: Mapping[str, Tensor], labels: Tensor, moment: Moment) -> Tensor:
        assert moment.parent is not None
        student_states, student = layerwise(model, batch)
        with torch.no_grad():
            teacher_states, teacher = layerwise(moment.parent, batch)
        soft = distillation(student, teacher)
        patient = patience_loss(student_states, teacher_states)
        hard = self.loss(student[:, None], labels)
        return (1 - ALPHA) * hard + ALPHA * soft + BETA * patient


def layerwise(model: MultiExit, batch: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor]:
    """The pooler's input after each layer, (n, h) each, and the logits, (n, outputs)."""
    backbone = model.backbone
    state: Any = backbone.embed(batch)
    summaries = []
    for index in range(backbone.layers):
        state = backbone.layer(index, state)
        summaries.append(backbone.summary(state).float())
    return summaries, model.answer(0, state).float()


def distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """L_DS of two models' logits, (n, outputs) each."""
    if student.shape[1] == 1:
        return functional.mse_loss(student, teacher)
    return functional.cross_entropy(student / TEMPERATURE, functional.softmax(teacher / TEMPERATURE, dim=1))


def patience_loss(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """L_PT of two models' layers, (n, h) each: student layer i learns from teacher layer i * L / k."""
    step = len(teacher) / len(student)
    pairs = [(student[i - 1], teacher[round(i * step) - 1]) for i in range(1, len(student))]
    if not pairs:
        return student[0].new_zeros(())
    apart = [functional.normalize(s, dim=1) - functional.normalize(t, dim=1) for s, t in pairs]
    return torch.stack([difference.square().sum(dim=1) for difference in apart]).sum(dim=0).mean()


RECIPE = PatientDistillation()
