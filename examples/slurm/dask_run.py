"""Run a list over the workers of a Dask cluster: `python dask_run.py SCHEDULER.json TODO JOBS`."""

import sys

from distributed import Client

from photometry_tasks import TaskManager
from photometry_tasks.demo import photometry  # in its place, your own
from photometry_tasks.runner import run_tasks

if __name__ == "__main__":
    scheduler, todo, jobs = sys.argv[1:]
    with Client(scheduler_file=scheduler) as client, TaskManager(todo, load_into_memory=True) as tm:
        client.wait_for_workers(int(jobs))
        report = run_tasks(tm, photometry, jobs=int(jobs), executor=lambda _: client.get_executor())
        print(report)
