"""The workers of a Dask cluster, for `photometry-tasks run --executor dask_client:connect`."""

import os
from concurrent.futures import Executor

from distributed import Client


def connect(_jobs: int) -> Executor:
    """Return an executor on the cluster of the scheduler file in DASK_SCHEDULER_FILE."""
    return Client(scheduler_file=os.environ["DASK_SCHEDULER_FILE"]).get_executor()
