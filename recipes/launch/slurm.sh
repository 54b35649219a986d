#!/bin/bash
# Train a recipe on a Slurm cluster. When the time is nearly up, or the job is preempted, the run writes a checkpoint and the
# job goes back into the queue, where it resumes. The arguments are those of `irmas`; sbatch's own stand before the file:
#   sbatch recipes/launch/slurm.sh ast/finetune --output_dir runs/ast
#   sbatch --nodes 2 --gpus-per-node 8 --time 24:00:00 recipes/launch/slurm.sh ast/finetune --output_dir runs/ast
#SBATCH --job-name=irmas
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

if [ $# -eq 0 ]; then
    echo "Usage: sbatch [OPTION...] recipes/launch/slurm.sh RECIPE [--field value ...]" >&2
    exit 2
fi
if ! command -v irmas >/dev/null; then
    echo "irmas is not installed here: activate its environment, then run sbatch again." >&2
    exit 2
fi
export STOPPED=143                                # the exit code of a run that SIGTERM stopped
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"  # since Slurm 22.05 srun does not take it from sbatch
RENDEZVOUS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):$((20000 + SLURM_JOB_ID % 10000))
export RENDEZVOUS

# What runs on each node: one process per GPU. SIGTERM goes past torchrun, which would kill the processes 30 s later, and is
# repeated for those that are still starting.
train() {
    (
        trap '' TERM
        exec torchrun --signals_to_handle SIGINT --nnodes "$SLURM_NNODES" \
            --nproc_per_node "${PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}" --rdzv_backend c10d \
            --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$RENDEZVOUS" --no_python \
            irmas "$@" --enable_jit_checkpoint true
    ) &
    trap stopped=true TERM
    wait $!
    code=$?
    if [ -n "$stopped" ]; then
        while kill -0 $! 2>/dev/null; do
            pkill -TERM -P $!
            sleep 1
        done
        wait $! || exit "$STOPPED"
        code=0
    fi
    exit "$code"
}

srun --kill-on-bad-exit=1 bash -c "$(declare -f train); train \"\$@\"" train "$@" &
# To the processes of the step and not to srun, which SIGTERM makes kill them.
trap 'trap "" TERM; scancel --signal=TERM "$SLURM_JOB_ID"' TERM
wait $!
code=$?
while kill -0 $! 2>/dev/null; do # only the signal has come so far
    wait $!
    code=$?
done
# A cancelled job is no longer running, and must not come back.
if [ "$code" -eq "$STOPPED" ] && scontrol show job "$SLURM_JOB_ID" | grep -q JobState=RUNNING; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
