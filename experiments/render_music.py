"""A folder in IRMAS's layout, played by sampled instruments: General MIDI sound fonts through FluidSynth.

python -m experiments.render_music OUT --recordings_per_class 20 --songs 20 --seed 0 [--soundfont FILE ...]
python -m experiments.render_music OUT --notes 80 [--soundfont FILE ...]

Each recording is composed at random (key, tempo, chords, accompaniment, drums) around its lead instruments, so that the
audio is polyphonic and labelled as IRMAS is: training excerpts of 3 s with one lead, test clips of 5 to 20 s with one to
three. It is not IRMAS: figures measured on it are figures on rendered music, and must be called so.

With --notes the folder is one of your own, train/<class>/<sound font>__<number>.wav: single notes, chords and melodies
without accompaniment, of every instrument, to train on beside recordings (--extra_train_dir). Of several sound fonts
each recording, or song, is played by the next.
"""

import argparse
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from irmas_dataset.cores import usable_cores
from irmas_dataset.errors import UserError, start
from irmas_dataset.labels import INSTRUMENT_CODES
from irmas_dataset.write_audio import write_audio

SAMPLE_RATE = 44_100
EXCERPT_SAMPLES = 132_299  # of IRMAS's training files
EXCERPTS_PER_RECORDING = 3
SOLO_SECONDS = 4.5
TICKS_PER_BEAT = 480
DRUM_CHANNEL = 9
SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
TEST_FOLDERS = (
    "IRMAS-TestingData-Part1/Part1",
    "IRMAS-TestingData-Part2/IRTestingData-Part2",
    "IRMAS-TestingData-Part3/Part3",
)
GENRES = {"pop_roc": 3, "jaz_blu": 2, "cla": 2, "cou_fol": 1, "lat_sou": 1}
"""IRMAS's genres -> how often each is drawn."""


@dataclass(frozen=True)
class Voice:
    """The General MIDI programs of an instrument, the range of MIDI notes of its melodies, and whether it plays chords."""

    programs: tuple[int, ...]
    lowest: int
    highest: int
    chords: bool = False


VOICES = {
    "cel": Voice((42,), 38, 67),
    "cla": Voice((71,), 52, 84),
    "flu": Voice((73,), 62, 93),
    "gac": Voice((24, 25), 43, 76, chords=True),
    "gel": Voice((26, 27, 29, 30), 43, 79, chords=True),
    "org": Voice((16, 17, 18, 19), 45, 84, chords=True),
    "pia": Voice((0, 1), 40, 88, chords=True),
    "sax": Voice((64, 65, 66, 67), 45, 79),
    "tru": Voice((56,), 55, 84),
    "vio": Voice((40,), 57, 93),
    "voi": Voice((52, 53, 85), 48, 79),
}
BASSES = (32, 33, 35)
ACCOMPANIMENT = (*BASSES, 48, 49, 89, 11, 12, 46, 4)  # and strings, pad, mallets, harp, electric piano
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)


@dataclass(frozen=True)
class Note:
    """A note in beats."""

    start: float
    length: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Track:
    """One instrument's notes; volume and pan are MIDI's 0 to 127."""

    channel: int
    program: int
    volume: int
    pan: int
    reverb: int
    notes: list[Note]


@dataclass(frozen=True)
class Key:
    """A key, and four chords by their scale degrees."""

    root: int
    scale: tuple[int, ...]
    chords: tuple[int, ...]

    def pitch(self, degree: int, lowest: int, highest: int) -> int:
        """Return the MIDI note of a scale degree, moved by octaves into a range."""
        note = self.root + self.scale[degree % 7] + 12 * (degree // 7)
        while note < lowest:
            note += 12
        while note > highest:
            note -= 12
        return note


def compose(
    leads: Sequence[str], seconds: float, genre: str, drums: bool, rng: np.random.Generator
) -> tuple[float, list[Track]]:
    """Return tempo (beats per minute) and tracks of a piece in which these instruments lead."""
    beats_per_minute = rng.uniform(66, 160)
    beats = int(seconds * beats_per_minute / 60) + 4
    chords = tuple(int(degree) for degree in rng.choice([0, 3, 4, 5, 1], 4))
    key = Key(int(rng.integers(12)), MINOR if rng.random() < 0.4 else MAJOR, chords)
    channels = iter([channel for channel in range(16) if channel != DRUM_CHANNEL])
    tracks = [lead_track(VOICES[lead], next(channels), beats, key, rng) for lead in leads]
    parts = rng.integers(0, 3) if genre == "cla" else rng.integers(1, 4)
    for program in rng.choice(ACCOMPANIMENT, parts, replace=False):
        tracks.append(accompaniment_track(int(program), next(channels), beats, key, rng))
    if drums:
        tracks.append(drum_track(beats, rng))
    return beats_per_minute, tracks


def lead_track(voice: Voice, channel: int, beats: int, key: Key, rng: np.random.Generator) -> Track:
    """Return a melody that wanders through the scale, louder than the accompaniment; some instruments play chords."""
    notes, beat, degree = [], 0.0, int(rng.integers(14))
    while beat < beats:
        length = float(rng.choice([0.25, 0.5, 0.5, 1, 1, 2]))
        if rng.random() < 0.9:
            degree = int(np.clip(degree + rng.choice([-4, -2, -1, -1, 1, 1, 2, 4]), 0, 20))
            for third in (0, 2, 4) if voice.chords and rng.random() < 0.5 else (0,):
                pitch = key.pitch(degree + third, voice.lowest, voice.highest)
                played = length * rng.uniform(0.7, 1.0)
                notes.append(Note(beat + rng.uniform(0, 0.03), played, pitch, int(rng.integers(84, 120))))
        beat += length
    program = int(rng.choice(voice.programs))
    return Track(
        channel, program, int(rng.integers(105, 127)), int(rng.integers(40, 90)), int(rng.integers(10, 90)), notes
    )


def accompaniment_track(program: int, channel: int, beats: int, key: Key, rng: np.random.Generator) -> Track:
    """Return a bass line or chords, a new chord every four beats."""
    is_bass = program in BASSES
    lowest, highest, thirds = (28, 52, (0,)) if is_bass else (48, 76, (0, 2, 4))
    step = float(rng.choice([0.5, 1, 2]))
    notes = [
        Note(
            index * step,
            0.9 * step,
            key.pitch(key.chords[int(index * step // 4) % 4] + third, lowest, highest),
            int(rng.integers(50, 85)),
        )
        for index in range(int(beats / step))
        for third in thirds
    ]
    return Track(
        channel, program, int(rng.integers(45, 85)), int(rng.integers(20, 110)), int(rng.integers(10, 90)), notes
    )


def drum_track(beats: int, rng: np.random.Generator) -> Track:
    """Return a plain beat: hi-hat on every half beat, bass drum and snare in turns."""
    notes = []
    for half in range(2 * beats):
        notes.append(Note(half / 2, 0.1, 42, int(rng.integers(40, 80))))
        if half % 4 == 0:
            notes.append(Note(half / 2, 0.1, 36, int(rng.integers(80, 110))))
        if half % 4 == 2:
            notes.append(Note(half / 2, 0.1, 38, int(rng.integers(70, 105))))
    return Track(DRUM_CHANNEL, 0, int(rng.integers(60, 95)), 64, int(rng.integers(10, 90)), notes)


def midi_file(beats_per_minute: float, tracks: Sequence[Track]) -> bytes:
    """Return a standard MIDI file of format 1: a track with the tempo, then the others."""
    tempo = b"\x00\xff\x51\x03" + round(60e6 / beats_per_minute).to_bytes(3, "big")
    chunks = [tempo, *(track_events(track) for track in tracks)]
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, len(chunks), TICKS_PER_BEAT)
    end = b"\x00\xff\x2f\x00"
    return header + b"".join(struct.pack(">4sI", b"MTrk", len(chunk + end)) + chunk + end for chunk in chunks)


def track_events(track: Track) -> bytes:
    """Return a track's events with their delta times, note ends before note starts at the same tick."""
    controls = ((7, track.volume), (10, track.pan), (91, track.reverb))
    events = [(0, 1, bytes([0xC0 | track.channel, track.program]))]
    events += [(0, 1, bytes([0xB0 | track.channel, number, value])) for number, value in controls]
    for note in track.notes:
        first, last = round(note.start * TICKS_PER_BEAT), round((note.start + note.length) * TICKS_PER_BEAT)
        events.append((first, 2, bytes([0x90 | track.channel, note.pitch, note.velocity])))
        events.append((last, 0, bytes([0x80 | track.channel, note.pitch, 0])))
    events.sort(key=lambda event: event[:2])
    times = [0, *(tick for tick, _, _ in events)]
    return b"".join(
        variable_length(tick - before) + message for before, (tick, _, message) in zip(times, events, strict=False)
    )


def variable_length(number: int) -> bytes:
    """Return a number in groups of seven bits, as MIDI writes delta times."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F | 0x80)
    return bytes(reversed(groups))


def render(midi: bytes, soundfont: Path, peak: float) -> np.ndarray:
    """Return stereo float32 audio (samples, 2) at 44.1 kHz whose largest sample is `peak`."""
    with tempfile.TemporaryDirectory() as folder:
        score, audio = Path(folder, "score.mid"), Path(folder, "audio.wav")
        score.write_bytes(midi)
        options = ["-n", "-i", "-q", "-r", str(SAMPLE_RATE), "-g", "0.6", "-o", "synth.default-soundfont="]
        command = ["fluidsynth", *options, "-F", str(audio), str(soundfont), str(score)]
        done = subprocess.run(command, capture_output=True, text=True)
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        if done.returncode or errors or not audio.is_file():  # it exits with 0 where it could not read the sound font
            reason = errors[0].removeprefix("fluidsynth: error: ") if errors else "no reason given"
            raise UserError(f"FluidSynth cannot play with {soundfont}: {reason.rstrip('.')}.")
        samples, _ = soundfile.read(audio, dtype="float32", always_2d=True)
    return samples / max(float(np.abs(samples).max()), 1e-9) * peak


def write_recording(out: Path, soundfont: Path, seed: int, number: int, code: str, index: int) -> None:
    """Write the excerpts of one training recording; `number` is the recording's, `index` its place in its class."""
    rng = np.random.default_rng([seed, 0, number])
    genre = str(rng.choice(list(GENRES), p=np.array(list(GENRES.values())) / sum(GENRES.values())))
    drums = genre != "cla" and rng.random() < 0.6
    audio = render(midi_file(*compose([code], 16, genre, drums, rng)), soundfont, rng.uniform(0.3, 0.95))
    tags = f"{index + 1:03d}__[{code}][{'dru' if drums else 'nod'}]" if rng.random() < 0.28 else f"[{code}]"
    for excerpt in range(EXCERPTS_PER_RECORDING):
        first = int((1 + 4 * excerpt + rng.uniform(0, 0.8)) * SAMPLE_RATE)
        path = out / "IRMAS-TrainingData" / code / f"{tags}[{genre}]{number:04d}__{excerpt + 1}.wav"
        write_audio(path, audio[first : first + EXCERPT_SAMPLES], SAMPLE_RATE)


def write_song(out: Path, soundfont: Path, seed: int, song: int) -> None:
    """Write the test clips of one song, each led by some of the song's instruments."""
    rng = np.random.default_rng([seed, 1, song])
    leads = rng.choice(INSTRUMENT_CODES, rng.choice([1, 2, 3, 4], p=[2 / 11, 5 / 11, 3 / 11, 1 / 11]), replace=False)
    genre = str(rng.choice(list(GENRES), p=np.array(list(GENRES.values())) / sum(GENRES.values())))
    for clip in range(int(rng.integers(4, 9))):
        heard = sorted(map(str, rng.choice(leads, rng.integers(1, min(3, len(leads)) + 1), replace=False)))
        seconds = float(rng.choice([5.0, 7.5, 11.0, 20.0, 20.0, 20.0]))
        piece = compose(heard, seconds + 2, genre, rng.random() < 0.6, rng)
        audio = render(midi_file(*piece), soundfont, rng.uniform(0.3, 0.95))
        first = SAMPLE_RATE // 2
        path = out / TEST_FOLDERS[song % 3] / f"{song + 1:02d} - Song {song + 1}-{clip + 1}.wav"
        write_audio(path, audio[first : first + int(seconds * SAMPLE_RATE)], SAMPLE_RATE)
        path.with_suffix(".txt").write_text("".join(f"{code}\t\n" for code in heard), encoding="utf-8")


def write_solo(out: Path, soundfont: Path, seed: int, number: int, code: str) -> None:
    """Write a note, a chord or a melody of one instrument alone."""
    rng, voice = np.random.default_rng([seed, 2, number]), VOICES[code]
    track = lead_track(voice, 0, 10, Key(int(rng.integers(12)), MAJOR, (0,)), rng)
    if rng.random() < 0.5:
        pitch, above = int(rng.integers(voice.lowest, voice.highest - 11)), int(rng.integers(12))
        pitches = [pitch, pitch + 4, pitch + 7] if voice.chords and rng.random() < 0.4 else [pitch + above]
        length, velocity = rng.uniform(2, 7), int(rng.integers(45, 120))
        track = replace(track, notes=[Note(0, length, pitch, velocity) for pitch in pitches])
    audio = render(midi_file(120, [track]), soundfont, rng.uniform(0.3, 0.95))
    path = out / "train" / code / f"{soundfont.stem.lower()}__{number:04d}.wav"
    write_audio(path, audio[: round(SOLO_SECONDS * SAMPLE_RATE)], SAMPLE_RATE)


Job = tuple[Callable[..., None], tuple]
"""What writes a piece, and its arguments after the folder, the sound font and the seed."""


def numbered(of_each_class: int) -> list[tuple[int, str, int]]:
    """Return the number of each training recording, from 1, its class, and its place in the class."""
    return [
        (place * of_each_class + index + 1, code, index)
        for place, code in enumerate(INSTRUMENT_CODES)
        for index in range(of_each_class)
    ]


def like_irmas(recordings_per_class: int, songs: int) -> tuple[list[str], list[Job]]:
    """Return the folders and the jobs of IRMAS's layout."""
    jobs: list[Job] = [(write_recording, piece) for piece in numbered(recordings_per_class)]
    jobs += [(write_song, (song,)) for song in range(songs)]
    return [*(f"IRMAS-TrainingData/{code}" for code in INSTRUMENT_CODES), *TEST_FOLDERS], jobs


def of_notes(notes: int) -> tuple[list[str], list[Job]]:
    """Return the folders and the jobs of instruments alone."""
    folders = [f"train/{code}" for code in INSTRUMENT_CODES]
    return folders, [(write_solo, (number, code)) for number, code, _ in numbered(notes)]


def render_folder(out: Path, folders: list[str], jobs: list[Job], seed: int, soundfonts: list[Path]) -> None:
    """Write the whole folder; the same arguments and sound fonts give the same files.

    Raises:
        UserError: FluidSynth or a sound font is missing, a font cannot be played, or the folder is not empty.
    """
    if shutil.which("fluidsynth") is None:
        raise UserError(
            "Rendering needs the program fluidsynth: run `sudo apt-get install fluidsynth fluid-soundfont-gm`."
        )
    for soundfont in soundfonts:
        if not soundfont.is_file():
            raise UserError(
                f"There is no sound font {soundfont}: name one with --soundfont, such as that of fluid-soundfont-gm."
            )
    if out.exists() and os.listdir(out):
        raise UserError(f"{out} is not empty: name a new folder.")
    trial = midi_file(*compose([INSTRUMENT_CODES[0]], 1, "cla", False, np.random.default_rng(0)))
    for soundfont in soundfonts:
        render(trial, soundfont, peak=1.0)
    for folder in folders:
        (out / folder).mkdir(parents=True)
    with ThreadPoolExecutor(usable_cores()) as pool:
        running = [
            pool.submit(write, out, soundfonts[piece % len(soundfonts)], seed, *rest)
            for piece, (write, rest) in enumerate(jobs)
        ]
        for job in tqdm(running, desc="Rendering", unit="piece", disable=None):
            job.result()


def main(argv: list[str]) -> None:
    """Render a folder that serves as `--data_dir`."""
    parser = argparse.ArgumentParser(prog="python -m experiments.render_music", description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="OUT", type=Path, help="a new or empty folder; then give it as --data_dir")
    parser.add_argument(
        "--recordings_per_class",
        metavar="N",
        type=int,
        default=20,
        help="training recordings of three excerpts (default: %(default)s)",
    )
    parser.add_argument(
        "--songs", metavar="N", type=int, default=20, help="test songs of four to eight clips (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", metavar="S", type=int, default=0, help="the same seed gives the same files (default: %(default)s)"
    )
    parser.add_argument(
        "--notes", metavar="N", type=int, default=0,
        help="instead, N notes, chords and melodies of each instrument alone, as a folder of your own",
    )  # fmt: skip
    parser.add_argument(
        "--soundfont", metavar="FILE", type=Path, nargs="+", default=[SOUNDFONT], help=f"default: {SOUNDFONT}"
    )
    arguments = parser.parse_args(argv)
    if min(arguments.recordings_per_class, arguments.songs, arguments.seed, arguments.notes) < 0:
        raise UserError("--recordings_per_class, --songs, --notes and --seed must be at least 0.")
    folders, jobs = (
        of_notes(arguments.notes) if arguments.notes else like_irmas(arguments.recordings_per_class, arguments.songs)
    )
    render_folder(arguments.folder, folders, jobs, arguments.seed, arguments.soundfont)
    print(f"Rendered {len(jobs)} pieces into {arguments.folder}.")


if __name__ == "__main__":
    start(main)
