#!/bin/bash
#SBATCH --job-name=photometry
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@300
#
# One node, a process for each processor. To continue after a stop, submit it again:
#     sbatch --dependency=singleton one_node.sh todo.sqlite mystars:photometry
set -euo pipefail
todo=$1 function=$2
shift 2

export OMP_NUM_THREADS=1 # the processors are the workers'

# "exec": the program takes the shell's place, so that USR1, 300 s before the end, reaches it.
exec photometry-tasks run "$todo" "$function" \
    --jobs "${SLURM_CPUS_PER_TASK:-2}" --in-memory --grace 240 "$@"
