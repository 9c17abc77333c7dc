"""Names of the classes of image tasks and generated data, in the order of their data sets."""

IMAGE_LABELS = ("disc", "ring", "square", "diamond", "triangle", "plus", "saltire", "rows", "columns", "checks")
"""Of the generated images."""
DEMO_CLASSES = {
    "sentences": ("negative", "positive"),
    "pairs": ("entailment", "neutral", "contradiction"),
    "images": IMAGE_LABELS,
}
"""Of generated data by its name; the similarity of pairs has none."""
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100 = tuple(_FINE.split())
"""The fine labels."""
