#!/bin/bash
#SBATCH --job-name=photometry
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#
# A chain of jobs: each job submits the next one, until no task is pending.
#     sbatch chain.sh todo.sqlite mystars:photometry
# The run ends by itself before the time in SLURM_JOB_END_TIME. If your SLURM does not set this variable, add
# --stop-after SECONDS with a few minutes less than the time limit.
set -euo pipefail
todo=$1 function=$2
export OMP_NUM_THREADS=1

count() { # the numbers of tasks that are finished without error, unfinished, and failed
    photometry-tasks status "$todo" --json | python3 -c '
import json, sys
status = json.load(sys.stdin)["status"]
print(status["OK"] + status["WARNING"] + status["SKIPPED"], status["PENDING"] + status["STARTED"], status["ERROR"])'
}

read -r before _ <<<"$(count)"
photometry-tasks run "$todo" "$function" --jobs "${SLURM_CPUS_PER_TASK:-2}" --in-memory "${@:3}"
read -r after pending errors <<<"$(count)"

if ((pending == 0)); then
    echo "No task is pending. Errors: $errors. See: photometry-tasks status $todo"
elif ((after == before)); then
    echo "No task was finished without an error. Find the cause (photometry-tasks status $todo), then submit the job again." >&2
    exit 1
else
    echo "Pending tasks: $pending. Submitting the next job."
    sbatch --dependency="afterany:$SLURM_JOB_ID" "$0" "$@"
fi
