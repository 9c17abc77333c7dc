"""A pool that runs in a thread of its own, and answers requests of an event loop."""

import asyncio
import contextlib
import queue
import threading
from typing import ClassVar

from pipeline.errors import PipelineError
from pipeline.evaluation.leaving import Leaving
from pipeline.serving.pool import Pool
from pipeline.serving.requests import Ready, RequestError
from pipeline.serving.rows import Ticket


class BusyError(RequestError):
    """More rows wait than may."""

    status: ClassVar[int] = 503


class ClosedError(PipelineError):
    """The engine was closed, or died."""


class _Job:
    def __init__(self, ready: Ready, loop: asyncio.AbstractEventLoop) -> None:
        self.ready, self.loop = ready, loop
        self.future: asyncio.Future[Leaving] = loop.create_future()
        self.ticket: Ticket | None = None
        self.cancelled = False

    def tell(self, error: Exception | None) -> None:
        """Set the future, from the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._set, error)

    def _set(self, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        elif self.ticket is not None:
            self.future.set_result(self.ticket.leaving)


class Engine:
    """Runs a pool.

    Args:
        waiting_rows: rows beyond which requests are refused.
    """

    def __init__(self, pool: Pool, waiting_rows: int) -> None:
        self.pool, self.waiting_rows = pool, waiting_rows
        self._rows = 0
        self._closed = False
        self._jobs: dict[Ticket, _Job] = {}
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="pool", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive() and not self._closed

    async def answer(self, ready: Ready) -> Leaving:
        """Run the rows of a request; one that is cancelled stops running.

        Raises:
            BusyError: too many rows wait.
            ClosedError: the engine was closed.
            InvalidLogitsError: an exit answered NaN.
        """
        if not self.alive:
            raise ClosedError("the model is closed; send the request again")
        rows = len(next(iter(ready.inputs.values())))
        if self._rows and self._rows + rows > self.waiting_rows:
            raise BusyError(f"{self._rows} rows wait already; send the request again later")
        job = _Job(ready, asyncio.get_running_loop())
        self._rows += rows
        self._inbox.put(job)
        if not self.alive:  # it died since, and may have looked into the inbox for the last time
            job.tell(ClosedError("the model is closed; send the request again"))
        try:
            return await job.future
        except asyncio.CancelledError:
            job.cancelled = True
            self._inbox.put(job)
            raise
        finally:
            self._rows -= rows

    def close(self) -> None:
        """End the thread; requests that run fail."""
        self._closed = True
        self._inbox.put(None)
        self._thread.join()

    def _work(self) -> None:
        error: Exception = ClosedError("the model is closed; send the request again")
        try:
            while self._receive():
                for ticket in self.pool.step():
                    if (job := self._jobs.pop(ticket, None)) is not None:
                        job.tell(ticket.error)
        except Exception as reason:
            error = reason
            raise
        finally:
            self._closed = True
            for job in self._jobs.values():
                job.tell(error)
            with contextlib.suppress(queue.Empty):
                while True:
                    left = self._inbox.get_nowait()
                    if left is not None:
                        left.tell(error)

    def _receive(self) -> bool:
        """Take what came in, and wait for it where no row runs; False: to close."""
        while True:
            try:
                job = self._inbox.get(block=not len(self.pool))
            except queue.Empty:
                return True
            if job is None:
                return False
            if not job.cancelled:
                try:
                    job.ticket = self.pool.add(job.ready.inputs, job.ready.rule, job.ready.criterion)
                except Exception as error:  # of this request; others go on
                    job.tell(error)
                else:
                    self._jobs[job.ticket] = job
            elif job.ticket is not None:
                self.pool.drop(job.ticket)
                self._jobs.pop(job.ticket, None)
