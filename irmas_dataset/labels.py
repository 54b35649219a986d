"""The labels of IRMAS: codes of instruments, genres and drum tags, and their readable names."""

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
"""IRMAS's code of each instrument -> the readable name in a model's `id2label`."""

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
"""Readable name -> the AudioSet class (display name in the ontology) that represents it in a head of 527 labels."""

OPENMIC_IN_AUDIOSET = {"bass": "Bass guitar", "cymbals": "Cymbal", "drums": "Drum kit"}
"""Class of OpenMIC-2018 -> the AudioSet class that is nearest to it, where their names differ."""

GENRES = {
    "pop_roc": "pop, rock",
    "jaz_blu": "jazz, blues",
    "cla": "classical",
    "cou_fol": "country, folk",
    "lat_sou": "latin, soul",
}

DRUMS = {"dru": "yes", "nod": "no", "---": "unknown"}


def audioset_name(label: str) -> str:
    """Return the name that AudioSet has, or would have, for an instrument: `Violin, fiddle`, `Mallet percussion`."""
    return AUDIOSET_LABELS.get(label) or OPENMIC_IN_AUDIOSET.get(label) or label.replace("_", " ").capitalize()


def readable_name(label: str) -> str:
    """Return the readable name of an IRMAS code; any other class name is returned unchanged."""
    return INSTRUMENT_NAMES.get(label, label)
