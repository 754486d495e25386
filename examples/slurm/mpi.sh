#!/bin/bash
#SBATCH --job-name=photometry
#SBATCH --ntasks=129
#SBATCH --time=08:00:00
#SBATCH --open-mode=append
#
# Many nodes with MPI: rank 0 has the TODO-file open, and the other ranks are workers.
#     sbatch mpi.sh todo.sqlite mystars:photometry
# The launcher must fit the MPI of mpi4py: LAUNCH='srun --mpi=pmi2' sbatch mpi.sh ... for MPICH, LAUNCH='srun --mpi=pmix'
# for Open MPI, or LAUNCH='mpiexec -n 129'.
set -euo pipefail
todo=$1 function=$2
shift 2

export OMP_NUM_THREADS=1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} # the directory of the function's module

export SLURM_KILL_BAD_EXIT=1 # srun: a rank that dies ends the job; otherwise rank 0 would wait for it
# Signals are for rank 0: a worker that a signal kills would end all ranks.
rank='${PMI_RANK:-${OMPI_COMM_WORLD_RANK:-$SLURM_PROCID}}'
${LAUNCH:-srun} bash -c "[ $rank = 0 ] || trap '' TERM USR1; exec \"\$@\"" - \
    python -m mpi4py.futures -m photometry_tasks.cli run "$todo" "$function" \
    --executor mpi4py.futures:MPIPoolExecutor --jobs $((${SLURM_NTASKS:-3} - 1)) --in-memory "$@" &
run=$!
for name in TERM USR1; do trap "kill -s $name $run || true" "$name"; done
while kill -0 "$run" 2>/dev/null; do wait "$run" || true; done # a signal interrupts `wait`
wait "$run"
