IMAGE_LABELS = ()


def images(rows: int, seed: int): ...
