"""Exports are read by plain `datasets`, hold the very bytes, and come back as the folder that they were."""

import io
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile
from datasets import Audio, load_dataset
from huggingface_hub import DatasetCard

from irmas_dataset import describe, load_irmas, prepare
from irmas_dataset.audio import decode
from irmas_dataset.errors import UserError
from irmas_dataset.export.push import push
from irmas_dataset.export.stream import load_streamed
from irmas_dataset.export.unpack import LOCK, unpack
from irmas_dataset.export.write import export
from irmas_dataset.files import SYNTHETIC_MARKER
from tests.irmas_dataset.folders import TEST_FILES, TRAINING_FILES, write_audio, write_irmas


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def irmas(tmp_path):
    return write_irmas(tmp_path / "irmas")


@pytest.fixture
def exported(irmas, tmp_path, cache):
    """Return an export of small shards."""
    export(irmas, tmp_path / "export", cache_dir=cache, shard_bytes=40_000)
    return tmp_path / "export"


def relative(paths, root: Path) -> list[str]:
    return sorted(Path(path).relative_to(root).as_posix() for path in paths)


def test_plain_datasets_reads_it_in_another_process_and_place(exported, irmas, tmp_path):
    code = (
        "import sys, hashlib; from datasets import Audio, load_dataset;"
        "data = load_dataset(sys.argv[1], cache_dir='cache2');"
        "assert isinstance(data['train'].features['audio'], Audio), data['train'].features;"
        "rows = data['train'].cast_column('audio', Audio(decode=False));"
        "assert all(hashlib.md5(row['audio']['bytes']).hexdigest() == row['md5'] for row in rows);"
        "print(*(f'{name} {len(split)}' for name, split in data.items()))"
    )
    command = [sys.executable, "-c", code, str(exported)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"train {len(TRAINING_FILES)} test {len(TEST_FILES)}"


def test_the_columns_are_those_of_the_dataset(exported, irmas, cache):
    rows = load_dataset(str(exported), split="train").cast_column("audio", Audio(decode=False))
    ours = {row["path"]: row for split in ("train", "validation") for row in load_irmas(irmas, cache_dir=cache)[split]}
    assert rows.features["instruments"] == load_irmas(irmas, cache_dir=cache)["train"].features["instruments"]
    for row in rows:
        own = ours[str(irmas / row["path"])]
        for column in ("instruments", "recording", "song", "genre", "drums", "duration", "md5"):
            assert row[column] == own[column]
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32", always_2d=True)
        np.testing.assert_allclose(samples.mean(axis=1), decode(irmas / row["path"])[0], atol=1e-6)
        assert (rate, row["audio"]["path"]) == (44100, Path(row["path"]).name)


def test_shards_are_bounded_and_numbered(exported):
    shards = sorted((exported / "data").iterdir())
    of_train = [shard.name for shard in shards if shard.name.startswith("train")]
    assert len(of_train) > 2
    assert of_train == [f"train-{number:05d}-of-{len(of_train):05d}.parquet" for number in range(len(of_train))]
    for shard in shards:
        audio = pyarrow.parquet.read_table(shard, columns=["audio"])["audio"].to_pylist()
        assert sum(len(clip["bytes"]) for clip in audio) <= 40_000


def test_labels_alone(irmas, tmp_path, cache):
    assert export(irmas, tmp_path / "labels", metadata_only=True, cache_dir=cache) == {
        "train": len(TRAINING_FILES), "test": len(TEST_FILES),
    }  # fmt: skip
    data = load_dataset(str(tmp_path / "labels"))
    assert "audio" not in data["train"].column_names
    assert set(data["test"]["path"]) == {f"{name}.wav" for name in TEST_FILES}
    content = b"".join(path.read_bytes() for path in (tmp_path / "labels").rglob("*.parquet"))
    assert b"RIFF" not in content and str(tmp_path).encode() not in content
    with pytest.raises(UserError, match="it has labels but no audio"):
        load_irmas(tmp_path / "labels", cache_dir=cache)


def test_the_card(exported, irmas):
    card = DatasetCard.load(exported / "README.md")
    assert card.data.task_categories == ["audio-classification"]
    assert [file["split"] for file in card.data.to_dict()["configs"][0]["data_files"]] == ["train", "test"]
    assert card.data.license == "cc-by-nc-sa-3.0"  # its names are IRMAS's
    assert "may not be redistributed" in card.text
    assert f"| train | {len(TRAINING_FILES)} | 9 |" in card.text
    assert f"| test | {len(TEST_FILES)} | - | 3 |" in card.text
    assert "| cel (cello) | 5 | 1 |" in card.text


def test_the_card_of_partly_known_labels(tmp_path, cache):
    lines = ["path,instruments,unknown,split"]
    for number, split in enumerate(["train", "test"]):
        write_audio(tmp_path / f"own/{number}.wav", seed=number)
        lines.append(f'{number}.wav,"""kick|snare""",oud,{split}')
    (tmp_path / "own/labels.csv").write_text("\n".join(lines))
    export(tmp_path / "own", tmp_path / "export", cache_dir=cache)
    text = (tmp_path / "export/README.md").read_text()
    assert r"| kick\|snare | 1 | 1 |" in text and "\n- `unknown`: the classes" in text


def test_a_second_export_replaces_the_first_and_nothing_else(exported, irmas, tmp_path, cache):
    before = {path.name for path in (exported / "data").iterdir()}
    export(irmas, exported, cache_dir=cache)
    assert {path.name for path in (exported / "data").iterdir()} == {
        "train-00000-of-00001.parquet", "test-00000-of-00001.parquet",
    } != before  # fmt: skip
    (exported / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"contains notes\.txt, which is not part of an export"):
        export(irmas, exported, cache_dir=cache)
    assert (exported / "notes.txt").read_text() == "mine"


def test_damaged_files_are_left_out(irmas, tmp_path, cache):
    (irmas / "IRMAS-TrainingData" / TRAINING_FILES[0]).write_bytes(b"no audio")
    assert export(irmas, tmp_path / "export", cache_dir=cache)["train"] == len(TRAINING_FILES) - 1


def test_an_export_loads_as_the_folder_that_it_was(exported, irmas, cache):
    ours, theirs = load_irmas(irmas, cache_dir=cache), load_irmas(exported, cache_dir=cache)
    for split in ours:
        assert relative(theirs[split]["path"], exported) == relative(ours[split]["path"], irmas)
        assert sorted(theirs[split]["md5"]) == sorted(ours[split]["md5"])
    assert theirs["test"].features == ours["test"].features
    assert theirs["test"]["instruments"][:] == ours["test"]["instruments"][:]
    assert len(prepare(theirs["test"], 16000, num_proc=1)) == len(TEST_FILES)


def test_clips_of_one_name_in_subfolders_of_irmas_stay_apart(tmp_path, cache):
    root, part = tmp_path / "irmas", "IRMAS-TestingData-Part1/Part1"
    published = "IRMAS-TrainingData/{}008__[cel][nod][cla]0058__1.wav"
    names = [f"IRMAS-TrainingData/{code}/disc{disc}/take{take}.wav"
             for code in ("cel", "flu") for disc in (1, 2) for take in range(3)]  # fmt: skip
    names += [f"{part}/disc{disc}/song-1.wav" for disc in (1, 2)]
    for seed, name in enumerate([*names, published.format("cel/mine/")]):
        path = write_audio(root / name, seed)
        if name.startswith(part):
            path.with_suffix(".txt").write_text("cel")
    export(root, tmp_path / "export", cache_dir=cache)
    ours, theirs = load_irmas(root, cache_dir=cache), load_irmas(tmp_path / "export", cache_dir=cache)
    for split in ours:
        columns = ["instruments", "recording", "song", "md5"]
        wanted, got = (data[split].select_columns(columns).sort("md5") for data in (ours, theirs))
        assert wanted[:] == got[:]
    assert ours["test"]["song"][:] == ["1/disc1/song", "1/disc2/song"]
    found = {path.relative_to(tmp_path / "export").as_posix() for path in (tmp_path / "export").rglob("*.wav")}
    assert found == {*names, published.format("cel/")}


def test_it_is_unpacked_once_even_by_several_at_once(exported):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(unpack, [exported] * 4))
    files = {path: path.stat().st_mtime_ns for path in exported.rglob("*.wav")}
    unpack(exported)
    assert files == {path: path.stat().st_mtime_ns for path in exported.rglob("*.wav")}
    assert len(files) + 1 == len(TRAINING_FILES) + len(TEST_FILES)  # one is called .WAV
    (exported / "UNPACKED").unlink()  # an interrupted one is completed
    next(iter(files)).unlink()
    unpack(exported)
    assert all(path.exists() for path in files)


def test_what_a_newer_export_no_longer_has_is_not_read(irmas, exported, tmp_path, cache):
    load_irmas(exported, cache_dir=cache)
    shutil.copytree(irmas, tmp_path / "newer")
    gone = next((tmp_path / "newer/IRMAS-TrainingData/cel").iterdir())
    gone.unlink()
    export(tmp_path / "newer", tmp_path / "again", cache_dir=cache)
    shutil.rmtree(exported / "data")
    shutil.copytree(tmp_path / "again", exported, dirs_exist_ok=True)
    paths = {Path(path).name for split in load_irmas(exported, cache_dir=cache).values() for path in split["path"]}
    assert gone.name not in paths and len(paths) == len(TRAINING_FILES) + len(TEST_FILES) - 2


def test_an_unpacked_export_is_read_without_writing(exported):
    unpack(exported)
    (exported / LOCK).unlink(missing_ok=True)
    (exported / LOCK).mkdir()  # nobody can lock it, as in a folder that may not be written
    unpack(exported)


def test_a_folder_of_ones_own_comes_back_with_its_recordings(tmp_path, cache):
    own = tmp_path / "own"
    lines = ["path,instruments,recording"]
    for number in range(8):
        write_audio(own / f"train/{number}.wav", seed=number)
        lines.append(f"train/{number}.wav,{'kora;voice' if number % 2 else 'oud'},take {number // 2}")
    (own / "labels.csv").write_text("\n".join(lines))
    (own / SYNTHETIC_MARKER).write_text("")
    export(own, tmp_path / "export", cache_dir=cache)
    ours, theirs = load_irmas(own, cache_dir=cache), load_irmas(tmp_path / "export", cache_dir=cache)
    for split in ours:
        assert theirs[split].sort("md5").remove_columns("path")[:] == ours[split].sort("md5").remove_columns("path")[:]
    assert theirs["test"].info.description == "synthetic folder export"
    assert describe(ours)["synthetic"] and describe(theirs)["synthetic"]
    assert "Synthesised music" in (tmp_path / "export/README.md").read_text()
    assert DatasetCard.load(tmp_path / "export" / "README.md").data.license is None


def test_a_pattern_of_recordings_is_asked_of_what_has_none_yet(exported, irmas, cache):
    for load in (load_irmas, load_streamed):
        with pytest.raises(UserError, match=r"--recording_pattern: .*export is an export, .*give it to `irmas export`"):
            load(str(exported), recording_pattern="take.*", cache_dir=cache)
    with pytest.raises(UserError, match="--recording_pattern is of no use for IRMAS"):
        load_irmas(irmas, recording_pattern="take.*", cache_dir=cache)


def test_a_folder_is_not_synthetic_by_its_name(tmp_path, cache):
    own = tmp_path / "no synthetic music"
    for number in range(8):
        write_audio(own / f"train/{'kora' if number % 2 else 'oud'}/{number}.wav", seed=number)
    export(own, tmp_path / "export", cache_dir=cache)
    assert "Synthesised" not in (tmp_path / "export/README.md").read_text()
    assert not (tmp_path / "export" / SYNTHETIC_MARKER).exists()
    assert not describe(load_irmas(tmp_path / "export", cache_dir=cache))["synthetic"]


def test_a_path_that_leads_out_is_refused(exported, tmp_path):
    shard = next((exported / "data").glob("train-00000*"))
    table = pyarrow.parquet.read_table(shard)
    paths = pa.array(["../../stolen.wav", *table["path"].to_pylist()[1:]])
    table = table.set_column(table.schema.get_field_index("path"), "path", paths)
    pyarrow.parquet.write_table(table, shard)
    with pytest.raises(UserError, match=r"stolen\.wav, which is outside the folder"):
        unpack(exported)
    assert not list(tmp_path.parent.glob("**/stolen.wav"))


def test_tables_that_export_did_not_write_are_refused(exported, cache):
    shard = next((exported / "data").glob("train-00000*"))
    table = pyarrow.parquet.read_table(shard)
    pyarrow.parquet.write_table(table.replace_schema_metadata(None), shard)
    with pytest.raises(UserError, match="cannot be unpacked: its tables were not written by `export`"):
        load_irmas(exported, cache_dir=cache)


def test_classes_are_mixed_in_every_shard(tmp_path, cache):
    for number in range(120):
        write_audio(tmp_path / "own/train" / ("kora" if number < 60 else "oud") / f"{number}.wav", number, seconds=0.01)
    export(tmp_path / "own", tmp_path / "export", shard_bytes=40_000, cache_dir=cache)
    first = next((tmp_path / "export/data").glob("train-00000*"))
    labels = [label for [label] in pyarrow.parquet.read_table(first)["instruments"].to_pylist()]
    assert 0.2 < np.mean(labels) < 0.8


@pytest.fixture
def hub(monkeypatch):
    """Return what would be sent to the Hub; its answers alone are made up."""
    calls = {"is_private": True}

    def create(self, repo_id, **options):
        calls["create"] = options
        return huggingface_hub.RepoUrl(f"https://huggingface.co/datasets/someone/{repo_id.split('/')[-1]}")

    def info(self, repo_id, **options):
        return huggingface_hub.hf_api.DatasetInfo(id=repo_id, private=calls["is_private"], tags=[])

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", info)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", lambda self, **options: calls.update(upload=options))
    return calls


def test_a_push_is_private_and_sends_tables_and_card_alone(exported, hub):
    unpack(exported)
    address = push(exported, "someone/irmas")
    assert address == "https://huggingface.co/datasets/someone/irmas"
    assert hub["create"]["private"] is True and hub["create"]["repo_type"] == "dataset"
    files = [path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()]
    sent = set(huggingface_hub.utils.filter_repo_objects(files, allow_patterns=hub["upload"]["allow_patterns"]))
    assert sent == {"README.md", *(name for name in files if name.startswith("data/"))}


def test_a_push_is_public_only_by_the_flag(exported, hub):
    push(exported, "irmas", public=True)
    assert hub["create"]["private"] is False


def test_nothing_is_pushed_to_a_repository_that_is_public_already(exported, hub):
    hub["is_private"] = False
    with pytest.raises(UserError, match="is a public repository"):
        push(exported, "irmas")
    assert "upload" not in hub


def test_a_repository_name_that_is_not_valid_is_one_sentence(exported):
    with pytest.raises(UserError, match="--push_to_hub: 'a b/c' is not a repository name"):
        push(exported, "a b/c")


def test_features_are_stored_in_every_shard(exported):
    for shard in (exported / "data").iterdir():
        stored = json.loads(pyarrow.parquet.read_schema(shard).metadata[b"huggingface"])["info"]["features"]
        assert stored["audio"]["_type"] == "Audio"
        assert stored["instruments"]["feature"]["_type"] == "ClassLabel"


def test_an_export_is_neither_exported_again_nor_written_over_once_it_is_unpacked(exported, irmas, tmp_path, cache):
    with pytest.raises(UserError, match="is already an export"):
        export(exported, tmp_path / "again", cache_dir=cache)
    unpack(exported)
    with pytest.raises(UserError, match="is an export that was unpacked"):
        export(irmas, exported, cache_dir=cache)
