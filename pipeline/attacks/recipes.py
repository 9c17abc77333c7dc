"""Published attacks by name, built by TextAttack, with this project's victim, goal and resources."""

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from pipeline.attacks.goals import put_goal
from pipeline.attacks.library import import_textattack, replaced
from pipeline.attacks.resources import Resources, WordVectors
from pipeline.attacks.setting import Setting
from pipeline.attacks.victim import Victim

_ALL_AT_ONCE = 2**20  # texts per call: the victim makes batches itself
_CLASSES = {
    "textfooler": "TextFoolerJin2019",
    "pwws": "PWWSRen2019",
    "textbugger": "TextBuggerLi2018",
    "deepwordbug": "DeepWordBugGao2018",
    "bae": "BAEGarg2019",
}


def build_attack(victim: Victim, resources: Resources, setting: Setting) -> Any:
    """A recipe of TextAttack's with the given resources.

    The constants stay the recipe's (TextFooler: 50 candidates, word cosine 0.5, window 15, its stop words). So do its
    rules: TextFooler's sentence encoder does not compare texts under 15 words, and of a premise and a hypothesis only
    the hypothesis changes.

    Returns:
        A `textattack.Attack`.
    """
    textattack = import_textattack()
    recipe = getattr(textattack.attack_recipes, _CLASSES[setting.recipe])
    with contextlib.ExitStack() as stack:
        stack.enter_context(_recipe_vectors(textattack, resources.vectors))
        stack.enter_context(_local_parts(textattack, resources))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", DeprecationWarning)  # about a model class that it does not know
        attack = recipe.build(victim)
        put_goal(textattack, attack, setting.goal, victim)
    _put_sentences(textattack, attack, resources)
    if not resources.tagger:
        part_of_speech = textattack.constraints.grammaticality.PartOfSpeech
        attack.constraints = [c for c in attack.constraints if not isinstance(c, part_of_speech)]
    attack.goal_function.batch_size = _ALL_AT_ONCE
    if setting.max_queries is not None:
        attack.goal_function.query_budget = setting.max_queries
    return attack


def _put_sentences(textattack: Any, attack: Any, resources: Resources) -> None:
    """Replace encoder and threshold of the recipe's sentence check; the stock encoder loads only when it is called."""
    encoders = textattack.constraints.semantics.sentence_encoders
    for constraint in attack.constraints:
        if isinstance(constraint, encoders.SentenceEncoder):
            if resources.encode is not None:
                constraint.encode = resources.encode
            if resources.cosine is not None:
                angular = constraint.metric == "angular"
                constraint.threshold = 1 - math.acos(resources.cosine) / math.pi if angular else resources.cosine


@contextlib.contextmanager
def _local_parts(textattack: Any, resources: Resources) -> Iterator[None]:
    """Make recipes use the given stop words and masked language model, which they cannot be given; no downloads."""
    import nltk
    from textattack.attack_recipes import bae_garg_2019
    from textattack.constraints.pre_transformation import stopword_modification
    from textattack.transformations.word_swaps import word_swap_homoglyph_swap

    words = resources.stop_words
    with contextlib.ExitStack() as stack:
        # WordSwapWordNet would contact the network, though its resources were checked before.
        stack.enter_context(replaced(nltk, "download", lambda *_, **__: True))
        # This module opens a file that TextAttack 0.3.11 lacks; no recipe here uses it.
        stack.enter_context(replaced(word_swap_homoglyph_swap, "open", lambda *_, **__: io.StringIO()))
        if words is not None:
            corpus = type("Words", (), {"words": staticmethod(lambda language: sorted(words))})
            stack.enter_context(replaced(stopword_modification.nltk.corpus, "stopwords", corpus))
        if resources.masked_lm is not None:
            stock, folder = bae_garg_2019.WordSwapMaskedLM, str(resources.masked_lm)
            local = lambda **options: stock(masked_language_model=folder, **options)  # noqa: E731
            stack.enter_context(replaced(bae_garg_2019, "WordSwapMaskedLM", local))
        yield


@lru_cache(maxsize=1)
def _embedding(vectors: WordVectors) -> Any:
    """The vectors as TextAttack's table, which caches the similarities that it computed."""
    count = len(vectors.words)
    return import_textattack().shared.WordEmbedding(
        vectors.vectors,
        {word: i for i, word in enumerate(vectors.words)},
        vectors.words,
        # TextAttack skips the first column, where its own table has the word itself.
        np.column_stack([np.arange(count), vectors.neighbours]),
    )


@contextlib.contextmanager
def _recipe_vectors(textattack: Any, vectors: WordVectors | None) -> Iterator[None]:
    """Put the vectors where a recipe looks for counter-fitted vectors that are already in memory."""
    if vectors is None:
        yield
        return
    name = "textattack_counterfitted_GLOVE_embedding"
    shared = textattack.shared.utils.GLOBAL_OBJECTS
    stock = shared.get(name)
    shared[name] = _embedding(vectors)
    try:
        yield
    finally:
        del shared[name]
        if stock is not None:
            shared[name] = stock
