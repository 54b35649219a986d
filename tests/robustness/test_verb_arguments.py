"""Arguments that cannot be, for every verb: one sentence with exit code 2, never a traceback, and nothing written."""

import os

import pytest

import run_irmas
from irmas_dataset.errors import UserError
from irmas_dataset.synthetic import synthesize
from tests.robustness.test_bad_models import sound  # noqa: F401  a fixture

FLOATS = ("0", "-1", "nan", "inf", "1e300", "word")
COUNTS = ("0", "-1", "1.5", "nan", "word")


def each(flag: str, values: tuple[str, ...], *others: str) -> list[tuple[str, ...]]:
    """Return the arguments of one call for each value of a flag."""
    return [(*others, flag, value) for value in values]


MUSIC = ("--data_dir", "music")
AUDIT = (*MUSIC, "--output_dir", "new", "--no_label_errors")
SEGMENTS = ("music", "--output_dir", "new")
EXPORT = (*MUSIC, "--output_dir")

WRONG = {
    "audit": [
        (), MUSIC, ("--data_dir", "absent", "--output_dir", "new"), ("--data_dir", "file", "--output_dir", "new"),
        ("--data_dir", "empty", "--output_dir", "new"), (*MUSIC, "--output_dir", "file"), (*MUSIC, "--output_dir", "file/new"),
        (*AUDIT, "--predictions", "absent.parquet"), (*AUDIT, "--predictions", "file"),
        *each("--validation_fraction", FLOATS[1:], *AUDIT), *each("--split_seed", COUNTS[1:], *AUDIT),
        *each("--examples", COUNTS[1:], *AUDIT), *each("--processes", COUNTS, *AUDIT),
    ],
    "benchmark": [
        (), ("absent.yaml",), ("file",), ("empty",), ("tiny.yaml", "--no_such_field", "1"), ("tiny.yaml", "--against", "none"),
        ("tiny.yaml", "--output", "file/new"), ("tiny.yaml", "--output", "empty"), ("tiny.yaml", "--figure", "empty"),
        ("tiny.yaml", "--figure", "new.txt"), ("cnn.yaml", "--against", "stock"), ("tiny.yaml", "--epochs", "1"),
        *each("--epochs", COUNTS, "tiny.yaml", "--against", "stock"),
        *each("--clips", COUNTS, "tiny.yaml"), *each("--long_clips", COUNTS, "tiny.yaml"),
        *each("--repeats", COUNTS, "tiny.yaml"), *each("--processes", COUNTS, "tiny.yaml"),
    ],
    "compare": [(), ("absent",), ("empty",), ("file",), ("run", "--format", "none"), ("run", "--output_dir", "file")],
    "convert": [
        (), ("beats",), ("none", "file", "new"), ("beats", "absent.pt", "new"), ("beats", "file", "file"),
        ("beats", "file", "file/new"), ("beats", "file", "new"), ("passt", "file", "new"), ("mobilenet", "file", "new"),
        ("passt", "empty", "new"),
    ],
    "demo": [
        (), ("absent",), ("empty",), ("file",), ("run", "--device", "none"), ("run", "--export_space", "file"),
        ("run", "--export_space", "file/new"), ("run", "--export_space", "music"), *each("--port", (*COUNTS, "70000"), "run"),
    ],
    "doctor": [("--data_dir",), ("more",)],
    "download": [
        (), ("--data_dir", "file"), ("--data_dir", "file/new"), MUSIC, ("--data_dir", "absent", "--verify"),
        ("--data_dir", "file", "--verify"), ("--data_dir", "empty", "--verify"),
    ],
    "ensemble": [
        (), ("run",), ("run", "run"), ("run", "--output_dir", "new"), ("run", "run", "--output_dir", "new"),
        ("run", "absent", "--output_dir", "new"), ("run", "empty", "--output_dir", "file"), ("absent.yaml",), ("tiny.yaml",),
        ("run", "empty", "--output_dir", "file/new"), ("run", "run", "--output_dir", "new", "--method", "none"),
    ],
    "evaluate": [
        (), ("absent",), ("empty",), ("file",), ("run", "--data_dir", "file"), ("run", *MUSIC, "--output_dir", "file"),
        ("run", *MUSIC, "--output_dir", "file/new"), *each("--batch_size", (*COUNTS, "9" * 20), "run", *MUSIC),
    ],
    "export": [
        (), ("--data_dir", "absent", "--output_dir", "new"), ("--data_dir", "file", "--output_dir", "new"),
        ("--data_dir", "empty", "--output_dir", "new"), (*EXPORT, "file"), (*EXPORT, "file/new"), (*EXPORT, "music"),
    ],
    "models": [("more",), ("--none",)],
    "onnx": [
        (), ("run",), ("absent", "new"), ("empty", "new"), ("run", "file"), ("run", "file/new"),
        *each("--window_seconds", FLOATS, "run", "new"), *each("--batch_size", (*COUNTS, "9" * 20), "run", "new"),
    ],
    "predict": [
        (), ("run",), ("absent", "music"), ("empty", "music"), ("run", "absent.wav"), ("run", "empty"),
        *each("--output", ("file", "empty", "folder.csv", "file/new.csv"), "run", "music"),
        *each("--timeline", ("file", "file/new"), "run", "music"),
        *each("--timeline_table", ("file", "folder.csv", "file/new.csv"), "run", "music"),
        ("run", "music", "--device", "none"), ("run", "music", "--aggregation", "median"),
        *each("--threshold", ("-1", "2", "nan", "inf", "word"), "run", "music"),
        *each("--window_seconds", FLOATS, "run", "music"), *each("--hop_seconds", FLOATS, "run", "music"),
        *each("--batch_size", (*COUNTS, "9" * 20), "run", "music"),
    ],
    "segments": [
        (), ("run", "music"), ("absent", *SEGMENTS), ("empty", *SEGMENTS), ("run", "absent.wav", "--output_dir", "new"),
        ("run", "empty", "--output_dir", "new"), *each("--output_dir", ("file", "file/new", "music"), "run", "music"),
        ("run", *SEGMENTS, "--device", "none"), *each("--batch_size", (*COUNTS, "9" * 20), "run", *SEGMENTS),
        *each("--per_class", COUNTS, "run", *SEGMENTS), *each("--per_recording", COUNTS, "run", *SEGMENTS),
    ],
    "synthesize": [
        (), ("file",), ("file/new",), ("empty/..",), *each("--train", (*COUNTS, "9" * 20), "new"),
        *each("--test", (*COUNTS, "9" * 20), "new"), *each("--seed", COUNTS[1:], "new"),
    ],
}  # fmt: skip
CALLS = [(verb, *arguments) for verb, calls in WRONG.items() for arguments in [*calls, ("--no_such_flag",)]]


@pytest.fixture(scope="module")
def folder(sound, tmp_path_factory):  # noqa: F811
    """A working folder with a model, music, a recipe, a file and folders."""
    folder, before = tmp_path_factory.mktemp("verbs"), os.getcwd()
    (folder / "run").symlink_to(sound)
    synthesize(folder / "music", train=11, test=2)
    (folder / "file").write_text("hello\n")
    (folder / "tiny.yaml").write_text("architecture: ast\nuse_cpu: true\n")
    (folder / "cnn.yaml").write_text("architecture: cnn\nuse_cpu: true\n")
    for name in ("empty", "folder.csv"):
        (folder / name).mkdir()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def files_below(folder) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_every_verb_is_here():
    assert set(WRONG) == set(run_irmas.VERBS)


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_wrong_arguments_are_one_sentence(call, folder, capsys):
    before = files_below(folder)
    try:
        run_irmas.main(list(call))
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and str(error).endswith("."), error
    except SystemExit as error:  # argparse's: usage, and what is wrong with it
        assert error.code == 2
        assert f"irmas {call[0]}: error: " in capsys.readouterr().err.splitlines()[-1]
    else:
        pytest.fail("taken")
    assert files_below(folder) == before
