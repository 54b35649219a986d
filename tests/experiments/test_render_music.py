"""Rendered music: IRMAS's layout, labels of what leads, the same files for the same seed."""

import shutil
import struct

import numpy as np
import pytest
import soundfile

from experiments.render_music import SOUNDFONT, VOICES, compose, main, midi_file, variable_length
from irmas_dataset import load_irmas
from irmas_dataset.errors import UserError
from irmas_dataset.labels import INSTRUMENT_CODES

needs_fluidsynth = pytest.mark.skipif(
    shutil.which("fluidsynth") is None or not SOUNDFONT.is_file(),
    reason="FluidSynth or its sound font is not installed",
)


def test_every_instrument_of_irmas_has_a_voice():
    assert tuple(VOICES) == INSTRUMENT_CODES


@pytest.mark.parametrize("code", INSTRUMENT_CODES)
def test_a_lead_plays_its_own_programs_within_its_range(code):
    _, tracks = compose([code], 10, "cla", False, np.random.default_rng(3))
    lead, voice = tracks[0], VOICES[code]
    assert lead.program in voice.programs and len(lead.notes) > 10
    assert all(voice.lowest <= note.pitch <= voice.highest for note in lead.notes)


def test_a_piece_depends_on_its_seed_alone():
    first, second, other = (
        midi_file(*compose(["pia", "vio"], 8, "pop_roc", True, np.random.default_rng(seed))) for seed in (1, 1, 2)
    )
    assert first == second != other


def test_the_midi_file_is_whole():
    tempo, tracks = compose(["cel", "sax"], 5, "jaz_blu", True, np.random.default_rng(0))
    content = midi_file(tempo, tracks)
    assert content[:4] == b"MThd" and struct.unpack(">HHH", content[8:14]) == (1, len(tracks) + 1, 480)
    position, chunks = 14, 0
    while position < len(content):
        kind, length = struct.unpack(">4sI", content[position : position + 8])
        assert kind == b"MTrk" and content[position + 4 + length : position + 8 + length] == b"\x00\xff\x2f\x00"[-4:]
        position, chunks = position + 8 + length, chunks + 1
    assert position == len(content) and chunks == len(tracks) + 1


@pytest.mark.parametrize(
    ("number", "written"), [(0, b"\x00"), (127, b"\x7f"), (128, b"\x81\x00"), (0x3FFF, b"\xff\x7f")]
)
def test_delta_times_are_written_as_the_standard_says(number, written):
    assert variable_length(number) == written


@needs_fluidsynth
def test_a_rendered_folder_is_read_as_irmas_and_is_the_same_again(tmp_path):
    for name in ("one", "two"):
        main([str(tmp_path / name), "--recordings_per_class", "1", "--songs", "3", "--seed", "5"])
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len([path for path in files if path.suffix == ".wav"]) >= 33 + 12
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    splits = load_irmas(tmp_path / "one")
    assert len(splits["train"]) + len(splits["validation"]) == 33
    assert splits["train"].features["instruments"].feature.names == list(INSTRUMENT_CODES)
    for path, instruments in zip(splits["test"]["path"], splits["test"]["instruments"], strict=True):
        samples, rate = soundfile.read(path)
        assert rate == 44_100 and 5 <= len(samples) / rate <= 20 and 1 <= len(instruments) <= 3
        assert 0.01 < np.abs(samples).max() < 0.96, "peaks are drawn from .3 to .95 of full scale"


def test_what_is_missing_is_said_with_the_way_out(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"fluidsynth|no sound font"):
        main([str(tmp_path / "out"), "--soundfont", str(tmp_path / "absent.sf2")])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="apt-get install fluidsynth"):
        main([str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@needs_fluidsynth
@pytest.mark.parametrize(
    "content", [b"no sound font", SOUNDFONT.open("rb").read(100_000) if SOUNDFONT.is_file() else b""]
)
def test_a_font_that_cannot_be_played_is_refused_and_no_other_is_played(tmp_path, content):
    font = tmp_path / "broken.sf2"
    font.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot play with .*broken\.sf2: (fluid_is_soundfont|SoundFont file size)"):
        main([str(tmp_path / "out"), "--soundfont", str(font)])
    assert not (tmp_path / "out").exists()


@needs_fluidsynth
def test_notes_are_a_folder_of_ones_own_with_the_fonts_in_turn(tmp_path):
    font = tmp_path / "Second.sf2"
    font.symlink_to(SOUNDFONT)
    for name in ("one", "two"):
        main([str(tmp_path / name), "--notes", "3", "--soundfont", str(SOUNDFONT), str(font)])
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.wav"))
    assert len(files) == 33 and {path.parts[:2] for path in files} == {("train", code) for code in INSTRUMENT_CODES}
    assert {path.name.split("__")[0] for path in files} == {"fluidr3_gm", "second"}
    for path in files:
        audio, _ = soundfile.read(tmp_path / "one" / path)
        assert np.abs(audio).max() > 0.2 and len(audio) <= 4.5 * 44_100
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
