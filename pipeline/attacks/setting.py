"""The settings of one attack, and the rule by which queries are counted."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Scores = Literal["answered", "deepest"]
"""The exit whose probabilities a search follows: the one that answered a text, or the deepest."""
Engine = Literal["pytorch", "onnx-float32"]
"""What the victim and the sentence encoder run in."""

QUERY_RULE = (
    "TextAttack's: every text put to the model for one example, the original and cached answers included; "
    "only candidates that pass the filters (TextFooler's own code also counts filtered ones)"
)


ADAPTIVE_RULE = (
    "; the same for an adaptive attack, whose every query runs all layers of the attacker's copy of the model"
)


@dataclass(frozen=True)
class Setting:
    """The settings of an attack; all but `attacker` change results.

    Attributes:
        recipe: a key of `needs.NEEDS`.
        goal: misclassify, or slow_down (`goals`).
        attacker: "own", or "textattack" for the reference with the same results.
        seed: seed of the generators, which are seeded again for each example; some recipes draw from them.
        max_queries: queries after which the attack on an example gives up.
        engine: what the victim and the sentence encoder run in; PyTorch and ONNX Runtime round differently.
    """

    recipe: str = "textfooler"
    goal: str = "misclassify"
    attacker: str = "own"
    seed: int = 0
    max_queries: int | None = None
    engine: Engine = "pytorch"

    def identity(self) -> dict[str, Any]:
        """What a shard's key holds of it. Only another engine than PyTorch is named, so that keys of before stay."""
        fields = asdict(self)
        if self.engine == "pytorch":
            del fields["engine"]
        return fields
