#!/bin/bash
#SBATCH --job-name=photometry
#SBATCH --ntasks=128
#SBATCH --time=08:00:00
#SBATCH --open-mode=append
#
# Many nodes with Dask: the scheduler and the TODO-file on the first node, and a worker for each SLURM task.
# Submit it from the directory of the function's module, and put dask_client.py there too.
#     sbatch dask.sh todo.sqlite mystars:photometry
set -euo pipefail
todo=$1 function=$2
shift 2

export OMP_NUM_THREADS=1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} # scheduler and workers import the function too
export DASK_SCHEDULER_FILE=$PWD/scheduler-${SLURM_JOB_ID:-$$}.json
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -f "$DASK_SCHEDULER_FILE"' EXIT

rm -f "$DASK_SCHEDULER_FILE" # left behind if this job lost its node, and was requeued
dask scheduler --scheduler-file "$DASK_SCHEDULER_FILE" --port 0 --no-dashboard &
${LAUNCH-srun} dask worker --scheduler-file "$DASK_SCHEDULER_FILE" --nthreads 1 --no-dashboard \
    ${DASK_WORKER_OPTIONS:-} &

photometry-tasks run "$todo" "$function" \
    --executor dask_client:connect --jobs "${SLURM_NTASKS:-1}" --in-memory "$@" &
run=$!
# SLURM may send its signals to this script only.
for name in TERM USR1; do trap "kill -s $name $run || true" "$name"; done
while kill -0 "$run" 2>/dev/null; do wait "$run" || true; done # a signal interrupts `wait`
wait "$run"
