"""Hand-made features of a few seconds of music: a waveform becomes one row of numbers with names.

A column is called "descriptor: statistic"; columns of one descriptor belong together (`groups`).
"""

import functools
import warnings
from collections.abc import Callable

import librosa
import numpy as np

SAMPLING_RATE = 22_050  # librosa's own, which both feature sets were designed at
FFT_SIZE, HOP = 2048, 512
NUM_MFCC = 20
VERSION = 1
"""Counted up whenever a feature set gives other numbers than before, so that caches made earlier are not read."""

Columns = dict[str, float]


def sarwar_features(waveform: np.ndarray) -> Columns:
    """Return the 98 columns of AbubakarSarwar's "Instrument Classification of IRMAS Dataset" of a waveform (samples,).

    Their table's header names the columns; what "energy" was it does not say: here the mean square of the samples.
    """
    magnitudes = np.abs(librosa.stft(waveform, n_fft=FFT_SIZE, hop_length=HOP))
    tempo, beats = librosa.beat.beat_track(y=waveform, sr=SAMPLING_RATE, hop_length=HOP)
    columns = {"tempo: value": float(np.squeeze(tempo))}
    columns |= statistics("beat frames", np.asarray(beats, dtype=float), ("sum", "mean", "variance", "deviation"))
    spectral = {"S": magnitudes, "sr": SAMPLING_RATE}
    for name, track in (
        ("centroid", librosa.feature.spectral_centroid(**spectral)[0]),
        ("bandwidth", librosa.feature.spectral_bandwidth(**spectral)[0]),
        ("roll-off", librosa.feature.spectral_rolloff(**spectral)[0]),
    ):
        columns |= statistics(name, track, ("mean", "variance", "deviation"))
    crossings = librosa.feature.zero_crossing_rate(waveform, frame_length=FFT_SIZE, hop_length=HOP)[0]
    columns |= statistics("zero crossings", crossings, ("sum", "mean"))
    columns |= statistics("RMS", librosa.feature.rms(y=waveform, frame_length=FFT_SIZE, hop_length=HOP)[0], ("mean",))
    columns["energy: mean"] = float(np.mean(np.square(waveform)))
    for number, track in enumerate(mfcc(magnitudes)):
        columns |= statistics(f"MFCC {number}", track, ("mean", "sum", "deviation", "variance"))
    return columns


def full_features(waveform: np.ndarray) -> Columns:
    """Return a standard set of timbre, harmony and rhythm of a waveform (samples,): 382 columns.

    MFCC with first and second differences, chroma, spectral contrast, flatness, centroid, bandwidth, roll-off, zero
    crossings, RMS, tonnetz and onset strength, each as mean, deviation, 10th and 90th percentile over the frames; the
    tempogram's ratios to the tempo (Peeters 2005); and the tempo.
    """
    magnitudes = np.abs(librosa.stft(waveform, n_fft=FFT_SIZE, hop_length=HOP))
    spectral = {"S": magnitudes, "sr": SAMPLING_RATE}
    cepstrum = mfcc(magnitudes)
    # Estimating the tuning costs more than everything else here and moves chroma by a fraction of a bin.
    chroma = librosa.feature.chroma_stft(S=magnitudes**2, sr=SAMPLING_RATE, tuning=0.0)
    onsets = librosa.onset.onset_strength(S=librosa.power_to_db(mel_power(magnitudes)), sr=SAMPLING_RATE)
    tracks = {
        "MFCC": cepstrum,
        "MFCC difference": librosa.feature.delta(cepstrum, order=1, mode="nearest"),
        "MFCC second difference": librosa.feature.delta(cepstrum, order=2, mode="nearest"),
        "chroma": chroma,
        "contrast": librosa.feature.spectral_contrast(**spectral),
        "tonnetz": librosa.feature.tonnetz(chroma=chroma),
        "centroid": librosa.feature.spectral_centroid(**spectral),
        "bandwidth": librosa.feature.spectral_bandwidth(**spectral),
        "roll-off": librosa.feature.spectral_rolloff(**spectral),
        "flatness": librosa.feature.spectral_flatness(S=magnitudes),
        "zero crossings": librosa.feature.zero_crossing_rate(waveform, frame_length=FFT_SIZE, hop_length=HOP),
        "RMS": librosa.feature.rms(y=waveform, frame_length=FFT_SIZE, hop_length=HOP),
        "onset strength": onsets[None, :],
    }
    columns: Columns = {}
    for name, rows in tracks.items():
        for number, track in enumerate(rows):
            label = f"{name} {number}" if len(rows) > 1 else name
            columns |= statistics(label, track, ("mean", "deviation", "10 %", "90 %"))
    tempo = float(np.squeeze(librosa.feature.tempo(onset_envelope=onsets, sr=SAMPLING_RATE, hop_length=HOP)))
    ratios = librosa.feature.tempogram_ratio(onset_envelope=onsets, sr=SAMPLING_RATE, bpm=tempo, hop_length=HOP)
    for number, ratio in enumerate(ratios.mean(axis=1)):
        columns[f"tempogram ratio {number}: mean"] = float(ratio)
    return columns | {"tempo: value": tempo}


FEATURE_SETS: dict[str, Callable[[np.ndarray], Columns]] = {"sarwar": sarwar_features, "full": full_features}


def feature_rows(name: str, waveforms: list[np.ndarray]) -> np.ndarray:
    """Return the features of int16 waveforms, (waveforms, columns) float32; what silence leaves undefined is 0."""
    compute = FEATURE_SETS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa warns of silence, of which a test clip may have a window
        rows = [list(compute(waveform.astype(np.float32) / 2**15).values()) for waveform in waveforms]
    return np.nan_to_num(np.array(rows, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)


@functools.cache
def column_names(name: str) -> tuple[str, ...]:
    """Return the names of a feature set's columns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(FEATURE_SETS[name](np.zeros(SAMPLING_RATE, dtype=np.float32)))


def groups(columns: tuple[str, ...]) -> dict[str, list[int]]:
    """Return the columns of each descriptor; the differences of all MFCCs and the tempogram's ratios are one each."""
    found: dict[str, list[int]] = {}
    for index, column in enumerate(columns):
        descriptor = column.split(":")[0]
        if "difference" in descriptor or "ratio" in descriptor:
            descriptor = descriptor.rsplit(" ", 1)[0]
        found.setdefault(descriptor, []).append(index)
    return found


def statistics(name: str, track: np.ndarray, wanted: tuple[str, ...]) -> Columns:
    """Return the wanted statistics of one descriptor's values over the frames; all 0 where there is no value."""
    measures = {
        "sum": np.sum,
        "mean": np.mean,
        "variance": np.var,
        "deviation": np.std,
        "10 %": functools.partial(np.percentile, q=10),
        "90 %": functools.partial(np.percentile, q=90),
    }
    return {f"{name}: {statistic}": float(measures[statistic](track)) if len(track) else 0.0 for statistic in wanted}


def mel_power(magnitudes: np.ndarray) -> np.ndarray:
    """Return the power in 128 mel bands (128, frames)."""
    return librosa.feature.melspectrogram(S=magnitudes**2, sr=SAMPLING_RATE)


def mfcc(magnitudes: np.ndarray) -> np.ndarray:
    """Return librosa's MFCCs (20, frames) of a magnitude spectrogram."""
    return librosa.feature.mfcc(S=librosa.power_to_db(mel_power(magnitudes)), n_mfcc=NUM_MFCC)
