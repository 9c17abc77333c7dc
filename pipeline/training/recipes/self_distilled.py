"""Exits that learn from the last one, on a frozen, fine-tuned backbone (FastBERT, Liu et al. 2020, section 3.3)."""

from torch import Tensor
from torch.nn import functional

from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.two_stage import TwoStage


class SelfDistilled(TwoStage):
    """L = sum_j KL(p_j || p_L) over the exits before the last, equations 6 and 7; labels are not used.

    For regression it is the squared distance to the last exit's answer. There is no dropout, so that the teacher
    answers as at inference. FastBERT's exits have a small self-attention ("student classifiers"); here they are linear
    heads as in all methods, so that only the loss differs from `two_stage`.
    """

    name = "self_distilled"

    def training_mode(self, model: MultiExit) -> None:
        model.eval()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        students, teacher = logits[:, :-1], logits[:, -1:].detach()
        if logits.shape[2] == 1:
            return (students - teacher).square().sum(dim=1).mean()
        log_p = functional.log_softmax(students, dim=2)
        return (log_p.exp() * (log_p - functional.log_softmax(teacher, dim=2))).sum(dim=(1, 2)).mean()


RECIPE = SelfDistilled()
