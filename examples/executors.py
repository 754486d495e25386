"""Factories for `photometry-tasks run --executor executors:NAME`, to be copied and changed."""


def dask(jobs):
    """Run workers of Dask on this machine."""
    from distributed import Client

    return Client(n_workers=jobs, threads_per_worker=1).get_executor()


def dask_jobqueue(jobs):
    """Run the workers of Dask as SLURM jobs, one job for each worker."""
    from dask_jobqueue import SLURMCluster
    from distributed import Client

    cluster = SLURMCluster(cores=1, memory="4GB", walltime="08:00:00")
    cluster.scale(jobs)
    return Client(cluster).get_executor()


def parsl(jobs):
    """Run workers of Parsl on this machine; a `provider` starts them elsewhere."""
    from parsl.concurrent import ParslPoolExecutor
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor

    return ParslPoolExecutor(Config(executors=[HighThroughputExecutor(max_workers_per_node=jobs)]))


def ipyparallel(jobs):
    """Start engines of IPython on this machine; a `profile` starts them elsewhere."""
    from ipyparallel import Cluster

    return Cluster(n=jobs).start_and_connect_sync().executor()


def executorlib(jobs):
    """Start worker processes on this machine; `SlurmJobExecutor` starts them with srun."""
    from executorlib import SingleNodeExecutor

    return SingleNodeExecutor(max_workers=jobs, block_allocation=True)
