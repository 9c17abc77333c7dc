"""The goal of an attack: another answer, or the same answer after more layers; and what leads its search there."""

from functools import cache
from typing import Any

from pipeline.attacks.victim import Victim

GOALS = ("misclassify", "slow_down")


def put_goal(textattack: Any, attack: Any, goal: str, victim: Victim) -> None:
    """Set an attack's goal; a recipe already has "misclassify" (TextAttack's untargeted classification)."""
    if goal == "misclassify" and not victim.adaptive:
        return
    attack.goal_function = (_slow_down if goal == "slow_down" else _adaptive)(textattack)(victim)
    attack.search_method.goal_function = attack.goal_function
    attack.search_method.get_goal_results = attack.goal_function.get_results


@cache
def _slow_down(textattack: Any) -> Any:
    class SlowDown(textattack.goal_functions.ClassificationGoalFunction):  # type: ignore[misc,name-defined,unused-ignore]
        """Make a text run through all layers without changing its answer.

        Score of a text with the same answer: (layers + 1 - p) / (layers of the model + 1), where p is the probability
        of the answer at the exit that gave it. So more layers score higher, and at equal layers the less certain
        answer does. A text whose answer changed scores -1. The goal is reached at the last layer. Texts that reach it
        unchanged, or that the model answers wrongly, are skipped.

        Multi-exit BERTs are vulnerable to this (Chen et al. 2023, Dynamic Transformers Provide a False Sense of
        Efficiency). The score is this project's, the search the recipe's.
        """

        def __init__(self, victim: Victim) -> None:
            super().__init__(victim)
            self.memo = victim.memo

        def layers(self, text: Any) -> int:
            """Layers that the model ran for a text that it has answered."""
            count: int = self.memo.layers[text.tokenizer_input]
            return count

        def init_attack_example(self, text: Any, label: int) -> Any:
            self.memo = self.model.memo
            return super().init_attack_example(text, label)

        def _is_goal_complete(self, output: Any, text: Any) -> bool:
            return bool(output.argmax() == self.ground_truth_output) and self.layers(text) == self.model.model.exits[-1]

        def _should_skip(self, output: Any, text: Any) -> bool:
            return bool(output.argmax() != self.ground_truth_output) or self._is_goal_complete(output, text)

        def _get_score(self, output: Any, text: Any) -> float:
            if output.argmax() != self.ground_truth_output:
                return -1.0
            score: float = (self.layers(text) + 1 - float(output.max())) / (self.model.model.exits[-1] + 1)
            return score

    return SlowDown


@cache
def _adaptive(textattack: Any) -> Any:
    class Adaptive(textattack.goal_functions.UntargetedClassification):  # type: ignore[misc,name-defined,unused-ignore]
        """Change the answer of the exit that answers, led by the deepest exit.

        Score of a text: 1 - p, where p is the probability of the right class at the deepest exit. It does not jump when
        an early exit becomes uncertain and a deeper one answers, so an early exit cannot lead the search astray
        (Athalye et al. 2018 attack a surrogate without the obfuscation likewise).
        """

        def __init__(self, victim: Victim) -> None:
            super().__init__(victim)
            self.memo = victim.memo

        def _get_score(self, output: Any, text: Any) -> float:
            logits = self.memo.deepest[text.tokenizer_input][None]
            score: float = super()._get_score(self._process_model_outputs([text], logits)[0], text)
            return score

    return Adaptive
