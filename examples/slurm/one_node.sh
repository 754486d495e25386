#!/bin/bash
#SBATCH --job-name=photometry
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --mem-per-cpu=4G
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
# One node, a worker for each processor. Five minutes before the limit nothing more is begun, and what runs has 4.5 of them.
set -euo pipefail

TODO=${TODO:-todo.sqlite}
FUNCTION=${FUNCTION:-mypipeline:photometry}

# srun, so that signals reach the program; exec, so that its exit code is the job's.
exec ${LAUNCH-srun} photometry-tasks run "$TODO" "$FUNCTION" \
    --jobs "${SLURM_CPUS_PER_TASK:-2}" --in-memory --summary summary.json --grace 270 --task-timeout 7200
