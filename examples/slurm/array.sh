#!/bin/bash
#SBATCH --job-name=photometry
#SBATCH --array=0-99
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --open-mode=append
#
# Many jobs on one list on a PostgreSQL server. Each job claims its own tasks. If a job starts late, reaches its time
# limit or loses its node, the other jobs run its tasks.
#     sbatch array.sh postgresql+psycopg://me@dbnode/sector1 mystars:photometry
# Put the password into ~/.pgpass, not into the URL.
set -euo pipefail
todo=$1 function=$2
shift 2

export OMP_NUM_THREADS=1 # one thread per worker, because each processor has a worker

exec photometry-tasks work "$todo" "$function" --grace 240 "$@"
