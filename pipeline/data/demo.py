"""Generated demo data: the whole pipeline runs from seeds, offline, on two CPU cores.

Four tasks, each with a rule that fixes the label and a `difficulty` that says how far that rule is
from counting words. Easy rows can be answered by the first exits of a multi-exit model, hard rows
need depth; without that spread an early exit has nothing to decide.

Every draw is an integer draw of `numpy.random.default_rng(seed)` and every other step is integer or
dyadic arithmetic, so (rows, seed) gives the same bytes on every machine. Nothing uses `hash()`,
libm or BLAS.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from pipeline.data.demo_images import IMAGE_LABELS, images

__all__ = [
    "IMAGE_LABELS",
    "PAIR_LABELS",
    "SENTENCE_LABELS",
    "images",
    "pairs",
    "sentences",
    "similarity",
    "synonyms",
    "vocabulary",
    "word_vectors",
]

SENTENCE_LABELS: Final = ("negative", "positive")
PAIR_LABELS: Final = ("entailment", "neutral", "contradiction")

Columns = dict[str, list[Any]]

# One synonym set per entry; a word belongs to exactly one set, so swapping inside a set can never
# change a label. A starred word is rare: seen a handful of times in a training split, it is what a
# word-swap attack finds.
_RARE_SHARE: Final = 64  # one emission in 64 of a set is its rare word
_LEXICON: Final[dict[str, list[str]]] = {
    "positive": [
        "good fine decent *worthy",
        "great superb excellent *stellar",
        "funny witty hilarious *droll",
        "moving touching stirring *poignant",
    ],
    "negative": [
        "bad weak lousy *shoddy",
        "awful terrible dreadful *abysmal",
        "boring dull tedious *humdrum",
        "silly stupid foolish *inane",
    ],
    "subject": [
        "movie film picture *flick",
        "story plot tale *yarn",
        "cast crew ensemble *troupe",
        "music score soundtrack *melody",
    ],
    "degree": ["really truly *genuinely", "very extremely *exceedingly", "quite rather *fairly"],
    "speaker": ["everyone", "critics viewers *reviewers", "friends pals *buddies"],
    "saying": ["said claimed *remarked", "thought believed *reckoned"],
    "link": ["was", "seemed appeared", "felt"],
    "high": [
        "tall towering *lofty",
        "rich wealthy *affluent",
        "happy glad *cheerful",
        "loud noisy *boisterous",
    ],
    "low": [
        "short small *diminutive",
        "broke penniless *destitute",
        "sad unhappy *gloomy",
        "quiet silent *hushed",
    ],
    "belonging": [
        "car automobile *vehicle",
        "house home *dwelling",
        "boat ship *vessel",
        "coat jacket *parka",
    ],
    "wish": ["wants desires *craves", "owns possesses *holds"],
    "who": ["man guy *gentleman", "woman lady *dame", "robot android *automaton", "pirate buccaneer *corsair"],
    "act": ["cooks prepares *simmers", "tastes samples *savours", "paints colours *tints", "hides conceals *buries"],
    "thing": ["soup broth *bisque", "cake tart *pastry", "rock stone *boulder", "letter note *memo"],
    "place": ["kitchen galley *scullery", "garden yard *patio", "forest wood *grove", "cave cavern *grotto"],
    "tool": ["spoon ladle *scoop", "pan pot *kettle", "hammer mallet *gavel", "rope cord *twine"],
}
_NAMES: Final = ("anna", "ben", "carla", "david", "emma", "felix")
_PLACES: Final = ("at work", "at school", "in town", "on monday", "on friday", "by now")
_TAILS: Final = (
    "at the end", "in the middle", "from the start", "after an hour",
    "on the whole", "this time", "once again", "for a change",
)  # fmt: skip
_FUNCTION_WORDS: Final = ["the", "but", "nobody", "not", "and", "is", "someone", "a", "with", "in"]

Draw = Callable[[Sequence[Any]], Any]


def _drawer(rng: np.random.Generator) -> Draw:
    return lambda options: options[int(rng.integers(len(options)))]


def _sets(role: str) -> list[list[str]]:
    return [entry.replace("*", "").split() for entry in _LEXICON[role]]


_SETS: Final = {role: _sets(role) for role in _LEXICON}
_RARE: Final = {w[1:] for entries in _LEXICON.values() for e in entries for w in e.split() if "*" in w}


def _word(rng: np.random.Generator, words: Sequence[str]) -> str:
    common = [w for w in words if w not in _RARE]
    rare = [w for w in words if w in _RARE]
    if rare and int(rng.integers(_RARE_SHARE)) == 0:
        return rare[0]
    return common[int(rng.integers(len(common)))]


def _role(rng: np.random.Generator, role: str) -> str:
    sets = _SETS[role]
    return _word(rng, sets[int(rng.integers(len(sets)))])


def _labels(rng: np.random.Generator, rows: int, classes: int) -> list[int]:
    """Equal shares of every class, in random order."""
    order = np.argsort(rng.random(rows), kind="stable")
    return [int(label) for label in (np.arange(rows) % classes)[order]]


# ---------------------------------------------------------------- sentences


def _clause(rng: np.random.Generator, positive: bool, negations: int, tail: bool) -> str:
    """One judgement that comes out `positive` after `negations` flips."""
    outer = negations == 2 or (negations == 1 and int(rng.integers(2)) == 0)
    inner = negations - outer
    words = [_TAILS[int(rng.integers(len(_TAILS)))]] if tail else []
    if outer:
        words += ["nobody", _role(rng, "saying")]
    elif int(rng.integers(4)) == 0:
        words += [_role(rng, "speaker"), _role(rng, "saying")]
    words += ["the", _role(rng, "subject"), _role(rng, "link")]
    words += ["not"] * inner
    if int(rng.integers(2)):
        words.append(_role(rng, "degree"))
    words.append(_role(rng, "positive" if positive != (negations == 1) else "negative"))
    return " ".join(words)


def sentences(rows: int, seed: int) -> Columns:
    rng = np.random.default_rng(seed)
    labels = _labels(rng, rows, 2)
    text, difficulty = [], []
    for label in labels:
        level = (0, 0, 0, 0, 1, 1, 1, 2, 2, 3)[int(rng.integers(10))]
        clauses = 1 if level in (0, 2) else 2 + int(rng.integers(3) == 0)
        tail = 0
        parts = []
        for at in range(clauses):
            last = at == clauses - 1
            negations = 0 if level < 2 else 1 + int(rng.integers(2)) if last else int(rng.integers(3))
            positive = bool(label) if last else int(rng.integers(2)) == 1
            parts.append(_clause(rng, positive, negations, tail == at))
        text.append(" but ".join(parts))
        difficulty.append(level)
    return {"sentence": text, "label": labels, "difficulty": difficulty}


# ---------------------------------------------------------------- pairs


def pairs(rows: int, seed: int) -> Columns:
    rng = np.random.default_rng(seed)
    labels = _labels(rng, rows, 3)
    premises, hypotheses, difficulty = [], [], []
    dims = len(_SETS["high"])
    pick = _drawer(rng)
    for label in labels:
        level = (0, 0, 0, 1, 1, 1, 1, 2, 2, 3)[int(rng.integers(10))]
        n = 1 if level <= 1 else 2 + int(rng.integers(2))
        facts: list[tuple[str, int, str]] = []
        while len(facts) < n:
            who, dim = pick(_NAMES), int(rng.integers(dims))
            if not any(who == f[0] or dim == f[1] for f in facts):
                facts.append((who, dim, pick(("high", "high", "high", "low"))))
        said = [_word(rng, _SETS[pole][dim]) for _, dim, pole in facts]
        premise = " and ".join(f"{who} is {w}" for (who, _, _), w in zip(facts, said, strict=True))
        premise += " " + pick(_PLACES)
        about = int(rng.integers(n))
        who, dim, pole = facts[about]
        other = "low" if pole == "high" else "high"
        negated = False
        if label == 1:
            if level <= 1:
                who, verb = pick(_NAMES), _role(rng, "wish")
                hyp = f"{who} {verb} a {_role(rng, 'belonging')}"
            else:
                if int(rng.integers(2)):
                    dim = facts[(about + 1) % n][1]
                else:
                    who = pick([x for x in _NAMES if x not in [f[0] for f in facts]])
                negated = level == 3 and int(rng.integers(2)) == 0
                hyp = f"{who} is {'not ' * negated}{_word(rng, _SETS[pick(('high', 'low'))][dim])}"
        else:
            same = label == 0
            negated = level == 3 and int(rng.integers(2)) == 0
            kind = pole if same != negated else other
            w = said[about] if kind == pole and level < 3 else _word(rng, _SETS[kind][dim])
            if level == 0:
                w = said[about]
                hyp = f"{'someone' if same else 'nobody'} is {w}"
            else:
                hyp = f"{who} is {'not ' * negated}{w}"
        premises.append(premise)
        hypotheses.append(hyp)
        difficulty.append(level)
    return {"premise": premises, "hypothesis": hypotheses, "label": labels, "difficulty": difficulty}


# ---------------------------------------------------------------- similarity

_SLOTS: Final = ("who", "act", "thing", "place", "tool")


def _frame(words):
    text = f"a {words[0]} {words[1]} the {words[2]}"
    if words[3]:
        text += f" in the {words[3]}"
    if words[4]:
        text += f" with a {words[4]}"
    return text


def similarity(rows: int, seed: int) -> Columns:
    rng = np.random.default_rng(seed)
    pick = _drawer(rng)
    first, second, scores, difficulty = [], [], [], []
    for shared in _labels(rng, rows, 6):
        level = pick((0, 0, 0, 0, 1, 1, 1, 2, 2, 2))
        keep = set(np.argsort(rng.random(5), kind="stable")[:shared].tolist())
        w1, w2 = [], []
        for i, slot in enumerate(_SLOTS):
            sets = _SETS[slot]
            c = pick((0, 0, 0, 1))
            x = _word(rng, sets[c])
            w1.append(x)
            if i in keep:
                y = x
                while level == 2 and y == x:
                    y = _word(rng, sets[c])
                w2.append(y)
            elif i > 2 and int(rng.integers(2)):
                w2.append("")
            else:
                w2.append(_word(rng, sets[2 + int(rng.integers(2)) if level == 0 else 1 - c]))
        first.append(_frame(w1))
        second.append(_frame(w2))
        scores.append(10 * shared / (5 + sum(map(bool, w2))))
        difficulty.append(level)
    return {"sentence1": first, "sentence2": second, "score": scores, "difficulty": difficulty}


def vocabulary() -> list[str]:
    words = {w for sets in _SETS.values() for s in sets for w in s}
    words |= {*_NAMES, *_FUNCTION_WORDS, *" ".join(_PLACES + _TAILS).split()}
    return sorted(words)
