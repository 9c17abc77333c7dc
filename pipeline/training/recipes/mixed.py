"""Backbone first, then all together: "mixed" in "How to Train Your Multi-Exit Model?" (Kubaty et al. 2024)."""

from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.base import Start
from pipeline.training.recipes.joint import Joint


class Mixed(Joint):
    """The `single_exit` model, then joint training of all its layers and of an exit after each.

    The last classifier goes on from stage 1. Kubaty et al. call `two_stage`, which freezes the backbone, "disjoint",
    and `joint` "joint".
    """

    name = "mixed"

    def build(self, start: Start) -> MultiExit:
        parent = start.teacher()
        model = start.model(parent.backbone, self.exits(parent.backbone.exit_places()))
        model.heads[-1].load_state_dict(parent.heads[-1].state_dict())
        return model


RECIPE = Mixed()
