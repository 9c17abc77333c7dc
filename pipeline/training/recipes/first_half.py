"""The first half of the layers, fine-tuned as they are. The paper's "ALBERT-6L" and "BERT-6L" rows."""

from pipeline.models.encoders.thinning import thinned
from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.base import Start
from pipeline.training.recipes.single_exit import SingleExit


class FirstHalf(SingleExit):
    """Plain fine-tuning of the first layers of the pretrained model: half of them, rounded up."""

    name = "first_half"
    share = 1 / 2

    def build(self, start: Start) -> MultiExit:
        whole = start.pretrained()
        backbone = thinned(whole, range(first_layers(whole.layers, self.share)))
        return start.model(backbone, self.exits(backbone.exit_places()))


def first_layers(layers: int, share: float) -> int:
    """A share of the layers, rounded up.

    >>> first_layers(12, 1 / 2), first_layers(12, 3 / 4), first_layers(6, 3 / 4), first_layers(1, 1 / 2)
    (6, 9, 5, 1)
    """
    return -int(-layers * share // 1)


RECIPE = FirstHalf()
