"""Exits that learn from the last one, on a frozen, fine-tuned backbone (FastBERT, Liu et al. 2020, section 3.3)."""

from torch import Tensor
from torch.nn import functional

from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.two_stage import TwoStage


class SelfDistilled(TwoStage):
    """L = sum_j KL(p_j || p_L) over the exits before the last, equations 6 and 7; labels are not looked at.

    For regression the squared distance to the last exit's answer. Nothing is dropped out, so that the teacher's
    answer is the one it gives when it is used. FastBERT's exits have a small self-attention of their own ("student
    classifiers"); here they are the linear heads that all methods share, so that the loss is all that differs from
    `two_stage`.
    """

    name = "self_distilled"

    def training_mode(self, model: MultiExit) -> None:
        model.eval()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        students, teacher = logits[:, :-1], logits[:, -1:].detach()
        if logits.shape[2] == 1:
            return (students - teacher).square().sum(dim=1).mean()
        said = functional.log_softmax(students, dim=2)
        return (said.exp() * (said - functional.log_softmax(teacher, dim=2))).sum(dim=(1, 2)).mean()


RECIPE = SelfDistilled()
