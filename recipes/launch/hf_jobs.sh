#!/bin/bash
# Train a recipe on Hugging Face Jobs. The code goes there as a wheel that is built here, with the recipe if it is a file of
# yours. The run is kept in a bucket of yours: an attempt that ends early is resumed by the next one, or by the same command.
# The arguments are those of `irmas`:
#   hf buckets create me/runs
#   BUCKET=me/runs recipes/launch/hf_jobs.sh ast/finetune --data_dir me/irmas --output_dir /runs/ast
# FLAVOR, TIMEOUT and ATTEMPTS choose the machine (`hf jobs hardware` lists them), and how long and how often it tries at most.
set -euo pipefail

if [ $# -eq 0 ] || [ -z "${BUCKET:-}" ]; then
    echo "Usage: BUCKET=me/runs $0 RECIPE --output_dir /runs/NAME [--field value ...]" >&2
    exit 2
fi
if ! [[ " $* " =~ \ --output_dir[=\ ]/runs/ ]]; then
    echo "Add --output_dir /runs/NAME: only what is in /runs, the bucket $BUCKET, outlives the job." >&2
    exit 2
fi
recipe=$1
shift
code=$(mktemp -d)
trap 'rm -r "$code"' EXIT
python -m pip wheel --quiet --no-deps --wheel-dir "$code" "$(dirname "$0")/../.."
wheel=$(basename "$code"/*.whl)
if [ -f "$recipe" ]; then
    cp "$recipe" "$code"
    recipe=/code/$(basename "$recipe")
fi

hf jobs run --detach --flavor "${FLAVOR:-a10g-large}" --timeout "${TIMEOUT:-4h}" --attempts "${ATTEMPTS:-3}" \
    --secrets HF_TOKEN --volume "hf://buckets/$BUCKET:/runs" --volume "$code:/code" \
    -- ghcr.io/astral-sh/uv:python3.11-bookworm \
    uv run --no-project --with "/code/$wheel" \
    torchrun --standalone --nproc_per_node "${PROCESSES_PER_NODE:-auto}" --no_python \
    irmas "$recipe" "$@" --enable_jit_checkpoint true
