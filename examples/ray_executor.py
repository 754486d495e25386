"""An adapter for `photometry-tasks run --executor ray_executor:RayExecutor`, as Ray has no executor."""

from concurrent.futures import Executor

import ray


class RayExecutor(Executor):
    """Runs calls as tasks of Ray, on this machine."""

    def __init__(self, jobs):
        ray.init(num_cpus=jobs)

    def submit(self, function, /, *args):
        """Start a task; if its worker dies, Ray does not start it again."""
        return ray.remote(max_retries=0)(function).remote(*args).future()

    def shutdown(self, **_):
        """End Ray."""
        ray.shutdown()
