#!/bin/bash
# sbatch slurm.sh RECIPE [flags of ldm train]
# Goes on from the newest checkpoint, also after a time limit or a lost machine: it requeues itself.
#SBATCH --job-name=ldm
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
# USR1 reaches all processes of the step 300 s before the limit; the grace of ldm.train.launch is 120.
set -u
recipe=${1:?"sbatch slurm.sh RECIPE"}
shift
hosts=$PWD/hosts.$SLURM_JOB_ID # on the file system that the nodes share
scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/\$/ slots=${SLURM_GPUS_ON_NODE:-8}/" >"$hosts"
first=$(head -n 1 "$hosts" | cut -d ' ' -f 1)
export hosts first port=$((20000 + SLURM_JOB_ID % 10000))

# one launcher a node, each for its own ranks: no ssh between nodes
srun --kill-on-bad-exit=1 bash -c 'exec python -m ldm.train.launch deepspeed \
    --hostfile "$hosts" --no_ssh --node_rank "$SLURM_NODEID" \
    --master_addr "$first" --master_port "$port" --module ldm.train "$@"' ldm "$recipe" "$@"
status=$?
rm -f "$hosts"

# 130: saved after a signal; more: killed. 1 is an error that the next start would meet again.
if [ "$status" -ge 128 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
