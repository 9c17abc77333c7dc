"""An exported model on Ray Serve.

`python -m pipeline serve FOLDER` runs it on this machine, or on the cluster of RAY_ADDRESS. On a cluster it is also an
application by name, with the fields of `Serving` as its arguments:

    applications:
      - name: reviews
        import_path: pipeline.running.ray.serving:application
        args: {folder: /models/reviews, precision: int8, replicas: 4}
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.errors import ClusterError, ParamsError, UnsupportedError, one_line
from pipeline.lean import quiet
from pipeline.running.ray.cluster import connect
from pipeline.running.settings import Runtime
from pipeline.running.signals import listen
from pipeline.serving.settings import Serving

NAME = "early-exit"
"""Of the application that the command starts."""
ONGOING = 256
"""Requests that a replica holds at once: more than the pool's batches, so that rows meet there."""
HEALTH_SECONDS = 2.0
"""Between two looks at a replica."""
LOOPBACK = "127.0.0.1"
PROXY_TIMEOUT, PROXY_SECONDS = "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", 60
"""How long Ray Serve waits for its proxy before it kills it and starts another; its 5 seconds are too few on a busy
machine. It reaches a Ray of our own only."""
STARTS = 5


def application(serving: Serving) -> Any:
    """The application, for `serve.run` or a configuration in YAML.

    Raises:
        ArtifactError, ParamsError, UnsupportedError: as `Serving.check`.
    """
    from ray import serve

    serving.check()
    deployment = serve.deployment(
        name="model",
        num_replicas=serving.replicas,
        max_ongoing_requests=ONGOING,
        ray_actor_options={"num_cpus": serving.threads},
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=10.0,
    )(Replica)
    board = serve.deployment(name="metrics", ray_actor_options={"num_cpus": 0})(Board).bind()
    return deployment.bind(serving.model_dump(mode="json"), board if serving.replicas > 1 else None)


class Replica:
    """A process that answers; what it says is pipeline/serving/http.py's."""

    def __init__(self, serving: dict[str, Any], board: Any) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a replica has its own threads
        _listen_on_loopback()
        from ray import serve

        from pipeline.serving.http import Service

        self.service = Service(Serving.model_validate(serving))
        self.name, self.board = serve.get_replica_context().replica_tag, board
        if board is not None:
            self.service.page = self._page

    async def __call__(self, request: Any) -> Any:
        """Answer an HTTP request."""
        return await self.service(request)

    async def _page(self, own: str) -> str:
        """The metrics of all replicas."""
        from pipeline.serving.metrics import merged

        return merged(await self.board.exchange.remote(self.name, own))

    async def check_health(self) -> None:
        """Raise where the pool has ended, so that Ray Serve starts another replica; leave the metrics for others."""
        if not self.service.engine.alive:
            raise ClusterError("the pool has ended")
        if self.board is not None:
            self.board.exchange.remote(self.name, self.service.watch.metrics())


class Board:
    """Where replicas leave their metrics, since a request for them reaches one replica."""

    def __init__(self) -> None:
        self.texts: dict[str, tuple[float, str]] = {}

    def exchange(self, replica: str, text: str) -> dict[str, str]:
        """Leave a replica's metrics, and take those of all that are alive."""
        now = time.monotonic()
        self.texts[replica] = (now, text)
        self.texts = {name: entry for name, entry in self.texts.items() if now - entry[0] < 5 * HEALTH_SECONDS}
        return {name: text for name, (_, text) in sorted(self.texts.items())}


def _listen_on_loopback() -> None:
    """Let the replica's own server, which takes what other replicas send and is on all interfaces, listen where the
    node does, if that is this machine alone."""
    import ray
    from ray.serve._private import replica

    if ray.util.get_node_ip_address() != LOOPBACK:
        return
    add = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: add(server, address.replace("[::]", LOOPBACK))


def serve(serving: Serving, host: str, port: int, address: str | None) -> None:
    """Serve until a signal comes.

    Args:
        host: where the proxy listens.
        address: of a running cluster; None: Ray of our own, on loopback.

    Raises:
        ClusterError: the cluster does not answer, Serve listens elsewhere there or has such an application, or the
            replicas do not start.
        ParamsError: the port is taken.
    """
    serving = serving.model_copy(update={"folder": serving.folder.absolute()})
    serving.check()
    if address is None:
        _refuse_taken(host, port)
    try:
        import ray.serve as ray_serve
    except ImportError:
        raise UnsupportedError("Ray Serve is not installed; `pip install -e '.[serve]'`") from None
    with _ray(serving, address), quiet("ray.serve"):  # its own log
        _start(host, port)
        if address is not None:
            _refuse_other(host, port)
        try:
            ray_serve.run(application(serving), name=NAME, logging_config={"log_level": "ERROR"})
            listen()
            where = f"http://{host}:{port}"
            print(f"{where}/answer: {serving.folder} in {serving.precision}, until it is stopped", flush=True)
            while True:
                time.sleep(1)
        except (RuntimeError, ray_serve.exceptions.RayServeException) as error:
            raise ClusterError(f"the replicas do not start ({one_line(error)}); see the line above") from None
        finally:
            ray_serve.delete(NAME) if address else ray_serve.shutdown()


def _start(host: str, port: int) -> None:
    """Start Ray Serve, or meet the one that runs; raises ClusterError where its proxy does not come up."""
    import ray.serve
    from ray.exceptions import RayError

    for left in reversed(range(STARTS)):
        try:
            ray.serve.start(http_options={"host": host, "port": port}, logging_config={"log_level": "ERROR"})
        except (RayError, TimeoutError) as error:  # a slow proxy, which was killed: Ray Serve is at another
            if not left:
                raise ClusterError(
                    f"Ray Serve's proxy on {host}:{port} does not come up ({one_line(error)}); give the machine time, "
                    f"or raise {PROXY_TIMEOUT} where the cluster's head starts"
                ) from None
            time.sleep(1)
        else:
            return


def _refuse_other(host: str, port: int) -> None:
    """Refuse a cluster where Serve listens elsewhere, which cannot change while it runs, or serves a model of ours."""
    from ray import serve
    from ray.serve.context import _get_global_client

    there = _get_global_client().http_config
    if (there.host, there.port) != (host, port):
        raise ClusterError(
            f"--host {host} --port {port}: Ray Serve runs on this cluster and listens on {there.host}:{there.port}; "
            f"give --host {there.host} --port {there.port}"
        )
    if NAME in serve.status().applications:
        raise ClusterError(
            f"application {NAME!r}: runs on this cluster already; end the command that serves it, or deploy "
            "pipeline.running.ray.serving:application under a name of your own"
        )


def _refuse_taken(host: str, port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ParamsError(
            f"--host {host} --port {port}: {error.strerror or error}; end what listens there, or give others"
        ) from None


@contextmanager
def _ray(serving: Serving, address: str | None) -> Iterator[None]:
    os.environ.setdefault(PROXY_TIMEOUT, str(PROXY_SECONDS))
    connect(Runtime(ray_address=address, threads=serving.threads, workers=serving.replicas))
    import ray

    try:
        yield
    finally:
        ray.shutdown()
