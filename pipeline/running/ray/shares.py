"""What each trial asks of the cluster: cores, and a share of a kind of GPU."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pipeline.running.gpus import Gpu, Memory, place
from pipeline.running.settings import Runtime


class Shares:
    """Decides for each trial when it is handed out.

    Args:
        share: what every trial gets where `gpus` is empty: the user's choice, or none.
        gpus: kinds of GPU to divide by memory.
        labels: a label selector of the nodes that serve; empty for all.
    """

    def __init__(
        self, runtime: Runtime, share: float, gpus: Sequence[Gpu], memory: Memory, labels: Mapping[str, str]
    ) -> None:
        self.runtime, self.share, self.gpus, self.memory, self.labels = runtime, share, gpus, memory, labels
        self._given: dict[str, tuple[str, float]] = {}

    def take(self, key: str, settings: Mapping[str, Any], running: Collection[str]) -> dict[str, float]:
        """Ray's resources for a trial that is handed out.

        Args:
            running: keys of the trials that are handed out; others have given back what they had.
        """
        asked: dict[str, float] = {"CPU": self.runtime.threads}
        if not self.gpus:
            return asked | ({"GPU": self.share} if self.share else {})
        self._given = {other: given for other, given in self._given.items() if other in running and other != key}
        used = dict.fromkeys((gpu.kind for gpu in self.gpus), 0.0)
        for kind, given in self._given.values():
            used[kind] += given
        gpu, share = place(self.memory.need(settings, self.runtime.gpu_memory), self.gpus, used)
        self._given[key] = gpu.kind, share
        one_kind = len(self.gpus) == 1
        return asked | {"GPU": share} | ({} if one_kind or not gpu.kind else {f"accelerator_type:{gpu.kind}": 0.001})

    def see(self, settings: Mapping[str, Any], gib: float) -> None:
        """A trial told how much memory it needed."""
        if self.gpus:
            self.memory.see(settings, gib)

    def request(self, config: Mapping[str, Any]) -> Any:
        """Tune's request for a trial, by the resources in its configuration."""
        from ray import tune

        return tune.PlacementGroupFactory(
            [dict(config["resources"])], bundle_label_selector=[dict(self.labels)] if self.labels else None
        )
