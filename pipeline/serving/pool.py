"""Rows that still run, of all requests: each waits for its next layer, and rows that wait for the same weights run it
together, whichever request they came with.

A batch here lasts for one layer. A row joins at layer 1 while others are deep in the model, leaves by a criterion of
its own, and its answer does not wait for the others. ALBERT's layers share their weights, so that its rows run together
at any depth; rows of another model meet in the pool of each layer. docs/design/serving.md has the policies, measured.

No thread, no clock but the one given, no Ray: `step` runs one layer of one batch.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from pipeline.errors import PipelineError
from pipeline.evaluation.leaving import Leaving, Rule
from pipeline.models.deploy.segments import Arrays, Segments, unpadded
from pipeline.serving.rows import Row, Ticket, stack, without_padding
from pipeline.serving.watching import Nobody, Watch

Policy = Literal["deepest", "fullest"]
"""Which rows run next: those with the fewest layers before them, or those of the pool with the most rows."""
SPREAD = 1.25
"""Longest over shortest row of a batch, in tokens: the shorter ones are padded."""


class Pool:
    """The rows that run.

    Args:
        batch: most rows of a step; int8 has one, since its answer would depend on the rows beside it.
        policy: see `Policy`.
        wait: seconds after which a row comes first that the policy would leave waiting: under "fullest" any row,
            otherwise one that goes on for the watch alone.
        watch: told of every row that leaves.
        clock: in seconds.
    """

    def __init__(
        self,
        segments: Segments,
        batch: int = 8,
        policy: Policy = "deepest",
        wait: float = 0.5,
        watch: Watch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.segments, self.wait, self.clock = segments, wait, clock
        self.batch = 1 if segments.alone else batch
        self.policy: Policy = "deepest" if segments.alone else policy
        self.watch: Watch = Nobody() if watch is None else watch
        self._waiting: dict[int, list[Row]] = {}  # by the graph of the next layer
        self._arrived = 0
        self._full = segments.rule(None, np.inf)

    def __len__(self) -> int:
        """Rows that run."""
        return sum(map(len, self._waiting.values()))

    def add(self, inputs: Arrays, rule: Rule, criterion: str) -> Ticket:
        """Let the rows of a request run.

        Args:
            inputs: as `Segments.answer` takes them.
            criterion: the rule's name, for the watch.
        """
        rows = len(next(iter(inputs.values())))
        deepest, now = self.watch.deepest(criterion, rule), self.clock()
        rule = rule if deepest is None else rule.within(deepest)
        ticket = Ticket(rule, criterion, rows)
        for place in range(rows):
            row = unpadded(inputs, slice(place, place + 1))
            self._put(Row(ticket, place, self._arrived, Leaving(rule, 1), row, now, {}))
            self._arrived += 1
        return ticket

    def step(self) -> list[Ticket]:
        """Run one layer for the rows whose turn it is; the tickets that became done by it."""
        rows = self._take()
        waited_for = {row.ticket for row in rows if not row.ticket.done}
        try:
            staying = self._run(rows) if rows else []
        except Exception as error:  # of ONNX Runtime, such as memory: these requests fail, others go on
            staying = []
            for row in rows:
                row.ticket.error = row.ticket.error or error
        now = self.clock()
        for row in staying:
            row.since = now
            self._put(row)
        return [ticket for ticket in waited_for if ticket.done]

    def _run(self, rows: Sequence[Row]) -> list[Row]:
        """Run the next layer of rows that wait for the same one; those that go on."""
        for row in rows:
            row.state = row.state or self.segments.embed(row.inputs)
        state = stack([row.state for row in rows])
        (state["hidden"],) = self.segments.layers[rows[0].layer](state)
        at_exit: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            row.layer += 1
            row.state = {**row.state, "hidden": without_padding(state["hidden"][i : i + 1], row.tokens)}
            if row.layer == self.segments.exits[row.exit]:
                if row.leaving.rule.asks(row.exit):
                    at_exit.setdefault(row.exit, []).append(i)
                row.exit += 1
        gone = {i for index, places in at_exit.items() for i in self._ask(index, places, rows, state)}
        return [row for i, row in enumerate(rows) if i not in gone]

    def _ask(self, index: int, places: list[int], rows: Sequence[Row], state: Arrays) -> Iterator[int]:
        """Let rows answer at an exit; the places of those that run no further."""
        part = state if len(places) == len(rows) else {name: array[places] for name, array in state.items()}
        answers = self.segments.exit(index, part)
        for k, place in enumerate(places):
            if not self._goes_on(rows[place], index, [answer[k : k + 1] for answer in answers]):
                yield place

    def _goes_on(self, row: Row, index: int, answers: Sequence[np.ndarray]) -> bool:
        """Let a row leave at an exit, or go on.

        Args:
            answers: of the exit, for this row.
        """
        try:
            left = row.leaving.take(index, answers[0], answers[self.segments.place_of(row.leaving.rule)]) is not None
        except PipelineError as error:
            if row.left_at is None:
                row.ticket.error = row.ticket.error or error
            return False
        return not left or self._leave(row, index)

    def _leave(self, row: Row, index: int) -> bool:
        """Note the answer of a row that left; whether it goes on, for the watch."""
        logits, ticket = row.leaving.logits[0], row.ticket
        answered = ticket.leaving.logits[row.place]
        if row.left_at is not None:
            self.watch.compared(ticket.criterion, row.left_at, answered, logits)
            return False
        answered[:], ticket.leaving.exit_index[row.place] = logits, index
        ticket.running -= 1
        if not self.watch.answered(ticket.criterion, ticket.leaving.rule, index) or index == self._full.last:
            return False
        row.left_at, row.leaving = index, Leaving(self._full, 1)
        return True

    def _put(self, row: Row) -> None:
        self._waiting.setdefault(id(self.segments.layers[row.layer]), []).append(row)

    def _take(self) -> list[Row]:
        """The rows whose turn it is; they wait no longer."""
        pools = {key: kept for key, rows in self._waiting.items() if (kept := [row for row in rows if not row.gone])}
        self._waiting = pools
        if not pools:
            return []
        first = self._overdue() or self._first()
        key = id(self.segments.layers[first.layer])
        chosen, others = [first], []
        shortest = longest = first.tokens
        for row in sorted(pools[key], key=self._rank):
            low, high = min(shortest, row.tokens), max(longest, row.tokens)
            if row is first:
                continue
            if len(chosen) < self.batch and high <= SPREAD * low:
                chosen.append(row)
                shortest, longest = low, high
            else:
                others.append(row)
        pools[key] = others
        return chosen

    def _overdue(self) -> Row | None:
        """The row that waits longest, of those that the policy may leave waiting, if that is too long."""
        any_row = self.policy == "fullest"
        rows = (row for rows in self._waiting.values() for row in rows if any_row or row.left_at is not None)
        oldest = min(rows, key=lambda row: row.since, default=None)
        return oldest if oldest is not None and self.clock() - oldest.since > self.wait else None

    def _first(self) -> Row:
        """The row that comes first by the policy."""
        if self.policy == "fullest":
            fullest = max(self._waiting.values(), key=lambda rows: (min(len(rows), self.batch), rows[0].layer))
            return min(fullest, key=self._rank)
        return min((row for rows in self._waiting.values() for row in rows), key=self._rank)

    def _rank(self, row: Row) -> tuple[bool, int, int]:
        """Rows that somebody waits for before others; then the deepest, then the oldest; or the oldest at once."""
        return row.left_at is not None, -row.layer if self.policy == "deepest" else 0, row.number
