#!/bin/bash
#SBATCH --job-name=photometry
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --open-mode=append
#
# One node, with a worker process for each processor. To continue after a stop, submit it again:
#     sbatch --dependency=singleton one_node.sh todo.sqlite mystars:photometry
set -euo pipefail
todo=$1 function=$2
shift 2

export OMP_NUM_THREADS=1 # one thread per worker, because each processor has a worker

# With "exec", the program replaces the shell, so that USR1 reaches it 300 s before the time limit.
exec photometry-tasks run "$todo" "$function" --in-memory --grace 240 "$@"
