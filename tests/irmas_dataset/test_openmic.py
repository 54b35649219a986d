"""OpenMIC-2018 in its published layout: labels with their mask, the official split, artists apart, and the download."""

import hashlib
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from irmas_dataset import describe, load_irmas
from irmas_dataset.errors import UserError
from irmas_dataset.export.write import export
from irmas_dataset.labels import audioset_name
from irmas_dataset.openmic import CLASSES, list_openmic, read_keys
from irmas_dataset.openmic_download import ARCHIVE, download_openmic
from irmas_dataset.synthetic_openmic import synthesize_openmic
from irmas_recipe.models.audioset import audioset_labels
from irmas_recipe.training.clips import multi_hot
from tests.irmas_dataset.range_server import serve_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openmic")
    synthesize_openmic(folder, train=40, test=10, seconds=0.3)
    return folder


@pytest.fixture
def openmic(made, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return Path(shutil.copytree(made, tmp_path / "data"))


def test_labels_are_present_absent_or_unknown_as_the_mask_says(openmic):
    splits = load_irmas(openmic)
    with np.load(openmic / "openmic-2018/openmic-2018.npz", allow_pickle=True) as arrays:
        keys, relevance, judged = arrays["sample_key"].tolist(), arrays["Y_true"], arrays["Y_mask"]
    for split in splits.values():
        rows = [keys.index(Path(path).stem) for path in split["path"]]
        expected = np.where(judged[rows], relevance[rows] >= 0.5, -1)
        assert np.array_equal(multi_hot(split), expected)
    assert splits["test"].features["instruments"].feature.names == list(CLASSES)
    assert describe(splits)["name"] == "synthetic, OpenMIC-shaped"


def test_the_split_is_the_official_one_and_validation_is_of_other_artists(openmic):
    splits = load_irmas(openmic, validation_fraction=0.3)
    for name, sides in (("train", ("train", "validation")), ("test", ("test",))):
        keys = (openmic / f"openmic-2018/partitions/split01_{name}.csv").read_text().split()
        assert sorted(Path(path).stem for side in sides for path in splits[side]["path"]) == sorted(keys)
    train, validation = set(splits["train"]["recording"]), set(splits["validation"]["recording"])
    assert train and validation and not train & validation
    assert all(recording.startswith("artist ") for recording in train | validation)
    assert splits["test"]["song"] == [f"track {Path(path).stem.split('_')[0]}" for path in splits["test"]["path"]]


def test_without_the_marker_it_is_a_part_of_the_real_one_and_missing_files_are_named(openmic, caplog):
    (openmic / "openmic-2018/SYNTHETIC").unlink()
    path = next((openmic / "openmic-2018/audio/000").iterdir())
    path.unlink()
    (openmic / "openmic-2018/openmic-2018-metadata.csv").unlink()
    splits = load_irmas(openmic / "openmic-2018")
    assert describe(splits)["name"] == "incomplete OpenMIC-2018 (49 of 20,000 clips)"
    assert f"{path} is missing and will be skipped" in caplog.text
    assert all(recording.startswith("track ") for recording in splits["train"]["recording"])


def test_the_pickled_keys_are_read_without_running_code(openmic, tmp_path):
    path = openmic / "openmic-2018/openmic-2018.npz"
    assert read_keys(path)[0] == "000000_0"

    class Harm:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'harmed'}",)

    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    head = members["sample_key.npy"][: members["sample_key.npy"].index(b"\n") + 1]
    members["sample_key.npy"] = head + pickle.dumps([Harm()])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match=r"openmic-2018\.npz is damaged \(it names posix\.system"):
        list_openmic(openmic)
    assert not (tmp_path / "harmed").exists()


def test_keys_that_are_plain_text_are_read_too(tmp_path):
    np.savez(tmp_path / "a.npz", sample_key=np.array(["000046_3840", "1_2"]))
    assert read_keys(tmp_path / "a.npz") == ["000046_3840", "1_2"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("openmic-2018.npz", b"PK", "is damaged"),
        ("class-map.json", b"[1]", "cannot be read"),
        ("class-map.json", b'{"a": 0, "b": 2}', "does not number its classes"),
        ("class-map.json", b'{"a": 0, "b": 1}', "do not fit the 2 classes"),
        ("partitions/split01_test.csv", b"999999_0\n", "names 999999_0, which openmic-2018.npz does not have"),
    ],
)
def test_a_damaged_file_is_named_in_a_sentence(openmic, name, content, sentence):
    (openmic / "openmic-2018" / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        list_openmic(openmic)


def test_an_export_keeps_what_is_unknown(openmic, tmp_path):
    export(openmic, tmp_path / "export")
    before, after = (load_irmas(folder, validation_fraction=0.3) for folder in (openmic, tmp_path / "export"))
    for name in ("train", "validation", "test"):
        rows = [
            {md5: sorted(zip(split.features["instruments"].feature.names, labels, strict=True))
             for md5, labels in zip(split["md5"], multi_hot(split).tolist(), strict=True)}
            for split in (before[name], after[name])
        ]  # fmt: skip
        for md5, labels in rows[1].items():
            assert set(labels) <= set(rows[0][md5])
        assert rows[0].keys() == rows[1].keys()


def test_every_class_has_a_row_in_audiosets_head():
    names = {name for _, name in audioset_labels()}
    assert {audioset_name(label) for label in CLASSES} <= names
    assert audioset_name("mallet_percussion") == "Mallet percussion" and audioset_name("violin") == "Violin, fiddle"


@pytest.fixture
def record(openmic, tmp_path):
    """Return a folder to serve, with the archive, and the archive's MD5."""
    (tmp_path / "record").mkdir()
    archive = tmp_path / "record" / ARCHIVE
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(openmic / "openmic-2018", "openmic-2018")
    return archive, hashlib.md5(archive.read_bytes()).hexdigest()


def test_the_archive_is_fetched_verified_and_extracted_once(record, tmp_path):
    archive, md5 = record
    with serve_folder(archive.parent) as server:
        options = {"base_url": server.url, "md5": md5, "size_bytes": archive.stat().st_size}
        download_openmic(tmp_path / "new", **options)
        assert len(list_openmic(tmp_path / "new").clips) == 50
        requests = len(server.sent)
        download_openmic(tmp_path / "new", **options)
        assert len(server.sent) == requests and not list((tmp_path / "new").glob("*.part"))
        with pytest.raises(UserError, match="is not the published file"):
            download_openmic(tmp_path / "other", **options | {"md5": "0" * 32})
    assert not (tmp_path / "other/openmic-2018").exists()


def test_an_archive_in_the_folder_is_used_and_nothing_leaves_it(record, tmp_path):
    archive, md5 = record
    (tmp_path / "new").mkdir()
    shutil.copy(archive, tmp_path / "new")
    download_openmic(tmp_path / "new", base_url="http://127.0.0.1:9", md5=md5, size_bytes=archive.stat().st_size)
    assert (tmp_path / "new" / ARCHIVE).exists() and len(list_openmic(tmp_path / "new").clips) == 50
    (tmp_path / "evil").mkdir()
    with tarfile.open(tmp_path / "evil" / ARCHIVE, "w:gz") as opened:
        opened.add(archive, "../stolen")
    content = (tmp_path / "evil" / ARCHIVE).read_bytes()
    with pytest.raises(UserError, match="cannot be extracted"):
        download_openmic(tmp_path / "evil", md5=hashlib.md5(content).hexdigest(), size_bytes=len(content))
    assert not (tmp_path / "stolen").exists()
