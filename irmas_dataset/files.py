"""IRMAS's files: their names, where they are, and what the names mean.

The traps of the published folders are handled here: the class is the folder and never a bracket (`[cel][cla]` is a
cello in classical music), Part 2's folder is called IRTestingData-Part2, annotations end in a tab and a newline, and
unzip tools garble names that are not ASCII.
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
from irmas_dataset.label_text import LONGEST_LABEL, normalised, read_text
from irmas_dataset.labels import DRUMS, GENRES, INSTRUMENT_CODES

logger = logging.getLogger(__name__)

READ_BY_SOUNDFILE = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf", ".w64")
READ_BY_FFMPEG = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".mka", ".ac3", ".ape", ".wv")
"""Endings of names of audio files; ffmpeg's are read by `predict`, if ffmpeg is installed."""

TRAINING_FOLDER = "IRMAS-TrainingData"
TEST_FOLDERS = {
    1: ("IRMAS-TestingData-Part1", "Part1"),
    2: ("IRMAS-TestingData-Part2", "IRTestingData-Part2"),
    3: ("IRMAS-TestingData-Part3", "Part3"),
}
"""Part -> its folder, and the folder inside it that contains the clips."""

TRAINING_CLIPS, TEST_CLIPS = 6705, 2874
SYNTHETIC_MARKER = "SYNTHETIC"
INDEX_FOLDER = Path(__file__).parent / "index"

_TRAINING_NAME = re.compile(
    r"(?:(?P<number>\d+)__)?\[(?P<instrument>[a-z]{3})\](?:\[(?P<drums>dru|nod|---)\])?"
    rf"\[(?P<genre>{'|'.join(GENRES)})\](?P<id>\d{{4}})__(?P<excerpt>\d)"
)


@dataclass(frozen=True)
class Clip:
    """One audio file with the facts from its name, folder and annotation."""

    path: str  # absolute, as the file system spells it
    name: str  # as published: relative, with forward slashes, the same on every machine
    split: str  # "train" or "test"
    instruments: tuple[str, ...]
    recording: str | None
    song: str | None
    genre: str | None = None
    drums: str | None = None
    unknown: tuple[str, ...] = ()  # classes that nobody has judged in this clip


@dataclass(frozen=True)
class Listing:
    """All clips of a data folder, its classes in the order of their ids, and warnings for the user."""

    title: str
    root: Path
    classes: tuple[str, ...]
    clips: list[Clip]
    warnings: list[str] = field(default_factory=list)
    is_irmas: bool = False  # the published music, not other music in its layout
    is_synthetic: bool = False  # music that a program played

    @property
    def is_partly_known(self) -> bool:
        """Whether nobody has judged some classes in some clips."""
        return any(clip.unknown for clip in self.clips)


def parse_training_name(name: str) -> dict:
    """Read a training file's published path, e.g. `IRMAS-TrainingData/cel/008__[cel][nod][cla]0058__1.wav`.

    Returns instrument (the folder), recording (the folders and everything before `__k`), genre (its code or None) and
    drums ("yes", "no", "unknown", or None for a name without a drum tag).
    """
    folders, _, file_name = name.rpartition("/")
    inside = folders.removeprefix(f"{TRAINING_FOLDER}/")
    folder = inside if inside != folders else folders.rsplit("/", 1)[-1]
    stem = os.path.splitext(file_name)[0]
    match = _TRAINING_NAME.fullmatch(stem)
    return {
        "instrument": folder.split("/", 1)[0],
        "recording": f"{folder}/{re.sub(r'__[0-9]+$', '', stem)}",
        "genre": match["genre"] if match else None,
        "drums": DRUMS.get(match["drums"]) if match else None,
    }


def is_training_name(name: str) -> bool:
    """Tell whether a file is named like IRMAS's training files, e.g. `[flu][cla]0347__1.flac`."""
    return _TRAINING_NAME.fullmatch(os.path.splitext(name.rsplit("/", 1)[-1])[0]) is not None


def parse_test_name(name: str) -> str:
    """Return the song of a test file's published path: its part, subfolders, and name without the excerpt number.

    `IRMAS-TestingData-Part1/Part1/(02) dont kill the whale-1.wav` -> `1/(02) dont kill the whale`.
    """
    part = re.match(r"IRMAS-TestingData-Part([123])/", name)[1]
    stem = os.path.splitext(name.split("/", 2)[-1])[0]
    return f"{part}/{re.sub(r'-[0-9]+$', '', stem)}"


def read_annotation(path: str | Path) -> list[str]:
    """Return the labels of an annotation file, one per line; IRMAS ends each with a tab.

    Raises UserError for a file in another encoding, or a line of several columns or of a length that no label has.
    """
    labels = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if "\t" in line.strip() or len(line) > LONGEST_LABEL:
            raise UserError(
                f"{to_text(path)} line {number} is not a label: write one label per line, and nothing else."
            )
        labels.append(normalised(line))
    return [label for label in labels if label]


def walk_files(folder: str | Path) -> list[str]:
    """Return the paths of all files below a folder, sorted, without hidden files and those that macOS adds.

    Links to folders are followed, except to one that the link is inside of.
    """
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [
            name for name in folders if not name.startswith((".", "__MACOSX")) and not is_loop(Path(parent, name))
        ]
        found += [os.path.join(parent, name) for name in names if not name.startswith(".")]
    return sorted(found)


def is_loop(folder: Path) -> bool:
    """Tell whether a folder is a link to one that it is inside of."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def to_text(path: str | Path) -> str:
    r"""Spell a path as valid Unicode: bytes that are not UTF-8 become `\xe9`. `from_text` reverses it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def from_text(path: str) -> str:
    """Return the file system's path for one spelled by `to_text`."""
    if "\\x" not in path or os.path.exists(path):
        return path
    spelled = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), path.encode())
    return os.fsdecode(spelled)


@lru_cache(maxsize=1)
def load_index() -> dict[str, str | None]:
    """Return {published path: MD5} of IRMAS's 9,579 audio files; 45 of them have no published MD5 and map to None."""
    index = {}
    for split in ("train", "test"):
        with gzip.open(INDEX_FOLDER / f"{split}.csv.gz", "rt", encoding="utf-8", newline="") as lines:
            index.update({row["path"]: row["md5"] or None for row in csv.DictReader(lines)})
    return index


def known_faults() -> list[dict[str, str]]:
    """Return IRMAS's byte-identical pairs, each with `fault`, `path`, `other_path`, `instruments`, `other_instruments`."""
    with open(INDEX_FOLDER / "known_faults.csv", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def published_name(name: str) -> str:
    """Return the published form of a path relative to IRMAS whose file name an unzip tool may have garbled.

    The usual mistakes are undone (UTF-8 read as a code page, a code page never converted, composed or decomposed
    accents) until the name is in the index; a name that is not in it is returned unchanged.
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


def name_in_irmas(published_folder: str, inside: str) -> str:
    """Return the published name of a file by its path below a folder; one that IRMAS does not have keeps its subfolders."""
    name = published_name(f"{published_folder}/{os.path.basename(inside)}")
    return name if name in load_index() else to_text(f"{published_folder}/{Path(inside).as_posix()}")


@lru_cache(maxsize=1)
def _composed_index() -> dict[str, str]:
    """Return {composed (NFC) spelling: published spelling} of the index's paths; published accents are decomposed."""
    return {unicodedata.normalize("NFC", name): name for name in load_index() if not name.isascii()}


def find_irmas(data_dir: str | Path) -> dict[str, Path]:
    """Find IRMAS's published folders at `data_dir` or up to two levels below it; return {name: path}.

    `data_dir` may be one of them, and the inner folder of a test part counts as the part.
    Raises UserError if one of them is there twice.
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
                raise UserError(f"{data_dir} has {name} twice, at {found[name]} and at {path}: give the folder of one.")
        level = [path for path in level if not names[path]]
    return {name: _innermost(path) for name, path in found.items()}


def _published_folder(path: Path) -> str | None:
    """Return which of IRMAS's folders this is by its name; `Part1` counts only if it contains annotations."""
    if path.name == TRAINING_FOLDER:
        return TRAINING_FOLDER
    for outer, inner in TEST_FOLDERS.values():
        if path.name == outer or (path.name == inner and any(path.glob("*.txt"))):
            return outer
    return None


def _innermost(path: Path) -> Path:
    """Step into a folder that was extracted into another one of the same name."""
    return _innermost(path / path.name) if (path / path.name).is_dir() else path


def _visible_folders(folder: Path) -> list[Path]:
    try:
        children = sorted(folder.iterdir())
    except OSError:
        return []
    return [child for child in children if child.is_dir() and not child.name.startswith((".", "__MACOSX"))]


def list_irmas(data_dir: str | Path) -> Listing | None:
    """List IRMAS's clips in `data_dir`, or return None if it has none of IRMAS's folders.

    Raises UserError for a folder of zips, an unknown class folder, or an annotation with an unknown label.
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
        return Listing("synthetic, IRMAS-shaped", root, INSTRUMENT_CODES, clips, warnings, is_synthetic=True)
    title = irmas_title(home, clips, warnings)
    return Listing(title or "IRMAS-shaped folder", root, INSTRUMENT_CODES, clips, warnings, is_irmas=title is not None)


def list_training(folder: Path) -> list[Clip]:
    """List the clips of IRMAS-TrainingData; its subfolders are the classes."""
    clips = []
    for class_folder in _visible_folders(folder):
        if class_folder.name not in INSTRUMENT_CODES:
            raise UserError(
                f"{class_folder} is not an IRMAS class ({', '.join(INSTRUMENT_CODES)}): move it out of {folder.name}, "
                "or arrange your own classes as train/<class>/."
            )
        for path in walk_files(class_folder):
            if path.lower().endswith(".wav"):
                inside = os.path.relpath(path, class_folder)
                name = name_in_irmas(f"{TRAINING_FOLDER}/{class_folder.name}", inside)
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
    """List the annotated clips of one test part; adds sentences about unpaired files to `warnings`."""
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
        "has no .txt of the same name and will be skipped",
        "have no .txt of the same name and will be skipped",
    )
    orphans = [notes[stem] for stem in notes.keys() - audio.keys() if is_annotation(notes[stem])]
    warn_of(warnings, sorted(orphans), "has no .wav of the same name", "have no .wav of the same name")
    clips, inner = [], published_folder.rsplit("/", 1)[-1] + os.sep
    for stem in sorted(audio.keys() & notes.keys()):
        labels = check_labels(read_annotation(notes[stem]), INSTRUMENT_CODES, notes[stem])
        name = name_in_irmas(published_folder, os.path.relpath(audio[stem], folder).removeprefix(inner))
        clips.append(Clip(audio[stem], name, "test", labels, None, parse_test_name(name)))
    empty = [clip.path for clip in clips if not clip.instruments]
    warn_of(
        warnings, empty, "has an empty annotation and will be skipped", "have an empty annotation and will be skipped"
    )
    return [clip for clip in clips if clip.instruments]


def is_annotation(path: str) -> bool:
    """Tell whether a .txt is a clip's annotation and not a readme: every line is one of IRMAS's codes."""
    try:
        labels = read_annotation(path)
    except UserError:
        return False
    return bool(labels) and set(labels) <= set(INSTRUMENT_CODES)


def check_labels(labels: list[str], classes: tuple[str, ...], where: str | Path) -> tuple[str, ...]:
    """Return the distinct labels in class order.

    Raises UserError that names the first unknown label and `where` it was read.
    """
    for label in labels:
        if label not in classes:
            raise UserError(f"{to_text(where)}: unknown class {label!r}; the classes are {', '.join(classes)}.")
    return tuple(sorted(set(labels), key=classes.index))


def warn_of(warnings: list[str], paths: list[str], singular: str, plural: str) -> None:
    """Add one sentence about the files at `paths` (if any) that names up to three of them."""
    if len(paths) == 1:
        warnings.append(f"{to_text(paths[0])} {singular}.")
    elif paths:
        named = ", ".join(to_text(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
        warnings.append(f"{len(paths)} files {plural}: {named}.")


def _refuse_zips(data_dir: str | Path) -> None:
    zips = [path.name for path in sorted(Path(data_dir).glob("IRMAS-*.zip"))]
    if zips:
        raise UserError(
            f"{data_dir} has IRMAS's zips ({', '.join(zips)}) but not the extracted folders: "
            f"run `irmas download --data_dir {data_dir}` to extract them."
        )


def irmas_title(home: str | Path, clips: list[Clip], warnings: list[str]) -> str | None:
    """Return how much of IRMAS the clips are, None for other music; adds a warning if files are missing or added."""
    names = {name.rsplit("/", 1)[-1] for name in load_index()}
    published = Counter(clip.split for clip in clips if clip.name.rsplit("/", 1)[-1] in names)
    foreign = len(clips) - published.total()
    if published.total() < max(foreign, 1):  # invented names can coincide with IRMAS's
        return None
    if (published["train"], published["test"]) == (TRAINING_CLIPS, TEST_CLIPS) and not foreign:
        return "IRMAS"
    counts = f"{published['train']} of {TRAINING_CLIPS} training excerpts and {published['test']} of {TEST_CLIPS} test excerpts"
    added = f", plus {foreign} not in IRMAS" if foreign else ""
    warnings.insert(
        0,
        f"IRMAS in {home} is incomplete: it has {counts}{added}. Figures measured on it are not comparable with published "
        f"ones; `irmas download --data_dir {home}` fetches the rest.",
    )
    return f"incomplete IRMAS ({counts})"
