#!/bin/bash
#SBATCH --job-name=photometry-mpi
#SBATCH --ntasks=129
#SBATCH --mem-per-cpu=4G
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
# Several nodes over MPI: rank 0 has the file, the others work. Needs photometry_tasks[mpi], and mpi4py built for this MPI.
set -euo pipefail

TODO=${TODO:-todo.sqlite}
FUNCTION=${FUNCTION:-mypipeline:photometry}

exec ${LAUNCH-srun} python -m mpi4py.futures -m photometry_tasks.cli run "$TODO" "$FUNCTION" \
    --executor mpi4py.futures:MPIPoolExecutor --jobs "$((${SLURM_NTASKS:-3} - 1))" \
    --in-memory --summary summary.json --grace 270
