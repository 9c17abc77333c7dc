"""Generated demo images: ten shapes and textures, from clean and colour-coded to cluttered.

`pipeline.tasks.demo.text` explains the purpose of `difficulty`, and why a seed gives the same bytes on
every machine. Classes look the same in a mirror, so the usual flip augmentation keeps every label.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.tasks.words import IMAGE_LABELS

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SIZE: Final = 32


def _box(x: Ints, y: Ints, r: Ints) -> Bools:
    return np.maximum(abs(x), abs(y)) <= r


# (x, y) relative to the centre, r the half width, w the width of a stroke.
_SHAPES: Final[dict[str, Callable[[Ints, Ints, Ints, Ints], Bools]]] = {
    "disc": lambda x, y, r, w: x * x + y * y <= r * r,
    "ring": lambda x, y, r, w: (x * x + y * y <= r * r) & (x * x + y * y > (r - w) * (r - w)),
    "square": lambda x, y, r, w: _box(x, y, r),
    "diamond": lambda x, y, r, w: abs(x) + abs(y) <= r,
    "triangle": lambda x, y, r, w: (abs(y) <= r) & (2 * abs(x) <= y + r),
    "plus": lambda x, y, r, w: _box(x, y, r) & ((2 * abs(x) < w) | (2 * abs(y) < w)),
    "saltire": lambda x, y, r, w: _box(x, y, r) & (abs(abs(x) - abs(y)) < w - 1),
    "rows": lambda x, y, r, w: _box(x, y, r) & (y // w % 2 == 0),
    "columns": lambda x, y, r, w: _box(x, y, r) & (x // w % 2 == 0),
    "checks": lambda x, y, r, w: _box(x, y, r) & ((x // w + y // w) % 2 == 0),
}

# The colour of each class in easy images: a cue that the first layers can read.
_USUAL_COLOUR: Final = np.array(
    [
        *([230, 60, 60], [60, 200, 80], [70, 100, 240], [235, 215, 70], [210, 80, 215]),
        *([70, 215, 215], [245, 150, 50], [245, 245, 245], [150, 110, 70], [150, 150, 165]),
    ]
)
# Per difficulty 0..3: range of noise, occluding bars, specks of clutter.
_NOISE: Final = np.array([10, 25, 45, 70])
_BARS: Final = np.array([0, 0, 1, 1])
_SPECKS: Final = np.array([0, 1, 3, 8])


def images(rows: int, seed: int) -> dict[str, npt.NDArray[Any]]:
    """Ten classes of shapes on noise; the colour shows the class in easy images only.

    difficulty: 0 the class's colour, clean; 1 any colour; 2 more noise, a bar across the
    shape; 3 low contrast, strong noise, clutter.

    Returns image (uint8, rows x 32 x 32 x 3), label (int64, 0..9, equal shares), difficulty
    (int64, 0..3). Fixed by (rows, seed).
    """
    rng = np.random.default_rng(seed)
    label = np.argsort(rng.random(rows), kind="stable") % len(IMAGE_LABELS)
    level = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])[rng.integers(10, size=rows)]
    ground = rng.integers(0, 90, size=(rows, 3))
    bright = np.where(level == 3, 130, 150)[:, None] + rng.integers(0, 100, size=(rows, 3))
    colour = np.where(level[:, None] == 0, _USUAL_COLOUR[label], bright)
    canvas = np.broadcast_to(ground[:, None, None], (rows, SIZE, SIZE, 3)).copy()
    _specks(rng, canvas, _SPECKS[level])
    mask = _masks(rng, label)
    canvas = np.where(mask[..., None], colour[:, None, None], canvas)
    _bars(rng, canvas, _BARS[level])
    noise = rng.integers(-64, 65, size=canvas.shape) * _NOISE[level][:, None, None, None] // 64
    image = np.clip(canvas + noise, 0, 255).astype(np.uint8)
    return {"image": image, "label": label, "difficulty": level}


def _masks(rng: np.random.Generator, label: Ints) -> Bools:
    """Where each row's shape is, (rows, 32, 32), at a random place and size."""
    half = rng.integers(8, 13, size=label.size)
    centre = SIZE // 2 + rng.integers(-3, 4, size=(2, label.size))
    stroke = rng.integers(4, 6, size=label.size)
    mask = np.zeros((label.size, SIZE, SIZE), dtype=np.bool_)
    for index, name in enumerate(IMAGE_LABELS):
        at = np.flatnonzero(label == index)
        y, x = np.arange(SIZE) - centre[:, at, None]
        r, w = half[at, None, None], stroke[at, None, None]
        mask[at] = _SHAPES[name](x[:, None, :], y[:, :, None], r, w)
    return mask


def _specks(rng: np.random.Generator, canvas: Ints, count: Ints) -> None:
    """Paint up to `count` small coloured squares per row, in place."""
    for i in range(int(count.max(initial=0))):
        corner = rng.integers(0, SIZE - 4, size=(count.size, 2))
        colour = rng.integers(60, 230, size=(count.size, 3))
        for row in np.flatnonzero(count > i):
            y, x = corner[row]
            canvas[row, y : y + 4, x : x + 4] = colour[row]


def _bars(rng: np.random.Generator, canvas: Ints, count: Ints) -> None:
    """Paint a bar four pixels wide, upright or level, across the rows that have one, in place."""
    at = rng.integers(6, SIZE - 10, size=count.size)
    upright = rng.integers(2, size=count.size) == 1
    colour = rng.integers(40, 200, size=(count.size, 3))
    for row in np.flatnonzero(count):
        strip = slice(int(at[row]), int(at[row]) + 4)
        canvas[(row, slice(None), strip) if upright[row] else (row, strip)] = colour[row]
