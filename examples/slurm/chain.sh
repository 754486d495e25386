#!/bin/bash
#SBATCH --job-name=photometry
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#
# A chain of jobs: each submits the next one, until nothing is pending.
#     sbatch chain.sh todo.sqlite mystars:photometry
# The run ends by itself before the time limit that SLURM_JOB_END_TIME tells. If your SLURM does not set it, add
# --stop-after with some minutes less than the limit, in seconds.
set -euo pipefail
todo=$1 function=$2
export OMP_NUM_THREADS=1

count() { # how many tasks are done, are still to do, and went wrong
    photometry-tasks status "$todo" --json | python3 -c '
import json, sys
status = json.load(sys.stdin)["status"]
print(status["OK"] + status["WARNING"] + status["SKIPPED"], status["PENDING"] + status["STARTED"], status["ERROR"])'
}

read -r before _ <<<"$(count)"
photometry-tasks run "$todo" "$function" --jobs "${SLURM_CPUS_PER_TASK:-2}" --in-memory "${@:3}"
read -r after pending errors <<<"$(count)"

if ((pending == 0)); then
    echo "Nothing is pending; errors: $errors."
elif ((after == before)); then
    echo "No task was finished: see what is wrong before you submit it again." >&2
    exit 1
else
    echo "$pending tasks are pending: the next job is submitted."
    sbatch --dependency="afterany:$SLURM_JOB_ID" "$0" "$@"
fi
