"""The first three quarters of the layers, fine-tuned as they are. The paper's "ALBERT-9L" and "BERT-9L" rows."""

from pipeline.training.recipes.first_half import FirstHalf


class FirstThreeQuarters(FirstHalf):
    """Plain fine-tuning of the first layers of the pretrained model: 9 of 12."""

    name = "first_three_quarters"
    share = 3 / 4


RECIPE = FirstThreeQuarters()
