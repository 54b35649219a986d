#!/usr/bin/env bash
# What only a GPU can show, in one go for a rented machine: the GPU tests, the benchmark of four recipes (compiled beside
# eager) at their own and at a larger batch, and AST's whole fine-tuning on 6,600 synthesised clips. Installs and downloads
# nothing: the weights are random, on which speed does not depend. Not timed as a whole yet: on an H200 the
# tests took 84 s, preparing the data beside them 208 s.
#
#   [PYTHON=python3] experiments/gpu.sh OUTPUT_FOLDER [BATCH]
#
# BATCH is that of the second AST benchmark (default 128). OUTPUT_FOLDER gets gpu.json with all figures, table.md with
# the rows for RESULTS.md, and the log of each part.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: experiments/gpu.sh OUTPUT_FOLDER [BATCH]} batch=${2:-128}
mkdir -p "$out"
export HF_HUB_OFFLINE=1 PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-python}

part() {  # NAME COMMAND...: run it with its output in NAME.log, its seconds and its exit status in NAME.part
    local name=$1 begun=$SECONDS; shift
    "$@" > "$out/$name.log" 2>&1 < /dev/null
    echo "$((SECONDS - begun)) $?" > "$out/$name.part"
    echo "$name: $(cat "$out/$name.part" | sed 's/ / s, exit status /')"
}
benchmark() {  # NAME RECIPE FIELD...
    local name=$1 recipe=$2; shift 2
    part "$name" "$python" run_irmas.py benchmark "recipes/$recipe/finetune.yaml" --random_weights --repeats 3 --long_clips 4 \
        --output "$out/$name.json" "$@"
}

{ grep -v model_name_or_path recipes/ast/finetune.yaml; echo "architecture: ast"; } > "$out/ast_from_scratch.yaml"
job=("$python" run_irmas.py "$out/ast_from_scratch.yaml" --data_dir synthetic --synthetic_train 6600 --synthetic_test 240)

# The first run of the job makes and prepares the data, beside benchmarks that leave the CPU alone; the second is timed.
part prepare "${job[@]}" --max_steps 2 --output_dir "$out/prepared_run" & preparing=$!
benchmark passt_64 passt --training_only --per_device_train_batch_size 64
benchmark mobilenet_64 mobilenet --training_only --per_device_train_batch_size 64
benchmark beats beats --training_only
wait "$preparing"
part job "${job[@]}" --output_dir "$out/run"
benchmark ast ast
benchmark "ast_$batch" ast --training_only --per_device_train_batch_size "$batch"
benchmark passt passt --training_only
benchmark mobilenet mobilenet --training_only
part tests "$python" -m pytest -q -m gpu tests
"$python" -m experiments.gpu_table "$out"
