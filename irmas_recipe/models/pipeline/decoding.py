"""Decode any audio file, block by block, so that music of hours takes little memory.

soundfile decodes wav, flac, ogg and mp3; the ffmpeg program, where there is one, decodes whatever else. This file lies both
in `irmas_dataset` and in `irmas_recipe/models/pipeline`, because saved models bring it along; a test keeps the two identical.
"""

import io
import os
import re
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile

BLOCK_FRAMES = 1 << 18  # decoded at a time: 6 s at 44.1 kHz, so that a clip of IRMAS's is one block
MAX_LEVEL = 100  # of floating-point samples, where 1 is full scale: unscaled integers are louder
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # in Hz; a header that says otherwise is wrong
# Of ffmpeg's formats those that are one file: a playlist (hls, dash, concat) names others, and a live one never ends.
CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,iff,libgme,libopenmpt,loas,matroska,mlp,"
    "mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nut,ogg,oma,qcp,rm,shn,tak,truehd,tta,voc,w64,wav,wtv,wv,xwma"
)
CANCELLED = 1e-3  # the share of the channels' power below which their mean is next to nothing (-30 dB)
MP3_RATES = (44_100, 48_000, 32_000)  # in Hz, of MPEG 1; half as many in MPEG 2, a quarter in MPEG 2.5
MP3_KILOBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),  # of MPEG 1
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),  # of MPEG 2 and 2.5
}


def read_frames(source: str | os.PathLike | bytes) -> tuple[int, Iterator[np.ndarray]]:
    """Return the sampling rate in Hz of a file, or of a file's bytes, and its blocks, float32 (samples, channels).

    Full scale is 1; floating-point files may exceed it. A file of several streams one after another, as `cat` makes it,
    gives all of them.

    Raises ValueError with a reason that continues the file's name to a sentence, also while the blocks are read.
    """
    try:
        with open_file(source) as file:
            if not file.read(1):
                raise ValueError("is an empty file")
            streams = open_streams(source, file)
        rate, blocks = streams[0].samplerate, soundfile_blocks(streams)
    except OSError as error:
        raise ValueError(f"cannot be read as audio ({error.strerror})") from error
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: files without a header, such as *.raw
        if shutil.which("ffmpeg") is None:
            raise ValueError(
                f"cannot be read as audio ({words_of(error)}; install ffmpeg for other formats)"
            ) from error
        blocks = ffmpeg_blocks(source)
        rate = next(blocks)
    return checked_rate(rate), checked(blocks)


def checked_rate(rate: int) -> int:
    """Return a sampling rate; raises ValueError for one that no recording has: the memory for resampling it has no bound."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(f"has a sampling rate of {rate} Hz, which cannot be right")
    return rate


def open_file(source: str | os.PathLike | bytes) -> BinaryIO:
    """Open a file, or a file's bytes; raises ValueError for a folder, pipe, device or socket."""
    if isinstance(source, (bytes, bytearray)):
        return io.BytesIO(source)
    if os.path.exists(source) and not os.path.isfile(source):
        raise ValueError("is not a regular file")  # opening a pipe may block forever
    return open(source, "rb")


def checked(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the blocks; raises ValueError for samples that are no audio, and where there are none."""
    empty = True
    for block in blocks:
        if len(block):
            empty, peak = False, max(block.max(), -block.min())  # NaN where any sample is
            if not np.isfinite(peak):
                raise ValueError("contains NaN or infinite samples")
            if peak > MAX_LEVEL:
                raise ValueError(f"contains samples of more than {MAX_LEVEL} times full scale (1.0)")
            yield block
    if empty:
        raise ValueError("has no audio samples")


class Silence:
    """Keeps what C libraries write to file descriptor 2 from the screen: libmpg123's notes on damaged frames.

    It is entered from any number of threads; the first takes the descriptor away, the last gives it back.
    """

    def __init__(self) -> None:
        self.lock, self.entered = threading.Lock(), 0
        self.screen: int | None = None  # a copy of the descriptor, where there is one

    def __enter__(self) -> None:
        with self.lock:
            self.entered += 1
            if self.entered > 1:
                return
            try:
                self.screen = os.dup(2)
            except OSError:  # closed, as of a service: there is no screen
                self.screen = None
                return
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 2)
            os.close(nothing)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.entered -= 1
            if self.entered == 0 and self.screen is not None:
                os.dup2(self.screen, 2)
                os.close(self.screen)


SILENCE = Silence()


class Forwards(soundfile.SoundFile):
    """A file that is only read on: elsewhere soundfile seeks after every block, which fails where a flac's length is unknown."""

    def __init__(self, source: str | bytes | BinaryIO) -> None:
        with SILENCE:
            super().__init__(source)

    def read(self, *args: object, **options: object) -> np.ndarray:
        """Return the next samples, quietly."""
        with SILENCE:
            return super().read(*args, **options)

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek."""
        return False


class Mono:
    """The mean of the channels of blocks (samples, channels), block by block as (samples,), in one pass."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self.blocks = blocks
        self.energy = self.mean_energy = 0.0  # of the channels, and of their mean

    def __iter__(self) -> Iterator[np.ndarray]:
        for frames in self.blocks:
            mean = mean_of_channels(frames)
            if frames.shape[1] > 1:
                self.energy += float(np.vdot(frames, frames)) / frames.shape[1]
                self.mean_energy += float(np.vdot(mean, mean))
            yield mean

    @property
    def is_cancelled(self) -> bool:
        """Whether the channels read so far are so nearly each other's opposites that their mean is next to nothing."""
        return self.mean_energy < CANCELLED * self.energy


def mean_of_channels(frames: np.ndarray) -> np.ndarray:
    """Return the mean (samples,) of frames (samples, channels), float32; numpy's own is slow over so short an axis."""
    if frames.shape[1] == 1:
        return frames[:, 0]
    mean = frames[:, 0] + frames[:, 1]
    for channel in range(2, frames.shape[1]):
        mean += frames[:, channel]
    mean /= np.float32(frames.shape[1])
    return mean


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Round a waveform (samples,) in [-1, 1] to int16; louder samples are clipped."""
    return np.clip(np.rint(waveform * np.float32(32768)), -32768, 32767).astype(np.int16)


def words_of(error: Exception) -> str:
    """Return what soundfile says about a file, without the name and the full stop."""
    return (getattr(error, "error_string", None) or str(error)).rstrip(".")


def soundfile_blocks(streams: list[Forwards]) -> Iterator[np.ndarray]:
    """Yield what soundfile reads from open streams, one after another, and close them."""
    try:
        for stream in streams:
            is_16_bit = stream.subtype == "PCM_16"  # reading integers and scaling them here is several times faster
            size = min(BLOCK_FRAMES, max(0, stream.frames) + 1)  # a short clip and its end are seen at once
            while len(block := stream.read(size, dtype="int16" if is_16_bit else "float32", always_2d=True)):
                yield np.multiply(block, 2.0**-15, dtype=np.float32) if is_16_bit else block
                if len(block) < size:
                    break
                size = BLOCK_FRAMES  # what a header says of the length may be wrong
    except soundfile.SoundFileError as error:
        raise ValueError(f"cannot be read as audio ({words_of(error)})") from error
    finally:
        for stream in streams:
            stream.close()


def ffmpeg_blocks(source: str | os.PathLike | bytes) -> Iterator:
    """Yield the sampling rate of what ffmpeg decodes, then its blocks; all channels, since ffmpeg's mono is not their mean."""
    with tempfile.NamedTemporaryFile() as copy, tempfile.TemporaryFile() as messages:
        if isinstance(source, (bytes, bytearray)):
            copy.write(source)
            copy.flush()
            source = copy.name
        named = f"file:{os.fspath(source)}"  # otherwise a colon in the name would end a protocol
        command = ["ffmpeg", "-nostdin", "-v", "error", "-format_whitelist", CONTAINERS, "-i", named, "-vn"]
        command += ["-c:a", "pcm_f32be", "-f", "au", "-"]  # of the headers that a pipe can take, the simplest
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages) as process:
            try:
                header = process.stdout.read(24)
                if len(header) == 24:
                    _, offset, _, _, rate, channels = struct.unpack(">6I", header)
                    process.stdout.read(offset - 24)
                    yield rate
                    while data := process.stdout.read(4 * channels * BLOCK_FRAMES):
                        whole = len(data) // (4 * channels) * 4 * channels
                        yield np.frombuffer(data[:whole], ">f4").astype(np.float32).reshape(-1, channels)
                code = process.wait()
            finally:
                process.kill()  # if the reader stopped early; after ffmpeg's end it does nothing
        if code != 0 or len(header) < 24:
            messages.seek(0)
            first = (messages.read().decode(errors="replace").strip().splitlines() or ["no reason given"])[0]
            if "not on whitelist" in first:
                raise ValueError("cannot be read as audio (a playlist, or in a format that is not known here)")
            # Without the name of the part of ffmpeg that reports it, and of the file, which may be a copy's.
            said = first.rpartition("] ")[2].removeprefix(f"{named}: ").rstrip(".")
            raise ValueError(f"cannot be read as audio (ffmpeg says: {said})")


def open_streams(source: str | os.PathLike | bytes, file: BinaryIO) -> list[Forwards]:
    """Open a file, or each of its streams where it has several or where libsndfile would not hear it to its end.

    `file` is the same as `source`, open to look into.
    Raises soundfile.SoundFileError, or ValueError where one stream cannot follow another.
    """
    parts = joined_files(file)
    if not parts:
        if isinstance(source, (bytes, bytearray)):
            whole = Forwards(io.BytesIO(source))
        else:  # as bytes: a name that is not valid UTF-8 cannot be encoded again
            whole = Forwards(os.fsencode(source) if os.name == "posix" else os.fspath(source))
        parts = mp3_streams(file) if whole.subtype == "MPEG_LAYER_III" else []
        if not parts:
            return [whole]
        whole.close()
    try:
        streams = [Forwards(io.BytesIO(part)) for part in parts]
    except soundfile.SoundFileError as error:  # not for ffmpeg, which would hear the first stream alone
        raise ValueError(f"joins streams of which one cannot be read ({words_of(error)})") from error
    if len({(stream.samplerate, stream.channels) for stream in streams}) > 1:
        raise ValueError("joins streams of different sampling rates or numbers of channels")
    return streams


def joined_files(file: BinaryIO) -> list[bytes]:
    """Return the files of which a wav, aiff, caf, flac, ogg or mp4 file was joined; [] for one that was not."""
    kind, starts = read_at(file, 0, 8), []
    if kind[:4] in (b"RIFF", b"RIFX", b"FORM"):
        starts = chunk_positions(file)
    elif kind[:4] == b"fLaC" or kind[:3] == b"ID3":  # tags may come first, although they should not
        starts = positions(file, rb"fLaC[\x00\x80]\x00\x00\x22")
    elif kind[:4] == b"caff" or kind[4:] == b"ftyp":  # caf; mp4 and m4a, of which ffmpeg hears the first alone
        starts = positions(file, rb"caff\x00\x01\x00\x00|\x00\x00\x00.ftyp")
    elif kind[:4] == b"OggS":
        end = -1  # a stream may begin with several first pages in a row, where pictures come with the sound
        for start in positions(file, rb"OggS\x00[\x02\x06]"):
            starts += [start] if start != end else []
            segments = sum(read_at(file, start + 26, 1))
            end = start + 27 + segments + sum(read_at(file, start + 27, segments))
    if len(starts) < 2:
        return []
    file.seek(0)
    content = file.read()
    return [content[start:stop] for start, stop in pairwise([*starts, len(content)])]


def positions(file: BinaryIO, pattern: bytes) -> list[int]:
    """Return where a pattern of at most 8 bytes occurs in a file."""
    found, offset, rest = [], 0, b""
    file.seek(0)
    while chunk := file.read(1 << 20):
        found += [offset - len(rest) + match.start() for match in re.finditer(pattern, rest + chunk, re.DOTALL)]
        offset, rest = offset + len(chunk), (rest + chunk)[-7:]
    return sorted(set(found))


def chunk_positions(file: BinaryIO) -> list[int]:
    """Return where the outermost chunks of a wav or aiff file begin: one, unless files were joined."""
    starts, position, kind = [], 0, read_at(file, 0, 4)
    while (head := read_at(file, position, 8))[:4] == kind and len(head) == 8:
        starts.append(position)
        size = int.from_bytes(head[4:], "little" if kind == b"RIFF" else "big")
        position += 8 + size + size % 2
    return starts


class Mp3Frame(NamedTuple):
    """Where a frame of an mp3 file is, and what its header says."""

    position: int
    size: int  # in bytes
    header: bytes
    kind: tuple  # version, rate, and mono or not: the same in all frames of a stream
    kilobits: int
    announced: int | None  # of a frame without sound: how many frames follow, 0 where it does not say; else None


def mp3_frame(file: BinaryIO, position: int) -> Mp3Frame | None:
    """Return the frame at a position in a file; None if there is none, as where layer or bit rate is another."""
    file.seek(position)
    head = file.read(50)
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[1] & 0x18 == 0x08 or head[2] & 0x0C == 0x0C:
        return None
    version, is_mono = head[1] >> 3 & 3, head[3] >> 6 == 3  # version 3 is MPEG 1, 2 is MPEG 2, 0 is MPEG 2.5
    kilobits = MP3_KILOBITS[version == 3][head[2] >> 4]
    if kilobits == 0:
        return None
    rate = MP3_RATES[head[2] >> 2 & 3] >> (3 - version + 1) // 2
    size = (144_000 if version == 3 else 72_000) * kilobits // rate + (head[2] >> 1 & 1)
    place = side_info_end(head)
    announced = None
    if head[place : place + 4] in (b"Xing", b"Info") and len(head) == 50:
        announced = int.from_bytes(head[place + 8 : place + 12], "big") if head[place + 7] & 1 else 0
    return Mp3Frame(position, size, head[:4], (version, rate, is_mono), kilobits, announced)


def side_info_end(header: bytes) -> int:
    """Return how many bytes come before a frame's sound: its header, checksum and side information."""
    is_mono = header[3] >> 6 == 3
    side_info = (17 if is_mono else 32) if header[1] & 0x18 == 0x18 else (9 if is_mono else 17)
    return 4 + 2 * (header[1] & 1 == 0) + side_info


def mp3_frames(file: BinaryIO) -> Iterator[Mp3Frame]:
    """Yield the frames of an mp3 file, without what is between them; after anything else two of a kind must come in a row."""
    frame = next_mp3_frame(file, 0)
    while frame is not None:
        yield frame
        following = mp3_frame(file, frame.position + frame.size)
        if following is None or following.kind != frame.kind:
            following = next_mp3_frame(file, frame.position + frame.size)
        frame = following


def next_mp3_frame(file: BinaryIO, position: int) -> Mp3Frame | None:
    """Return the first frame at or after a position that another one of its kind follows."""
    while len(chunk := read_at(file, position, 1 << 16)) >= 4:
        for match in re.finditer(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", chunk):
            frame = mp3_frame(file, position + match.start())
            following = frame and mp3_frame(file, frame.position + frame.size)
            if following and following.kind == frame.kind:
                return frame
        position += len(chunk) - 1
    return None


@dataclass
class Mp3Stream:
    """Frames of the kind of `first`, which may only announce how many others follow."""

    first: Mp3Frame
    frames: int = 0
    kilobits: set[int] = field(default_factory=set)
    runs: list[list[int]] = field(default_factory=list)  # start and stop of frames with nothing between them

    def add(self, frame: Mp3Frame) -> None:
        """Take a frame with sound."""
        self.frames += 1
        self.kilobits.add(frame.kilobits)
        if self.runs and self.runs[-1][1] == frame.position:
            self.runs[-1][1] += frame.size
        else:
            self.runs.append([frame.position, frame.position + frame.size])

    @property
    def is_heard_whole(self) -> bool:
        """Whether libsndfile hears all of it; without an announcement it takes every frame to be as long as the first."""
        return self.frames <= self.first.announced + 2 if self.first.announced else len(self.kilobits) == 1

    def content(self, file: BinaryIO) -> bytes:
        """Return the stream as a file of its own, with a true announcement where it needs one."""
        head = b""
        if not self.is_heard_whole:
            head = true_announcement(self.first.header, self.frames)
        elif self.first.announced is not None:
            head = read_at(file, self.first.position, self.first.size)
        return head + b"".join(read_at(file, start, stop - start) for start, stop in self.runs)


def true_announcement(header: bytes, frames: int) -> bytes:
    """Return a frame without sound that announces how many follow, as LAME's and Xing's encoders put it first."""
    header = bytes([0xFF, header[1] | 1, 0xE0 | header[2] & 0x0C, header[3]])  # no checksum, the highest bit rate
    size = mp3_frame(io.BytesIO(header), 0).size
    return (header.ljust(side_info_end(header), b"\0") + b"Xing" + struct.pack(">II", 1, frames)).ljust(size, b"\0")


def mp3_streams(file: BinaryIO) -> list[bytes]:
    """Return the streams of an mp3 file, each as a file that libsndfile hears whole; [] if the file is such a one itself."""
    streams: list[Mp3Stream] = []
    for frame in mp3_frames(file):
        if frame.announced is not None or not streams or streams[-1].first.kind != frame.kind:
            streams.append(Mp3Stream(frame))
        if frame.announced is None:
            streams[-1].add(frame)
    streams = [stream for stream in streams if stream.frames > 1]
    if len(streams) == 1 and streams[0].is_heard_whole and len(streams[0].runs) == 1:
        return []
    return [stream.content(file) for stream in streams]


def read_at(file: BinaryIO, position: int, size: int) -> bytes:
    """Return bytes of a file from a position."""
    file.seek(position)
    return file.read(size)
