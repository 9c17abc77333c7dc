"""Mutated bytes of a file."""

import random

_ODD = b"\0\t\n\r :-#'\"[]{},&*!|>%@`\xff\xe4\xef\xbb\xbfaZ09_."


def mutated(content: bytes, generator: random.Random) -> bytes:
    """The content with one to three places overwritten, inserted, removed, doubled or cut off."""
    out = bytearray(content)
    for _ in range(generator.randint(1, 3)):
        at = generator.randrange(len(out) or 1)
        kind = generator.randrange(5)
        piece = bytes(generator.choices(_ODD, k=generator.randint(1, 4)))
        if kind == 0:
            out[at : at + len(piece)] = piece
        elif kind == 1:
            out[at:at] = piece
        elif kind == 2:
            del out[at : at + generator.randint(1, 40)]
        elif kind == 3:
            out[at:at] = out[at : at + generator.randint(1, 80)]
        elif generator.random() < 0.3:
            del out[at:]
    return bytes(out)
