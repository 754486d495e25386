"""Workers of a Dask cluster, for `photometry-tasks run --executor dask_client:connect`."""

import os
from concurrent.futures import Executor

from distributed import Client


def connect(_jobs: int) -> Executor:
    """Return the executor of the cluster whose scheduler wrote the file that DASK_SCHEDULER_FILE names."""
    return Client(scheduler_file=os.environ["DASK_SCHEDULER_FILE"]).get_executor()
