"""Audio files of more than sixty kinds, good, odd and broken, each with what a reader must make of it."""

import io
import os
import socket
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE, SECONDS = 16_000, 2.0
EXACT, COARSE, LOSSY, UNALIGNED = 2e-3, 2e-2, 2e-1, 2.0
"""Largest root-mean-square error, relative to the signal's own level; an UNALIGNED file has pauses where its encoders added them."""


@dataclass(frozen=True)
class Kind:
    """One file: what it should sound like, or None where it must be refused or left out with a sentence."""

    path: Path
    samples: np.ndarray | None = None  # mono, in [-1, 1]
    rate: int = RATE
    tolerance: float = EXACT
    is_listed: bool = True  # whether a walk through its folder meets it as an audio file

    @property
    def is_sound(self) -> bool:
        return self.samples is not None


def tone(rate: int = RATE, seconds: float = SECONDS, channel: int = 0) -> np.ndarray:
    """Return a chord below 1.5 kHz, another one on every channel (samples,), with soft ends."""
    moments = np.arange(round(rate * seconds)) / rate
    notes = [0.25 * np.sin(2 * np.pi * (220 + 110 * channel) * step * moments) for step in (1, 1.25, 1.5)]
    fade = np.clip(np.minimum(moments, seconds - moments) / 0.05, 0, 1)
    return (np.sum(notes, axis=0) * fade).astype(np.float64)


def encoded(
    samples: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str = "PCM_16", endian: str = "FILE"
) -> bytes:
    """Return the bytes of an audio file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype, endian=endian)
    return buffer.getvalue()


def wav_header(
    data_bytes: int, channels: int = 1, rate: int = RATE, bits: int = 16, format_size: int = 16, tag: int = 1
) -> bytes:
    """Return the 44 bytes before the samples of a wav file, true or not."""
    block = channels * bits // 8
    head = struct.pack("<4sI4s4sI", b"RIFF", 36 + data_bytes & 0xFFFFFFFF, b"WAVE", b"fmt ", format_size)
    return head + struct.pack(
        "<HHIIHH4sI", tag, channels, rate, (rate * block) & 0xFFFFFFFF, block, bits, b"data", data_bytes
    )


def write_bad_audio(folder: Path) -> list[Kind]:
    """Write every kind into `folder`; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        *broken_files(folder), *samples_out_of_range(folder), *cut_files(folder), *codings(folder), *rates(folder),
        *channels(folder), *short_and_still(folder), *containers(folder), *joined(folder), *names(folder), *links(folder),
    ]  # fmt: skip


def written(folder: Path, files: dict[str, bytes], **options) -> list[Kind]:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [Kind(folder / name, **options) for name in files]


def broken_files(folder: Path) -> list[Kind]:
    """Files that hold no audio at all, or whose header cannot be true."""
    rng, archive = np.random.default_rng(0), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("music.wav", encoded(tone()))
    samples = encoded(tone())[44:]
    return written(
        folder,
        {
            "empty.wav": b"",
            "one_byte.wav": b"R",
            "half_a_header.wav": wav_header(32000)[:20],
            "header_only.wav": wav_header(0),
            "header_that_promises.wav": wav_header(64000),
            "no_frames.flac": encoded(np.zeros(0), format="FLAC"),
            "no_frames.ogg": encoded(np.zeros(0), format="OGG", subtype="VORBIS"),
            "text.wav": b"This is a note about the recording, not the recording.\n" * 50,
            "page.mp3": b"<!doctype html><title>404 Not Found</title>" + b" " * 4000,
            "data.flac": b'{"error": "quota exceeded"}' * 100,
            "picture.wav": b"\x89PNG\r\n\x1a\n" + rng.bytes(5000),
            "archive.wav": archive.getvalue(),
            "zeros.wav": bytes(64000),
            "noise.wav": rng.bytes(64000),
            "noise.flac": rng.bytes(64000),
            "noise.ogg": rng.bytes(64000),
            "only_the_name.flac": b"fLaC",
            "only_the_name.ogg": b"OggS",
            "riff_of_an_avi.wav": wav_header(64000).replace(b"WAVE", b"AVI ") + samples,
            "no_channels.wav": wav_header(64000, channels=0) + samples,
            "no_rate.wav": wav_header(64000, rate=0) + samples,
            "no_bits.wav": wav_header(64000, bits=0) + samples,
            "endless_format_chunk.wav": wav_header(64000, format_size=0xFFFFFFF0) + samples,
            "unknown_coding.wav": wav_header(64000, tag=0x7777) + samples,
        },
    )


def samples_out_of_range(folder: Path) -> list[Kind]:
    """Floating-point files whose samples are no numbers, or no audio."""
    found = []
    for name, value, place in (
        ("nan", np.nan, 1000), ("infinity", np.inf, 1000), ("minus_infinity", -np.inf, 0), ("nan_at_the_end", np.nan, -1),
        ("huge", 1e30, 1000), ("largest_number", 3e38, 5),
    ):  # fmt: skip
        for subtype in ("FLOAT", "DOUBLE"):
            samples = tone()
            samples[place] = value
            found += written(folder, {f"{name}_{subtype.lower()}.wav": encoded(samples, subtype=subtype)})
    # Sixteen-bit numbers stored as they are in a floating-point file: 32768 times too loud.
    found += written(folder, {"unscaled_float.wav": encoded(tone() * 32768, subtype="FLOAT")})
    stereo = np.stack([np.full(32000, np.inf), np.full(32000, -np.inf)], axis=1)  # their mean is no number
    found += written(folder, {"opposite_infinities.wav": encoded(stereo, subtype="FLOAT")})
    louder = 3 * tone()  # up to 2.2: above full scale, as a mastering chain may leave it
    found += written(folder, {"above_full_scale.wav": encoded(louder, subtype="FLOAT")}, samples=louder)
    return found + written(folder, {"denormal.wav": encoded(tone() * 1e-41, subtype="FLOAT")}, samples=np.zeros(32000))


def cut_files(folder: Path) -> list[Kind]:
    """Files that break off, or whose header tells another length: what is there counts, or the file is refused."""
    wav, whole = encoded(tone()), tone()
    streamed = wav_header(0xFFFFFFFF) + wav[44:]
    found = written(folder, {"cut.wav": wav[: 44 + 32000]}, samples=whole[:16000])
    found += written(folder, {"cut_within_a_sample.wav": wav[: 44 + 32001]}, samples=whole[:16000])
    found += written(folder, {"longer_than_it_says.wav": wav_header(32000) + wav[44:]}, samples=whole[:16000])
    found += written(folder, {"streamed.wav": streamed}, samples=whole)
    flac = encoded(tone(seconds=6.0), format="FLAC")
    middle = len(flac) // 2
    for name, samples in {"of_unknown_length": bytes(5), "that_promises_a_month": b"\x0f" + b"\xff" * 4}.items():
        told = bytes([flac[21] & 0xF0 | samples[0]]) + samples[1:]  # the 36 bits that count the samples
        found += written(folder, {f"{name}.flac": flac[:21] + told + flac[26:]}, samples=tone(seconds=6.0))
    return found + written(
        folder,
        {
            "cut.flac": flac[: len(flac) // 2],
            "overwritten.flac": flac[:middle] + b"\xff" * 3000 + flac[middle + 3000 :],
            "cut_in_the_header.ogg": encoded(tone(), format="OGG", subtype="VORBIS")[:40],
            "cut_in_the_header.mp3": encoded(tone(), format="MP3", subtype="MPEG_LAYER_III")[:20],
        },
    )


def codings(folder: Path) -> list[Kind]:
    """Every coding of wav and the compressed formats, and files that are named after another format."""
    tolerances = {
        "PCM_U8": COARSE, "PCM_24": EXACT, "PCM_32": EXACT, "FLOAT": EXACT, "DOUBLE": EXACT, "ULAW": COARSE, "ALAW": COARSE,
        "IMA_ADPCM": LOSSY, "MS_ADPCM": LOSSY, "GSM610": LOSSY,
    }  # fmt: skip
    found = []
    for subtype, tolerance in tolerances.items():
        rate = 8000 if subtype == "GSM610" else RATE
        content = encoded(tone(rate), rate, subtype=subtype)
        found += written(folder, {f"{subtype}.wav": content}, samples=tone(rate), rate=rate, tolerance=tolerance)
    flac, ogg = encoded(tone(), format="FLAC", subtype="PCM_24"), encoded(tone(), format="OGG", subtype="VORBIS")
    mp3 = encoded(tone(), format="MP3", subtype="MPEG_LAYER_III")
    found += written(folder, {"24_bit.flac": flac, "flac_named.wav": flac, "flac_named.mp3": flac}, samples=tone())
    found += written(folder, {"vorbis.ogg": ogg, "ogg_named.flac": ogg}, samples=tone(), tolerance=LOSSY)
    found += written(folder, {"layer_3.mp3": mp3, "mp3_named.wav": mp3}, samples=tone(), tolerance=LOSSY)
    return found + written(folder, {"wav_named.mp3": encoded(tone()), "wav_named.ogg": encoded(tone())}, samples=tone())


def rates(folder: Path) -> list[Kind]:
    """Sampling rates from that of a telephone to 192 kHz, one that is nobody's, and headers that cannot be right."""
    found = []
    for rate in (8000, 11025, 12345, 22050, 32000, 44100, 48000, 96000, 192000):
        found += written(folder, {f"{rate}_hz.wav": encoded(tone(rate), rate)}, samples=tone(rate), rate=rate)
    told = {
        "1_hz_told.wav": encoded(tone(), 1), "999_hz_told.flac": encoded(tone(), 999, format="FLAC"),
        "2_ghz_told.wav": encoded(tone(), 2_000_000_000),
    }  # fmt: skip
    return found + written(folder, told)


def channels(folder: Path) -> list[Kind]:
    """One to eight channels, each with another chord: the mean of all counts."""
    found = []
    for count in (1, 2, 3, 4, 6, 8):
        frames = np.stack([tone(channel=channel) for channel in range(count)], axis=1)
        content = encoded(frames, format="WAV" if count <= 2 else "WAVEX", subtype="PCM_24")
        found += written(folder, {f"{count}_channels.wav": content}, samples=frames.mean(axis=1))
    one_sided = np.stack([tone(), np.zeros(32000)], axis=1)
    found += written(folder, {"left_channel_only.wav": encoded(one_sided)}, samples=tone() / 2)
    opposite = np.stack([tone(), -tone()], axis=1)
    return found + written(
        folder, {"opposite_channels.wav": encoded(opposite, subtype="FLOAT")}, samples=np.zeros(32000)
    )


def short_and_still(folder: Path) -> list[Kind]:
    """Next to nothing, silence, a constant, and a signal that clips: odd, but audio."""
    found = []
    for name, samples in {
        "one_sample": np.full(1, 0.5), "two_samples": np.array([0.5, -0.5]), "ten_milliseconds": tone()[8000:8160],
        "silence": np.zeros(32000), "constant": np.full(32000, 0.5), "impulse": np.eye(1, 32000, 16000)[0] * 0.9,
    }.items():  # fmt: skip
        found += written(folder, {f"{name}.wav": encoded(samples)}, samples=samples)
    clipped = np.clip(20 * tone(), -1, 1 - 2**-15)
    return found + written(folder, {"clipping.wav": encoded(clipped)}, samples=clipped)


def containers(folder: Path) -> list[Kind]:
    """The lesser-known kinds of wav: 64-bit sizes, big-endian, other chunks around the samples, tags in front."""
    wav = encoded(tone())
    chunk = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Some software\0"
    with_chunk = wav[:12] + chunk + wav[12:]
    return written(
        folder,
        {
            "rf64.wav": encoded(tone(), format="RF64"),
            "big_endian.wav": encoded(tone(), endian="BIG"),
            "extensible.wav": encoded(tone(), format="WAVEX"),
            "aiff_named.wav": encoded(tone(), format="AIFF"),
            "chunk_before_the_samples.wav": with_chunk,
            "chunk_after_the_samples.wav": wav + chunk,
            "rubbish_at_the_end.wav": wav + b"\0\1\2" * 333,
        },
        samples=tone(),
    )


def joined(folder: Path) -> list[Kind]:
    """Files one after another, as `cat` joins them, and mp3 files of variable bit rate that do not announce their length."""
    first, second = tone(), tone(seconds=3.0, channel=1)
    both = np.concatenate([first, second])
    found = []
    for name, options, tolerance in (
        ("wav", {"format": "WAV"}, EXACT), ("aiff", {"format": "AIFF"}, EXACT), ("flac", {"format": "FLAC"}, EXACT),
        ("vorbis", {"format": "OGG", "subtype": "VORBIS"}, LOSSY), ("opus", {"format": "OGG", "subtype": "OPUS"}, LOSSY),
    ):  # fmt: skip
        content = encoded(first, **options) + encoded(second, **options)
        found += written(folder, {f"joined_{name}.wav": content}, samples=both, tolerance=tolerance)
    noise = 0.2 * np.random.default_rng(0).standard_normal(2 * RATE)
    loud, quiet = np.concatenate([noise, tone(seconds=6.0)]), np.concatenate([tone(seconds=3.0), noise])
    announced = [encoded(part, format="MP3", subtype="MPEG_LAYER_III") for part in (first, second)]
    silent = [without_announcement(variable_mp3(part)) for part in (loud, quiet)]
    tagged = (
        b"TAG" + bytes(125) + b"ID3\3\0\0\0\0\2\0" + bytes(256)
    )  # an ID3v1 tag at the end, an ID3v2 tag at the start
    mp3 = {
        "joined.mp3": (announced[0] + announced[1], both),
        "joined_tags.mp3": (announced[0] + tagged + announced[1], both),
        "variable.mp3": (silent[0], loud),
        "joined_variable.mp3": (silent[0] + tagged + silent[1], np.concatenate([loud, quiet])),
        "joined_unlike.mp3": (announced[0] + silent[1], np.concatenate([first, quiet])),
    }
    for name, (content, samples) in mp3.items():
        found += written(folder, {name: content}, samples=samples, tolerance=UNALIGNED)
    found += written(
        folder,
        {
            "joined_m4a.wav": 2 * (b"\0\0\0\x1cftypM4A " + bytes(16)),
            "joined_caf.wav": 2 * (b"caff\0\1\0\0desc" + bytes(99)),
        },
    )
    other_rate = encoded(tone(8000), 8000, format="FLAC")
    return found + written(folder, {"joined_rates.flac": encoded(first, format="FLAC") + other_rate})


def variable_mp3(samples: np.ndarray) -> bytes:
    """Return an mp3 file of variable bit rate."""
    buffer = io.BytesIO()
    options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE", "compression_level": 0.1}
    soundfile.write(buffer, samples, RATE, **options)
    return buffer.getvalue()


def without_announcement(mp3: bytes) -> bytes:
    """Return an mp3 file without its first frame, which says how many others follow, as recorders and cutters write it."""
    tag = mp3.index(b"Xing" if b"Xing" in mp3[:200] else b"Info")
    return mp3[mp3.index(mp3[:2], tag) :]  # from the second frame's header


def names(folder: Path) -> list[Kind]:
    """Names that break what is careless with names."""
    found = []
    for name in (
        "Größe é ñ 音楽 🎻", "composed \u00e9, decomposed e\u0301", "n" * 251, "ü" * 125, " spaces  within ",
        "quote ' and \" and `", "line\nbreak", "-dash", "[cel][cla] *?", "100 % %s {0} {name}", "back\\slash \\xe9", "a.b.c.wav",
    ):  # fmt: skip
        found += written(folder, {f"{name}.wav": encoded(tone())}, samples=tone())
    found += written(folder, {"LOUD.WAV": encoded(tone())}, samples=tone())
    no_unicode = Path(os.fsdecode(os.fsencode(folder) + b"/no \xe9 unicode \xff.wav"))
    no_unicode.write_bytes(encoded(tone()))
    return [*found, Kind(no_unicode, samples=tone())]


def links(folder: Path) -> list[Kind]:
    """Links, and what is no file although it is named like one."""
    target = folder / "target.wav"
    target.write_bytes(encoded(tone()))
    (folder / "link.wav").symlink_to(target)
    (folder / "hard_link.wav").hardlink_to(target)
    (folder / "link_to_nowhere.wav").symlink_to(folder / "nowhere.wav")
    (folder / "link_to_itself.wav").symlink_to(folder / "link_to_itself.wav")
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "endless.wav").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as opened:
        before = os.getcwd()
        os.chdir(folder)  # the name of a socket may hold 107 bytes
        opened.bind("socket.wav")
        os.chdir(before)
    return [
        Kind(target, samples=tone()),
        Kind(folder / "link.wav", samples=tone()),
        Kind(folder / "hard_link.wav", samples=tone()),
        Kind(folder / "link_to_nowhere.wav"),
        Kind(folder / "link_to_itself.wav"),
        Kind(folder / "folder.wav", is_listed=False),
        Kind(folder / "pipe.wav", is_listed=False),
        Kind(folder / "endless.wav", is_listed=False),
        Kind(folder / "socket.wav", is_listed=False),
    ]
