"""Systems published on IRMAS with the protocol behind each figure, since no two of them measured alike."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedSystem:
    """One system's figures as its source states them; None where it states none."""

    name: str
    micro_f1: float | None
    macro_f1: float | None
    lrap: float | None
    protocol: str


@dataclass(frozen=True)
class PublishedOpenmicSystem:
    """A system's mean average precision on OpenMIC-2018's official test split as its source states it."""

    name: str
    map: float
    protocol: str


OPENMIC_SYSTEMS = (
    PublishedOpenmicSystem(
        "Humphrey 2018, random forests on VGGish (the baseline)", 0.795, "quoted from a secondary source"
    ),
    PublishedOpenmicSystem("Koutini 2022, PaSST, fine-tuned", 0.843, "all of the network trained; 10 s clips"),
    PublishedOpenmicSystem("BEATs, probe", 0.868, "a head on frozen embeddings; quoted from a secondary source"),
    PublishedOpenmicSystem("PaSST, probe", 0.864, "a head on frozen embeddings; quoted from a secondary source"),
    PublishedOpenmicSystem("MATPAC++, probe", 0.856, "a head on frozen embeddings; quoted from a secondary source"),
    PublishedOpenmicSystem("M2D, probe", 0.848, "a head on frozen embeddings; quoted from a secondary source"),
    PublishedOpenmicSystem("Dasheng, probe", 0.812, "a head on frozen embeddings; quoted from a secondary source"),
)
"""Heads, pooling and tuning of the probes were not read here; only a full fine-tuning is trained as a whole network."""

FULL_TEST_SET_CLIPS = 2874

PUBLISHED_SYSTEMS = (
    PublishedSystem("Bosch 2012, SVM on hand-made features", 0.503, 0.432, None, "tuned thresholds"),
    PublishedSystem("Pons 2017, musically motivated CNN", 0.589, 0.516, None, "threshold swept on the test set"),
    PublishedSystem("Han 2017, CNN", 0.602, 0.503, None, "half of the test set; 1 s windows, hop 0.5 s, S2, threshold 0.5"),
    PublishedSystem("karlopintaric 2023, AST", None, 0.604, 0.83, "half of the test set, split by song; thresholds per class from the other half"),
    PublishedSystem("Avramidis 2021, CNN-BiGRU on raw waves", 0.608, 0.543, 0.747, "full test set; thresholds not known to us"),
    PublishedSystem("Jezidmar 2023, CNNs on mel and CQT", 0.628, 0.552, 0.80, "full test set; thresholds not known to us"),
    PublishedSystem("Kratimenos 2020, CNN ensemble on CQT", 0.647, 0.546, 0.80, "full test set; thresholds not known to us"),
    PublishedSystem("Reghunath & Rajan 2022, Swin-T voting", 0.66, 0.62, None, "whole clips, no sliding window"),
    PublishedSystem("Zhong 2023, IRNet pre-trained on NSynth", 0.674, None, 0.814, "best threshold on the test set (what we call oracle)"),
    PublishedSystem("CMMR 2021, CNN-GRU on mel and modgdgram, WaveGAN", 0.69, 0.60, None, "score fusion; thresholds not known to us"),
    PublishedSystem("MusDetect 2025, PaSST", 0.692, 0.621, None, "3 s windows, hop 1.5 s, threshold 0.25"),
    PublishedSystem("AST without fine-tuning", None, None, None, "AudioSet logits of the eleven classes; micro-F1 between 0.51 and 0.54"),
)  # fmt: skip
"""On IRMAS's 2,874 test clips unless the protocol says otherwise; some are quoted from secondary sources."""
