"""A streamed export gives the splits of the prepared one, from a folder and from a server, and stores no training audio."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from irmas_dataset import describe, load_irmas, prepare
from irmas_dataset.errors import UserError
from irmas_dataset.export import tables
from irmas_dataset.export.stream import files_folder, load_streamed
from irmas_dataset.export.tables import address, read_audio
from irmas_dataset.export.write import export
from irmas_dataset.files import SYNTHETIC_MARKER
from irmas_dataset.forms.flags import Columns
from tests.irmas_dataset.folders import TEST_FILES, TRAINING_FILES, write_audio, write_irmas
from tests.irmas_dataset.form_folders import CLASSES, parquet_folder
from tests.irmas_dataset.range_server import serve_folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def exported(tmp_path, cache):
    """Return an export of small shards and row groups."""
    export(write_irmas(tmp_path / "irmas"), tmp_path / "export", shard_bytes=40_000)
    return tmp_path / "export"


def same_splits(streamed, prepared, export_folder: Path, location: str) -> None:
    """Check that two DatasetDicts hold the same clips with the same columns, whatever folder they lie in."""
    folders = {id(streamed): files_folder(location), id(prepared): export_folder}
    assert describe(streamed) | {"name": ""} == describe(prepared) | {"name": ""}
    for name in ("train", "validation", "test"):
        rows = [
            sorted(
                (Path(row["path"]).relative_to(folders[id(data)]).as_posix(), row["instruments"], row["recording"],
                 row["song"], row["md5"], row["duration"])
                for row in data[name]
            )
            for data in (streamed, prepared)
        ]  # fmt: skip
        assert rows[0] == rows[1] and rows[0]


def test_the_splits_are_those_of_the_prepared_export(exported):
    streamed = load_streamed(str(exported), validation_fraction=0.3)
    assert not any(Path(path).exists() for path in streamed["train"]["path"])
    same_splits(streamed, load_irmas(exported, validation_fraction=0.3), exported, str(exported))
    lengths = [len(waveform) for waveform in prepare(streamed["test"], 16_000, num_proc=1)["waveform"]]
    assert lengths == [800] * len(TEST_FILES)
    assert describe(streamed)["name"].startswith("incomplete IRMAS") or "IRMAS-shaped" in describe(streamed)["name"]


def with_a_clip_of_nothing(root: Path) -> Path:
    """Write 0/1 columns, with a clip that has none of the classes."""
    shard = next((parquet_folder(root, "flags") / "data").glob("train-00000*"))
    table = pyarrow.parquet.read_table(shard)
    for name in CLASSES:
        column = pa.array([0, *table[name].to_pylist()[1:]], pa.int8())
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pyarrow.parquet.write_table(table, shard)
    return root


def with_a_recording_named_as_a_class(root: Path) -> Path:
    for number in range(12):
        name = f"train/{'oud' if number % 2 else 'kora'}/{['oud', 'solo', 'duo'][number % 3]}{number}.wav"
        write_audio(root / name, seed=number)
    return root


def with_classes_that_differ_in_capitals(root: Path) -> Path:
    parquet_folder(root, "ids")
    names = {"Oud": CLASSES[0], "oud": CLASSES[1], "kora": CLASSES[2]}
    for shard in (root / "data").iterdir():
        table = pyarrow.parquet.read_table(shard)
        stored = table.schema.metadata[b"huggingface"].decode()
        stored = stored.replace(json.dumps(list(CLASSES)), json.dumps(list(names)))
        pyarrow.parquet.write_table(table.replace_schema_metadata({b"huggingface": stored}), shard)
    return root


@pytest.mark.parametrize(
    "write",
    [with_a_clip_of_nothing, with_a_recording_named_as_a_class, with_classes_that_differ_in_capitals],
)
def test_an_export_loads_and_streams_as_the_data_that_it_was(tmp_path, cache, write):
    source, options = write(tmp_path / "source"), {"recording_pattern": r"([a-z]+)\d+\.wav"}
    if write is with_a_clip_of_nothing:
        options["columns"] = Columns(label_column=",".join(CLASSES))
    export(source, tmp_path / "export", **options)
    ours, theirs = load_irmas(source, **options), load_irmas(tmp_path / "export")
    for split in ours:
        columns = ["instruments", "recording", "song", "md5"]
        wanted, got = (data[split].select_columns(columns).sort("md5") for data in (ours, theirs))
        assert wanted.features == got.features and wanted[:] == got[:]
    same_splits(load_streamed(str(tmp_path / "export")), theirs, tmp_path / "export", str(tmp_path / "export"))


def test_half_a_line_of_a_start_that_was_killed_is_passed_over(exported):
    load_streamed(str(exported))
    log = files_folder(str(exported)) / "fetched.txt"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:-1]) + lines[-1][:7])
    assert all(Path(path).is_file() for path in load_streamed(str(exported))["test"]["path"])


def test_a_server_gives_what_the_folder_gives(exported):
    with serve_folder(exported) as server:
        streamed = load_streamed(server.url + "/", validation_fraction=0.3)
        same_splits(streamed, load_irmas(exported, validation_fraction=0.3), exported, server.url)
        requests = len(server.sent)
        load_streamed(server.url, validation_fraction=0.3)
        assert len(server.sent) - requests <= 6, "the second start reads neither rows nor audio again, only schemas"


def test_a_server_that_stumbles_is_asked_again(exported, monkeypatch):
    monkeypatch.setattr(tables, "FIRST_PAUSE_SECONDS", 0.01)
    with serve_folder(exported) as server:
        train = load_streamed(server.url)["train"]
        server.stumbles = 2
        place = train[0]
        [content] = read_audio(place["shard"], place["row_group"], [place["row"]])
        assert content.startswith(b"RIFF") and server.stumbles == 0
        server.stumbles = 100
        with pytest.raises(UserError, match=r"parquet cannot be read: .*503.* Run the same command again to resume"):
            read_audio(place["shard"], place["row_group"], [place["row"]])


def test_recordings_that_the_test_set_has_stay_out_and_corrections_count(exported, tmp_path, caplog):
    copy = next(name for name in TRAINING_FILES if name.startswith("cel/008"))
    test = next(iter(TEST_FILES))
    (tmp_path / "irmas" / f"{test}.wav").write_bytes((tmp_path / "irmas/IRMAS-TrainingData" / copy).read_bytes())
    export(tmp_path / "irmas", exported)
    (tmp_path / "fixes.csv").write_text("path,instruments,drop\nIRMAS-TrainingData/gel/[gel][lat_sou]0979__1.wav,gac;voi,\n"
                                        "IRMAS-TrainingData/voi/[voi][cou_fol]2431__1.WAV,,yes\n")  # fmt: skip
    options = {"validation_fraction": 0, "corrections": tmp_path / "fixes.csv"}
    streamed = load_streamed(str(exported), **options)
    assert "belong to recordings that are also in the test set" in caplog.text
    names = {Path(row["path"]).name: row["instruments"] for row in streamed["train"]}
    assert len(names) == len(TRAINING_FILES) - 3 - 1 and not any("0058" in name for name in names)
    assert len(names["[gel][lat_sou]0979__1.wav"]) == 2
    prepared = load_irmas(exported, **options)
    assert sorted(prepared["train"]["md5"]) == sorted(streamed["train"]["md5"])


def test_a_folder_of_ones_own_without_a_test_set(tmp_path, cache):
    own = tmp_path / "own"
    for number in range(24):
        write_audio(own / f"train/{'kora' if number % 2 else 'oud'}/take{number // 4}-{number}.wav", seed=number)
    (own / SYNTHETIC_MARKER).write_text("")
    export(own, tmp_path / "export", recording_pattern="take[0-9]+")
    streamed = load_streamed(str(tmp_path / "export"), validation_fraction=0.3)
    same_splits(streamed, load_irmas(tmp_path / "export", validation_fraction=0.3), tmp_path / "export",
                str(tmp_path / "export"))  # fmt: skip
    assert describe(streamed)["name"] == "synthetic folder export" and describe(streamed)["synthetic"]
    assert describe(streamed)["test_is_held_out"]


def test_validation_lies_together_and_little_is_transferred_for_it(tmp_path, cache):
    for number in range(60):
        write_audio(tmp_path / f"own/train/{'ab'[number % 2]}/{number}.wav", seed=number, seconds=1.0)
    for number in range(2):
        write_audio(tmp_path / f"own/test/{'ab'[number]}/{number}.wav", seed=100 + number)
    export(tmp_path / "own", tmp_path / "export", shard_bytes=900_000)
    with serve_folder(tmp_path / "export") as server:
        streamed = load_streamed(server.url)
        whole = sum(path.stat().st_size for path in (tmp_path / "export").rglob("*.parquet"))
        assert len(streamed["validation"]) == 8 and sum(server.sent) < 0.4 * whole


def test_a_changed_export_is_read_anew(exported, tmp_path):
    before = load_streamed(str(exported))
    (tmp_path / "irmas/IRMAS-TrainingData" / TRAINING_FILES[3]).unlink()
    write_audio(tmp_path / "irmas" / f"{next(iter(TEST_FILES))}.wav", seed=77)
    export(tmp_path / "irmas", exported)
    after = load_streamed(str(exported))
    assert len(before["train"]) + len(before["validation"]) == len(after["train"]) + len(after["validation"]) + 1
    assert sorted(before["test"]["md5"]) != sorted(after["test"]["md5"])
    assert all(hashlib.md5(Path(row["path"]).read_bytes()).hexdigest() == row["md5"] for row in after["test"])


@pytest.mark.parametrize("location", ["{}/nowhere", "{}", "http://127.0.0.1:9/served", "someone/irmas"])
def test_a_location_that_is_no_export(tmp_path, cache, monkeypatch, location):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"--data_dir .* cannot be (streamed|read)|neither a folder"):
        load_streamed(location.format(tmp_path))


def test_labels_without_audio(tmp_path, cache):
    export(write_irmas(tmp_path / "irmas"), tmp_path / "labels", metadata_only=True)
    with pytest.raises(UserError, match="it has labels but no audio"):
        load_streamed(str(tmp_path / "labels"))


def test_a_path_that_leads_out_is_refused(exported, tmp_path):
    shard = next((exported / "data").glob("test-00000*"))
    table = pyarrow.parquet.read_table(shard)
    paths = pa.array(["../../stolen.wav", *table["path"].to_pylist()[1:]])
    pyarrow.parquet.write_table(table.set_column(table.schema.get_field_index("path"), "path", paths), shard)
    with pytest.raises(UserError, match=r"stolen\.wav, which is outside the folder"):
        load_streamed(str(exported))
    assert not list(tmp_path.glob("**/stolen.wav"))


def test_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert address("someone/irmas") == "hf://datasets/someone/irmas"
    Path("someone/irmas").mkdir(parents=True)
    assert address("someone/irmas") == str(tmp_path / "someone/irmas")
    assert address("https://example.org/irmas/") == "https://example.org/irmas"
