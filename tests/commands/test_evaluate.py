"""`evaluate` gives a finished run's own figures again."""

import json

import pandas as pd
import pytest
import yaml

import run_irmas
from irmas_dataset.errors import UserError
from tests.test_run import TINY


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two steps."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
        (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
        run_irmas.main(["tiny.yaml"])
        yield folder


def test_the_figures_are_the_runs_own(finished, capsys):
    run_irmas.main(["evaluate", "runs/tiny", "--output_dir", "again"])
    first, again = (json.loads((finished / f"{name}/results.json").read_text()) for name in ("runs/tiny", "again"))
    for regime in ("fixed", "oracle"):
        assert again["test"][regime] == first["test"][regime]
    assert again["test"]["lrap"] == first["test"]["lrap"] and again["trivial"] == first["trivial"]
    for figure in ("micro_f1", "macro_f1", "samples_f1", "exact_match", "hamming", "ci95"):
        assert again["test"]["tuned"][figure] == first["test"]["tuned"][figure]
    scores = [pd.read_parquet(finished / f"{name}/predictions.parquet") for name in ("runs/tiny", "again")]
    pd.testing.assert_frame_equal(*scores, check_exact=True)
    assert (finished / "again/figures/per_class_f1.png").is_file()
    assert "tuned thresholds" in capsys.readouterr().out


def test_what_the_training_started_from_does_not_matter(finished):
    recipe = finished / "runs/tiny/recipe.yaml"
    before = recipe.read_text()
    try:
        recipe.write_text(before + "backbone_name_or_path: nobody/swin\nfreeze: known_labels\n")
        run_irmas.main(["evaluate", "runs/tiny", "--output_dir", "again"])
    finally:
        recipe.write_text(before)
    first, again = (json.loads((finished / f"{name}/results.json").read_text()) for name in ("runs/tiny", "again"))
    assert again["test"]["lrap"] == first["test"]["lrap"]


def test_what_is_no_run_is_refused(finished, tmp_path):
    with pytest.raises(UserError, match="no folder"):
        run_irmas.main(["evaluate", "runs/absent"])
    with pytest.raises(UserError, match=r"config\.json"):
        run_irmas.main(["evaluate", str(tmp_path)])


def test_a_runs_own_results_are_not_written_over(finished):
    before = (finished / "runs/tiny/results.json").read_bytes()
    with pytest.raises(UserError, match="contains a run, which"):
        run_irmas.main(["evaluate", "runs/tiny", "--output_dir", "runs/tiny"])
    assert (finished / "runs/tiny/results.json").read_bytes() == before


def test_what_it_wrote_can_be_compared(finished, capsys):
    run_irmas.main(["evaluate", "runs/tiny", "--output_dir", "measured"])
    run_irmas.main(["compare", "runs/tiny", "measured", "--output_dir", "table"])
    assert "measured - tiny" in capsys.readouterr().out
