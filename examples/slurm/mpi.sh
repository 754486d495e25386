#!/bin/bash
#SBATCH --job-name=photometry
#SBATCH --ntasks=129
#SBATCH --time=08:00:00
#
# Many nodes with MPI: rank 0 has the TODO-file open, and the other ranks are workers.
#     sbatch mpi.sh todo.sqlite mystars:photometry
# With another launcher: LAUNCH='mpiexec -n 129' sbatch mpi.sh ...
set -euo pipefail
todo=$1 function=$2
shift 2

export OMP_NUM_THREADS=1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} # the directory of the function's module

${LAUNCH:-srun} python -m mpi4py.futures -m photometry_tasks.cli run "$todo" "$function" \
    --executor mpi4py.futures:MPIPoolExecutor --jobs $((${SLURM_NTASKS:-3} - 1)) --in-memory "$@"
