"""A synthetic IRMAS: the real one's folders, names and labels, with synthesised music.

It lets every command run from start to end without a download. Figures measured on it say nothing about real music.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import scipy.io.wavfile
from filelock import FileLock
from tqdm import tqdm

from irmas_dataset.errors import UserError
from irmas_dataset.files import SYNTHETIC_MARKER, TEST_FOLDERS, TRAINING_FOLDER
from irmas_dataset.labels import GENRES, INSTRUMENT_CODES
from irmas_dataset.synthetic_music import SAMPLE_RATE, draw_style, play
from irmas_dataset.whole_file import whole_file

FORMAT_VERSION = 4  # increase it with every audible change
MAX_EXCERPTS = 1_000_000  # about a terabyte
UNFINISHED_MARKER = f"{SYNTHETIC_MARKER}.unfinished"
LOCK = f"{SYNTHETIC_MARKER}.lock"

TRAIN_SAMPLES = 132_299  # as in IRMAS: 2.99998 s
EXCERPTS_PER_RECORDING = 3
CLIPS_PER_SONG = 6
LABEL_COUNT_PROBABILITIES = (0.43, 0.445, 0.125)  # one, two, three labels: IRMAS's own proportions
NAME_FORMS = ("plain", "plain", "tagged", "plain", "unknown drums", "tagged", "plain", "plain")
SONG_NAMES = (
    "Quiet Harbour - Paper Lanterns",
    "01 - Canto das tre\u0302s mare\u0301s",  # decomposed accents, as in IRMAS's own names
    "the_copper_birds-slow_train-live",
    "String Sketches (1 Of 2) - Andante, For Strings",
    "Étude Op. 5-2",
    "Señor Müller's Waltz",
    "07-Blue Corridor",
)


@dataclass(frozen=True)
class Excerpt:
    """One file to write, and its seeds: its contents do not depend on how many other files are written."""

    path: str  # relative to the root
    labels: tuple[str, ...]
    ensemble: tuple[str, ...]  # all instruments of its recording or song
    drums: bool
    seed: tuple[int, ...]  # of the recording or song
    number: int  # of the excerpt in the recording or song


def training_excerpt(index: int, seed: int) -> Excerpt:
    """Return the training excerpt of an index: classes take turns, and two recordings of a class grow side by side."""
    class_index, of_class = index % len(INSTRUMENT_CODES), index // len(INSTRUMENT_CODES)
    pair, in_pair = divmod(of_class, 2 * EXCERPTS_PER_RECORDING)
    recording, number = 2 * pair + in_pair % 2, in_pair // 2 + 1
    code = INSTRUMENT_CODES[class_index]

    recording_seed = (seed, 0, class_index, recording)
    rng = np.random.default_rng((*recording_seed, 0))
    genre = str(rng.choice(list(GENRES)))
    drums = genre != "cla" and bool(rng.random() < 0.6)
    form = NAME_FORMS[(class_index + recording) % len(NAME_FORMS)]
    prefix, tag = f"{recording + 1:03d}__", "[dru]" if drums else "[nod]"
    if form == "plain":
        prefix, tag = "", ""
    elif form == "unknown drums":
        tag = "[---]"
    name = f"{prefix}[{code}]{tag}[{genre}]{recording + 1:04d}__{number}.wav"
    return Excerpt(f"{TRAINING_FOLDER}/{code}/{name}", (code,), (code,), drums, recording_seed, number)


def song_clip(index: int, seed: int) -> Excerpt:
    """Return the test clip of an index: a song has three instruments, and one to three of them lead in a clip."""
    song, number = divmod(index, CLIPS_PER_SONG)
    # Instruments are dealt to the songs like cards: four songs use all eleven.
    dealt = range(3 * song, 3 * song + 3)
    ensemble = tuple(dict.fromkeys(dealt_instrument(card, seed) for card in dealt))

    song_seed = (seed, 1, song)
    drums = bool(np.random.default_rng((*song_seed, 0)).random() < 0.5)
    count = int(np.random.default_rng((*song_seed, 1, number)).choice((1, 2, 3), p=LABEL_COUNT_PROBABILITIES))
    turn = number % len(ensemble)
    labels = tuple(sorted((ensemble[turn:] + ensemble[:turn])[:count]))
    folder = "/".join(TEST_FOLDERS[song % 3 + 1])
    name = f"{SONG_NAMES[song % len(SONG_NAMES)]} {song + 1}-{number + 1}.wav"
    return Excerpt(f"{folder}/{name}", labels, ensemble, drums, song_seed, number + 1)


def dealt_instrument(card: int, seed: int) -> str:
    """Return the instrument on a card; each pack of eleven has every instrument once, in random order."""
    pack, place = divmod(card, len(INSTRUMENT_CODES))
    return INSTRUMENT_CODES[np.random.default_rng((seed, 2, pack)).permutation(len(INSTRUMENT_CODES))[place]]


def write_excerpt(folder: Path, excerpt: Excerpt) -> None:
    """Write one wav, with its labels for a test clip, unless it is already there."""
    path = folder / excerpt.path
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((*excerpt.seed, 2, excerpt.number))
    num_samples = TRAIN_SAMPLES
    if not excerpt.path.startswith(TRAINING_FOLDER):
        num_samples = SAMPLE_RATE // 10 * int(50 + 150 * rng.beta(1, 5))  # 5 to 20 s, mostly short
        path.with_suffix(".txt").write_text("".join(f"{label}\t\n" for label in excerpt.labels))
    style = draw_style(excerpt.ensemble, excerpt.drums, np.random.default_rng((*excerpt.seed, 3)))
    with whole_file(path) as unfinished:
        scipy.io.wavfile.write(unfinished, SAMPLE_RATE, play(style, excerpt.labels, num_samples, rng))


def synthesize(folder: Path, *, train: int, test: int, seed: int = 0) -> None:
    """Write a synthetic IRMAS of `train` training excerpts and `test` test clips into `folder`.

    The same arguments give the same bytes, and the first files do not depend on how many follow. A finished folder is
    left unchanged, an interrupted one is completed.
    Raises UserError for counts below one, a negative seed, a folder with other files, or one that cannot be written.
    """
    folder = Path(folder)
    check_counts(train, test, seed)
    marker = json.dumps({"format": FORMAT_VERSION, "train": train, "test": test, "seed": seed})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            if not begin(folder, marker):
                return
            excerpts = [training_excerpt(i, seed) for i in range(train)] + [song_clip(i, seed) for i in range(test)]
            workers = min(os.cpu_count() or 1, 1 + len(excerpts) // 8)
            write = partial(write_excerpt, folder)
            with ProcessPoolExecutor(workers) as pool:
                written = pool.map(write, excerpts, chunksize=4)
                list(tqdm(written, total=len(excerpts), desc="Synthesising IRMAS", unit="file"))
            (folder / UNFINISHED_MARKER).replace(folder / SYNTHETIC_MARKER)
    except OSError as error:
        raise UserError(f"Cannot write a synthetic IRMAS into {folder}: {error.strerror or error}.") from error


def check_counts(train: int, test: int, seed: int) -> None:
    """Raise UserError for counts below one or too high, or a negative seed."""
    if not (1 <= train <= MAX_EXCERPTS and 1 <= test <= MAX_EXCERPTS and seed >= 0):
        raise UserError(
            f"--train {train} --test {test} --seed {seed}: give counts of 1 to {MAX_EXCERPTS:,} and a seed of at least 0."
        )


def begin(folder: Path, marker: str) -> bool:
    """Mark a folder as a synthetic IRMAS in progress; return False if it is already finished.

    Raises UserError if the folder has other files or was made with other arguments than those in `marker`.
    """
    for name in (SYNTHETIC_MARKER, UNFINISHED_MARKER):
        if (folder / name).exists():
            found = (folder / name).read_text()
            if found not in (marker, ""):  # empty: the marker itself was interrupted
                raise UserError(
                    f"{folder} is a synthetic IRMAS made with other arguments ({found}, not {marker}): delete it, "
                    "or give another folder."
                )
            if found:
                return name == UNFINISHED_MARKER
    if any(entry.name not in (LOCK, UNFINISHED_MARKER) for entry in folder.iterdir()):
        raise UserError(f"{folder} has other files in it: give a new or empty folder for the synthetic IRMAS.")
    (folder / UNFINISHED_MARKER).write_text(marker)
    return True
