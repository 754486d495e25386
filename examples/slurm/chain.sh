#!/bin/bash
#SBATCH --job-name=photometry
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#
# A job that returns to the queue until no task is pending. It keeps its number and the options given to sbatch.
#     sbatch chain.sh todo.sqlite mystars:photometry
# The run ends by itself before the time limit of the job. `scancel` ends the chain.
set -euo pipefail
todo=$1 function=$2
export OMP_NUM_THREADS=1

count() { # the numbers of tasks that are finished without error, unfinished, and failed
    photometry-tasks status "$todo" --json | python3 -c '
import json, sys
status = json.load(sys.stdin)["status"]
print(status["OK"] + status["WARNING"] + status["SKIPPED"], status["PENDING"] + status["STARTED"], status["ERROR"])'
}

found=$(count) # not within `read`: a failure must end the script
read -r before _ <<<"$found"
photometry-tasks run "$todo" "$function" --in-memory "${@:3}" &
run=$!
# SLURM may send its signals to this script only.
for name in TERM USR1; do trap "kill -s $name $run || true" "$name"; done
while kill -0 "$run" 2>/dev/null; do wait "$run" || true; done # a signal interrupts `wait`
wait "$run"
trap - TERM USR1
found=$(count)
read -r after pending errors <<<"$found"

if ((pending == 0)); then
    echo "No task is pending. Errors: $errors. See: photometry-tasks status $todo"
elif ((after == before)); then
    echo "No task was finished without an error. Find the cause (photometry-tasks status $todo), then submit the job again." >&2
    exit 1
else
    echo "Pending tasks: $pending. The job returns to the queue."
    scontrol requeue "$SLURM_JOB_ID"
fi
