"""The table of IRMAS: its plan names what there is, a failed run costs itself, and a killed table goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import irmas_table
from experiments.jobs import Job, run_all
from irmas_dataset.errors import UserError
from irmas_dataset.synthetic import synthesize
from irmas_recipe.baselines.classical.recipe import parse_classical_recipe
from irmas_recipe.training.recipe import parse_recipe

ROOT = Path(__file__).parents[2]
TINY = ["--use_cpu=true", "--max_steps=2", "--bootstrap_resamples=20", "--dataloader_num_workers=0",
        '--model_config={"filters": [4, 4, 8, 8], "hidden_size": 16}']  # fmt: skip
CHILD = """
import sys
from experiments import irmas_table
irmas_table.SMALL, irmas_table.SEEDS = ("cnn/gomez2018", "classical/svm"), (1, 2)
irmas_table.ENSEMBLES = {"ensemble-cnn": ("cnn/gomez2018",)}
irmas_table.main(sys.argv[1:])
"""


def table(tmp_path: Path, budget: str) -> irmas_table.Table:
    return irmas_table.Table(tmp_path / "data", tmp_path / "out", budget, ())


@pytest.mark.parametrize("budget", ["small", "medium", "full"])
def test_every_command_of_a_plan_is_one_that_the_program_takes(budget, tmp_path):
    jobs = irmas_table.training_jobs(table(tmp_path, budget))
    assert len({job.name for job in jobs}) == len(jobs)
    for job in jobs:
        place, *fields = job.command[2:]
        if place.startswith("classical/"):
            parse_classical_recipe([place, *fields])
        else:
            recipe = parse_recipe([place, *fields, "--use_cpu=true", "--bf16=false"])
            assert str(recipe.training.seed) == job.name[-1] and recipe.data.data_dir == str(tmp_path / "data")


def test_the_full_budget_has_every_recipe_that_hears_irmas():
    assert set(irmas_table.MEDIUM) < set(irmas_table.every_recipe())
    left_out = {"/".join(path.with_suffix("").parts[-2:]) for path in irmas_table.shipped_recipes()} - set(
        irmas_table.every_recipe()
    )
    assert {place.split("/")[0] for place in left_out} == {"openmic", "wavegan", "encoder", "recipes", "crnn"}


def test_the_plan_counts_what_is_known_and_says_what_is_not(tmp_path, capsys):
    irmas_table.main(["--dry_run", "--budget", "medium", "--output_dir", str(tmp_path)])
    said = capsys.readouterr().out
    assert "irmas passt/finetune --data_dir=" in said and "10 runs whose rate was not measured" in said
    assert irmas_table.estimated_minutes("ast/zero_shot") == irmas_table.AROUND_TRAINING
    assert irmas_table.estimated_minutes("ast/finetune") == pytest.approx(0.6 + 5 * 5702 / 1663 / 60)
    assert irmas_table.estimated_minutes("crnn/mel") is irmas_table.estimated_minutes("classical/svm") is None
    assert not any(tmp_path.iterdir())


def test_without_a_gpu_it_asks_first(monkeypatch, tmp_path):
    monkeypatch.setattr(irmas_table.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"There is no GPU.*--use_cpu=true"):
        irmas_table.main([f"--output_dir={tmp_path}"])


def test_runs_of_other_fields_are_not_taken_for_those_of_the_page(monkeypatch, tmp_path):
    monkeypatch.setattr(irmas_table, "training_jobs", lambda table: [])
    synthesize(tmp_path / "data", train=44, test=6)
    given = [f"--{name}={tmp_path / name}" for name in ("data_dir", "output_dir", "page")]
    (tmp_path / "data").rename(tmp_path / "data_dir")
    irmas_table.main([*given, "--use_cpu=true", "--max_steps=2"])
    with pytest.raises(UserError, match=r"output_dir holds runs with fields \['--use_cpu=true', '--max_steps=2'\]"):
        irmas_table.main([*given, "--use_cpu=true"])
    for field in ("--seed=7", "--corrections=c.csv"):
        with pytest.raises(UserError, match="is set for each run by the table itself"):
            irmas_table.main([*given, "--use_cpu=true", field])


def test_an_ensemble_is_made_again_when_more_of_its_runs_are_finished(tmp_path):
    """As by a larger budget in the same folder."""
    for name in ("cnn-han2017-seed1", "cnn-han2017-seed2", "crnn-mel-seed1", "ensemble-scratch"):
        (tmp_path / "out" / name).mkdir(parents=True)
        for file in ("results.json", "README.md"):
            (tmp_path / "out" / name / file).touch()
    (small,) = irmas_table.ensemble_jobs(table(tmp_path, "small"))
    (small.run_dir / "recipe.yaml").write_text(f"system: ensemble\nruns: {list(small.parts)}\n".replace("'", '"'))
    (medium,) = irmas_table.ensemble_jobs(table(tmp_path, "medium"))
    assert small.name == medium.name == "ensemble-scratch" and len(medium.parts) == 3
    assert small.finished and not medium.finished and "--overwrite_output_dir" in medium.command


def test_the_page_is_that_of_a_table_without_runs(tmp_path):
    nothing = table(tmp_path, "small")
    jobs = irmas_table.training_jobs(nothing)
    assert irmas_table.PAGE.read_text(encoding="utf-8") == irmas_table.results_page(nothing, jobs, [], [])


def test_a_run_that_fails_is_named_with_its_last_words(tmp_path):
    code = "import sys; print('Loading'); sys.exit('No space left: free 2 GB.')"
    fails = Job("fails", tmp_path / "fails", (sys.executable, "-c", code))
    quiet = Job("quiet", tmp_path / "quiet", (sys.executable, "-c", ""))  # ends well and leaves nothing
    write = "from pathlib import Path; Path('{0}').mkdir(); Path('{0}/report').touch(); print('done')".format(
        tmp_path / "works"
    )
    works = Job("works", tmp_path / "works", (sys.executable, "-c", write), proof="report")
    here = table(tmp_path, "small")
    failed = run_all([fails, quiet, works], 2, here.logs)
    assert (here.logs / "works.log").read_text() == "done\n" and run_all([works], 1, tmp_path / "again") == []
    assert not (tmp_path / "again/works.log").exists()
    assert irmas_table.reasons(here, failed) == "- fails: No space left: free 2 GB.\n- quiet: it printed nothing"


@pytest.mark.slow
def test_a_killed_table_goes_on_and_one_bad_run_costs_itself(tmp_path):
    synthesize(tmp_path / "data", train=44, test=6)
    command = [sys.executable, "-c", CHILD, f"--data_dir={tmp_path / 'data'}", f"--output_dir={tmp_path / 'out'}",
               f"--page={tmp_path / 'page.md'}", *TINY]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    first = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    finished = tmp_path / "out/cnn-gomez2018-seed1/README.md"
    while not finished.is_file() and first.poll() is None:
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    made = finished.stat().st_mtime_ns
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.stat().st_mtime_ns == made
    assert done.returncode != 0 and "tries them again: classical-svm-seed1." in done.stderr
    page = (tmp_path / "page.md").read_text()
    assert "| cnn-gomez2018 | 2 |" in page and "| ensemble-cnn | 1 |" in page
    assert "- classical-svm-seed1: " in page and "--use_cpu" in page  # a field that it does not have
    assert (tmp_path / "out/audit/report.html").is_file() and (tmp_path / "out/table/comparison.csv").is_file()
