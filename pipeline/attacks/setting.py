"""Which attack, and how its queries are counted."""

from dataclasses import dataclass

QUERY_RULE = (
    "TextAttack's: every text put to the model for one example, the original and cached answers included; "
    "only candidates that pass the filters (TextFooler's own code also counts filtered ones)"
)


@dataclass(frozen=True)
class Setting:
    """What is attacked with; all of it changes results, but for `attacker`.

    Attributes:
        recipe: a key of `needs.NEEDS`.
        goal: misclassify, or slow_down (`goals`).
        attacker: "own", or "textattack" for the reference that it equals.
        seed: of the generators that some recipes draw from, anew for each example.
        max_queries: per example; the attack then gives up.
    """

    recipe: str = "textfooler"
    goal: str = "misclassify"
    attacker: str = "own"
    seed: int = 0
    max_queries: int | None = None
