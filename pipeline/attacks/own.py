"""Our attacker: TextAttack's greedy search over a recipe's parts, its loop replaced.

An attack is a generator that asks questions, so that one example or many at a time can be driven by the same code, and
questions of many share their batches.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
import torch

from pipeline.attacks.candidates import Candidates, Question, Shared, Steps
from pipeline.attacks.examples import Example
from pipeline.attacks.library import import_textattack, words_remembered
from pipeline.attacks.records import record_of
from pipeline.attacks.reference import as_input
from pipeline.attacks.victim import Memo, Victim
from pipeline.errors import UnsupportedError
from pipeline.results import Record


@dataclass
class Asked:
    """A text that the model was asked about: TextAttack's goal function says its score, and whether it is there."""

    text: Any
    answer: int
    score: float
    status: Any


@dataclass
class Game:
    """One example under attack.

    Attributes:
        goal: a copy of the attack's goal function, which keeps an example's label.
    """

    example: Example
    goal: Any
    memo: Memo = field(default_factory=Memo)
    queries: int = 0

    def ask(self, texts: Sequence[Any], check_skip: bool = False) -> Steps:
        """Score texts, up to the limit of queries.

        Returns:
            What was `Asked`, in order, and whether the limit is reached.
        """
        if self.goal.query_budget < float("inf"):
            texts = texts[: self.goal.query_budget - self.queries]
        self.queries += len(texts)
        asked = []
        if texts:
            logits = yield "texts", [text.tokenizer_input for text in texts]
            outputs = self.goal._process_model_outputs(texts, logits)
            for text, output in zip(texts, outputs, strict=True):
                status = self.goal._get_goal_status(output, text, check_skip=check_skip)
                asked.append(Asked(text, int(output.argmax()), float(self.goal._get_score(output, text)), status))
        return asked, self.queries == self.goal.query_budget


class Search:
    """TextAttack's `GreedyWordSwapWIR`: rank the words by importance, then swap one after another.

    Raises:
        UnsupportedError: a recipe with another search.
    """

    def __init__(self, attack: Any, shared: Shared) -> None:
        textattack = import_textattack()
        search = attack.search_method
        if type(search) is not textattack.search_methods.GreedyWordSwapWIR or search.wir_method not in _RANKINGS:
            raise UnsupportedError("attack.attacker: 'own' knows greedy word ranking only; set it to 'textattack'")
        self.attack = attack
        self.ranking, self.unknown = search.wir_method, search.unk_token
        self.candidates = Candidates(attack, shared)
        self.status = textattack.goal_function_results.GoalFunctionResultStatus

    def run(self, example: Example) -> tuple[Game, Steps]:
        """The example's game, and the steps that return its record."""
        game = Game(example, copy.copy(self.attack.goal_function))
        game.goal.ground_truth_output = example.label
        game.goal.memo = game.memo
        return game, self._record(game)

    def _record(self, game: Game) -> Steps:
        text = import_textattack().shared.AttackedText(as_input(game.example.texts))
        game.goal.initial_attacked_text = text
        (first,), _ = yield from game.ask([text], check_skip=True)
        last, outcome = first, "skipped"
        if first.status != self.status.SKIPPED:
            last = yield from self._greedy(game, first)
            outcome = "successful" if last.status == self.status.SUCCEEDED else "failed"
        return record_of(
            game.example,
            outcome,  # type: ignore[arg-type]
            (text, first.answer),
            (last.text, last.answer),
            queries=game.queries,
            layers=game.memo.layers,
        )

    def _greedy(self, game: Game, first: Asked) -> Steps:
        order, over = yield from self._ranked(game, first.text)
        best = first
        for index in order:
            if over:
                break
            texts = yield from self.candidates.of(first.text, best.text, index)
            if not texts:
                continue
            asked, over = yield from game.ask(texts)
            asked.sort(key=lambda one: -one.score)
            if asked[0].score <= best.score:
                continue
            best = asked[0]
            if best.status == self.status.SUCCEEDED:
                there = takewhile(lambda one: one.status == self.status.SUCCEEDED, asked)
                return _most_similar(list(there), best)
        return best

    def _ranked(self, game: Game, text: Any) -> Steps:
        """Indices of words, the most important first, and whether the limit of queries is reached."""
        _, indices = self.attack.get_indices_to_order(text)
        if self.ranking == "delete":
            without = [text.delete_word_at_index(i) for i in indices]
        else:
            without = [text.replace_word_at_index(i, self.unknown) for i in indices]
        asked, over = yield from game.ask(without)
        scores = np.array([one.score for one in asked], dtype=np.float32)  # as TextAttack's, which ties depend on
        if self.ranking == "weighted-saliency":
            gains, over = yield from self._gains(game, text, indices, over)
            scores = torch.softmax(torch.from_numpy(scores), dim=0).numpy() * np.array(gains[: len(scores)])
        return np.array(indices)[(-scores).argsort()].tolist(), over

    def _gains(self, game: Game, text: Any, indices: Sequence[int], over: bool) -> Steps:
        """The best score that a swap of each word alone reaches (PWWS)."""
        gains = [0.0] * len(indices)
        for at, index in enumerate(indices):
            if over:
                break
            texts = yield from self.candidates.of(text, text, index)
            if texts:
                asked, over = yield from game.ask(texts)
                gains[at] = max((one.score for one in asked), default=0.0)
        return gains, over


_RANKINGS = ("delete", "unk", "weighted-saliency")


def _most_similar(there: Sequence[Asked], best: Asked) -> Asked:
    """Of texts that reached the goal, best first, the most similar one; the first, where nothing compared them."""
    highest = -float("inf")
    for one in there:
        similarity = one.text.attack_attrs.get("similarity_score")
        if similarity is None:
            return best
        if similarity > highest:
            highest, best = similarity, one
    return best


def attack_many(
    attack: Any, victim: Victim, examples: Sequence[Example], shared: Shared, encode: Any, width: int
) -> Iterator[Record]:
    """Attack examples, `width` of them in lockstep; the records in the examples' order.

    With width 1 an example's numbers do not depend on its neighbours to the last bit. More share batches, which a GPU
    needs; recipes that draw from the global generators must not be mixed so.
    """
    search = Search(attack, shared)
    waiting = iter(enumerate(examples))
    playing: dict[int, tuple[Game, Steps, Question]] = {}
    done: dict[int, Record] = {}
    due = 0
    with words_remembered():
        while due < len(examples):
            while len(playing) < width and (found := next(waiting, None)) is not None:
                game, steps = search.run(found[1])
                playing[found[0]] = (game, steps, next(steps))
            for at, answer in _answers(playing, victim, encode).items():
                game, steps, _ = playing[at]
                try:
                    playing[at] = (game, steps, steps.send(answer))
                except StopIteration as end:
                    done[at] = end.value
                    del playing[at]
            while due in done:
                yield done.pop(due)
                due += 1


def _answers(playing: dict[int, tuple[Game, Steps, Question]], victim: Victim, encode: Any) -> dict[int, Any]:
    """Answers to what is asked now, by example."""
    texts = {at: (game.memo, asked) for at, (game, _, (kind, asked)) in playing.items() if kind == "texts"}
    found: dict[int, Any] = dict(zip(texts, victim.ask(list(texts.values())), strict=True)) if texts else {}
    windows = {at: asked for at, (_, _, (kind, asked)) in playing.items() if kind == "windows"}
    if windows:
        vectors = encode([window for asked in windows.values() for window in asked])
        start = 0
        for at, asked in windows.items():
            found[at] = vectors[start : start + len(asked)]
            start += len(asked)
    return found
