"""MLflow's client: its failures as errors of ours, of two kinds."""

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import TrackingError, storage_error
from pipeline.lean import absent
from pipeline.running.signals import held
from pipeline.running.store import (
    DATABASES,
    cannot_be_used,
    connection_fault,
    database_of,
    open_database,
    opening,
    with_driver,
)

EXPERIMENT = "early-exit"
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE")
"""What a store answers that is there, and that will answer so again."""
COLLISIONS = ("IntegrityError", "UniqueViolation")
"""What a store says, by its database's driver, of a row that another client wrote between its look and its write."""
ATTEMPTS = 5
ONCE = ("create_run", "create_logged_model", "create_model_version")
"""What MLflow does not send again after a lost answer, since each request makes another one."""


class RefusedError(TrackingError):
    """The store answers, and does not take what it was given."""


class Client:
    """An MlflowClient whose failures are TrackingErrors, without the address's user name and password."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        with opening(database_of(uri)):
            self._client = self._ask(_connect, uri)

    def __getattr__(self, name: str) -> Any:
        return partial(self._once if name in ONCE else self._ask, getattr(self._client, name))

    def _once(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        before = os.environ.get(RETRIES)
        os.environ[RETRIES] = "0"
        try:
            return self._ask(call, *args, **kwargs)
        finally:
            os.environ.pop(RETRIES) if before is None else os.environ.update({RETRIES: before})

    def _ask(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with absent("pandas"):  # for tables as data sets, which we do not log; a quarter of the import
            from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            for left in reversed(range(ATTEMPTS)):
                try:
                    with held():
                        return call(*args, **kwargs)
                except MlflowException as error:  # nothing of it was written, and the next look finds the row
                    if not left or not any(name in str(error) for name in COLLISIONS):
                        raise
        except MlflowException as error:
            unusable = cannot_be_used(self._uri, str(error))
            raise (RefusedError(str(unusable)) if error.error_code in REFUSALS else unusable) from None
        except (SQLAlchemyError, sqlite3.Error, ImportError) as error:  # ImportError: a database's driver
            raise cannot_be_used(self._uri, str(error)) from None
        except OSError as error:
            raise storage_error(error) or cannot_be_used(self._uri, str(error)) from None


def _connect(uri: str) -> Any:
    from mlflow import MlflowClient

    address, database = with_driver(uri), database_of(uri)
    if database is not None:
        open_database(database, EXPERIMENT)
    elif urlsplit(uri).scheme.partition("+")[0] in DATABASES and (fault := connection_fault(address)) is not None:
        raise cannot_be_used(uri, fault)
    return MlflowClient(address)
