"""This project's attacker: TextAttack's greedy search over a recipe's parts, with a faster loop.

An attack is a generator of questions to the model. One loop drives one example or many in lockstep, whose questions
then share batches.
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
from pipeline.attacks.unfit import fault, unattacked
from pipeline.attacks.victim import Memo, Victim
from pipeline.errors import UnsupportedError
from pipeline.results import Record


@dataclass
class Reply:
    """The model's answer to a text, with the score and the status that TextAttack's goal function gives it.

    Attributes:
        found: whether the text reaches the goal although the score does not tell (an adaptive attack).
    """

    text: Any
    answer: int
    score: float
    status: Any
    found: bool

    @property
    def rank(self) -> tuple[bool, float]:
        """The greatest is the best."""
        return self.found, self.score


@dataclass
class Game:
    """One example under attack.

    Attributes:
        goal: a copy of the attack's goal function, which keeps an example's label.
        adaptive: whether score and status come from different exits.
    """

    example: Example
    goal: Any
    adaptive: bool = False
    memo: Memo = field(default_factory=Memo)
    queries: int = 0

    def ask(self, texts: Sequence[Any], check_skip: bool = False) -> Steps:
        """Ask the model about texts, up to the limit of queries, and score them.

        Returns:
            The replies, in order, and whether the limit is reached.
        """
        if self.goal.query_budget < float("inf"):
            texts = texts[: self.goal.query_budget - self.queries]
        self.queries += len(texts)
        replies = []
        if texts:
            logits = yield "texts", [text.tokenizer_input for text in texts]
            outputs = self.goal._process_model_outputs(texts, logits)
            for text, output in zip(texts, outputs, strict=True):
                status = self.goal._get_goal_status(output, text, check_skip=check_skip)
                score = float(self.goal._get_score(output, text))
                found = self.adaptive and bool(self.goal._is_goal_complete(output, text))
                replies.append(Reply(text, int(output.argmax()), score, status, found))
        return replies, self.queries == self.goal.query_budget


class Search:
    """TextAttack's `GreedyWordSwapWIR`: rank the words by importance, then swap one after another.

    Raises:
        UnsupportedError: the recipe has another search.
    """

    def __init__(self, attack: Any, shared: Shared) -> None:
        textattack = import_textattack()
        search = attack.search_method
        if type(search) is not textattack.search_methods.GreedyWordSwapWIR or search.wir_method not in _RANKINGS:
            raise UnsupportedError("attack.attacker: 'own' has greedy word ranking only; set it to 'textattack'")
        self.attack = attack
        self.ranking, self.unknown = search.wir_method, search.unk_token
        self.candidates = Candidates(attack, shared)
        self.status = textattack.goal_function_results.GoalFunctionResultStatus

    def run(self, example: Example) -> tuple[Game, Steps]:
        """Start an attack: its state, and the steps that return its record."""
        goal = copy.copy(self.attack.goal_function)
        game = Game(example, goal, goal.model.adaptive)
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

    def _greedy(self, game: Game, first: Reply) -> Steps:
        order, over = yield from self._ranking(game, first.text)
        best = first
        for index in order:
            if over:
                break
            texts = yield from self.candidates.of(first.text, best.text, index)
            if not texts:
                continue
            replies, over = yield from game.ask(texts)
            replies.sort(key=lambda reply: reply.rank, reverse=True)
            if replies[0].rank <= best.rank:
                continue
            best = replies[0]
            if best.status == self.status.SUCCEEDED:
                successes = takewhile(lambda reply: reply.status == self.status.SUCCEEDED, replies)
                return _most_similar(list(successes), best)
        return best

    def _ranking(self, game: Game, text: Any) -> Steps:
        """Indices of words, the most important first, and whether the limit of queries is reached."""
        _, indices = self.attack.get_indices_to_order(text)
        if self.ranking == "delete":
            shortened = [text.delete_word_at_index(i) for i in indices]
        else:
            shortened = [text.replace_word_at_index(i, self.unknown) for i in indices]
        replies, over = yield from game.ask(shortened)
        scores = np.array([reply.score for reply in replies], dtype=np.float32)  # TextAttack's type: it decides ties
        if self.ranking == "weighted-saliency":
            gains, over = yield from self._gains(game, text, indices, over)
            scores = torch.softmax(torch.from_numpy(scores), dim=0).numpy() * np.array(gains[: len(scores)])
        return np.array(indices)[(-scores).argsort()].tolist(), over

    def _gains(self, game: Game, text: Any, indices: Sequence[int], over: bool) -> Steps:
        """The best score that a swap of each word alone reaches (PWWS)."""
        gains = [0.0] * len(indices)
        for position, index in enumerate(indices):
            if over:
                break
            texts = yield from self.candidates.of(text, text, index)
            if texts:
                replies, over = yield from game.ask(texts)
                gains[position] = max((reply.score for reply in replies), default=0.0)
        return gains, over


_RANKINGS = ("delete", "unk", "weighted-saliency")


def _most_similar(successes: Sequence[Reply], best: Reply) -> Reply:
    """Of texts that reached the goal, best first, the most similar one; the first where none was compared."""
    highest = -float("inf")
    for reply in successes:
        similarity = reply.text.attack_attrs.get("similarity_score")
        if similarity is None:
            return best
        if similarity > highest:
            highest, best = similarity, reply
    return best


def attack_many(
    attack: Any, victim: Victim, examples: Sequence[Example], shared: Shared, encode: Any, width: int
) -> Iterator[Record]:
    """Attack examples, `width` of them in lockstep, and yield their records in order.

    With width 1 an example's numbers do not depend on its neighbours, to the last bit. A larger width shares batches,
    which a GPU needs; a recipe that draws from the global generators needs width 1.
    """
    search = Search(attack, shared)
    waiting = iter(enumerate(examples))
    games: dict[int, tuple[Game, Steps, Question]] = {}
    records: dict[int, Record] = {}
    due = 0

    def go_on(number: int, game: Game, steps: Steps, answer: Any) -> None:
        """Take one attack to its next question, or to its end."""
        games.pop(number, None)
        try:
            games[number] = (game, steps, steps.send(answer))
        except StopIteration as end:
            records[number] = end.value
        except Exception as error:  # TextAttack trips over some texts
            records[number] = unattacked(victim, game.example, fault(error))

    with words_remembered():
        while due < len(examples):
            while len(games) < width and (entry := next(waiting, None)) is not None:
                go_on(entry[0], *search.run(entry[1]), None)
            for number, answer in _answers(games, victim, encode).items():
                go_on(number, *games[number][:2], answer)
            while due in records:
                yield records.pop(due)
                due += 1


def _answers(games: dict[int, tuple[Game, Steps, Question]], victim: Victim, encode: Any) -> dict[int, Any]:
    """Answers to the open questions, by number of the example."""
    texts = {number: (game.memo, queries) for number, (game, _, (kind, queries)) in games.items() if kind == "texts"}
    answers: dict[int, Any] = dict(zip(texts, victim.ask(list(texts.values())), strict=True)) if texts else {}
    windows = {number: queries for number, (_, _, (kind, queries)) in games.items() if kind == "windows"}
    if windows:
        vectors = encode([window for queries in windows.values() for window in queries])
        start = 0
        for number, queries in windows.items():
            answers[number] = vectors[start : start + len(queries)]
            start += len(queries)
    return answers
