#!/bin/bash
# sbatch slurm.sh recipe.yaml [KEY=VALUE ...]: Ray on all nodes of the job, and one run on it.
# The folder, the images and the models are on a file system that all nodes see. VENV is where vlm-preference is installed.
#SBATCH --job-name=vlm-preference
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

source "${VENV:-$SLURM_SUBMIT_DIR/.venv}/bin/activate"
cd "$SLURM_SUBMIT_DIR"

# Ray reads these when it starts on a node.
export RAY_worker_niceness=0 RAY_process_group_cleanup_enabled=1 RAY_USAGE_STATS_ENABLED=0
CPUS=${SLURM_CPUS_PER_TASK:-1}
GPUS=${SLURM_GPUS_ON_NODE:-0}
mapfile -t NODES < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
HEAD=${NODES[0]}
# Jobs that share a node need ports of their own.
PORT=$((20000 + SLURM_JOB_ID % 20000))
ADDRESS=$(srun --overlap --nodes=1 --ntasks=1 --nodelist="$HEAD" hostname --ip-address | awk '{print $1}'):$PORT

srun --overlap --nodes=1 --ntasks=1 --nodelist="$HEAD" \
  ray start --head --port="$PORT" --include-dashboard=false --num-cpus="$CPUS" --num-gpus="$GPUS" --block &
sleep "${RAY_START_SECONDS:-20}"
for NODE in "${NODES[@]:1}"; do
  srun --overlap --nodes=1 --ntasks=1 --nodelist="$NODE" \
    ray start --address="$ADDRESS" --num-cpus="$CPUS" --num-gpus="$GPUS" --block &
done
sleep "${RAY_START_SECONDS:-20}"

export RAY_ADDRESS=$ADDRESS
vlm-preference run "$@" &
RUN=$!

# Two minutes before the time is over, or when the nodes are taken away: end the run, and put the job back into the
# queue, where the same command continues it.
again() {
  kill -TERM "$RUN" 2>/dev/null || true
  wait "$RUN" || true
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap again TERM

STATUS=0
wait "$RUN" || STATUS=$?
exit "$STATUS"
