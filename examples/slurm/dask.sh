#!/bin/bash
#SBATCH --job-name=photometry-dask
#SBATCH --ntasks=128
#SBATCH --mem-per-cpu=4G
#SBATCH --time=24:00:00
# Several nodes over Dask: a scheduler here, a worker in each of SLURM's tasks. Needs photometry_tasks[dask].
set -euo pipefail

SCHEDULER=$PWD/scheduler-${SLURM_JOB_ID:-0}.json
trap 'kill $(jobs -p) 2>/dev/null; rm -f "$SCHEDULER"' EXIT

dask scheduler --scheduler-file "$SCHEDULER" --no-dashboard &
${LAUNCH-srun} dask worker --scheduler-file "$SCHEDULER" --nthreads 1 --no-dashboard &
python "${SCRIPT:-dask_run.py}" "$SCHEDULER" "${TODO:-todo.sqlite}" "${SLURM_NTASKS:-1}"
