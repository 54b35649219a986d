#!/bin/sh
# The whole table of IRMAS on one machine with a network and a GPU: fetch the data, train, fuse, audit, train again, compare.
#   experiments/irmas_table.sh --budget small            # or medium, or full; --dry_run says what that costs
# After an interruption, run it again: it goes on. Its result is docs/results_irmas.md.
cd "$(dirname "$0")/.." || exit 1
[ -x .venv/bin/python ] && PATH=$PWD/.venv/bin:$PATH
exec python -m experiments.irmas_table "$@"
