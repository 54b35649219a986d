"""`VERB --help` answers at once: it imports none of the libraries that take seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

import run_irmas

ROOT = Path(__file__).parents[2]
SLOW = ("torch", "transformers", "datasets", "pandas", "matplotlib", "scipy", "sklearn")
HELP = f"""
import sys
import run_irmas
try:
    run_irmas.main([sys.argv[1], "--help"])
except SystemExit as ended:
    assert ended.code == 0
print(*(name for name in {SLOW} if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("verb", run_irmas.VERBS)
def test_help_imports_no_slow_library(verb):
    done = subprocess.run([sys.executable, "-c", HELP, verb], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and f"irmas {verb}" in done.stdout
    assert done.stderr.split() == []


@pytest.mark.parametrize("recipe", ["ast/finetune", "classical/svm", "wavegan/generator", "crnn/fusion"])
def test_the_fields_of_a_recipe_are_listed_without_a_slow_library(recipe):
    done = subprocess.run([sys.executable, "-c", HELP, recipe], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and f"irmas {recipe} [--field value ...]" in done.stdout
    assert "--output_dir" in done.stdout or "--data_dir" in done.stdout
    assert done.stderr.split() == []
