#!/usr/bin/env bash
# What only a GPU can show, in one go for a rented machine: the GPU tests, the benchmark of four recipes (compiled beside
# eager) at their own and at a larger batch, and AST's whole fine-tuning on 6,600 synthesised clips. Installs and downloads
# nothing: the weights are random, on which speed does not depend. Not timed as a whole yet. On an H200 the tests took
# 84 s, a benchmark 42 to 73 s, making and preparing the data 85 s beside them, and the job 79 s.
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

# The data are made and prepared beside benchmarks, which leave the CPU alone; AST's also compiles the block that the job needs.
part prepare "$python" -c 'import sys; from irmas_recipe.training import data, recipe
fields = recipe.parse_recipe(sys.argv[1:]).data; data.prepare_splits(data.load_data(fields), fields, 16000)' \
    "${job[@]:2}" & preparing=$!
benchmark ast ast
benchmark passt_64 passt --training_only --per_device_train_batch_size 64
benchmark mobilenet_64 mobilenet --training_only --per_device_train_batch_size 64
benchmark beats beats --training_only
wait "$preparing"
part job "${job[@]}" --output_dir "$out/run"
benchmark "ast_$batch" ast --training_only --per_device_train_batch_size "$batch"
benchmark passt passt --training_only
benchmark mobilenet mobilenet --training_only
part tests "$python" -m pytest -q -m gpu tests
"$python" -m experiments.gpu_table "$out"
