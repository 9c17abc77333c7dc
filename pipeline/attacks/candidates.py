"""The changed texts that an attack may try: TextAttack's transformation and constraints, each result computed once.

A recipe has two kinds of checks. The word checks look at a word of the original text and its replacement. Their result
does not depend on the other changes, so it is computed once per example and serves every defence. The sentence encoder
compares windows of the changed text with the original: equal windows are scored once, and texts that the recipe does
not compare are not encoded.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from pipeline.attacks.library import import_textattack

Question = tuple[Literal["texts", "windows"], Sequence[Any]]
"""What a step of an attack waits for: the model's answers to texts, or the sentence encoder's vectors of windows."""
Steps = Generator[Question, Any, Any]
"""An attack, or a part of one: yields questions, is sent the answers, returns its result."""


@dataclass
class Shared:
    """Results about examples that do not depend on the model under attack.

    A batch of windows is scored and stored as a whole, so that its numbers do not depend on earlier batches.

    Attributes:
        words: replacements that pass the word checks, by original text and index of the word.
        scores: similarities (n,) of a batch of pairs of windows.
    """

    words: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    scores: dict[tuple[Any, ...], Any] = field(default_factory=dict)


class Candidates:
    """The candidates of one recipe.

    Args:
        attack: a `textattack.Attack`; its transformation and constraints are used, its caches are not.
        shared: results that several defences may share.
    """

    def __init__(self, attack: Any, shared: Shared) -> None:
        textattack = import_textattack()
        self.attack, self.shared = attack, shared
        self.encoders = textattack.constraints.semantics.sentence_encoders.SentenceEncoder
        swap = textattack.transformations.WordSwap
        by_word = (
            textattack.constraints.semantics.WordEmbeddingDistance,
            textattack.constraints.grammaticality.PartOfSpeech,
        )
        # True for a transformation that reads the word alone; a masked language model also reads its neighbours.
        plain = getattr(type(attack.transformation), "_get_transformations", None) is swap._get_transformations
        constraints = list(attack.constraints)
        self.word_checks: list[Any] = []
        if plain and attack.transformation.deterministic:
            while constraints and isinstance(constraints[0], by_word) and constraints[0].compare_against_original:
                self.word_checks.append(constraints.pop(0))
        self.by_word = bool(self.word_checks)
        self.text_checks = constraints

    def of(self, original: Any, current: Any, index: int) -> Steps:
        """Texts that differ from `current` in the word at `index` and pass all checks, as TextAttack sorts them.

        Args:
            original, current: `textattack.shared.AttackedText`.
        """
        if self.by_word and current.num_words == original.num_words:
            texts = self._swapped(original, current, index)
        else:
            texts = self.attack.transformation(
                current,
                pre_transformation_constraints=self.attack.pre_transformation_constraints,
                indices_to_modify=[index],
            )
            texts = [text for text in texts if text.text != current.text]
            for check in self.word_checks:
                texts = check.call_many(texts, original) if texts else texts
        for check in self.text_checks:
            reference = original if check.compare_against_original else current
            if texts and isinstance(check, self.encoders):
                texts = yield from self._similar(check, texts, reference)
            elif texts:
                texts = list(check.call_many(texts, reference))
        return sorted(texts, key=lambda text: text.text)

    def _swapped(self, original: Any, current: Any, index: int) -> list[Any]:
        """`current` with the word at `index` replaced by each word that passes the word checks."""
        key = (original.text, index)
        if key not in self.shared.words:
            self.shared.words[key] = self._allowed(original, index)
        texts = [current.replace_word_at_index(index, word) for word in self.shared.words[key]]
        return [self._marked(text) for text in texts if text.text != current.text]

    def _allowed(self, original: Any, index: int) -> list[str]:
        word = original.words[index]
        proposed = [other for other in self.attack.transformation._get_replacement_words(word) if other != word]
        allowed = []
        for other in proposed:
            text = self._marked(original.replace_word_at_index(index, other))
            if all(check(text, original) for check in self.word_checks):
                allowed.append(other)
        return allowed

    def _marked(self, text: Any) -> Any:
        text.attack_attrs["last_transformation"] = self.attack.transformation
        return text

    def _similar(self, check: Any, texts: Sequence[Any], reference: Any) -> Steps:
        """The texts whose window is similar enough to the reference's; each keeps its similarity as an attribute."""
        short = [check.skip_text_shorter_than_window and len(text.words) < check.window_size for text in texts]
        scores = torch.ones(len(texts))
        compared = [i for i, skipped in enumerate(short) if not skipped]
        if compared:
            pairs = []
            for i in compared:
                at = next(iter(texts[i].attack_attrs["newly_modified_indices"]))
                windows = [text.text_window_around_index(at, check.window_size) for text in (reference, texts[i])]
                pairs.append(tuple(windows))
            scores[compared] = yield from self._scored(check, tuple(pairs))
        for text, score in zip(texts, scores.tolist(), strict=True):
            text.attack_attrs["similarity_score"] = score
        passed = (scores >= check.threshold).tolist()
        return [text for text, good in zip(texts, passed, strict=True) if good]

    def _scored(self, check: Any, pairs: tuple[tuple[str, str], ...]) -> Steps:
        key = (check.metric, *pairs)
        if key not in self.shared.scores:
            windows = list(dict.fromkeys(window for pair in pairs for window in pair))
            vectors = torch.as_tensor((yield "windows", windows)).cpu()
            at = {window: i for i, window in enumerate(windows)}
            first, second = (vectors[[at[pair[side]] for pair in pairs]] for side in (0, 1))
            self.shared.scores[key] = check.sim_metric(first, second)
        return self.shared.scores[key]
