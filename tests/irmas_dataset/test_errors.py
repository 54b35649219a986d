"""A missing library or right is one sentence; a missing module of our own is a fault and keeps its traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from irmas_dataset.errors import UserError, missing_package
from tests.rights import WITHOUT_RIGHTS, needs_limits

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("arguments", [["quickstart"], ["predict", "runs/x", "song.wav"], ["compare", "a", "b"]])
def test_without_the_environment_one_sentence_says_what_to_do(arguments):
    bare = [sys.executable, "-S", "-E", "run_irmas.py", *arguments]  # without any installed package
    done = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "is not installed for" in done.stderr and ". .venv/bin/activate" in done.stderr


def test_help_needs_no_library_at_all():
    done = subprocess.run(
        [sys.executable, "-S", "-E", "run_irmas.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "irmas predict [MODEL] PATH..." in done.stdout and done.stderr == ""
    bare = subprocess.run([sys.executable, "-S", "-E", "run_irmas.py"], cwd=ROOT, capture_output=True, text=True)
    assert bare.stdout == done.stdout, "without arguments nothing is started or downloaded"


def test_an_extra_is_named_and_an_own_module_is_not():
    assert "irmas-recipe[demo]" in missing_package(ModuleNotFoundError("No module named 'gradio'", name="gradio"))
    assert missing_package(ModuleNotFoundError("x", name="irmas_recipe.training.nothing")) is None


class Broken(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise UserError("The server is gone:\nrun the same command again.")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_that_a_worker_process_meets_is_the_same_sentence(workers):
    with pytest.raises(UserError, match=r"^The server is gone: run the same command again\.$"):
        next(iter(DataLoader(Broken(), num_workers=workers)))


@needs_limits
@pytest.mark.parametrize("place", ["locked/new/file.txt", "secret.txt"])
def test_what_may_not_be_written_or_read_is_named_in_one_sentence(tmp_path, place):
    (tmp_path / "locked").mkdir(mode=0o555)
    (tmp_path / "secret.txt").touch(mode=0o000)
    script = (
        f"import pathlib; from irmas_dataset.errors import start; path = pathlib.Path({str(tmp_path / place)!r})\n"
        "start(lambda _: path.read_text() if path.exists() else path.parent.mkdir())"
    )
    command = [*WITHOUT_RIGHTS, sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    refused = tmp_path / (place if place == "secret.txt" else "locked/new")
    assert done.returncode == 2
    assert done.stderr.strip().startswith(
        f"You may not read or write {refused}. Change its permissions or name another"
    )


def end_of_command(steps: str, imports: str = "") -> tuple[int, str]:
    """Return the exit code and the error stream of a command that takes these steps."""
    script = f"from irmas_dataset.errors import start\n{imports}\ndef main(_):\n    {steps}\nstart(main)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_a_sentence_is_seen_while_a_thread_that_decodes_keeps_c_libraries_from_the_screen():
    imports = "import os; from irmas_dataset.decoding import SILENCE; from irmas_dataset.errors import UserError"
    steps = "SILENCE.__enter__()\n    os.write(2, b'note')\n    raise UserError('Stopped.')"
    assert end_of_command(steps, imports) == (2, "Stopped.\n")


def test_an_interruption_is_no_traceback_although_another_error_follows_it():
    steps = "try:\n        raise KeyboardInterrupt\n    finally:\n        raise TimeoutError"
    assert end_of_command(steps) == (130, "Stopped.\n")
