"""The last exit and all exits by turns (BERxiT, Xin et al. 2021, section 3.2, "alternating fine-tuning")."""

from collections.abc import Mapping

from torch import Tensor

from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.base import Moment, exit_losses
from pipeline.training.recipes.joint import Joint


class Alternating(Joint):
    """L = L_last for batches 1, 3, 5, ...; L = exits * sum_j w_j L_j for batches 2, 4, 6, ...

    With w_j = 1 / exits the second is the sum over all exits, as in the paper. With other weights it keeps that sum's
    scale. BERxiT's learned head is another method, `berxit`, whose parent this one may be.
    """

    name = "alternating"
    weights = "uniform"

    def objective(self, model: MultiExit, batch: Mapping[str, Tensor], labels: Tensor, moment: Moment) -> Tensor:
        logits = self.answers(model, batch)
        if moment.step % 2:
            return exit_losses(logits[:, -1:], labels).sum()
        return logits.shape[1] * self.loss(logits, labels)


RECIPE = Alternating()
