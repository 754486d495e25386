#!/bin/bash
#SBATCH --job-name=photometry-chain
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --dependency=singleton
# A job of four hours that submits itself again until nothing is pending. It ends by itself half a minute before its limit.
set -euo pipefail

TODO=${TODO:-todo.sqlite}
FUNCTION=${FUNCTION:-mypipeline:photometry}

${LAUNCH-srun} photometry-tasks run "$TODO" "$FUNCTION" --jobs "${SLURM_CPUS_PER_TASK:-2}" --in-memory
pending=$(photometry-tasks status "$TODO" --json | python -c 'import json, sys; print(json.load(sys.stdin)["status"]["PENDING"])')
if [ "$pending" -gt 0 ]; then
    ${SUBMIT-sbatch} "$0"
fi
