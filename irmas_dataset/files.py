"""What IRMAS's files are called, where they lie, and what their names say.

Every trap of the published folders is met here: the class is the folder and never a bracket (`[cel][cla]` is a cello
in classical music), Part 2's folder is called IRTestingData-Part2, annotations end in tab and newline, and unzip tools
spoil names that are not ASCII.
"""

import csv
import gzip
import logging
import os
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.labels import DRUMS, GENRES, INSTRUMENT_CODES

logger = logging.getLogger(__name__)

TRAINING_FOLDER = "IRMAS-TrainingData"
TEST_FOLDERS = {
    1: ("IRMAS-TestingData-Part1", "Part1"),
    2: ("IRMAS-TestingData-Part2", "IRTestingData-Part2"),
    3: ("IRMAS-TestingData-Part3", "Part3"),
}
"""Part -> its folder, and the folder inside it that holds the clips."""

TRAINING_CLIPS, TEST_CLIPS = 6705, 2874
SYNTHETIC_MARKER = "SYNTHETIC"
INDEX_FOLDER = Path(__file__).parent / "index"

_TRAINING_NAME = re.compile(
    r"(?:(?P<number>\d+)__)?\[(?P<instrument>[a-z]{3})\](?:\[(?P<drums>dru|nod|---)\])?"
    rf"\[(?P<genre>{'|'.join(GENRES)})\](?P<id>\d{{4}})__(?P<excerpt>\d)"
)


@dataclass(frozen=True)
class Clip:
    """One audio file and what its name, folder and annotation say."""

    path: str  # absolute, as the file system spells it
    name: str  # as published, relative, with forward slashes: the same on every machine
    split: str  # "train" or "test"
    instruments: tuple[str, ...]
    recording: str | None
    song: str | None
    genre: str | None = None
    drums: str | None = None


@dataclass(frozen=True)
class Listing:
    """All clips of a data folder, its classes in label-id order, and what a user should be told about it."""

    title: str
    root: Path
    classes: tuple[str, ...]
    clips: list[Clip]
    warnings: list[str] = field(default_factory=list)
    is_irmas: bool = False  # the published music, not something of its shape


def parse_training_name(name: str) -> dict:
    """Read a training file's published path, e.g. `IRMAS-TrainingData/cel/008__[cel][nod][cla]0058__1.wav`.

    Returns instrument (the folder), recording (folder + everything before `__k`), genre (code or None) and drums
    ("yes", "no", "unknown", or None for a name without a drum tag).
    """
    folder, file_name = name.split("/")[-2:]
    stem = os.path.splitext(file_name)[0]
    match = _TRAINING_NAME.fullmatch(stem)
    return {
        "instrument": folder,
        "recording": f"{folder}/{re.sub(r'__[0-9]+$', '', stem)}",
        "genre": match["genre"] if match else None,
        "drums": DRUMS.get(match["drums"]) if match else None,
    }


def is_training_name(name: str) -> bool:
    """Tell whether a file is named as IRMAS's training files are, e.g. `[flu][cla]0347__1.flac`."""
    return _TRAINING_NAME.fullmatch(os.path.splitext(name.rsplit("/", 1)[-1])[0]) is not None


def parse_test_name(name: str) -> str:
    """Return the song of a test file's published path: its part, and its name without the number of the excerpt.

    `IRMAS-TestingData-Part1/Part1/(02) dont kill the whale-1.wav` -> `1/(02) dont kill the whale`.
    """
    part = re.match(r"IRMAS-TestingData-Part([123])/", name)[1]
    stem = os.path.splitext(name.rsplit("/", 1)[-1])[0]
    return f"{part}/{re.sub(r'-[0-9]+$', '', stem)}"


def read_annotation(path: str | Path) -> list[str]:
    r"""Return the labels of an annotation file, one a line; IRMAS ends each with a tab."""
    text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def walk_files(folder: str | Path) -> list[str]:
    """Return the paths of all visible files below a folder, sorted; leaves out what macOS and Windows add."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        found += [os.path.join(parent, name) for name in names if not name.startswith(".")]
    return sorted(found)


def to_text(path: str | Path) -> str:
    r"""Spell a path so that it is valid Unicode: bytes that are no UTF-8 become `\xe9`. `from_text` undoes it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def from_text(path: str) -> str:
    """Return the path that the file system knows for one that `to_text` spelled."""
    if "\\x" not in path or os.path.exists(path):
        return path
    spelled = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), path.encode())
    return os.fsdecode(spelled)


@lru_cache(maxsize=1)
def load_index() -> dict[str, str | None]:
    """Return the published path of each of IRMAS's 9,579 audio files -> its md5 (None for the 45 that lack one)."""
    index = {}
    for split in ("train", "test"):
        with gzip.open(INDEX_FOLDER / f"{split}.csv.gz", "rt", encoding="utf-8", newline="") as lines:
            index.update({row["path"]: row["md5"] or None for row in csv.DictReader(lines)})
    return index


def known_faults() -> list[dict[str, str]]:
    """Return IRMAS's byte-identical pairs: `fault`, `path`, `other_path`, `instruments`, `other_instruments`."""
    with open(INDEX_FOLDER / "known_faults.csv", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def published_name(name: str) -> str:
    """Return the published form of a path relative to IRMAS whose file name an unzip tool may have spoiled.

    Tries what the usual mistakes (UTF-8 read as a code page, a code page never converted, composed or decomposed
    accents) would have made of a name in the project's index; a name that is nobody's stays as it is.
    """
    if name.isascii():
        return name
    encodings = ("utf-8", "cp1252", "latin-1", "cp437", "cp850", "mac_roman")
    for wrong, right in product(("on disk", *encodings), encodings):
        try:
            spelled = os.fsencode(name) if wrong == "on disk" else name.encode(wrong)
            candidate = unicodedata.normalize("NFC", spelled.decode(right))
        except UnicodeError:
            continue
        if candidate in _composed_index():
            return _composed_index()[candidate]
    return to_text(name)


@lru_cache(maxsize=1)
def _composed_index() -> dict[str, str]:
    """Return composed (NFC) -> published spelling of the index's paths; the published ones have decomposed accents."""
    return {unicodedata.normalize("NFC", name): name for name in load_index() if not name.isascii()}


def find_irmas(data_dir: str | Path) -> dict[str, Path]:
    """Find IRMAS's published folders at `data_dir` or up to two levels below it (name -> path).

    `data_dir` may itself be one of them; the inner folder of a test part does for the part.
    """
    root = Path(os.path.abspath(data_dir))
    if published_folder := _published_folder(root):
        return {published_folder: _innermost(root)}
    found: dict[str, Path] = {}
    level = [root]
    for _ in range(2):
        level = [child for folder in level for child in _visible_folders(folder)]
        names = {path: _published_folder(path) for path in level}
        for path, name in names.items():
            if name and len(found.setdefault(name, path).parts) == len(path.parts) and found[name] != path:
                raise UserError(
                    f"{data_dir} holds {name} twice, as {found[name]} and as {path}: give the folder of one."
                )
        level = [path for path in level if not names[path]]
    return {name: _innermost(path) for name, path in found.items()}


def _published_folder(path: Path) -> str | None:
    """Return which of IRMAS's folders this is, by its name; `Part1` counts where it holds annotations."""
    if path.name == TRAINING_FOLDER:
        return TRAINING_FOLDER
    for outer, inner in TEST_FOLDERS.values():
        if path.name == outer or (path.name == inner and any(path.glob("*.txt"))):
            return outer
    return None


def _innermost(path: Path) -> Path:
    """Step into a folder that was extracted into one of its own name."""
    return _innermost(path / path.name) if (path / path.name).is_dir() else path


def _visible_folders(folder: Path) -> list[Path]:
    try:
        children = sorted(folder.iterdir())
    except OSError:
        return []
    return [child for child in children if child.is_dir() and not child.name.startswith((".", "__MACOSX"))]


def list_irmas(data_dir: str | Path) -> Listing | None:
    """List IRMAS's clips in `data_dir`, or return None where none of its folders is there.

    Raises UserError for a folder of zips, an unknown class folder, or an annotation with a label that is no class.
    """
    folders = find_irmas(data_dir)
    if not folders:
        _refuse_zips(data_dir)
        return None
    warnings: list[str] = []
    clips = list_training(folders[TRAINING_FOLDER]) if TRAINING_FOLDER in folders else []
    for outer, inner in TEST_FOLDERS.values():
        if outer in folders:
            clips += list_test_part(folders[outer], f"{outer}/{inner}", warnings)
    root = Path(os.path.abspath(data_dir))
    homes = [folder.parent for folder in folders.values()]
    is_synthetic = any((folder / SYNTHETIC_MARKER).exists() for folder in (root, *homes))
    return irmas_listing(root, homes[0], clips, warnings, is_synthetic)


def irmas_listing(
    root: Path, home: str | Path, clips: list[Clip], warnings: list[str], is_synthetic: bool = False
) -> Listing:
    """Return the listing of clips in IRMAS's layout; its title says whether they are IRMAS, part of it, or neither.

    home: the folder or address that a warning about missing files names.
    """
    if is_synthetic:
        return Listing("synthetic, IRMAS-shaped", root, INSTRUMENT_CODES, clips, warnings)
    title = irmas_title(home, clips, warnings)
    return Listing(title or "IRMAS-shaped folder", root, INSTRUMENT_CODES, clips, warnings, is_irmas=title is not None)


def list_training(folder: Path) -> list[Clip]:
    """List the clips of IRMAS-TrainingData, whose sub-folders are the classes."""
    clips = []
    for class_folder in _visible_folders(folder):
        if class_folder.name not in INSTRUMENT_CODES:
            raise UserError(
                f"{class_folder} is no IRMAS class ({', '.join(INSTRUMENT_CODES)}): move it out of {folder.name}, "
                "or lay your classes out as train/<class>/."
            )
        for path in walk_files(class_folder):
            if path.lower().endswith(".wav"):
                name = to_text(f"{TRAINING_FOLDER}/{class_folder.name}/{os.path.basename(path)}")
                facts = parse_training_name(name)
                clips.append(
                    Clip(
                        path=path,
                        name=name,
                        split="train",
                        instruments=(facts["instrument"],),
                        recording=facts["recording"],
                        song=facts["recording"],
                        genre=facts["genre"],
                        drums=facts["drums"],
                    )
                )
    return clips


def list_test_part(folder: Path, published_folder: str, warnings: list[str]) -> list[Clip]:
    """List the annotated clips of one test part; names unpaired files in `warnings`."""
    files: dict[str, dict[str, str]] = defaultdict(dict)
    for path in walk_files(folder):
        stem, extension = os.path.splitext(path)
        files[stem][extension.lower()] = path
    audio = {stem: found[".wav"] for stem, found in files.items() if ".wav" in found}
    notes = {stem: found[".txt"] for stem, found in files.items() if ".txt" in found}
    unpaired = sorted([audio[stem] for stem in audio.keys() - notes.keys()])
    warn_of(
        warnings,
        unpaired,
        "has no .txt of the same name and is left out",
        "have no .txt of the same name and are left out",
    )
    orphans = [notes[stem] for stem in notes.keys() - audio.keys() if is_annotation(notes[stem])]
    warn_of(warnings, sorted(orphans), "has no .wav of the same name", "have no .wav of the same name")
    clips = []
    for stem in sorted(audio.keys() & notes.keys()):
        labels = check_labels(read_annotation(notes[stem]), INSTRUMENT_CODES, notes[stem])
        name = published_name(f"{published_folder}/{os.path.basename(audio[stem])}")
        clips.append(Clip(audio[stem], name, "test", labels, None, parse_test_name(name)))
    empty = [clip.path for clip in clips if not clip.instruments]
    warn_of(warnings, empty, "has an empty annotation and is left out", "have an empty annotation and are left out")
    return [clip for clip in clips if clip.instruments]


def is_annotation(path: str) -> bool:
    """Tell a clip's .txt from a readme: every line of it is one of IRMAS's codes."""
    labels = read_annotation(path)
    return bool(labels) and set(labels) <= set(INSTRUMENT_CODES)


def check_labels(labels: list[str], classes: tuple[str, ...], where: str | Path) -> tuple[str, ...]:
    """Return the labels once each, in class order; UserError names the first that is no class and where it stands."""
    for label in labels:
        if label not in classes:
            raise UserError(f"{to_text(where)}: {label!r} is no class; the classes are {', '.join(classes)}.")
    return tuple(sorted(set(labels), key=classes.index))


def warn_of(warnings: list[str], paths: list[str], singular: str, plural: str) -> None:
    """Add one sentence that names up to three files and counts the rest."""
    if len(paths) == 1:
        warnings.append(f"{to_text(paths[0])} {singular}.")
    elif paths:
        named = ", ".join(to_text(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
        warnings.append(f"{len(paths)} files {plural}: {named}.")


def _refuse_zips(data_dir: str | Path) -> None:
    zips = [path.name for path in sorted(Path(data_dir).glob("IRMAS-*.zip"))]
    if zips:
        raise UserError(
            f"{data_dir} holds IRMAS's zips ({', '.join(zips)}) and not the extracted folders: "
            f"run `python run_irmas.py download --data_dir {data_dir}`, which extracts what is there."
        )


def irmas_title(home: str | Path, clips: list[Clip], warnings: list[str]) -> str | None:
    """Say how much of IRMAS this is, None if nothing; warn where files are missing or foreign ones added."""
    names = {name.rsplit("/", 1)[-1] for name in load_index()}
    published = Counter(clip.split for clip in clips if clip.name.rsplit("/", 1)[-1] in names)
    foreign = len(clips) - published.total()
    if published.total() < max(foreign, 1):  # made-up names can coincide with IRMAS's
        return None
    if (published["train"], published["test"]) == (TRAINING_CLIPS, TEST_CLIPS) and not foreign:
        return "IRMAS"
    counts = f"{published['train']} of {TRAINING_CLIPS} training excerpts and {published['test']} of {TEST_CLIPS} test excerpts"
    added = f", and {foreign} that IRMAS does not have" if foreign else ""
    warnings.insert(
        0,
        f"IRMAS in {home} is incomplete: {counts} are there{added}; figures on it do not compare with published ones, "
        f"and `python run_irmas.py download --data_dir {home}` fetches the rest.",
    )
    return f"incomplete IRMAS ({counts})"
