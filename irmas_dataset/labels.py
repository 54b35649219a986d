"""The vocabulary of IRMAS: instruments, genres and drum tags, under their own codes and in words."""

INSTRUMENT_NAMES = {
    "cel": "cello",
    "cla": "clarinet",
    "flu": "flute",
    "gac": "acoustic guitar",
    "gel": "electric guitar",
    "org": "organ",
    "pia": "piano",
    "sax": "saxophone",
    "tru": "trumpet",
    "vio": "violin",
    "voi": "voice",
}
"""IRMAS's code of each instrument -> the readable name that models carry in `id2label`."""

INSTRUMENT_CODES = tuple(INSTRUMENT_NAMES)

AUDIOSET_LABELS = {
    "cello": "Cello",
    "clarinet": "Clarinet",
    "flute": "Flute",
    "acoustic guitar": "Acoustic guitar",
    "electric guitar": "Electric guitar",
    "organ": "Organ",
    "piano": "Piano",
    "saxophone": "Saxophone",
    "trumpet": "Trumpet",
    "violin": "Violin, fiddle",
    "voice": "Singing",
}
"""Readable name -> the AudioSet class (ontology display name) that stands for it in a 527-label head."""

GENRES = {
    "pop_roc": "pop, rock",
    "jaz_blu": "jazz, blues",
    "cla": "classical",
    "cou_fol": "country, folk",
    "lat_sou": "latin, soul",
}

DRUMS = {"dru": "yes", "nod": "no", "---": "unknown"}


def readable_name(label: str) -> str:
    """Return the readable name of an IRMAS code; a class of one's own folder is its own name."""
    return INSTRUMENT_NAMES.get(label, label)
