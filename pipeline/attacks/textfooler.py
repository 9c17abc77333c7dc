"""TextFooler (Jin et al. 2020) as TextAttack's recipe, with our victim and resources put into it."""

import contextlib
import math
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.attacks.examples import Example
from pipeline.attacks.library import import_textattack
from pipeline.attacks.records import Outcome, Record
from pipeline.attacks.resources import Resources, WordVectors
from pipeline.attacks.victim import Text, Victim

QUERY_RULE = (
    "TextAttack's: every text put to the model for one example, the original and cached answers included; "
    "only candidates that pass the filters (TextFooler's own code also counts filtered ones)"
)
_ALL_AT_ONCE = 2**20  # texts per call: the victim itself makes batches, and of like length


def build_attack(victim: Victim, resources: Resources, max_queries: int | None = None) -> Any:
    """TextAttack's `TextFoolerJin2019`, its stock resources replaced by ours.

    Its constants (50 candidates, word cosine 0.5, window 15, its stop words) are the recipe's own. As there, texts
    under 15 words are not compared by the sentence encoder, and of a premise and hypothesis only the latter changes.

    Args:
        max_queries: per example; the attack then gives up.

    Returns:
        A `textattack.Attack`.
    """
    textattack = import_textattack()
    with _recipe_vectors(textattack, resources.vectors), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # how it says that it does not know our model's class
        attack = textattack.attack_recipes.TextFoolerJin2019.build(victim)
    sentences = attack.constraints[-1]
    if resources.encode is not None:  # the recipe's check with another encoder; the stock one loads at its first call
        sentences.encode = resources.encode
    if resources.cosine is not None:
        sentences.threshold = 1 - math.acos(resources.cosine) / math.pi
    if not resources.tagger:
        part_of_speech = textattack.constraints.grammaticality.PartOfSpeech
        attack.constraints = [c for c in attack.constraints if not isinstance(c, part_of_speech)]
    attack.goal_function.batch_size = _ALL_AT_ONCE
    if max_queries is not None:
        attack.goal_function.query_budget = max_queries
    return attack


def attack_examples(
    victim: Victim, resources: Resources, examples: Sequence[Example], *, seed: int, max_queries: int | None = None
) -> Iterator[Record]:
    """Attack examples one after another.

    TextAttack's own loop (`Attacker`) is passed by: it moves the victim to any GPU it sees and prints.

    Args:
        seed: of the global generators that TextAttack draws from. TextFooler as it stands draws nothing.
    """
    attack = build_attack(victim, resources, max_queries)
    import_textattack().shared.utils.set_seed(seed)
    for example in examples:
        yield attack_one(attack, victim, example)


def attack_one(attack: Any, victim: Victim, example: Example) -> Record:
    """Attack one example and record what it took."""
    attack.clear_cache()  # so that the original is answered anew, and its layers seen
    victim.forget()
    texts = example.texts
    given = texts[0] if len(texts) == 1 else OrderedDict(zip(("premise", "hypothesis"), texts, strict=True))
    result = attack.attack(given, example.label)
    before, after = result.original_result, result.perturbed_result
    original: Text = before.attacked_text.tokenizer_input
    changed: Text = after.attacked_text.tokenizer_input
    outcome = _outcome(result)
    attacked = outcome != "skipped"
    candidates = [layers for text, layers in victim.layers.items() if text != original]
    return Record(
        row_id=example.row_id,
        label=example.label,
        outcome=outcome,
        answer_before=int(before.output),
        answer_after=int(after.output) if attacked else None,
        original=(original,) if isinstance(original, str) else tuple(original),
        changed=((changed,) if isinstance(changed, str) else tuple(changed)) if attacked else None,
        queries=int(attack.goal_function.num_queries),
        words=len(before.attacked_text.words),
        words_changed=len(before.attacked_text.all_words_diff(after.attacked_text)) if attacked else None,
        layers_before=victim.layers[original],
        layers_under_attack=float(np.mean(candidates)) if attacked and candidates else None,
        layers_after=victim.layers[changed] if attacked else None,
    )


def _outcome(result: Any) -> Outcome:
    results = import_textattack().attack_results
    if isinstance(result, results.SkippedAttackResult):
        return "skipped"
    return "successful" if isinstance(result, results.SuccessfulAttackResult) else "failed"


@contextlib.contextmanager
def _recipe_vectors(textattack: Any, vectors: WordVectors | None) -> Iterator[None]:
    """Let the recipe find ours where it looks for counter-fitted vectors that the process already loaded."""
    if vectors is None:
        yield
        return
    count = len(vectors.words)
    embedding = textattack.shared.WordEmbedding(
        vectors.vectors,
        {word: i for i, word in enumerate(vectors.words)},
        vectors.words,
        # TextAttack skips the first column, where its own table has the word itself.
        np.column_stack([np.arange(count), vectors.neighbours]),
    )
    name = "textattack_counterfitted_GLOVE_embedding"
    shared = textattack.shared.utils.GLOBAL_OBJECTS
    stock = shared.get(name)
    shared[name] = embedding
    try:
        yield
    finally:
        del shared[name]
        if stock is not None:
            shared[name] = stock
