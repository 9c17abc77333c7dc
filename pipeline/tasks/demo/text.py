"""Generated demo data, with which the whole pipeline runs offline, in minutes on two CPU cores.

Each task has a rule that determines the label, and a `difficulty`: how far that rule is from
counting words. The first exits of a multi-exit model can answer easy rows; hard rows need depth.
Without that range an early exit would have nothing to decide.

The same (rows, seed) gives the same bytes on every machine: all draws are uniform draws of
`numpy.random.default_rng(seed)`, and the rest is integer arithmetic and single IEEE operations (no
`hash()`, no BLAS, no libm). Classes have equal shares. Splits have different seeds, so a few easy
rows in a hundred thousand may occur in two of them.

Several word frequencies are skewed on purpose. When no single word correlates with the label, a
transformer trained from scratch stays at chance for hundreds of steps. Real data have such cues too.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError

__all__ = [
    "PAIR_LABELS",
    "SENTENCE_LABELS",
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
T = TypeVar("T")

# One synonym set per entry. A word is in exactly one set and every rule is about sets, so a swap
# within a set keeps the label. The last word of a set of three or more is rare: a model sees it a
# few times in training, and a word-swap attack finds it.
_RARE_ONE_IN: Final = 64
_LEXICON: Final[dict[str, list[str]]] = {
    "positive": [
        "good fine decent worthy",
        "great superb excellent stellar",
        "funny witty hilarious droll",
        "moving touching stirring poignant",
    ],
    "negative": [
        "bad weak lousy shoddy",
        "awful terrible dreadful abysmal",
        "boring dull tedious humdrum",
        "silly stupid foolish inane",
    ],
    "subject": [
        "movie film picture flick",
        "story plot tale yarn",
        "cast crew ensemble troupe",
        "music score soundtrack melody",
    ],
    "degree": ["really truly genuinely", "very extremely exceedingly", "quite rather fairly"],
    "speaker": ["everyone", "critics viewers reviewers", "friends pals buddies"],
    "saying": ["said claimed remarked", "thought believed reckoned"],
    "link": ["was", "seemed appeared", "felt"],
    # Pairs: entry i of "high" and entry i of "low" are antonyms, and nothing lies between them.
    "high": [
        "tall towering lofty",
        "rich wealthy affluent",
        "happy glad cheerful",
        "loud noisy boisterous",
    ],
    "low": [
        "short small diminutive",
        "broke penniless destitute",
        "sad unhappy gloomy",
        "quiet silent hushed",
    ],
    "wish": ["wants desires craves", "owns possesses holds"],
    "belonging": [
        "car motorcar vehicle",
        "house home dwelling",
        "boat ship vessel",
        "coat jacket parka",
    ],
    # Similarity: entries 0 and 1 are common, entries 2 and 3 only replace them.
    "who": [
        "man guy gentleman",
        "woman lady dame",
        "robot cyborg droid",
        "pirate buccaneer corsair",
    ],
    "act": [
        "cooks prepares simmers",
        "tastes samples savours",
        "paints colours tints",
        "hides conceals buries",
    ],
    "thing": ["soup broth bisque", "cake tart pastry", "rock stone boulder", "letter note memo"],
    "place": [
        "kitchen galley scullery",
        "garden yard patio",
        "forest wood grove",
        "cave cavern grotto",
    ],
    "tool": ["spoon ladle scoop", "pan pot kettle", "hammer mallet gavel", "rope cord twine"],
}
_SETS: Final = {role: [entry.split() for entry in sets] for role, sets in _LEXICON.items()}
_NAMES: Final = ("anna", "ben", "carla", "david", "emma", "felix", "greta", "hugo")
_WHERE: Final = ("at work", "at school", "in town", "at church", "in court", "on stage")
_MOMENTS: Final = (
    *("at the end", "in the middle", "from the start", "after an hour"),
    *("on the whole", "this time", "once again", "for a change"),
)
_GLUE: Final = ("a", "and", "but", "in", "is", "nobody", "not", "someone", "the", "with")


class _Draw:
    """Uniform integer draws, the only source of chance here."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def below(self, n: int) -> int:
        return int(self.rng.integers(n))

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def word(self, words: Sequence[str]) -> str:
        """A word of one synonym set; the last one of three or more is rare."""
        if len(words) < 3:
            return self.pick(words)
        return words[-1] if self.below(_RARE_ONE_IN) == 0 else self.pick(words[:-1])

    def role(self, role: str) -> str:
        return self.word(self.pick(_SETS[role]))

    def order(self, n: int) -> list[int]:
        return [int(i) for i in np.argsort(self.rng.random(n), kind="stable")]

    def labels(self, rows: int, classes: int) -> Iterator[int]:
        """Equal shares of every class, in random order."""
        return (i % classes for i in self.order(rows))


def sentences(rows: int, seed: int) -> Columns:
    """Sentiment of a sentence: clauses joined by "but", of which the last one decides.

    "nobody said ..." and "not" each flip the polarity of their clause. difficulty: 0 one clause,
    no negation; 1 several clauses, none negated; 2 one clause, negated; 3 several, negated.

    Columns: sentence (str), label (0 negative, 1 positive), difficulty (0..3). Fixed by
    (rows, seed).
    """
    draw = _Draw(seed)
    out: Columns = {"sentence": [], "label": [], "difficulty": []}
    for label in draw.labels(rows, 2):
        level = draw.pick((0, 0, 0, 0, 1, 1, 1, 2, 2, 3))
        clauses = 1 if level in (0, 2) else draw.pick((2, 2, 3))
        # Level 3 negates once or twice, equally often, so that the polar word alone is no cue.
        last = {0: 0, 1: 0, 2: draw.pick((1, 1, 1, 2)), 3: draw.pick((1, 2))}[level]
        parts = [_clause(draw, bool(draw.below(2)), draw.below(3) if level == 3 else 0) for _ in range(clauses - 1)]
        parts.append(_clause(draw, bool(label), last))
        text = f"{draw.pick(_MOMENTS)} {' but '.join(parts)}"
        _append(out, text, label, level)
    return out


def _clause(draw: _Draw, positive: bool, negations: int) -> str:
    """One clause that is `positive` after its negations."""
    outer = negations == 2 or (negations == 1 and draw.below(2) == 0)
    words = []
    if outer:
        words += ["nobody", draw.role("saying")]
    elif draw.below(4) == 0:
        words += [draw.role("speaker"), draw.role("saying")]
    words += ["the", draw.role("subject"), draw.role("link")]
    words += ["not"] * (negations - outer)
    if draw.below(2):
        words.append(draw.role("degree"))
    words.append(draw.role("positive" if positive != (negations == 1) else "negative"))
    return " ".join(words)


def pairs(rows: int, seed: int) -> Columns:
    """Inference over facts such as "anna is tall": entailed, contradicted, or not stated.

    difficulty: 0 one fact, and the hypothesis alone shows the label ("someone is", "nobody is",
    a wish); 1 one fact, antonyms; 2 two or three facts about different people; 3 the same in
    synonyms and with "not" in half of the hypotheses.

    Columns: premise, hypothesis (str), label (0 entailment, 1 neutral, 2 contradiction),
    difficulty (0..3). Fixed by (rows, seed).
    """
    draw = _Draw(seed)
    out: Columns = {"premise": [], "hypothesis": [], "label": [], "difficulty": []}
    for label in draw.labels(rows, 3):
        level = draw.pick((0, 0, 0, 0, 1, 1, 1, 2, 2, 3))
        count = 1 if level < 2 else draw.pick((2, 3))
        people = [_NAMES[i] for i in draw.order(len(_NAMES))[: count + 1]]
        traits = draw.order(len(_SETS["high"]))[:count]
        # Mostly "high", so that a "low" word in the hypothesis hints at contradiction.
        poles = [draw.pick(("high", "high", "high", "high", "low")) for _ in traits]
        words = [draw.word(_SETS[pole][trait]) for pole, trait in zip(poles, traits, strict=True)]
        facts = [f"{who} is {word}" for who, word in zip(people, words, strict=False)]
        premise = f"{' and '.join(facts)} {draw.pick(_WHERE)} {draw.pick(_MOMENTS)}"
        if label == 1:
            hypothesis = _unstated(draw, people, traits, level)
        else:
            at = draw.below(count)
            hypothesis = _stated(draw, people[at], traits[at], poles[at], words[at], label, level)
        _append(out, premise, hypothesis, label, level)
    return out


def _stated(draw: _Draw, who: str, trait: int, pole: str, word: str, label: int, level: int) -> str:
    """A hypothesis that the fact (who, trait, pole) entails (label 0) or contradicts (label 2)."""
    if level == 0:
        return f"{'someone' if label == 0 else 'nobody'} is {word}"
    negated = level == 3 and draw.below(2) == 0
    if (label == 0) == negated:
        pole = "low" if pole == "high" else "high"
        word = draw.word(_SETS[pole][trait])
    elif level == 3:
        word = draw.word([other for other in _SETS[pole][trait] if other != word])
    return f"{who} is {'not ' if negated else ''}{word}"


def _unstated(draw: _Draw, people: Sequence[str], traits: Sequence[int], level: int) -> str:
    """A hypothesis that the premise does not decide; the last of `people` is not in the premise."""
    if level == 0 or (level == 1 and draw.below(2)):
        return f"{draw.pick(people)} {draw.role('wish')} a {draw.role('belonging')}"
    if level > 1 and draw.below(2):
        who, trait = people[0], traits[1]  # a person and a trait of the premise, not together
    else:
        who, trait = people[-1], draw.pick(traits)
    negation = "not " if level == 3 and draw.below(2) == 0 else ""
    return f"{who} is {negation}{draw.word(_SETS[draw.pick(('high', 'low'))][trait])}"


def similarity(rows: int, seed: int) -> Columns:
    """Similarity of two sentences of up to five slots: who does what to what, where, with what.

    score = 5 * 2 * shared / (slots of the first + slots of the second), where shared slots are of
    the same synonym set. difficulty: 0 shared slots in the same words, the others from another
    world ("pirate", "cave"); 1 the others from the same world; 2 the shared ones in other words too.

    Columns: sentence1, sentence2 (str), score (float, 0..5), difficulty (0..2). Fixed by
    (rows, seed).
    """
    draw = _Draw(seed)
    slots = ("who", "act", "thing", "place", "tool")
    out: Columns = {"sentence1": [], "sentence2": [], "score": [], "difficulty": []}
    for shared in draw.labels(rows, len(slots) + 1):
        level = draw.pick((0, 0, 0, 0, 1, 1, 1, 2, 2, 2))
        kept = draw.order(len(slots))[:shared]
        first, second = [], []
        for i, slot in enumerate(slots):
            sets = _SETS[slot]
            usual = draw.pick((0, 0, 0, 1))
            first.append(draw.word(sets[usual]))
            if i in kept:
                others = [word for word in sets[usual] if word != first[i]]
                second.append(first[i] if level < 2 else draw.word([*others, sets[usual][-1]]))
            elif slot in ("place", "tool") and draw.below(2):
                second.append("")
            else:
                second.append(draw.word(sets[draw.pick((2, 3)) if level == 0 else 1 - usual]))
        score = 10 * shared / (len(slots) + sum(map(bool, second)))
        opening = draw.pick(_MOMENTS)
        texts = (f"{opening} {_scene(words)}" for words in (first, second))
        _append(out, *texts, score, level)
    return out


def _scene(words: Sequence[str]) -> str:
    who, act, thing, place, tool = words
    where = f" in the {place}" if place else ""
    return f"a {who} {act} the {thing}{where}" + (f" with a {tool}" if tool else "")


def _append(columns: Columns, *values: object) -> None:
    for column, value in zip(columns.values(), values, strict=True):
        column.append(value)


def vocabulary() -> list[str]:
    """All words of the three text generators, sorted."""
    fixed = " ".join((*_NAMES, *_WHERE, *_MOMENTS, *_GLUE)).split()
    return sorted({*fixed, *(w for sets in _SETS.values() for words in sets for w in words)})


def synonyms() -> dict[str, list[str]]:
    """Word to the words that can replace it without changing a label.

    >>> synonyms()["good"]
    ['fine', 'decent', 'worthy']
    """
    groups = [words for sets in _SETS.values() for words in sets]
    return {w: [v for v in words if v != w] for words in groups for w in words if len(words) > 1}


def word_vectors(dim: int = 64, seed: int = 0) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Unit vectors in which only synonyms are near, like counter-fitted vectors.

    Two synonyms have cosine 1 - 4 k / dim with k = dim // 32 (.875 at 64); any other two words,
    antonyms among them, stay well below .5. Entries are +-1/sqrt(dim), so norms and cosines are
    exact.

    Returns the vocabulary and a float32 array (words, dim). Fixed by (dim, seed).
    """
    if dim < 64:
        raise DataError(f"word_vectors: dim {dim} has no room for the vocabulary; use 64 or more")
    rng = np.random.default_rng(seed)
    near, words = synonyms(), vocabulary()
    signs: dict[str, npt.NDArray[np.int64]] = {}
    chosen: list[npt.NDArray[np.int64]] = []
    for word in words:
        if word in signs:
            continue
        candidates = 2 * rng.integers(2, size=(64, dim)) - 1
        # Random directions reach cosine .5; keep the most distant of 64.
        crowd = np.abs(candidates @ np.array([*chosen, 0 * candidates[0]]).T).max(axis=1)
        chosen.append(candidates[int(crowd.argmin())])
        flips = np.argsort(rng.random(dim), kind="stable")
        for i, member in enumerate([word, *near.get(word, [])]):
            signs[member] = chosen[-1].copy()
            signs[member][flips[i * (dim // 32) : (i + 1) * (dim // 32)]] *= -1
    return words, (np.array([signs[w] for w in words]) / np.sqrt(dim)).astype(np.float32)
