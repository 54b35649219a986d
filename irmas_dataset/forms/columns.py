"""Which columns and splits of a data set mean what: as the flags say, or guessed where there is one choice."""

from collections.abc import Iterable

from datasets import Audio, ClassLabel, Features, LargeList, List, Value

from irmas_dataset.errors import UserError
from irmas_dataset.forms.flags import HELD_OUT, Columns
from irmas_dataset.label_text import split_labels

LABEL_NAMES = ("label", "labels", "instrument", "instruments", "class", "classes", "tag", "tags", "target", "category")
RECORDING_NAMES = ("recording", "recording_id", "song", "song_id", "track", "track_id")
UNKNOWN = "unknown"
"""A column of this name lists the classes that nobody has judged in a clip."""


def audio_column(features: Features, given: str | None, where: str) -> str:
    """Return the column of the audio: the given one, else the only one of type Audio, or {bytes, path}."""
    found = [name for name, kind in features.items() if is_audio(kind)]
    if given is not None:
        kind = features[known(given, features, "--audio_column", where)]
        if not (is_audio(kind) or (isinstance(kind, dict) and {"bytes", "path"} <= set(kind))):
            choice = f"name {' or '.join(found)}" if found else "store it as datasets.Audio"
            raise UserError(f"--audio_column {given}: {where} has no audio there but {kind}; {choice}.")
        return given
    if len(found) == 1:
        return found[0]
    problem = "has several columns of audio" if found else "has no column of audio"
    choice = found[0] if found else next(iter(features), "NAME")
    raise UserError(f"{where} {problem} among {', '.join(features)}: name one, such as --audio_column {choice}.")


def label_columns(features: Features, given: str | None, where: str) -> tuple[str, ...]:
    """Return the column of the labels, or several 0/1 columns (written with commas between them).

    A guess takes the only ClassLabel, else the only text whose name means labels, else the only text, else every boolean;
    nothing where there are both booleans and a text that may be a title, or where a text's name means labels and that of
    no ClassLabel does.
    """
    if given is not None:
        names = (given,) if given in features else tuple(split_labels(given.replace(",", ";")))
        return tuple(known(name, features, "--label_column", where) for name in names)
    rest = {name: kind for name, kind in features.items() if name != UNKNOWN and not is_audio(kind)}
    texts = [name for name, kind in rest.items() if is_text(kind)]
    flags = [name for name, kind in rest.items() if isinstance(kind, Value) and kind.dtype == "bool"]
    named_texts = [name for name in texts if name.lower() in LABEL_NAMES]
    ids = [name for name, kind in rest.items() if isinstance(inner(kind), ClassLabel)]
    if ids and not any(name.lower() in LABEL_NAMES for name in ids):
        ids = named_texts + ids
    guesses = (
        ids,
        named_texts,
        [name for name in texts if name.lower() not in RECORDING_NAMES],
        flags,
    )
    may_be_titles = len(flags) > 1 and guesses[2]
    for found in guesses[: 2 if may_be_titles else 3]:
        if len(found) == 1:
            return tuple(found)
        if found:
            break
    else:
        if len(flags) > 1 and not may_be_titles:
            return tuple(flags)
    numbers = [name for name, kind in rest.items() if is_number(kind) and name.lower() not in RECORDING_NAMES]
    named = [name for name in numbers if name.lower() in LABEL_NAMES]
    if may_be_titles and not any(guesses[:2]):
        choice = ",".join(flags)
    else:
        choice = next((name for found in (*guesses, named, numbers) for name in found), None)
    if choice is None:
        raise UserError(f"{where} has no column of labels among {', '.join(features)}: add one, such as `label`.")
    raise UserError(
        f"{where}: which of its columns {', '.join(features)} has the labels is not clear: name it, such as "
        f"--label_column {choice} (or several 0/1 columns with commas between them)."
    )


def recording_column(features: Features, given: str | None, taken: Iterable[str], where: str) -> str | None:
    """Return the column that names each clip's recording: the given one, else the only one whose name says so, else None.

    HELD_OUT as the given one: none of them does.
    """
    if given == HELD_OUT and given not in features:
        return None
    if given is not None:
        return known(given, features, "--recording_column", where)
    found = [name for name in RECORDING_NAMES if name in features and name not in taken]
    return found[0] if found else None


def split_names(there: list[str], columns: Columns, where: str) -> tuple[dict[str, str], list[str]]:
    """Return which of the data set's splits are our train and test, and sentences about what is not read."""
    chosen = {}
    for ours, given in (("train", columns.train_split), ("test", columns.test_split)):
        if given is not None and given != HELD_OUT and given not in there:
            raise UserError(
                f"{where} has no split {given}; its splits are {', '.join(there)}: give one as --{ours}_split."
            )
    train = columns.train_split or ("train" if "train" in there else there[0] if len(there) == 1 else None)
    if train is None:
        raise UserError(
            f"{where} has the splits {', '.join(there)}: say which one to train on, such as --train_split {there[0]}."
        )
    chosen["train"] = train
    others = [name for name in there if name != train]
    test = columns.test_split or ("test" if "test" in others else others[0] if len(others) == 1 else None)
    warnings = []
    if test == train:
        raise UserError(f"--test_split {test} is also the training split: name another one, or {HELD_OUT}.")
    if test is not None and test != HELD_OUT:
        chosen["test"] = test
    if unread := [name for name in others if name != chosen.get("test")]:
        warnings.append(
            f"{where}: the split {', '.join(unread)} is not read; validation clips are held out of {train} by recording."
        )
    if "test" in chosen and columns.test_split is None and test != "test":
        warnings.append(f"{where} has no split named test: {test} is the test set (--test_split names another).")
    return chosen, warnings


def known(name: str, features: Features, flag: str, where: str) -> str:
    """Return a column's name; UserError where there is no such column."""
    if name not in features:
        raise UserError(f"{flag} {name}: {where} has no such column; its columns are {', '.join(features)}.")
    return name


def is_audio(kind: object) -> bool:
    """Tell whether a column's type is audio: `Audio`, or the struct of bytes and path behind it."""
    return isinstance(kind, Audio) or (isinstance(kind, dict) and set(kind) == {"bytes", "path"})


def is_text(kind: object) -> bool:
    """Tell whether a column's type is text or lists of it."""
    return isinstance(inner(kind), Value) and inner(kind).dtype in ("string", "large_string")


def without_point(value: object) -> object:
    """Return a whole float as an integer: pandas turns a column of integers into floats where one is missing."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_number(kind: object) -> bool:
    """Tell whether a column's type is a number; a boolean counts."""
    return isinstance(kind, Value) and kind.dtype.startswith(("int", "uint", "float", "bool"))


def inner(kind: object) -> object:
    """Return the type of a list's items; any other type as it is."""
    return kind.feature if isinstance(kind, List | LargeList) else kind
