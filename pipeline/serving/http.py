"""The model over HTTP: POST /answer, GET /model, /healthz and /metrics.

Any server of ASGI runs it; Ray Serve does (pipeline/running/ray/serving.py).
"""

import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from pipeline.errors import PipelineError, one_line
from pipeline.models.deploy.runtime import Deployed
from pipeline.serving.engine import ClosedError, Engine
from pipeline.serving.pool import Pool
from pipeline.serving.requests import Limits, RequestError, TooLargeError, identity, prepare, read_request, reply
from pipeline.serving.settings import Serving
from pipeline.serving.watch import PromiseWatch
from pipeline.serving.watching import Watch

PATHS = {"/answer": "POST", "/model": "GET", "/healthz": "GET", "/metrics": "GET"}
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Service:
    """An exported model that answers HTTP requests.

    Args:
        watch: told of every row; None: one as the settings say.

    Raises:
        ArtifactError, ParamsError: as `Deployed.open`.
    """

    def __init__(self, serving: Serving, watch: Watch | None = None) -> None:
        self.serving = serving
        self.model = Deployed.open(serving.folder, serving.precision, serving.threads)
        self.watch: Watch = PromiseWatch(self.model, serving.own_watch()) if watch is None else watch
        pool = Pool(self.model.segments, serving.batch, serving.policy, serving.wait, self.watch)
        self.engine = Engine(pool, serving.waiting_rows)
        self.page: Callable[[str], Awaitable[str]] | None = None

    async def __call__(self, request: Request) -> Response:
        """Answer a request; whatever goes wrong is one line of JSON."""
        started = time.perf_counter()
        response = await self._respond(request)
        if _path(request) == "/answer":
            self.watch.request(response.status_code, time.perf_counter() - started)
        return response

    async def _respond(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except RequestError as error:
            return _refused(error.status, error)
        except ClosedError as error:
            return _refused(503, error)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            return _refused(500, PipelineError(f"the model could not answer ({one_line(error)}); see the server's log"))

    async def _answer(self, request: Request) -> Response:
        path = _path(request)
        if path not in PATHS:
            return _refused(404, PipelineError(f"path {path!r:.80}: there is {', '.join(PATHS)}"))
        if request.method not in (PATHS[path], "HEAD" if PATHS[path] == "GET" else ""):
            return _refused(405, PipelineError(f"method {request.method}: {path} takes {PATHS[path]}"), PATHS[path])
        if path == "/answer":
            return JSONResponse(await self.answer(await _body(request, self.serving.limits)))
        if path == "/model":
            return JSONResponse(self.description())
        if path == "/metrics":
            return PlainTextResponse(await self.metrics(), media_type=METRICS_TYPE)
        alive = self.engine.alive
        return JSONResponse({"status": "ok" if alive else "closed"}, 200 if alive else 503)

    async def answer(self, body: bytes) -> dict[str, Any]:
        """Answer the body of a request.

        Raises:
            RequestError: it cannot be answered.
            InvalidLogitsError: an exit answered NaN.
        """
        started = time.perf_counter()
        asked, ready = await asyncio.to_thread(self._read, body)
        leaving = await self.engine.answer(ready)
        return reply(self.model, asked, leaving, time.perf_counter() - started).model_dump()

    async def metrics(self) -> str:
        """What the watch counted, as Prometheus reads it; of all replicas, where `page` asks them."""
        own = self.watch.metrics()
        return own if self.page is None else await self.page(own)

    def _read(self, body: bytes) -> Any:
        asked = read_request(body, self.serving.limits)
        try:
            return asked, prepare(self.model, asked)
        except RequestError:
            raise
        except PipelineError as error:  # of the criterion and its settings
            raise RequestError(str(error)) from None

    def description(self) -> dict[str, Any]:
        """What the model is, what it takes and how it decides."""
        read = self.model.description
        points = {
            point["criterion"]: {"threshold": point["threshold"], "settings": point["settings"]}
            for point in read["precisions"][self.model.precision]["points"]
        }
        return {
            "model": identity(self.model).model_dump(),
            "modality": read["modality"],
            "columns": list(read["columns"]),
            "labels": list(read["label_names"]),
            "layers": read["exits"][-1],
            "exits": list(read["exits"]),
            "precision": self.model.precision,
            "criteria": points,
            "limits": self.serving.limits.model_dump(),
        }


def _path(request: Request) -> str:
    path: str = request.scope["path"].removeprefix(request.scope.get("root_path", "")).rstrip("/") or "/"
    return path


async def _body(request: Request, limits: Limits) -> bytes:
    """A request's body, of which no more is read than a limit allows."""
    length = request.headers.get("content-length", "")
    too_large = TooLargeError(f"body: more than {limits.body_bytes:,} bytes; send the rows in several requests")
    if length.isascii() and length.isdigit() and int(length[:20]) > limits.body_bytes:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limits.body_bytes:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def _refused(status: int, error: PipelineError, allow: str = "") -> JSONResponse:
    headers = {"Allow": allow} if allow else {"Retry-After": "1"} if status == 503 else {}
    return JSONResponse({"error": one_line(error)}, status, headers)
