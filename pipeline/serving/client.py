"""A client of a served model. It sends a request again, under the same id, where a replica died with it.

    with Client("http://127.0.0.1:8000") as client:
        said = client.answer(["a fine film", "dull"], criterion="patience")

An answer depends on nothing but the request, so that it does not matter how often a replica computed it: a caller gets
one. It needs the standard library alone.
"""

import http.client
import json
import time
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import PipelineError

AGAIN = (500, 502, 503, 504)
"""Of HTTP: the proxy's for a replica that died, and the model's where too many rows wait."""


class UnansweredError(PipelineError):
    """The model was not reached, or refused the request."""


class Client:
    """A connection to a served model; not for several threads at once.

    Args:
        address: http://host:port, with the route where there is one.
        attempts: how often a request is sent, after pauses that double from a tenth of a second to two.
        timeout: seconds for an answer.
    """

    def __init__(self, address: str, attempts: int = 12, timeout: float = 60.0) -> None:
        parts = urlsplit(address)
        self.route, self.attempts = parts.path.rstrip("/"), attempts
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=timeout)
        self.sent = 0
        """Requests that went out, those sent again among them."""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def answer(self, rows: Sequence[Any], *, id: str | None = None, **asked: Any) -> dict[str, Any]:
        """Ask for rows.

        Args:
            rows: texts, pairs of texts, or images as nested lists.
            id: name of the request; None: a new one.
            asked: criterion, threshold, settings.

        Returns:
            What `pipeline.serving.requests.Said` has.

        Raises:
            UnansweredError: the request was refused, or nobody answered in all attempts.
        """
        name = uuid.uuid4().hex if id is None else id
        body = json.dumps({"rows": list(rows), "id": name, **asked}).encode()
        reason, pause = "", 0.1
        for _ in range(self.attempts):
            status, said, reason = self._send(body)
            if status == 200 and said.get("id") == name:
                return said
            if status not in AGAIN and status:
                raise UnansweredError(f"request {name}: {reason}")
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
        raise UnansweredError(f"request {name}: no answer in {self.attempts} attempts ({reason}); is the model served?")

    def _send(self, body: bytes) -> tuple[int, dict[str, Any], str]:
        """Status, JSON and reason of one attempt; status 0 without an answer."""
        self.sent += 1
        try:
            self._connection.request("POST", f"{self.route}/answer", body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return 0, {}, f"{type(error).__name__}: {error}"
        try:
            said = json.loads(text)
        except ValueError:
            said = {}
        said = said if isinstance(said, dict) else {}
        return response.status, said, str(said.get("error", f"HTTP {response.status}"))
