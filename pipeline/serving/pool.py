"""Rows that still run, of all requests: each waits for its next layer, and rows that wait for the same weights run it
together, whichever request they came with.

A batch here lasts for one layer. A row joins at layer 1 while others are deep in the model, leaves by a criterion of
its own, and its answer does not wait for the others. ALBERT's layers share their weights, so that its rows run together
at any depth; rows of another model meet in the pool of each layer. docs/design/serving.md has the policies, measured.

No thread, no clock but the one given, no Ray: `step` runs one layer of one batch.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
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
LOOK = 8
"""Rows that are looked at for each place of a batch, when many wait."""


class Pool:
    """The rows that run.

    Args:
        batch: most rows of a step; int8 has one, since its answer would depend on the rows beside it.
        policy: see `Policy`.
        wait: seconds after which a row comes first that the policy would leave waiting: under "fullest" any row, and
            one that goes on for the watch alone. Under "deepest" no younger row joins before a new one that waits so
            long because its length does not fit.
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
        self._deepest_first = range(len(segments.layers) - 1, -1, -1)
        # By the next layer, in the order of arrival there; and those that go on for the watch alone.
        self._waiting: list[list[Row]] = [[] for _ in segments.layers]
        self._watched: list[list[Row]] = [[] for _ in segments.layers]
        self._arrived = 0
        self._full = segments.rule(None, np.inf)

    def __len__(self) -> int:
        """Rows that run."""
        return sum(map(len, (*self._waiting, *self._watched)))

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
                if row.left_at is None:  # others were answered before, and ran for the watch alone
                    row.ticket.error = row.ticket.error or error
        now = self.clock()
        for row in staying:
            row.since = now
            self._put(row)
        for ticket in waited_for:
            if ticket.error is not None:
                self.drop(ticket)
        return [ticket for ticket in waited_for if ticket.done]

    def drop(self, ticket: Ticket) -> None:
        """Run no further layer for a request that nobody waits for."""
        self._waiting = [[row for row in line if row.ticket is not ticket] for line in self._waiting]

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
        lines = self._waiting if row.left_at is None else self._watched
        lines[row.layer].append(row)

    def _take(self) -> list[Row]:
        """The rows whose turn it is; they wait no longer."""
        first = self._overdue() or self._first()
        if first is None:
            return []
        chosen, now = [first], self.clock()
        shortest = longest = first.tokens
        for row in islice(self._companions(first), LOOK * self.batch):
            low, high = min(shortest, row.tokens), max(longest, row.tokens)
            if high > SPREAD * low and row.layer == 0 and now - row.since > self.wait:
                break  # no younger row passes it by: those that run now leave, and then it comes first
            if row is not first and high <= SPREAD * low:
                chosen.append(row)
                shortest, longest = low, high
            if len(chosen) == self.batch:
                break
        for row in chosen:
            (self._waiting if row.left_at is None else self._watched)[row.layer].remove(row)
        return chosen

    def _companions(self, first: Row) -> Iterator[Row]:
        """Rows that wait for the same weights, in their order."""
        graph = self.segments.layers[first.layer]
        lines = (self._waiting[layer] for layer in self._deepest_first if self.segments.layers[layer] is graph)
        rows = (row for line in lines for row in line)
        yield from rows if self.policy == "deepest" else sorted(rows, key=lambda row: row.number)
        for layer in self._deepest_first:
            if self.segments.layers[layer] is graph:
                yield from self._watched[layer]

    def _overdue(self) -> Row | None:
        """The row that waits longest, of those that the policy may leave waiting, if that is too long."""
        lines = [*self._watched, *(self._waiting if self.policy == "fullest" else ())]
        oldest = min((line[0] for line in lines if line), key=lambda row: row.since, default=None)
        return oldest if oldest is not None and self.clock() - oldest.since > self.wait else None

    def _first(self) -> Row | None:
        """The row that comes first by the policy; those that go on for the watch come last."""
        for lines in (self._waiting, self._watched):
            waiting = [layer for layer in self._deepest_first if lines[layer]]
            if waiting and self.policy == "deepest":
                return lines[waiting[0]][0]
            if waiting:
                rows: dict[int, int] = {}
                for layer in waiting:
                    graph = id(self.segments.layers[layer])
                    rows[graph] = rows.get(graph, 0) + len(lines[layer])
                fullest = max(rows, key=lambda graph: min(rows[graph], self.batch))  # the deepest of equals
                firsts = (lines[layer][0] for layer in waiting if id(self.segments.layers[layer]) == fullest)
                return min(firsts, key=lambda row: row.number)
        return None
