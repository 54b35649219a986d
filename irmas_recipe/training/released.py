"""Released checkpoints by name: `released/mn10` stands for a file that its authors published, and for where it is kept.

The facts about the files come from public repositories that pin them; where nobody pins a sha256, there is none here.
Imports no library, so that `doctor` and --help can read it anywhere.
"""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from irmas_dataset.errors import UserError

PREFIX = "released/"
HUB = "https://huggingface.co/"
EFFICIENTAT = "https://github.com/fschmid56/EfficientAT/releases/download"
PASST = "https://github.com/kkoutini/PaSST/releases/download"


@dataclass(frozen=True)
class Released:
    """One published file, which the converter of its `architecture` turns into a model folder.

    The first of `addresses` is the authors' own where that works; the others are mirrors. `citation` is a paper's key in
    CITATION.cff.
    """

    name: str
    architecture: str
    addresses: tuple[str, ...]
    licence: str
    citation: str
    trained_on: str
    size_bytes: int | None = None
    sha256: str | None = None

    @property
    def path(self) -> str:
        """What recipes and commands call it."""
        return PREFIX + self.name

    @property
    def file_name(self) -> str:
        return self.addresses[0].rpartition("/")[2]

    @property
    def size(self) -> str:
        """The size in words."""
        return f"{self.size_bytes / 1e6:.1f} MB" if self.size_bytes else "size unknown"

    @property
    def hub_id(self) -> str | None:
        """The model on the Hub that has the file, None where there is none; data sets do not count."""
        parts = [address.removeprefix(HUB).split("/") for address in self.addresses if address.startswith(HUB)]
        return next(("/".join(part[:2]) for part in parts if part[0] != "datasets"), None)

    @property
    def folder(self) -> Path:
        """Where the converted model is kept."""
        return cache_folder() / self.name

    @property
    def by_hand(self) -> Path:
        """Where a file that was fetched elsewhere is taken from."""
        return cache_folder() / "downloads" / self.file_name

    @property
    def is_cached(self) -> bool:
        return (self.folder / "config.json").is_file()


RELEASED = {
    released.name: released
    for released in (
        Released(
            name="mn10",
            architecture="mobilenet",
            addresses=(f"{EFFICIENTAT}/v0.0.1/mn10_as_mAP_471.pt",),
            licence="mit",
            citation="schmid2023efficientat",
            trained_on="AudioSet, mAP .471",
            size_bytes=19_708_753,
            sha256="0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e",
        ),
        Released(
            name="mn04",
            architecture="mobilenet",
            addresses=(f"{EFFICIENTAT}/v0.0.1/mn04_as_mAP_432.pt",),
            licence="mit",
            citation="schmid2023efficientat",
            trained_on="AudioSet, mAP .432",
            size_bytes=4_066_513,
            sha256="899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
        ),
        Released(
            name="passt-s10",
            architecture="passt",
            addresses=(f"{PASST}/v0.0.1-audioset/passt-s-f128-p16-s10-ap.476-swa.pt",),
            licence="apache-2.0",
            citation="koutini2022passt",
            trained_on="AudioSet, mAP .476",
            size_bytes=344_665_734,
            sha256="302903fa8c4aee817b11dc982da0b29aaf8d11a3e722420476d0a12c9db70c2c",
        ),
        Released(
            name="passt-s16",
            architecture="passt",
            addresses=(f"{PASST}/v0.0.2-audioset/passt-s-f128-p16-s16-ap.468.pt",),
            licence="apache-2.0",
            citation="koutini2022passt",
            trained_on="AudioSet, mAP .468",
        ),
        Released(
            name="passt-openmic",
            architecture="passt",
            addresses=(f"{PASST}/v0.0.5/openmic-passt-s-f128-10sec-p16-s10-ap.85.pt",),
            licence="apache-2.0",
            citation="koutini2022passt",
            trained_on="AudioSet, then OpenMIC, mAP .85",
            size_bytes=341_546_630,
            sha256="dc229428753176e8be0373d25887116fc15b490af86f671cecf9ed76a0f287da",
        ),
        # The authors' own links to BEATs have been dead since 2026 (issue 1671 of microsoft/unilm): all of these are mirrors.
        Released(
            name="beats-iter3plus",
            architecture="beats",
            addresses=(
                f"{HUB}lpepino/beats_ckpts/resolve/main/BEATs_iter3_plus_AS2M.pt",
                f"{HUB}datasets/Bencr/beats-checkpoints/resolve/main/BEATs_iter3_plus_AS2M.pt",
            ),
            licence="mit",
            citation="chen2023beats",
            trained_on="AudioSet without its labels: it has no classes",
            size_bytes=361_499_833,
            sha256="d43cbfad4d7b56381c061d7a24774f908d4d94c72961f6eb1d9090ff18cd8d34",
        ),
        Released(
            name="beats-iter3plus-cpt2",
            architecture="beats",
            addresses=(
                f"{HUB}THUdyh/Ola_speech_encoders/resolve/main/BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt",
                f"{HUB}camenduru/beats/resolve/main/BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt",
            ),
            licence="mit",
            citation="chen2023beats",
            trained_on="AudioSet, mAP .486",
        ),
        Released(
            name="beats-iter3-cpt1",
            architecture="beats",
            addresses=(
                f"{HUB}lpepino/beats_ckpts/resolve/5b53b0404df452a3a607d7e67687227730e5bad1/BEATs_iter3_finetuned_on_AS2M_cpt1.pt",
            ),
            licence="mit",
            citation="chen2023beats",
            trained_on="AudioSet",
            sha256="379369a41d0b3749f746cdcea8036de506cb3aedecce84de7db0a75fda2a4fe7",
        ),
    )
}
"""Name -> checkpoint."""

LICENCES_ON_THE_HUB = {
    "MIT/ast-finetuned-audioset-10-10-0.4593": "bsd-3-clause",
    "facebook/hubert-base-ls960": "apache-2.0",
    "microsoft/wavlm-base-plus": "cc-by-sa-3.0",
    "openai/whisper-base": "apache-2.0",
    "laion/larger_clap_general": "apache-2.0",
    "microsoft/swin-tiny-patch4-window7-224": "apache-2.0",
}
"""What the recipes start from on the Hub -> its licence there; no other checkpoint's is known here."""

DEFAULT_MODEL = "released/mn04"
"""Which `predict` uses where none is named. mn10 is the better model, but thresholds for music have to come from a
measurement, and only mn04's weights could be measured (released_thresholds.json)."""

ARCHITECTURES = tuple(sorted({released.architecture for released in RELEASED.values()}))
"""Those whose authors published bare weights, which have to be converted."""


def is_released(name: str) -> bool:
    """Return whether a model's name asks for a released checkpoint."""
    return name.startswith(PREFIX)


def find_released(name: str) -> Released:
    """Return the checkpoint called `released/mn10` or `mn10`; UserError names the nearest one, or all."""
    key = name.removeprefix(PREFIX)
    if key in RELEASED:
        return RELEASED[key]
    nearest = difflib.get_close_matches(key, RELEASED, n=1)
    hint = f"did you mean {PREFIX}{nearest[0]}?" if nearest else f"choose one of {', '.join(RELEASED)}."
    raise UserError(f"There is no released checkpoint {key}: {hint}")


def released_as(file_name: str | None) -> Released | None:
    """Return the checkpoint of a released file, whose name converted models and their descendants keep."""
    return next((released for released in RELEASED.values() if released.file_name == file_name), None)


def hub_home() -> Path:
    """Return the folder of the Hub's client, which $HF_HOME moves."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", os.path.join(cache, "huggingface"))
    return Path(os.path.expandvars(os.path.expanduser(home)))


def cache_folder() -> Path:
    """Return where converted models are kept, beside what the Hub's client keeps."""
    return hub_home() / "irmas"
