"""The package's names: complete, and imported only when they are used."""

import subprocess
import sys
from pathlib import Path

import pytest

import irmas_dataset

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["errors", "labels", "whole_file", "files", "splits", "hub"])
def test_light_modules_import_the_standard_library_alone(module):
    code = (
        f"import sys; before = set(sys.modules); import irmas_dataset.{module};"
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(*sorted(loaded - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "irmas_dataset"


@pytest.mark.parametrize("name", irmas_dataset.__all__)
def test_every_listed_name_can_be_imported(name):
    assert getattr(irmas_dataset, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'irmas_dataset' has no attribute 'load_iramis'"):
        _ = irmas_dataset.load_iramis
