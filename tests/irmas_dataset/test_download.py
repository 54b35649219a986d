"""The download, against a local server that breaks off, lies, refuses and is slow."""

import io
import os
import shutil
import stat
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections import Counter, namedtuple
from pathlib import Path

import huggingface_hub
import pytest

from irmas_dataset import download as module
from irmas_dataset.download import ARCHIVES, download, ensure_irmas, is_complete
from irmas_dataset.errors import UserError
from irmas_dataset.files import SYNTHETIC_MARKER, load_index
from tests.irmas_dataset.record_server import CLIPS, PARTS, ZIPS, archive_of, contents_of, irmas_zip, serve, zip_bytes

TRAINING, TEST = PARTS


@pytest.fixture
def record():
    with serve(dict(ZIPS)) as record:
        yield record


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.005)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {module.LOCK}


def assert_whole(folder: Path, parts=PARTS):
    names = {name for part in parts for name in CLIPS[part.folder]}
    assert files_below(folder) == names | {name.replace(".wav", ".txt") for name in names if "Testing" in name}
    assert all((folder / name).read_bytes() == contents_of(name) for name in names)


def test_archives_are_those_of_the_record_and_count_the_index():
    clips = Counter(name.split("/")[0] for name in load_index())
    assert {archive.folder: archive.clips for archive in ARCHIVES} == clips
    assert [archive.md5 for archive in ARCHIVES] == [
        "4fd9f5ed5a18d8e2687e6360b5f60afe",
        "5a2e65520dcedada565dff2050bb2a56",
        "afb0c8ea92f34ee653693106be95c895",
        "9b3fb2d0c89cdc98037121c25bd5b556",
    ]


def test_download_fetches_and_extracts_once(record, tmp_path):
    download(tmp_path / "irmas", parts=PARTS, base_url=record.url + "/")
    assert_whole(tmp_path / "irmas")
    download(tmp_path / "irmas", parts=PARTS, base_url=record.url)
    assert record.requests == [(part.zip_name, 0) for part in PARTS]


def test_broken_transfers_are_resumed_where_they_stopped(record, tmp_path):
    record.breaks_after = [16_384, 40_000, 0, 30_000]
    download(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert_whole(tmp_path, (TRAINING,))
    assert [first for _, first in record.requests] == [0, 16_384, 49_152, 49_152, 65_536]


@pytest.fixture
def online(monkeypatch, tmp_path):
    """Work in a folder of its own, where the Hub's offline mode, which all tests run in, is off."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def test_interrupted_download_is_resumed_by_the_next_call(record, tmp_path, online):
    record.breaks_after = [49_152] + [0] * module.TRIES
    with pytest.raises(UserError, match="run the same command again to resume"):
        download(tmp_path, parts=PARTS, base_url=record.url)
    assert files_below(tmp_path) == {TRAINING.part_name, TEST.part_name}
    assert (tmp_path / TRAINING.part_name).stat().st_size == 49_152
    record.breaks_after.clear()
    ensure_irmas(tmp_path, parts=PARTS, base_url=record.url)
    assert_whole(tmp_path)
    assert record.requests[-2:] == [(TRAINING.zip_name, 49_152), (TEST.zip_name, 0)]


def test_server_that_refuses_ranges_starts_anew(record, tmp_path):
    record.honours_ranges = False
    record.breaks_after = [20_000]
    download(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert_whole(tmp_path, (TRAINING,))


def test_server_that_refuses_ranges_and_always_breaks_is_given_up(record, tmp_path):
    record.honours_ranges = False
    record.breaks_after = [20_000] * 50
    with pytest.raises(UserError, match="connection was interrupted"):
        download(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert len(record.requests) == module.TRIES + 1


def test_whole_part_file_is_used(record, tmp_path):
    (tmp_path / TRAINING.part_name).write_bytes(ZIPS[TRAINING.zip_name])
    download(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert_whole(tmp_path, (TRAINING,))


def test_damaged_part_file_is_discarded_and_the_next_call_succeeds(record, tmp_path, online):
    (tmp_path / TRAINING.part_name).write_bytes(b"something else")
    with pytest.raises(UserError, match="MD5 differs"):
        download(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert (tmp_path / TRAINING.part_name).stat().st_size == 0
    ensure_irmas(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert_whole(tmp_path, (TRAINING,))


def test_wrong_contents_are_refused_and_discarded(record, tmp_path):
    record.files[TRAINING.zip_name] = zip_bytes({"IRMAS-TrainingData/cel/a.wav": b"other"})
    with pytest.raises(UserError, match=f"{TRAINING.zip_name}.* MD5 differs"):
        download(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert files_below(tmp_path) == {TRAINING.part_name}
    assert (tmp_path / TRAINING.part_name).stat().st_size == 0


@pytest.mark.parametrize("extra_length, sentence", [(1000, "connection was interrupted"), (-1000, "MD5 differs")])
def test_server_that_lies_about_the_length(record, tmp_path, extra_length, sentence):
    record.extra_length = extra_length
    with pytest.raises(UserError, match=sentence):
        download(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert not is_complete(tmp_path, TRAINING) and not (tmp_path / TRAINING.zip_name).exists()


def test_passing_server_errors_are_waited_out(record, tmp_path):
    record.statuses = [500, 503, 429]
    download(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert_whole(tmp_path, (TRAINING,))


@pytest.mark.parametrize("status, requests", [(500, module.TRIES), (404, 1), (403, 1)])
def test_lasting_server_errors_are_one_sentence(record, tmp_path, status, requests):
    record.statuses = [status] * 50
    with pytest.raises(UserError, match=f"{TRAINING.zip_name}.*the server answers {status}"):
        download(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert len(record.requests) == requests


def test_slow_server_is_waited_for(record, tmp_path):
    record.seconds_per_piece = 0.01
    download(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert_whole(tmp_path, (TRAINING,))


def test_stalled_server_is_tried_again(record, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", (1, 0.05))
    record.seconds_per_piece = 0.2
    with pytest.raises(UserError, match="does not answer"):
        download(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert len(record.requests) == module.TRIES


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/files", "no-address"])
def test_unreachable_server_is_one_sentence(tmp_path, address):
    with pytest.raises(UserError, match=r"cannot be reached|not valid"):
        download(tmp_path, parts=(TRAINING,), base_url=address)


def test_zip_that_is_there_is_used_and_kept(record, tmp_path):
    (tmp_path / TRAINING.zip_name).write_bytes(ZIPS[TRAINING.zip_name])
    download(tmp_path, parts=PARTS, base_url=record.url)
    assert record.requests == [(TEST.zip_name, 0)]
    assert (tmp_path / TRAINING.zip_name).exists()
    assert all(is_complete(tmp_path, part) for part in PARTS)


def test_a_training_extracts_the_zips_of_a_folder_and_downloads_no_others(record, tmp_path):
    (tmp_path / TRAINING.zip_name).write_bytes(ZIPS[TRAINING.zip_name])
    ensure_irmas(tmp_path, parts=PARTS, base_url=record.url)
    assert record.requests == []
    assert is_complete(tmp_path, TRAINING) and not is_complete(tmp_path, TEST)


def test_zip_of_another_content_is_refused_and_kept(record, tmp_path):
    (tmp_path / TRAINING.zip_name).write_bytes(b"half a zip")
    with pytest.raises(UserError, match="not the published file"):
        ensure_irmas(tmp_path, parts=PARTS, base_url=record.url)
    assert (tmp_path / TRAINING.zip_name).read_bytes() == b"half a zip"
    assert record.requests == []


def test_ensure_leaves_ones_own_folders_alone(record, tmp_path):
    own, partial = tmp_path / "own", tmp_path / "partial"
    (own / "train" / "kazoo").mkdir(parents=True)
    (partial / "IRMAS-TrainingData" / "cel").mkdir(parents=True)
    for folder in (own, partial):
        before = sorted(folder.rglob("*"))
        ensure_irmas(folder, parts=PARTS, base_url=record.url)
        assert sorted(folder.rglob("*")) == before
    assert record.requests == []


@pytest.mark.parametrize("exists", [True, False])
def test_ensure_downloads_into_the_default_folder_where_it_is_empty(record, tmp_path, exists, caplog, online):
    folder = tmp_path / "data/irmas"
    if exists:
        folder.mkdir(parents=True)
    ensure_irmas("data/irmas", parts=PARTS, base_url=record.url)
    assert_whole(folder)
    assert "downloading IRMAS (about 12 GB" in caplog.text


def test_ensure_downloads_into_no_other_folder_and_names_the_nearest(record, tmp_path, online):
    (tmp_path / "data/irmas").mkdir(parents=True)
    with pytest.raises(UserError, match=r"--data_dir data/irmsa does not exist; did you mean data/irmas\?"):
        ensure_irmas("data/irmsa", parts=PARTS, base_url=record.url)
    (tmp_path / "empty").mkdir()
    Path("song.wav").touch()
    with pytest.raises(UserError, match=r"--data_dir song.wav is a file: give the folder"):
        ensure_irmas("song.wav")
    with pytest.raises(UserError, match="--data_dir empty is empty; `irmas download"):
        ensure_irmas("empty", parts=PARTS, base_url=record.url)
    assert record.requests == [] and not (tmp_path / "data/irmsa").exists()


@pytest.mark.parametrize("left", [[], [TRAINING.part_name]])
def test_ensure_downloads_nothing_while_offline(record, tmp_path, left, online, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in left:
        (tmp_path / "data/irmas").mkdir(parents=True)
        (tmp_path / "data/irmas" / name).touch()
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        ensure_irmas("data/irmas", parts=PARTS, base_url=record.url)
    assert record.requests == []


def test_read_only_copy_that_is_complete_is_not_touched(record, tmp_path):
    download(tmp_path, parts=PARTS, base_url=record.url)
    (tmp_path / module.LOCK).unlink(missing_ok=True)
    before = sorted(tmp_path.rglob("*"))
    download(tmp_path, parts=PARTS, base_url="http://127.0.0.1:9/files")
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_files_of_an_extracted_part_are_added_and_others_kept(record, tmp_path):
    download(tmp_path, parts=PARTS, base_url=record.url)
    first, second = (tmp_path / name for name in CLIPS[TEST.folder])
    first.unlink()
    second.with_suffix(".txt").unlink()
    second.write_bytes(b"edited")
    download(tmp_path, parts=PARTS, base_url=record.url)
    assert first.read_bytes() == contents_of(CLIPS[TEST.folder][0])
    assert second.read_bytes() == b"edited" and second.with_suffix(".txt").exists()


def test_missing_files_go_beside_those_of_an_inner_folder_without_its_outer_one(record, tmp_path):
    first, second = CLIPS[TEST.folder]
    inner = tmp_path / "IRTestingData-Part2"
    inner.mkdir()
    (inner / Path(first).name).write_bytes(b"mine")
    (inner / Path(first).name).with_suffix(".txt").write_text("sax\t\n")
    download(tmp_path, parts=(TEST,), base_url=record.url)
    names = {Path(name).stem + extension for name in (first, second) for extension in (".wav", ".txt")}
    assert files_below(tmp_path) == {f"IRTestingData-Part2/{name}" for name in names}
    assert (inner / Path(first).name).read_bytes() == b"mine"


def test_extraction_that_was_killed_is_started_anew(record, tmp_path):
    leftover = tmp_path / f".{TRAINING.folder}.unfinished" / "IRMAS-TrainingData" / "cel"
    leftover.mkdir(parents=True)
    (leftover / "half.wav").write_bytes(b"half")
    download(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert_whole(tmp_path, (TRAINING,))


def test_zip_without_the_outer_folder_is_put_into_it(tmp_path):
    contents = zip_bytes({"Part1/a-1.wav": b"1", "Part1/a-1.txt": b"sax\t\n", "__MACOSX/Part1/._a-1.wav": b"fork"})
    part = archive_of("IRMAS-TestingData-Part1", contents, clips=1)
    (tmp_path / part.zip_name).write_bytes(contents)
    download(tmp_path, parts=(part,))
    assert files_below(tmp_path / part.folder) == {"Part1/a-1.wav", "Part1/a-1.txt"}


SONG = "IRMAS-TestingData-Part1/Part1/01 - Canto das tre\u0302s rac\u0327as-10.wav"


@pytest.mark.parametrize("flag", ["UTF-8", "none", "code page 437"])
def test_names_that_are_not_ascii_survive(tmp_path, flag):
    name = SONG if flag != "code page 437" else SONG.replace("e\u0302", "ê").replace("c\u0327", "ç")
    encoded = name.encode("cp437" if flag == "code page 437" else "utf-8")
    stand_in = "x" * len(encoded)
    contents = zip_bytes({stand_in: b"audio", stand_in[:-3] + "txt": b"voi\t\n"}).replace(
        stand_in.encode(), encoded
    ).replace(stand_in[:-3].encode() + b"txt", encoded[:-3] + b"txt")  # fmt: skip
    if flag == "UTF-8":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as opened:
            opened.writestr(name, b"audio")
            opened.writestr(name[:-3] + "txt", b"voi\t\n")
        contents = buffer.getvalue()
    part = archive_of("IRMAS-TestingData-Part1", contents, clips=1)
    (tmp_path / part.zip_name).write_bytes(contents)
    download(tmp_path, parts=(part,))
    assert (tmp_path / name).read_bytes() == b"audio"
    assert (tmp_path / name).with_suffix(".txt").exists()


def test_spoiled_names_are_not_doubled_when_files_are_added(tmp_path):
    other = "IRMAS-TestingData-Part1/Part1/(02) dont kill the whale-1.wav"
    files = {name: b"audio" for name in (SONG, other)} | {name[:-3] + "txt": b"voi\t\n" for name in (SONG, other)}
    contents = zip_bytes(files)
    part = archive_of("IRMAS-TestingData-Part1", contents)
    spoiled = tmp_path / SONG.encode().decode("cp437")
    spoiled.parent.mkdir(parents=True)
    spoiled.write_bytes(b"mine")
    spoiled.with_suffix(".txt").write_bytes(b"voi\t\n")
    (tmp_path / part.zip_name).write_bytes(contents)
    download(tmp_path, parts=(part,))
    assert len(list(spoiled.parent.glob("*.wav"))) == len(list(spoiled.parent.glob("*.txt"))) == 2
    assert spoiled.read_bytes() == b"mine" and (tmp_path / other).exists()


def unsafe_zip(kind: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        names = {
            "escape": "../evil.wav",
            "absolute": "/tmp/evil.wav",
            "drive": "C:\\evil.wav",
            "backslash": "..\\evil.wav",
        }
        member = zipfile.ZipInfo("IRMAS-TrainingData/cel/a.wav")
        member.filename = names.get(kind, member.filename)
        if kind == "link":
            member.create_system = 3
            member.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(member, b"/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["escape", "absolute", "drive", "backslash", "link"])
def test_unsafe_archives_are_refused(tmp_path, kind):
    contents = unsafe_zip(kind)
    part = archive_of("IRMAS-TrainingData", contents, clips=1)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / part.zip_name).write_bytes(contents)
    with pytest.raises(UserError, match="not extracted"):
        download(folder, parts=(part,))
    assert files_below(tmp_path) - {f"data/{module.LOCK}"} == {f"data/{part.zip_name}"}


def test_zip_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_EXTRACTED_BYTES", 100_000)
    (tmp_path / TRAINING.zip_name).write_bytes(ZIPS[TRAINING.zip_name])
    with pytest.raises(UserError, match="far more than IRMAS"):
        download(tmp_path, parts=(TRAINING,))
    assert files_below(tmp_path) == {TRAINING.zip_name}


def zip_that_lies(declared_bytes: int, true_bytes: int, fits_checksum: bool) -> bytes:
    """Return a zip that declares a small wav, which unpacks to far more; its checksum can fit what it declares."""
    whole = bytes(true_bytes)
    contents = zip_bytes({"IRMAS-TrainingData/cel/a.wav": whole}).replace(
        struct.pack("<I", true_bytes), struct.pack("<I", declared_bytes)
    )
    if not fits_checksum:
        return contents
    return contents.replace(struct.pack("<I", zlib.crc32(whole)), struct.pack("<I", zlib.crc32(whole[:declared_bytes])))


@pytest.mark.parametrize("fits_checksum", [False, True])
def test_zips_that_lie_about_their_size_take_no_more_than_they_declare(tmp_path, fits_checksum):
    contents = zip_that_lies(1000, 30_000_000, fits_checksum)
    part = archive_of("IRMAS-TrainingData", contents, clips=1)
    (tmp_path / part.zip_name).write_bytes(contents)
    tracemalloc.start()
    if fits_checksum:
        download(tmp_path, parts=(part,))
    else:
        with pytest.raises(UserError, match="not a readable zip"):
            download(tmp_path, parts=(part,))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 5_000_000
    assert files_below(tmp_path) == {part.zip_name} | ({"IRMAS-TrainingData/cel/a.wav"} if fits_checksum else set())
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.wav")) <= 1000


@pytest.mark.parametrize("kind", ["bzip2", "lzma", "encrypted", "unknown coding"])
def test_zips_packed_in_another_way_are_refused(tmp_path, kind):
    coding = {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}.get(kind, zipfile.ZIP_STORED)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", coding) as opened:
        opened.writestr("IRMAS-TrainingData/cel/a.wav", bytes(30_000_000))  # a few kB in either coding
    contents = bytearray(buffer.getvalue())
    entry = contents.rindex(b"PK\1\2")  # in the archive's directory: signature, two versions, flags, coding
    contents[entry + 8] |= kind == "encrypted"
    contents[entry + 10] = 97 if kind == "unknown coding" else contents[entry + 10]
    part = archive_of("IRMAS-TrainingData", bytes(contents), clips=1)
    (tmp_path / part.zip_name).write_bytes(contents)
    with pytest.raises(UserError, match="encrypted or in an unusual format: not extracted"):
        download(tmp_path, parts=(part,))
    assert files_below(tmp_path) == {part.zip_name}


def test_broken_zip_is_one_sentence(tmp_path):
    contents = bytearray(irmas_zip("IRMAS-TrainingData"))
    contents[5000:5100] = bytes(100)
    part = archive_of("IRMAS-TrainingData", bytes(contents))
    (tmp_path / part.zip_name).write_bytes(contents)
    with pytest.raises(UserError, match="not a readable zip"):
        download(tmp_path, parts=(part,))
    assert files_below(tmp_path) == {part.zip_name}


@pytest.mark.parametrize("purpose", ["download", "extract"])
def test_small_disk_is_refused_before_anything_is_written(record, tmp_path, monkeypatch, purpose):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**6, 10**6 - 1000, 1000))
    if purpose == "extract":
        (tmp_path / TRAINING.zip_name).write_bytes(ZIPS[TRAINING.zip_name])
    with pytest.raises(UserError, match=f"GB free .* to {purpose} {TRAINING.zip_name}"):
        download(tmp_path, parts=(TRAINING,), base_url=record.url)
    assert not (tmp_path / TRAINING.folder).exists()
    assert not (tmp_path / f".{TRAINING.folder}.unfinished").exists()


DOWNLOAD_IN_PROCESS = """
import resource, sys
from irmas_dataset.download import download
from irmas_dataset.errors import UserError
from tests.irmas_dataset.record_server import PARTS
if int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    download(sys.argv[1], parts=PARTS, base_url=sys.argv[2])
except UserError as error:
    sys.exit(str(error))
"""


def start_download(folder: Path, url: str, max_file_bytes: int = 0) -> subprocess.Popen:
    command = [sys.executable, "-c", DOWNLOAD_IN_PROCESS, str(folder), url, str(max_file_bytes)]
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        command, cwd=root, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(root)}
    )


def test_disk_that_fills_up_on_the_way_is_one_sentence_and_can_be_resumed(record, tmp_path):
    process = start_download(tmp_path, record.url, max_file_bytes=40_000)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Cannot write IRMAS into" in errors and "Traceback" not in errors
    assert files_below(tmp_path) == {TRAINING.part_name, TEST.part_name}
    download(tmp_path, parts=PARTS, base_url=record.url)
    assert_whole(tmp_path)


def test_two_processes_at_once_download_once(record, tmp_path):
    record.seconds_per_piece = 0.02
    processes = [start_download(tmp_path, record.url) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert_whole(tmp_path)
    assert record.requests == [(part.zip_name, 0) for part in PARTS]


def test_synthetic_music_is_not_mixed_with_real(record, tmp_path):
    (tmp_path / SYNTHETIC_MARKER).write_text("{}")
    (tmp_path / "IRMAS-TrainingData").mkdir()
    with pytest.raises(UserError, match="synthetic"):
        download(tmp_path, parts=PARTS, base_url=record.url)
    ensure_irmas(tmp_path, parts=PARTS, base_url=record.url)
    assert record.requests == []


def test_folder_of_a_part_is_refused_as_data_dir(tmp_path):
    (tmp_path / "IRMAS-TrainingData").mkdir()
    with pytest.raises(UserError, match="give its parent folder"):
        download(tmp_path / "IRMAS-TrainingData", parts=PARTS)
