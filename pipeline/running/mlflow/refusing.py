"""A refused request, as MLflow's server says it: status 400 with one line, and no traceback."""

from pipeline.errors import PipelineError, one_line


def refusal(error: PipelineError) -> Exception:
    """The MLflow exception of an error that a client can mend."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    refused: Exception = MlflowException(one_line(error), error_code=INVALID_PARAMETER_VALUE)
    return refused
