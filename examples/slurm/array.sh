#!/bin/bash
#SBATCH --job-name=photometry
#SBATCH --array=0-99
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#
# Many jobs on one list, which is on a PostgreSQL server: each claims its tasks itself. Any of them may begin late, reach
# its time limit or lose its node; what it had comes back to the others.
#     sbatch array.sh postgresql+psycopg://me@dbnode/sector1 mystars:photometry
# The password stands in ~/.pgpass, not here.
set -euo pipefail
todo=$1 function=$2
shift 2

export OMP_NUM_THREADS=1 # the processors are the workers'

exec photometry-tasks work "$todo" "$function" --jobs "${SLURM_CPUS_PER_TASK:-2}" --grace 240 "$@"
