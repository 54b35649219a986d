"""The windowed pipeline, on real files of every common kind, with a tiny AST saved to a folder."""

import io
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from transformers import (
    ASTForAudioClassification,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
)

from irmas_dataset.audio import decode, read_mono
from irmas_recipe.models import ARCHITECTURES
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.models.pipeline.windows import (
    AGGREGATIONS,
    aggregate,
    window_starts,
)
from tests.models.pipeline.sound import LABELS, RATE, music, scores
from tests.tiny import SECONDS, build

EVERY_MODEL = sorted(ARCHITECTURES)


@pytest.mark.parametrize(
    ("suffix", "subtype", "rate", "channels"),
    [
        ("wav", "PCM_U8", 8_000, 1),
        ("wav", "PCM_16", 44_100, 2),
        ("wav", "PCM_24", 48_000, 1),
        ("wav", "FLOAT", 22_050, 8),
        ("wav", "DOUBLE", 192_000, 1),
        ("flac", None, 44_100, 2),
        ("ogg", None, 44_100, 2),
        ("mp3", None, 44_100, 2),
    ],
)
def test_files_of_every_kind_give_the_scores_of_their_samples(recognise, tmp_path, suffix, subtype, rate, channels):
    path = tmp_path / f"Café – музыка.{suffix}"
    soundfile.write(path, music(2.3, rate, channels), rate, subtype=subtype)
    decoded, _ = soundfile.read(path, dtype="float32", always_2d=True)
    from_file = recognise(str(path), all_labels=True, return_timeline=True)
    at_own_rate = soxr.resample(decoded.mean(axis=1), rate, RATE)
    from_array = recognise({"array": at_own_rate, "sampling_rate": RATE}, all_labels=True)
    assert scores(from_file["instruments"]) == pytest.approx(scores(from_array), abs=1e-4)
    assert from_file["duration_seconds"] == pytest.approx(len(decoded) / rate, abs=1e-3)


def test_a_clip_scores_as_its_windows_do_one_by_one(recognise):
    clip = music(2.7) * np.linspace(1, 0.1, round(2.7 * RATE), dtype=np.float32)
    clip = np.rint(clip * 2**15) / np.float32(2**15)
    logits, energies = [], []
    for start in window_starts(len(clip), RATE, RATE // 2):
        features = recognise.feature_extractor(
            clip[start : start + RATE], sampling_rate=RATE, return_tensors="pt"
        ).input_values
        with torch.no_grad():
            logits.append(recognise.model(features).logits[0])
        energies.append(np.mean(clip[start : start + RATE].astype(float) ** 2))
    assert len(logits) == 5
    for how in AGGREGATIONS:
        result = recognise(clip, sampling_rate=RATE, all_labels=True, aggregation=how, batch_size=2)
        assert scores(result) == pytest.approx(aggregate(torch.stack(logits), how, energies), abs=1e-5)


def test_every_form_of_array_is_the_same_audio(recognise):
    clip = music(1.8, 22_050)
    expected = scores(recognise({"array": clip, "sampling_rate": 22_050}, all_labels=True))
    stereo = np.stack([clip * 2, np.zeros_like(clip)], axis=1)
    sixteen_bits = np.round(clip * 32_768).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, clip, 22_050, format="wav", subtype="FLOAT")
    forms = [
        {"raw": clip, "sampling_rate": 22_050},
        {"array": clip.astype(np.float64), "sampling_rate": 22_050},
        {"array": torch.from_numpy(clip), "sampling_rate": 22_050},
        {"array": stereo, "sampling_rate": 22_050},
        {"array": stereo.T, "sampling_rate": 22_050},
        {"array": sixteen_bits, "sampling_rate": 22_050},
        {"array": (sixteen_bits.astype(np.int32) + 32_768).astype(np.uint16), "sampling_rate": 22_050},
        {"bytes": buffer.getvalue(), "path": None},
        buffer.getvalue(),
    ]
    for form, result in zip(forms, recognise(forms, all_labels=True), strict=True):
        assert scores(result) == pytest.approx(expected, abs=1e-3), type(form)


def test_inputs_share_batches_and_keep_their_order(recognise, tmp_path):
    clips = [music(seconds, seed=index) for index, seconds in enumerate([0.4, 3.2, 1.0, 2.1])]
    alone = [scores(recognise(clip, sampling_rate=RATE, all_labels=True)) for clip in clips]
    for batch_size in (1, 3, 64):
        together = recognise(clips, sampling_rate=RATE, all_labels=True, batch_size=batch_size)
        assert np.stack([scores(result) for result in together]) == pytest.approx(np.stack(alone), abs=1e-5)
    lazily = recognise((clip for clip in clips), sampling_rate=RATE, all_labels=True)
    assert scores(next(lazily)) == pytest.approx(alone[0], abs=1e-5)
    assert recognise([]) == []


def test_labels_are_chosen_by_thresholds_and_top_k(recognise):
    clip = {"array": music(2), "sampling_rate": RATE}
    everything = recognise(clip, all_labels=True)
    assert [entry["score"] for entry in everything] == sorted((entry["score"] for entry in everything), reverse=True)
    own = {label: threshold for label, threshold in zip(LABELS, [0.2, 0.5, 0.9], strict=True)}
    assert recognise(clip) == [entry for entry in everything if entry["score"] >= own[entry["label"]]]
    assert named(recognise(clip, threshold=0.0)) == named(recognise(clip, top_k=None)) == named(everything)
    assert everything == recognise(clip, top_k=None)
    assert recognise(clip, thresholds=1.1) == []
    best = everything[0]["label"]
    assert best not in {entry["label"] for entry in recognise(clip, thresholds={best: 1.1})}
    assert recognise(clip, thresholds=[1.1, 1.1, 0.0])[0]["label"] == "voice"
    assert named(recognise(clip, top_k=2, thresholds=1.1)) == named(everything)[:2]
    with pytest.raises(ValueError, match="threshold and thresholds"):
        recognise(clip, threshold=0.5, thresholds=0.5)


def test_a_threshold_of_one_label_leaves_the_timelines_of_the_others(recognise, monkeypatch):
    monkeypatch.setattr(recognise.model.config, "window_thresholds", [0.3, 0.4, 0.6], raising=False)
    clip = {"array": music(2), "sampling_rate": RATE}
    first, *others = recognise.labels
    for longest, expected in ((30.0, [0.5, 0.9]), (1.0, [0.4, 0.6])):
        given = {"longest_clip_seconds": longest, "return_timeline": True, "thresholds": {first: 0.7}}
        assert recognise(clip, **given)["thresholds"] == {first: 0.7} | dict(zip(others, expected, strict=True))


def test_every_label_can_be_asked_of_a_pipeline_that_was_made_for_few(recognise):
    made = InstrumentRecognitionPipeline(
        model=recognise.model, feature_extractor=recognise.feature_extractor, device="cpu", top_k=1
    )
    clip = {"array": music(2), "sampling_rate": RATE}
    counts = [len(made(clip, **given)) for given in ({}, {"top_k": None}, {"all_labels": True}, {"top_k": 2})]
    assert counts == [1, 3, 3, 2]


def named(entries: list[dict]) -> list[tuple[str, float]]:
    return [(entry["label"], entry["score"]) for entry in entries]


def test_audio_longer_than_a_clip_is_answered_by_its_timeline(recognise):
    song = {"array": music(6), "sampling_rate": RATE}
    as_clip = recognise(song, all_labels=True)
    assert {entry["rule"] for entry in as_clip} == {"clip"} and "seconds" not in as_clip[0]
    forced = recognise(song, all_labels=True, aggregation="mean", longest_clip_seconds=1)
    assert named(forced) == named(as_clip), "an aggregation that is asked for is the answer"
    result = recognise(song, all_labels=True, longest_clip_seconds=5, return_activity=True)
    assert result["rule"] == "timeline" and {entry["rule"] for entry in result["instruments"]} == {"timeline"}
    seconds = {label: 0.0 for label in LABELS}
    for part in result["timeline"]:
        seconds[part["label"]] += part["end_seconds"] - part["start_seconds"]
    assert {entry["label"]: entry["seconds"] for entry in result["instruments"]} == pytest.approx(seconds)
    assert all(entry["share"] == pytest.approx(entry["seconds"] / 6) for entry in result["instruments"])
    lengths = [entry["seconds"] for entry in result["instruments"]]
    assert lengths == sorted(lengths, reverse=True)
    enough = min(recognise.rules.min_heard_seconds, 6)
    for entry in result["instruments"]:
        assert (entry["score"] >= result["thresholds"][entry["label"]]) == (seconds[entry["label"]] >= enough - 1e-6)
        assert (entry["confidence"] >= 0.5) == (entry["score"] >= result["thresholds"][entry["label"]])
    answer = recognise(song, longest_clip_seconds=5)
    assert [entry["label"] for entry in answer] == [label for label in seconds if seconds[label] >= enough - 1e-6]


def test_a_misspelt_option_is_told_the_right_one(recognise):
    with pytest.raises(TypeError, match="did you mean `return_timeline`"):
        recognise(music(1), return_timelines=True)


def test_each_window_is_scored_where_asked_for(recognise):
    clip = {"array": music(2), "sampling_rate": RATE}
    windows = recognise(clip, return_windows=True)["windows"]
    assert set(windows["scores"]) == set(LABELS) and windows["end_seconds"][-1] == 2
    logits = torch.logit(torch.tensor([windows["scores"][label] for label in LABELS]).T)
    expected = {entry["label"]: entry["score"] for entry in recognise(clip, all_labels=True)}
    assert aggregate(logits, "mean") == pytest.approx([expected[label] for label in LABELS], abs=1e-5)


def test_a_threshold_given_by_label_is_that_labels_after_loading_too(tmp_path):
    """A file whose keys are sorted as text lists the labels as 0, 1, 10, 2, ..."""
    model, extractor = build("mobilenet")
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()), sort_keys=True))
    loaded = type(model).from_pretrained(tmp_path)
    made = InstrumentRecognitionPipeline(model=loaded, feature_extractor=extractor, device="cpu")
    assert len(made.labels) == 11 and list(loaded.config.id2label.values()) != made.labels
    for index, label in enumerate(made.labels):
        assert made.resolve_thresholds({label: 0.9}) == [0.9 if i == index else 0.5 for i in range(11)]


def test_options_given_when_the_pipeline_is_made_hold_at_every_call(recognise):
    made = InstrumentRecognitionPipeline(
        model=recognise.model, feature_extractor=recognise.feature_extractor, device="cpu", top_k=1, sampling_rate=RATE
    )
    assert len(made(music(1.2))) == 1
    assert len(made(music(1.2), top_k=3)) == 3


def test_a_dataset_of_torch_gives_a_result_per_item(recognise):
    inputs = [{"array": music(seconds), "sampling_rate": RATE} for seconds in (1.2, 0.5)]

    class Songs(torch.utils.data.Dataset):
        def __len__(self):
            return len(inputs)

        def __getitem__(self, index):
            return inputs[index]

    assert list(recognise(Songs(), all_labels=True)) == recognise(inputs, all_labels=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation": "median"}, "choose one of"),
        ({"top_k": 0}, "top_k=0"),
        ({"thresholds": {"oboe": 0.5}}, "no label `oboe` to set a threshold for; it has "),
        ({"thresholds": {LABELS[0][:-1]: 0.5}}, f"did you mean `{LABELS[0]}`"),
        ({"threshold": 2}, "threshold=2.0 is not a score: give a number from 0 to 1"),
        ({"threshold": float("nan")}, "threshold=nan is not a score"),
        ({"batch_size": 0}, "batch_size=0 is too small: give 1 or more"),
        ({"thresholds": [0.5]}, "1 thresholds"),
        ({"hop_seconds": 2.0}, "at most window_seconds"),
        ({"hop_seconds": 0.0}, "above 0"),
        ({"window_seconds": 5.0}, "longer than the 1.00 s"),
        ({"window_seconds": math.inf}, "longer than 600 s"),
        ({"window_seconds": 1e9}, "longer than 600 s"),
    ],
)
def test_impossible_options_are_refused_before_any_work(recognise, options, message):
    with pytest.raises(ValueError, match=message):
        recognise({"array": music(1), "sampling_rate": RATE}, **options)


def test_an_unknown_option_is_refused(recognise):
    with pytest.raises(TypeError, match="chunk_length_s"):
        recognise(music(1), chunk_length_s=3)


def test_the_hop_is_exactly_the_configurations(recognise, monkeypatch):
    """0.36 * 0.35 / 0.36 is a little more than 0.35, and 0.35 s at 22,050 Hz is half a sample from the next hop."""
    monkeypatch.setattr(recognise.model.config, "window_seconds", 0.36)
    monkeypatch.setattr(recognise.model.config, "hop_seconds", 0.35)
    assert recognise.window_and_hop() == (0.36, 0.35)


def test_window_given_without_hop_keeps_their_proportion(recognise):
    assert recognise.window_and_hop(0.5) == (0.5, 0.25)
    timeline = recognise(
        music(2), sampling_rate=RATE, window_seconds=0.5, return_activity=True, return_timeline=True, thresholds=0.0
    )
    assert timeline["activity"]["edges_seconds"] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]


def test_the_timeline_follows_the_sound(recognise):
    """2 s of silence, then 2 s of noise: windows wholly inside either half score as that half alone does."""
    noise = np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32) * 0.3
    clip = np.concatenate([np.zeros(2 * RATE, np.float32), noise])
    result = recognise(clip, sampling_rate=RATE, return_activity=True)
    edges, activity = result["activity"]["edges_seconds"], result["activity"]["scores"]
    assert (edges[0], edges[-1], result["duration_seconds"]) == (0, 4, 4)
    silence = scores(recognise(np.zeros(RATE, np.float32), sampling_rate=RATE, all_labels=True))
    for index, label in enumerate(LABELS):
        assert len(activity[label]) == len(edges) - 1
        assert activity[label][0] == pytest.approx(silence[index], abs=1e-5)
    last = scores(recognise(noise[RATE:], sampling_rate=RATE, all_labels=True))
    assert [activity[label][-1] for label in LABELS] == pytest.approx(last, abs=1e-5)


def test_silence_and_a_single_sample_are_scored(recognise):
    for clip in (np.zeros(3 * RATE, np.float32), np.ones(1, np.float32)):
        result = recognise(clip, sampling_rate=RATE, all_labels=True, return_timeline=True)
        assert np.isfinite(scores(result["instruments"])).all()
        assert result["duration_seconds"] == pytest.approx(len(clip) / RATE)


def broken_inputs(folder: Path) -> list[tuple[object, str]]:
    folder.mkdir(exist_ok=True)
    (folder / "empty.wav").touch()
    (folder / "notes.wav").write_text("these are no samples")
    (folder / "headerless.raw").write_bytes(bytes(100))
    soundfile.write(folder / "no samples.wav", np.zeros(0), RATE)
    samples = music(1)
    samples[500] = np.nan
    soundfile.write(folder / "nan.wav", samples, RATE, subtype="FLOAT")
    return [
        (str(folder / "missing.wav"), "There is no file .*missing.wav"),
        (str(folder), "is not a regular file"),
        (str(folder / "empty.wav"), "empty.wav is an empty file"),
        (str(folder / "notes.wav"), "notes.wav .*"),
        (str(folder / "headerless.raw"), "headerless.raw .*"),
        (str(folder / "no samples.wav"), "no samples.wav has no audio samples"),
        (str(folder / "nan.wav"), "nan.wav contains NaN or infinite samples"),
        ({"array": np.array([0.0, np.inf]), "sampling_rate": RATE}, "The audio contains NaN or infinite samples"),
        ({"array": np.zeros(0), "sampling_rate": RATE}, "has no audio samples"),
        ({"array": np.zeros((2, 2, 2)), "sampling_rate": RATE}, "one or two dimensions"),
        ({"array": np.zeros((2, 0)), "sampling_rate": RATE}, "has no audio samples"),
        (
            {"array": np.zeros(100, complex), "sampling_rate": RATE},
            "integers or floating-point numbers, not complex128",
        ),
        ({"array": np.zeros(5)}, "needs its `sampling_rate`"),
        ({"samples": np.zeros(5)}, "needs `array` or `raw`"),
        (b"these are no samples", "The audio cannot be read as audio"),
        (5, "not int"),
        ([0.1, 0.2], "A list is a list of inputs"),
    ]


def test_what_cannot_be_read_is_refused_in_one_sentence(recognise, tmp_path):
    for audio, message in broken_inputs(tmp_path / "broken"):
        with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
            recognise(audio)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_refused_whoever_decodes(recognise, tmp_path, workers, capfd):
    (tmp_path / "bad.wav").write_bytes(b"not a wav file")
    with pytest.raises(ValueError, match=r"bad\.wav cannot be read as audio"):
        recognise([str(tmp_path / "bad.wav")], num_workers=workers)
    assert "Traceback" not in capfd.readouterr().err


def test_unreadable_inputs_can_be_skipped_without_harm_to_their_neighbours(recognise, tmp_path):
    good, other = music(2.2, seed=1), music(0.7, seed=2)
    damaged = {"array": np.concatenate([music(3), [np.nan]]), "sampling_rate": RATE}  # found after windows were read
    inputs = [good, str(tmp_path / "missing.wav"), damaged, other]
    results = recognise(inputs, sampling_rate=RATE, skip_unreadable=True, all_labels=True, batch_size=3)
    assert "There is no file" in results[1]["error"]
    assert "NaN or infinite" in results[2]["error"]
    for clip, result in ((good, results[0]), (other, results[3])):
        assert scores(result) == pytest.approx(scores(recognise(clip, sampling_rate=RATE, all_labels=True)), abs=1e-5)


class BrokenDecoder:
    """torchcodec's decoder of a damaged file."""

    def get_all_samples(self):
        raise RuntimeError("Could not push packet to decoder")


def test_whatever_one_input_raises_costs_only_that_input(recognise):
    clip = {"array": music(1.3), "sampling_rate": RATE}
    first, broken, last = recognise([clip, BrokenDecoder(), clip], skip_unreadable=True, all_labels=True)
    assert broken["error"] == "The audio: RuntimeError: Could not push packet to decoder"
    assert first == last and len(first) == 3


def test_channels_that_cancel_each_other_out_are_said_by_name(recognise, tmp_path, caplog):
    """Silence in the mean, all but: in a dictionary as its `warning`, otherwise in the log; true stereo is no such case."""
    wide = np.stack([music(1.2, seed=1), music(1.2, seed=2)], axis=1)
    opposite = np.stack([wide[:, 0], -wide[:, 0] + 0.02 * wide[:, 1]], axis=1)
    for name, frames in {"wide": wide, "opposite": opposite, "silent": np.zeros_like(wide)}.items():
        soundfile.write(tmp_path / f"{name}.wav", frames, RATE, subtype="FLOAT")
    files = [str(tmp_path / f"{name}.wav") for name in ("wide", "opposite", "silent")]
    warnings = [result.get("warning") for result in recognise(files, return_timeline=True)]
    assert warnings[0] is warnings[2] is None and not caplog.records
    assert warnings[1].startswith(f"{files[1]}: the channels cancel each other out")
    recognise(files)
    assert [record.message for record in caplog.records] == [warnings[1]]


def test_audio_above_full_scale_is_clipped_as_in_training(recognise):
    loud = 5 * music(1.2)
    result, clipped = recognise([loud, np.clip(loud, -1, 1)], sampling_rate=RATE, all_labels=True)
    assert scores(result) == pytest.approx(scores(clipped), abs=1e-5)
    assert scores(result) != pytest.approx(scores(recognise(loud / 5, sampling_rate=RATE, all_labels=True)), abs=1e-5)


def test_a_damaged_flac_names_itself(tmp_path, recognise):
    path = tmp_path / "damaged.flac"
    soundfile.write(path, music(20), RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"\0" * 200)
    result = recognise([str(path)], skip_unreadable=True, return_timeline=True)[0]
    assert "damaged.flac" in result.get("error", "") or result["duration_seconds"] < 20


def test_a_name_that_is_no_valid_utf8_is_read(tmp_path, recognise):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav")
    soundfile.write(path, music(1), RATE)
    assert len(recognise(os.fsdecode(path), all_labels=True)) == 3


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")
def test_other_formats_are_read_through_ffmpeg(tmp_path, recognise):
    soundfile.write(tmp_path / "clip.wav", music(2), RATE)
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "clip.wav", tmp_path / "clip.m4a"]
    subprocess.run(command, check=True)
    result = recognise(tmp_path / "clip.m4a", return_timeline=True)
    assert result["duration_seconds"] == pytest.approx(2, abs=0.1)


def fake_ffmpeg(folder: Path, script: str) -> None:
    folder.mkdir()
    (folder / "ffmpeg").write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
    (folder / "ffmpeg").chmod(0o755)


def test_what_soundfile_cannot_read_goes_through_the_ffmpeg_program(tmp_path, recognise, monkeypatch):
    """A program in ffmpeg's place that writes what ffmpeg would: a header with rate and channels, then float32."""
    channels = np.stack([music(1.5, 22_050), music(1.5, 22_050, seed=1)], axis=1)
    header = struct.pack(">4s5I4x", b".snd", 28, 0xFFFFFFFF, 6, 22_050, 2)
    (tmp_path / "decoded").write_bytes(header + channels.astype(">f4").tobytes())
    decoded = tmp_path / "decoded"
    fake_ffmpeg(tmp_path / "bin", f"sys.stdout.buffer.write(open({str(decoded)!r}, 'rb').read())")
    (tmp_path / "song.m4a").write_text("not a wav file")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    from_file = recognise(tmp_path / "song.m4a", all_labels=True)
    from_array = recognise(channels.mean(axis=1), sampling_rate=22_050, all_labels=True)
    assert scores(from_file) == pytest.approx(scores(from_array), abs=1e-6)


def test_ffmpeg_gets_files_by_name_and_is_asked_for_all_channels(tmp_path, recognise, monkeypatch):
    """A name with a colon is not a protocol; one channel from ffmpeg would be louder than the mean of all."""
    fake_ffmpeg(tmp_path / "bin", "sys.exit(' '.join(sys.argv[1:]))")
    (tmp_path / "04.23:50.m4a").write_text("not a wav file")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"ffmpeg says: .* -i file:04\.23:50\.m4a ") as refused:
        recognise("04.23:50.m4a")
    assert "-ac" not in str(refused.value) and "-ar" not in str(refused.value)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")
def test_ffmpeg_and_soundfile_decode_the_same_samples(tmp_path):
    clip = np.stack([music(2, 44_100, seed=1), music(2, 44_100, seed=2)], axis=1)
    soundfile.write(tmp_path / "clip.wav", clip, 44_100)
    source = f"file:{tmp_path / 'clip.wav'}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, "-c:a", "alac", f"file:{tmp_path / '1:2.m4a'}"], check=True)
    (wav, wav_rate), (m4a, m4a_rate) = decode(tmp_path / "clip.wav"), decode(tmp_path / "1:2.m4a")
    assert wav_rate == m4a_rate
    np.testing.assert_array_equal(wav, m4a)
    np.testing.assert_array_equal(read_mono((tmp_path / "1:2.m4a").read_bytes())[0], wav)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")
@pytest.mark.parametrize("kind", ["hls", "concat"])
def test_a_playlist_is_no_audio_file(tmp_path, recognise, kind):
    """It names other files of this machine, and a live one, without an end, would be waited for forever."""
    soundfile.write(tmp_path / "other.wav", music(1), RATE)
    text = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/other.wav\n#EXT-X-ENDLIST\n",
        "concat": "ffconcat version 1.0\nfile other.wav\n",
    }
    (tmp_path / "song.m4a").write_text(text[kind])
    with pytest.raises(ValueError, match="a playlist"):
        recognise(tmp_path / "song.m4a")


def test_ffmpegs_complaint_is_passed_on_and_its_absence_is_said(tmp_path, recognise, monkeypatch):
    fake_ffmpeg(
        tmp_path / "bin", "sys.exit(sys.argv[sys.argv.index('-i') + 1] + ': Invalid data found')"
    )  # as ffmpeg names the file
    (tmp_path / "song.m4a").write_text("not a wav file")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for source in (tmp_path / "song.m4a", b"not a wav file"):  # bytes are copied into a file of some name
        with pytest.raises(ValueError, match=r"\(ffmpeg says: Invalid data found\)"):
            recognise(source)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="install ffmpeg for other formats"):
        recognise(tmp_path / "song.m4a")


def test_an_hour_is_recognised_in_bounded_memory(tmp_path):
    """An hour at 8 kHz (230 MB as float32 at the model's 16 kHz) takes a few batches."""
    path = tmp_path / "hour.flac"
    minute = np.sin(np.arange(60 * 8000) * 0.3).astype(np.float32)
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for _ in range(60):
            file.write(minute)
    model, extractor = build("cnn")
    recognise = InstrumentRecognitionPipeline(model=model, feature_extractor=extractor, device="cpu")
    tracemalloc.start()
    result = recognise(path, window_seconds=SECONDS, hop_seconds=SECONDS, all_labels=True, return_timeline=True)
    peak = tracemalloc.get_traced_memory()[1]  # of numpy and Python; torch's are the batch's, whatever the length
    tracemalloc.stop()
    print(f"peak {peak / 1e6:.1f} MB")
    assert result["duration_seconds"] == pytest.approx(3600)
    assert peak < 30e6


def test_a_model_that_chooses_one_label_is_refused(recognise):
    model = ASTForAudioClassification.from_pretrained(
        recognise.model.config._name_or_path, problem_type="single_label_classification"
    )
    with pytest.raises(ValueError, match="multi-label"):
        InstrumentRecognitionPipeline(model=model, feature_extractor=recognise.feature_extractor, device="cpu")


def test_an_extractor_with_extract_is_called_batched(recognise):
    class Extractor:
        sampling_rate = RATE
        calls = []

        def extract(self, waveforms: torch.Tensor) -> torch.Tensor:
            self.calls.append(tuple(waveforms.shape))
            return torch.stack(
                [
                    recognise.feature_extractor(w.numpy(), sampling_rate=RATE, return_tensors="pt").input_values[0]
                    for w in waveforms
                ]
            )

    made = InstrumentRecognitionPipeline(model=recognise.model, feature_extractor=Extractor(), device="cpu")
    clip = music(2)
    result = made(clip, sampling_rate=RATE, all_labels=True)
    assert scores(result) == pytest.approx(scores(recognise(clip, sampling_rate=RATE, all_labels=True)), abs=1e-6)
    assert Extractor.calls == [(3, RATE)]


def test_a_model_in_half_precision_scores_nearly_the_same(recognise, folder):
    half = ASTForAudioClassification.from_pretrained(folder, dtype=torch.bfloat16)
    made = InstrumentRecognitionPipeline(model=half, feature_extractor=recognise.feature_extractor, device="cpu")
    clip = {"array": music(2), "sampling_rate": RATE}
    assert scores(made(clip, all_labels=True)) == pytest.approx(scores(recognise(clip, all_labels=True)), abs=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_scores_as_the_cpu_does_for_every_model(every_model):
    clip = {"array": music(3.1, 22_050), "sampling_rate": 22_050}
    for name in EVERY_MODEL:
        by_device = []
        for device in ("cpu", "cuda"):
            model = AutoModelForAudioClassification.from_pretrained(every_model / name)
            extractor = AutoFeatureExtractor.from_pretrained(every_model / name)
            made = InstrumentRecognitionPipeline(model=model, feature_extractor=extractor, device=device)
            by_device.append({entry["label"]: entry["score"] for entry in made(clip, all_labels=True)})
        assert by_device[0] == pytest.approx(by_device[1], abs=5e-3), name


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_batches_of_windows_score_as_single_windows_in_every_model(every_model, name):
    recogniser = InstrumentRecognitionPipeline(
        model=AutoModelForAudioClassification.from_pretrained(every_model / name),
        feature_extractor=AutoFeatureExtractor.from_pretrained(every_model / name),
        device="cpu",
    )
    clip = {"array": music(3.1, 22_050), "sampling_rate": 22_050}
    together = recogniser(clip, all_labels=True, batch_size=8)
    one_by_one = recogniser(clip, all_labels=True, batch_size=1)
    assert [entry["score"] for entry in together] == pytest.approx([entry["score"] for entry in one_by_one], abs=1e-4)
