"""Decoding, resampling and the prepared waveforms, on real files."""

import pickle
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Dataset, concatenate_datasets

from irmas_dataset.audio import WaveformColumn, cut, decode, prepare, resample
from irmas_dataset.decoding import SILENCE, to_int16
from irmas_dataset.errors import UserError
from tests.irmas_dataset.folders import write_audio

SAMPLE = Path(__file__).parents[2].parent / "shared" / "audio" / "irmas_sample"
IRMAS_FRAMES = 132_299


def tone(seconds: float, sampling_rate: int, frequency: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * sampling_rate)) / sampling_rate)


def dataset_of(paths: list[Path], **columns: list) -> Dataset:
    return Dataset.from_dict({"path": [str(path) for path in paths], **columns})


@pytest.fixture
def on_disk(tmp_path):
    """Return a function that saves a dataset and loads it again, so that it has a cache."""

    def save_and_load(dataset: Dataset) -> Dataset:
        dataset.save_to_disk(tmp_path / "saved")
        return Dataset.load_from_disk(str(tmp_path / "saved"))

    return save_and_load


@pytest.mark.parametrize(
    "extension, subtype",
    [
        ("wav", "PCM_16"),
        ("wav", "PCM_24"),
        ("wav", "PCM_U8"),
        ("wav", "FLOAT"),
        ("flac", "PCM_16"),
        ("ogg", "VORBIS"),
        ("mp3", None),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_every_format_is_decoded_to_the_mean_of_its_channels(tmp_path, extension, subtype, channels):
    if extension == "mp3" and channels == 3:
        pytest.skip("mp3 has at most two channels")
    path = tmp_path / f"a.{extension}"
    gains = np.linspace(1.0, 0.5, channels)
    soundfile.write(path, tone(1.0, 44100)[:, None] * gains, 44100, subtype=subtype)
    waveform, sampling_rate = decode(path)
    assert (waveform.dtype, waveform.ndim, sampling_rate) == (np.float32, 1, 44100)
    tolerance = {"PCM_U8": 0.01, "VORBIS": 0.02, None: 0.02}.get(subtype, 1e-4)
    np.testing.assert_allclose(waveform[2000:40000], (tone(1.0, 44100) * gains.mean())[2000:40000], atol=tolerance)


def test_decoding_equals_soundfile_on_full_scale_samples(tmp_path):
    frames = np.array([[32767, 32767], [-32768, -32768], [32767, -32768], [1, 0]], dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", frames, 44100)
    expected, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    np.testing.assert_array_equal(decode(tmp_path / "a.wav")[0], expected.mean(axis=1))


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is an empty file"),
        (b"this is no sound", "cannot be read as audio"),
        (None, "There is no file"),
    ],
)
def test_an_unreadable_file_is_named_in_one_sentence(tmp_path, content, words):
    path = tmp_path / "bad.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as refused:
        decode(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_files_without_usable_samples_are_refused(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros((0, 2)), 44100)
    soundfile.write(tmp_path / "nan.wav", np.array([np.nan, 0.0]), 44100, subtype="FLOAT")
    with pytest.raises(UserError, match=r"empty\.wav has no audio samples: replace or remove it\.$"):
        decode(tmp_path / "empty.wav")
    with pytest.raises(UserError, match=r"nan\.wav contains NaN or infinite samples"):
        decode(tmp_path / "nan.wav")


def test_a_truncated_flac_is_refused(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 44100), 44100)
    path.write_bytes(path.read_bytes()[:30000])
    with pytest.raises(UserError, match=r"a\.flac cannot be read as audio \(.*flac.*\)"):
        decode(path)


def test_resampling_keeps_a_tone_and_removes_what_the_new_rate_cannot_hold():
    low, high = (
        resample(tone(1.0, 44100, frequency).astype(np.float32), 44100, 16000) for frequency in (440.0, 12000.0)
    )
    np.testing.assert_allclose(low[500:-500], tone(1.0, 16000)[500:-500], atol=1e-3)
    assert np.abs(high[500:-500]).max() < 1e-3
    same = np.zeros(10, np.float32)
    assert resample(same, 16000, 16000) is same


def test_to_int16_rounds_and_clips():
    waveform = np.array([0.0, 1.0, -1.0, 1.5, -1.5, 0.6 / 32768, -0.6 / 32768, 100.4 / 32768], np.float32)
    assert to_int16(waveform).tolist() == [0, 32767, -32768, 32767, -32768, 1, -1, 100]


@pytest.mark.parametrize(
    "samples, lengths",
    [(5, [5]), (10, [10]), (14, [10]), (15, [10, 10]), (20, [10, 10]), (24, [10, 10]), (25, [10, 10, 10]), (1, [1])],
)
def test_long_clips_are_cut_into_equal_segments(samples, lengths):
    waveform = np.arange(samples, dtype=np.int16)
    segments = cut(waveform, 1.0, 10)
    assert [len(segment) for segment in segments] == lengths
    assert [segment[0] for segment in segments[:-1]] == [10 * i for i in range(len(segments) - 1)]
    if samples >= 10 and samples % 10 >= 5:
        assert segments[-1][-1] == samples - 1  # the last one is aligned to the end
    assert cut(waveform, None, 10)[0] is waveform


def test_an_excerpt_of_irmas_becomes_three_seconds_at_16_khz(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (IRMAS_FRAMES, 2)), 44100)
    prepared = prepare(dataset_of([path]), 16000)
    waveform = WaveformColumn(prepared)[0]
    assert waveform.dtype == np.int16
    assert len(waveform) == pytest.approx(48000, abs=1)
    assert len(cut(waveform, 3.0, 16000)) == 1
    expected = resample(*decode(path), 16000)
    np.testing.assert_allclose(waveform / 32768, expected, atol=0.51 / 32768)


def test_segments_carry_the_labels_of_their_clip(tmp_path):
    paths = [write_audio(tmp_path / f"{k}.wav", k, seconds, 8000) for k, seconds in enumerate((0.1, 0.35, 0.22, 0.04))]
    dataset = dataset_of(paths, duration=[0.1, 0.35, 0.22, 0.04], instruments=[[0], [1, 2], [3], [4]])
    prepared = prepare(dataset, 4000, segment_seconds=0.1, num_proc=1)
    assert prepared["path"] == [str(paths[k]) for k in (0, 1, 1, 1, 1, 2, 2, 3)]
    assert prepared["instruments"] == [[0], [1, 2], [1, 2], [1, 2], [1, 2], [3], [3], [4]]
    assert prepared["duration"] == pytest.approx([0.1] * 7 + [0.04])
    assert [len(waveform) for waveform in WaveformColumn(prepared)] == [400] * 7 + [160]


@pytest.mark.parametrize("num_proc", [1, 2])
def test_waveforms_are_read_back_as_they_were_written(tmp_path, on_disk, num_proc):
    paths = [write_audio(tmp_path / f"{k:02d}.wav", k, 0.01 + 0.001 * k, 16000, channels=1) for k in range(40)]
    prepared = prepare(on_disk(dataset_of(paths)), 16000, num_proc=num_proc)
    expected = [soundfile.read(path, dtype="int16")[0] for path in paths]
    column = WaveformColumn(prepared)
    assert len(column) == len(prepared) == 40
    for k in (0, 1, 15, 16, 17, 31, 39, -1, -40):
        np.testing.assert_array_equal(column[k], expected[k])
        np.testing.assert_array_equal(column[k], prepared[range(40)[k]]["waveform"])
    for outside in (40, -41):
        with pytest.raises(IndexError):
            column[outside]


def test_waveforms_follow_selections_shuffles_shards_and_concatenations(tmp_path, on_disk):
    paths = [write_audio(tmp_path / f"{k:02d}.wav", k, 0.01, 16000, channels=1) for k in range(40)]
    prepared = prepare(on_disk(dataset_of(paths)), 16000, num_proc=1)
    for view in (
        prepared.select([30, 2, 2, 17]),
        prepared.select(range(5, 25)),
        prepared.shuffle(seed=1),
        prepared.shard(3, 1, contiguous=True),
        concatenate_datasets([prepared.select(range(35, 40)), prepared]),
        prepared.select(range(20, 40)).select([3, 1]),
        pickle.loads(pickle.dumps(prepared.select([3, 1]))),
    ):
        column = WaveformColumn(view)
        assert [waveform.tolist() for waveform in column] == view["waveform"]
        copied = pickle.loads(pickle.dumps(column))
        assert [waveform.tolist() for waveform in copied] == view["waveform"]


def test_waveforms_are_mapped_and_not_copied(tmp_path, on_disk):
    paths = [write_audio(tmp_path / f"{k:02d}.wav", k, 0.5, 16000) for k in range(20)]
    prepared = prepare(on_disk(dataset_of(paths)), 16000)
    column = WaveformColumn(prepared)
    assert np.shares_memory(column[3], column.samples[0])
    assert not column[3].flags.owndata and not column[3].flags.writeable
    assert len(pickle.dumps(column)) < 20_000  # a path, not the samples


def louder(waveform: np.ndarray, sampling_rate: int, gain: float) -> np.ndarray:
    return waveform * gain


def test_the_cache_knows_rate_segments_and_transform(tmp_path, on_disk):
    dataset = on_disk(dataset_of([write_audio(tmp_path / "a.wav", 0, 0.2)]))

    def file_of(**options):
        return prepare(dataset, **{"sampling_rate": 16000, **options}).cache_files[0]["filename"]

    different = [
        file_of(),
        file_of(sampling_rate=8000),
        file_of(segment_seconds=0.1),
        file_of(transform=partial(louder, gain=0.5)),
        file_of(transform=partial(louder, gain=0.25)),
    ]
    assert len(set(different)) == len(different)
    before = Path(different[3]).stat().st_mtime_ns
    assert file_of(transform=partial(louder, gain=0.5)) == different[3]
    assert Path(different[3]).stat().st_mtime_ns == before
    assert file_of(num_proc=2) == different[0]


def test_a_transform_is_applied_once_at_the_target_rate(tmp_path):
    path = write_audio(tmp_path / "a.wav", 0, 0.1)
    plain, half = (
        WaveformColumn(prepare(dataset_of([path]), 16000, transform=transform))[0]
        for transform in (None, partial(louder, gain=0.5))
    )
    np.testing.assert_allclose(half, plain / 2, atol=0.51)


def test_an_empty_dataset_is_prepared(tmp_path):
    dataset = dataset_of([write_audio(tmp_path / "a.wav")], instruments=[[1]])
    dataset.info.description = "nothing"
    prepared = prepare(dataset.select([]), 16000)
    assert prepared.features == prepare(dataset, 16000).features
    assert (len(prepared), len(WaveformColumn(prepared)), prepared.info.description) == (0, 0, "nothing")


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_file_that_vanished_is_named(tmp_path, num_proc):
    paths = [write_audio(tmp_path / f"{k}.wav") for k in range(4)]
    dataset = dataset_of(paths)
    paths[2].unlink()
    with pytest.raises(UserError, match=rf"There is no file {paths[2]}"):
        prepare(dataset, 16000, num_proc=num_proc)


@pytest.mark.parametrize("files, threads", [(32, 2), (4, 1)])
def test_files_are_decoded_side_by_side_where_there_are_some_and_stay_in_order(tmp_path, monkeypatch, files, threads):
    paths = [write_audio(tmp_path / f"{k}.wav", k, 0.01, 16000, channels=1) for k in range(files)]
    others, decoding = threading.Barrier(threads, timeout=30), threading.Semaphore(threads)

    def decode_when_all_threads_do(path: str) -> tuple[np.ndarray, int]:
        assert decoding.acquire(blocking=False), "more at once than there should be"
        others.wait()
        found = decode(path)
        decoding.release()
        return found

    monkeypatch.setattr("irmas_dataset.audio.usable_cores", lambda: 2)
    monkeypatch.setattr("irmas_dataset.audio.decode", decode_when_all_threads_do)
    prepared = prepare(dataset_of(paths), 16000)
    assert prepared["waveform"] == [soundfile.read(path, dtype="int16")[0].tolist() for path in paths]


def test_an_error_leaves_no_thread_that_keeps_the_error_stream(tmp_path, monkeypatch):
    paths, silent = [write_audio(tmp_path / f"{k}.wav") for k in range(32)], threading.Event()

    def decode_quietly(path: str) -> tuple[np.ndarray, int]:
        if path == str(paths[0]):
            silent.wait(30)
            raise UserError("This must be seen.")
        with SILENCE:
            silent.set()
            time.sleep(0.3)
        return decode(path)

    monkeypatch.setattr("irmas_dataset.audio.usable_cores", lambda: 2)
    monkeypatch.setattr("irmas_dataset.audio.decode", decode_quietly)
    with pytest.raises(UserError, match="This must be seen"):
        prepare(dataset_of(paths), 16000)
    assert SILENCE.entered == 0


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"real IRMAS files are not in {SAMPLE}")
def test_real_excerpts_are_prepared(on_disk):
    paths = sorted((SAMPLE / "IRMAS-TrainingData").rglob("*.wav"))
    column = WaveformColumn(prepare(on_disk(dataset_of(paths)), 16000))
    assert {len(waveform) for waveform in column} <= {47999, 48000}
    assert all(np.abs(waveform.astype(int)).max() > 300 for waveform in column)
