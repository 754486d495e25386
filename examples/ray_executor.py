"""An adapter for `photometry-tasks run --executor ray_executor:RayExecutor`: Ray has no executor of its own."""

from concurrent.futures import Executor

import ray


class RayExecutor(Executor):
    """Runs each call as a task of Ray, on this machine or, with `RAY_ADDRESS`, on a cluster."""

    def __init__(self, jobs):
        ray.init(num_cpus=jobs)

    def submit(self, function, /, *args):
        return ray.remote(max_retries=0)(function).remote(*args).future()

    def shutdown(self, wait=True, *, cancel_futures=False):
        ray.shutdown()
