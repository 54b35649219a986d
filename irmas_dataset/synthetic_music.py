"""The music of a synthetic IRMAS, played by a few lines of numpy.

The eleven instruments differ as real ones do (harmonics, formants, envelopes, noise, vibrato) and vary from recording to
recording, so that a model has something to learn and something to get wrong.
"""

from dataclasses import dataclass, fields

import numpy as np
import scipy.fft
import scipy.signal

SAMPLE_RATE = 44_100

SEMITONES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
DRUM_PROBABILITIES = ((0.7, 0.1, 0.3, 0.1), (0.05, 0.1, 0.8, 0.1), (0.9, 0.5, 0.9, 0.5))  # kick, snare, hat on eighths
TABLE_SIZE = 2048  # samples of one period


@dataclass(frozen=True)
class Timbre:
    """The sound of one instrument in one recording; every field is drawn from the ranges in `SOUNDS`."""

    lowest_midi: float = 48
    register_semitones: float = 24
    chord_notes: float = 1  # most notes at once; 1.x rounds to 1
    beats_per_note: float = 1
    rolloff_db: float = 6  # per octave above the fundamental, of the sustained tone
    even_db: float = 0  # even harmonics against odd ones
    bright_db: float = 0  # less rolloff per octave while the tone is bright
    bright_seconds: float = 0.1  # time constant of becoming bright (sustained tones) or dull (struck tones)
    attack_seconds: float = 0.02
    decay_seconds: float = 30
    release_seconds: float = 0.1
    struck: float = 0  # 1: bright first, then dull; 0: dull first, then bright
    vibrato_hz: float = 5.5
    vibrato_cents: float = 0
    tremolo: float = 0
    glide_cents: float = 0  # how far towards the last note a tone starts
    detune_cents: float = 0  # between the two layers of a tone: strings of a piano, stretched partials
    noise_db: float = -60  # breath, bow or plectrum, relative to the tone
    noise_hz: float = 3000
    drive: float = 0  # of the amplifier


SOUNDS = {
    "cel": dict(lowest_midi=(36, 43), register_semitones=(14, 24), beats_per_note=(1, 2.5), rolloff_db=(5, 9), bright_db=(0, 2),
                attack_seconds=(0.03, 0.1), release_seconds=(0.08, 0.25), vibrato_hz=(4.5, 6.2), vibrato_cents=(5, 25),
                glide_cents=(0, 60), noise_db=(-40, -28), noise_hz=(1500, 3500)),
    "cla": dict(lowest_midi=(50, 60), register_semitones=(14, 24), beats_per_note=(0.5, 1.5), rolloff_db=(5, 9), even_db=(-36, -20),
                bright_db=(0, 2), attack_seconds=(0.015, 0.04), release_seconds=(0.04, 0.1), vibrato_cents=(0, 4),
                noise_db=(-48, -34), noise_hz=(1500, 4000)),
    "flu": dict(lowest_midi=(66, 74), register_semitones=(14, 24), beats_per_note=(0.5, 1.5), rolloff_db=(9, 15), bright_db=(0, 3),
                attack_seconds=(0.03, 0.08), release_seconds=(0.05, 0.12), vibrato_hz=(4.5, 6), vibrato_cents=(2, 18),
                tremolo=(0.1, 0.3), noise_db=(-24, -14), noise_hz=(2000, 5000)),
    "gac": dict(lowest_midi=(40, 50), register_semitones=(16, 28), chord_notes=(1, 4.5), beats_per_note=(0.4, 1), rolloff_db=(6, 10),
                bright_db=(2, 5), bright_seconds=(0.05, 0.25), attack_seconds=(0.001, 0.004), decay_seconds=(0.2, 0.6),
                release_seconds=(0.05, 0.2), struck=(1, 1), detune_cents=(0, 2), noise_db=(-30, -20), noise_hz=(2000, 6000)),
    "gel": dict(lowest_midi=(40, 54), register_semitones=(14, 28), chord_notes=(1, 3.5), beats_per_note=(0.4, 1.5), rolloff_db=(5, 9),
                bright_db=(1, 4), bright_seconds=(0.1, 0.5), attack_seconds=(0.002, 0.006), decay_seconds=(0.6, 4),
                release_seconds=(0.05, 0.15), struck=(1, 1), vibrato_cents=(0, 15), glide_cents=(0, 80), noise_db=(-44, -30),
                drive=(0.6, 8)),
    "org": dict(lowest_midi=(40, 55), register_semitones=(16, 28), chord_notes=(1.5, 4.5), beats_per_note=(0.5, 2.5),
                attack_seconds=(0.004, 0.02), release_seconds=(0.02, 0.08), vibrato_hz=(4, 7), vibrato_cents=(0, 10),
                tremolo=(0, 0.35), noise_db=(-50, -36)),
    "pia": dict(lowest_midi=(40, 56), register_semitones=(18, 30), chord_notes=(2, 4.5), beats_per_note=(0.4, 1), rolloff_db=(7, 11),
                bright_db=(1, 4), bright_seconds=(0.08, 0.4), attack_seconds=(0.002, 0.006), decay_seconds=(0.8, 2.5),
                release_seconds=(0.06, 0.25), struck=(1, 1), detune_cents=(5, 12), noise_db=(-36, -26), noise_hz=(300, 900)),
    "sax": dict(lowest_midi=(44, 54), register_semitones=(14, 22), beats_per_note=(0.4, 1.2), rolloff_db=(3, 6), bright_db=(0, 3),
                attack_seconds=(0.015, 0.05), release_seconds=(0.04, 0.12), vibrato_hz=(4.5, 6), vibrato_cents=(4, 30),
                glide_cents=(20, 150), noise_db=(-30, -20), noise_hz=(2000, 5000), drive=(0.3, 1)),
    "tru": dict(lowest_midi=(56, 63), register_semitones=(12, 22), beats_per_note=(0.4, 1.5), rolloff_db=(5, 9), bright_db=(2, 5),
                bright_seconds=(0.04, 0.15), attack_seconds=(0.015, 0.04), release_seconds=(0.03, 0.1), vibrato_cents=(0, 12),
                noise_db=(-48, -34)),
    "vio": dict(lowest_midi=(60, 69), register_semitones=(14, 26), beats_per_note=(0.5, 2), rolloff_db=(4, 8), bright_db=(0, 2),
                attack_seconds=(0.03, 0.1), release_seconds=(0.06, 0.2), vibrato_hz=(5, 6.5), vibrato_cents=(8, 35),
                glide_cents=(0, 80), noise_db=(-38, -24), noise_hz=(3000, 7000)),
    "voi": dict(lowest_midi=(45, 60), register_semitones=(10, 18), beats_per_note=(0.5, 1.5), rolloff_db=(5, 9), bright_db=(0, 2),
                attack_seconds=(0.03, 0.1), release_seconds=(0.05, 0.15), vibrato_hz=(4.8, 6.5), vibrato_cents=(10, 60),
                glide_cents=(20, 250), noise_db=(-38, -24), noise_hz=(4000, 8000)),
    "pad": dict(lowest_midi=(45, 60), register_semitones=(12, 18), chord_notes=(2.5, 3.5), beats_per_note=(4, 4), rolloff_db=(6, 16),
                attack_seconds=(0.05, 0.4), release_seconds=(0.2, 0.5), detune_cents=(3, 12)),
    "bass": dict(lowest_midi=(28, 34), register_semitones=(12, 14), beats_per_note=(0.5, 2), rolloff_db=(8, 16), bright_db=(0, 4),
                 attack_seconds=(0.003, 0.02), decay_seconds=(0.4, 3), struck=(1, 1)),
    "bells": dict(lowest_midi=(60, 72), register_semitones=(12, 24), chord_notes=(1, 2.4), beats_per_note=(0.25, 0.5),
                  rolloff_db=(8, 18), even_db=(-20, 0), attack_seconds=(0.001, 0.003), decay_seconds=(0.1, 0.5), struck=(1, 1)),
}  # fmt: skip
"""Sound -> the range of each field of `Timbre` that is not at its default: eleven instruments, then the accompaniment."""

FORMANTS = {
    "cel": ((250, 0.5, 6), (600, 0.5, 5), (1400, 0.6, 4)),
    "gac": ((110, 0.4, 5), (220, 0.4, 5), (2500, 1.0, 3)),
    "gel": ((400, 1.0, 3), (2500, 0.6, 7)),
    "sax": ((600, 0.5, 8), (1600, 0.4, 6), (3400, 0.4, 6)),
    "tru": ((1300, 0.6, 12), (2600, 0.6, 5)),
    "vio": ((480, 0.3, 4), (1000, 0.5, 4), (2900, 0.5, 9)),
    "cla": ((1500, 0.5, 6),),
}
"""Sound -> resonances of its body (centre in Hz, width in octaves, gain in dB)."""

VOWELS = tuple(
    ((first_hz, 0.25, 14), (second_hz, 0.2, 12), (third_hz, 0.2, 10))
    for first_hz, second_hz, third_hz in (
        (750, 1200, 2600), (500, 1900, 2600), (300, 2300, 3000), (480, 850, 2500), (330, 750, 2400),
    )
)  # fmt: skip
"""The formants of a, e, i, o, u, in the form of `FORMANTS`."""

DRAWBARS = (1, 2, 3, 4, 6, 8, 10, 12, 16)
"""The organ's pipes as multiples of half the fundamental."""

ACCOMPANIMENT_DB = {"pad": (-23, -14), "bass": (-21, -11), "bells": (-28, -18)}
"""Range of the level of each accompanying part, relative to the leading instruments."""


def draw_timbre(sound: str, rng: np.random.Generator) -> Timbre:
    """Draw one instrument of a recording from the ranges of its `sound`."""
    ranges = SOUNDS[sound]
    return Timbre(**{field.name: rng.uniform(*ranges[field.name]) for field in fields(Timbre) if field.name in ranges})


@dataclass(frozen=True)
class Part:
    """One instrument in a recording; `size` scales its resonances, since bodies and vocal tracts differ."""

    sound: str
    timbre: Timbre
    size: float
    drawbar_gains: np.ndarray  # of the organ's nine pipes
    level_db: float
    pan: float  # -1 is left, 1 is right


@dataclass(frozen=True)
class Style:
    """The properties that the excerpts of one recording, or the clips of one song, share."""

    beat_seconds: float
    scale: np.ndarray  # MIDI numbers of the key
    leads: dict[str, Part]
    accompaniment: tuple[Part, ...]
    drums_db: float | None
    drum_pattern: np.ndarray  # (kick snare hat, eighths of two bars), bool
    room_db: float
    room_seconds: float
    tilt_db: float  # per octave
    peak_hz: float
    peak_db: float
    loudness_db: float
    hiss_db: float


def draw_part(sound: str, level_db: tuple[float, float], rng: np.random.Generator) -> Part:
    """Draw the timbre of one part and its place in the mix."""
    drawbar_gains = rng.uniform(0, 1, len(DRAWBARS)) ** 2
    drawbar_gains[1] += 0.5  # the pitch that is played
    return Part(
        sound,
        draw_timbre(sound, rng),
        rng.uniform(0.92, 1.09),
        drawbar_gains,
        rng.uniform(*level_db),
        rng.uniform(-0.7, 0.7),
    )


def draw_style(ensemble: tuple[str, ...], drums: bool, rng: np.random.Generator) -> Style:
    """Draw tempo, key, players, accompaniment and sound of a recording with the instruments of `ensemble`."""
    steps = SEMITONES[rng.choice(list(SEMITONES))]
    tonic = rng.integers(12)
    neutral = [draw_part(sound, level_db, rng) for sound, level_db in ACCOMPANIMENT_DB.items()]
    return Style(
        beat_seconds=60 / rng.uniform(70, 150),
        scale=np.array([midi for midi in range(24, 108) if (midi - tonic) % 12 in steps]),
        leads={sound: draw_part(sound, (-1.5, 1.5), rng) for sound in ensemble},
        accompaniment=tuple(part for part in neutral if rng.random() < 0.5),
        drums_db=rng.uniform(-19, -9) if drums else None,
        drum_pattern=rng.random((3, 16)) < np.tile(DRUM_PROBABILITIES, 4),
        room_db=rng.uniform(-30, -17),
        room_seconds=rng.uniform(0.03, 0.3),
        tilt_db=rng.uniform(-0.4, 0.4),
        peak_hz=np.exp(rng.uniform(np.log(200), np.log(5000))),
        peak_db=rng.uniform(-2, 2),
        loudness_db=rng.uniform(-10, -0.5),
        hiss_db=rng.uniform(-75, -50),
    )


def wave_tables(part: Part, fundamental_hz: float, vowel: int) -> np.ndarray:
    """Return one period of the dull and of the bright tone, (2, TABLE_SIZE), each with an RMS of one."""
    timbre = part.timbre
    harmonic = np.arange(1, max(2, min(TABLE_SIZE // 2, int(0.45 * SAMPLE_RATE / fundamental_hz))))
    if part.sound == "org":
        pipes = np.isin(harmonic, DRAWBARS)
        amplitudes = np.tile(pipes.astype(float), (2, 1))
        amplitudes[:, pipes] = part.drawbar_gains[: pipes.sum()]
    else:
        octaves = np.log2(harmonic)
        decibels = timbre.even_db * (harmonic % 2 == 0)
        for centre_hz, width_octaves, gain_db in VOWELS[vowel] if part.sound == "voi" else FORMANTS.get(part.sound, ()):
            distance = (octaves + np.log2(fundamental_hz / (centre_hz * part.size))) / width_octaves
            decibels = decibels + gain_db * np.exp(-(distance**2))
        rolloffs_db = np.array([[timbre.rolloff_db], [timbre.rolloff_db - timbre.bright_db]])
        amplitudes = 10 ** ((decibels - rolloffs_db * octaves) / 20)
    spectra = np.zeros((2, TABLE_SIZE // 2 + 1), dtype=np.complex64)
    spectra[:, harmonic] = amplitudes * np.exp(2.4j * harmonic**2)  # spread phases, to avoid impulses
    tables = scipy.fft.irfft(spectra)
    return tables / np.sqrt(np.mean(tables**2, axis=1, keepdims=True))


def play_note(
    part: Part, chord_hz: list[float], seconds: float, last_hz: float, num_samples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Play a tone or a chord; return its waveform and its envelope, both float32 of at most `num_samples`."""
    timbre = part.timbre
    length = min(num_samples, int((seconds + 4 * timbre.release_seconds) * SAMPLE_RATE))
    time = np.arange(length, dtype=np.float32) / np.float32(SAMPLE_RATE)

    envelope = 1 - np.exp(-time / np.float32(timbre.attack_seconds))
    envelope *= np.exp(-time / np.float32(timbre.decay_seconds))
    release = int(seconds * SAMPLE_RATE)
    envelope[release:] *= np.exp(-time[: max(0, length - release)] / np.float32(timbre.release_seconds))
    wobble = np.sin(np.float32(2 * np.pi * timbre.vibrato_hz) * time + np.float32(rng.uniform(0, 2 * np.pi)))
    envelope *= np.float32(10 ** (rng.uniform(-6, 0) / 20)) * (1 + np.float32(timbre.tremolo) * wobble)

    # Elapsed time, stretched by vibrato and by the slide from the last pitch: 1 cent is a factor of 2 ** (1 / 1200).
    cents = np.log(2) / 1200
    slide = np.clip(1200 * np.log2(last_hz / chord_hz[0]), -timbre.glide_cents, timbre.glide_cents)
    warped = time - np.float32(timbre.vibrato_cents * cents / (2 * np.pi * timbre.vibrato_hz)) * wobble
    warped -= np.float32(slide * cents * 0.04) * np.exp(time / np.float32(-0.04))
    brightness = np.exp(-time / np.float32(timbre.bright_seconds))
    brightness = brightness if timbre.struck else 1 - brightness

    vowel = int(rng.integers(len(VOWELS)))
    tone = np.zeros(length, dtype=np.float32)
    for fundamental_hz in chord_hz:
        period_hz = fundamental_hz / 2 if part.sound == "org" else fundamental_hz  # drawbars reach an octave below
        dull, bright = wave_tables(part, period_hz, vowel)
        start = rng.uniform()
        tone += dull[read_positions(warped, period_hz, start)]
        detuned_hz = period_hz * (1 + timbre.detune_cents * cents)
        tone += brightness * (bright - dull)[read_positions(warped, detuned_hz, start)]
    return tone * envelope, envelope


def read_positions(warped: np.ndarray, frequency_hz: float, start: float) -> np.ndarray:
    """Return the position in a wave table of each sample of a tone; `start` is the phase in periods."""
    positions = warped.astype(np.float64)
    positions *= frequency_hz * TABLE_SIZE
    positions += start * TABLE_SIZE
    return positions.astype(np.int32) & (TABLE_SIZE - 1)


def play_part(part: Part, style: Style, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Improvise one part in the style's key and tempo; return float32 (num_samples,) with an RMS of `level_db`."""
    timbre = part.timbre
    register = style.scale[style.scale >= timbre.lowest_midi]
    register = register[: max(4, round(timbre.register_semitones * 7 / 12))]
    waveform = np.zeros(num_samples, dtype=np.float32)
    envelope = np.zeros(num_samples, dtype=np.float32)

    degree = int(rng.integers(len(register)))
    last_hz = midi_to_hz(register[degree])
    start = rng.uniform(0, 0.1)
    while (first := int(start * SAMPLE_RATE)) < num_samples:
        seconds = style.beat_seconds * timbre.beats_per_note * rng.choice((0.5, 1, 1, 1.5))
        chord = degree + 2 * np.arange(max(1, round(rng.uniform(1, timbre.chord_notes))))
        chord_hz = [midi_to_hz(register[d]) for d in chord if d < len(register)]
        note, note_envelope = play_note(part, chord_hz, 0.9 * seconds, last_hz, num_samples - first, rng)
        waveform[first : first + len(note)] += note
        envelope[first : first + len(note)] += note_envelope
        last_hz = chord_hz[0]
        degree = int(np.clip(degree + rng.integers(-3, 4), 0, len(register) - 1))
        start += seconds * (1 if rng.random() < 0.88 else 2)  # sometimes a rest

    if timbre.noise_db > Timbre.noise_db:
        waveform += 10 ** (timbre.noise_db / 20) * envelope * coloured_noise(timbre.noise_hz, num_samples, rng)
    if timbre.drive:
        waveform = np.tanh(np.float32(timbre.drive) * waveform)
    return waveform * (10 ** (part.level_db / 20) / np.sqrt(np.mean(waveform**2) + 1e-12))


def midi_to_hz(midi: float) -> float:
    return 440 * 2 ** ((midi - 69) / 12)


def coloured_noise(centre_hz: float, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise around `centre_hz` with an RMS of about one, float32 (num_samples,)."""
    noise = rng.standard_normal(num_samples, dtype=np.float32)
    b, a = scipy.signal.iirpeak(centre_hz, Q=0.8, fs=SAMPLE_RATE)
    return 2 * scipy.signal.lfilter(b.astype(np.float32), a.astype(np.float32), noise)


def play_drums(style: Style, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Play the style's pattern on a kick, a snare and a hi-hat; return float32 (num_samples,)."""
    time = np.arange(int(0.25 * SAMPLE_RATE)) / SAMPLE_RATE
    noise = rng.standard_normal((2, len(time)))
    hits = (
        1.5 * np.sin(2 * np.pi * (50 * time - 5 * np.exp(-time / 0.03))) * np.exp(-time / 0.08),
        0.7 * (noise[0] + np.sin(2 * np.pi * 190 * time)) * np.exp(-time / 0.06),
        0.4 * np.diff(noise[1], prepend=0) * np.exp(-time / 0.025),
    )
    waveform = np.zeros(num_samples + len(time), dtype=np.float32)
    eighth = style.beat_seconds / 2 * SAMPLE_RATE
    offset = int(rng.integers(16))
    for step in range(int(num_samples / eighth)):
        for hit, pattern in zip(hits, style.drum_pattern, strict=True):
            if pattern[(step + offset) % 16]:
                first = int(step * eighth)
                waveform[first : first + len(time)] += rng.uniform(0.6, 1) * hit
    waveform = waveform[:num_samples]
    return waveform * (10 ** (style.drums_db / 20) / np.sqrt(np.mean(waveform**2) + 1e-12))


def play(style: Style, labels: tuple[str, ...], num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Play an excerpt in which the instruments of `labels` lead; return int16 (num_samples, 2) at 44.1 kHz."""
    parts = [style.leads[label] for label in labels] + list(style.accompaniment)
    stereo = np.zeros((2, num_samples), dtype=np.float32)
    for part in parts:
        angle = np.pi / 4 * (1 + part.pan)
        waveform = play_part(part, style, num_samples, rng)
        stereo += np.array([[np.cos(angle)], [np.sin(angle)]], dtype=np.float32) * waveform
    if style.drums_db is not None:
        stereo += np.float32(0.7) * play_drums(style, num_samples, rng)
    stereo += np.float32(10 ** (style.hiss_db / 20)) * rng.standard_normal(num_samples, dtype=np.float32)
    stereo = record(style, stereo, rng)
    stereo *= 32_767 * 10 ** (style.loudness_db / 20) / np.abs(stereo).max()
    return np.ascontiguousarray(stereo.T).astype(np.int16)


def record(style: Style, stereo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Filter (2, samples) with the style's room (decaying noise) and equaliser, in one impulse response."""
    time = np.arange(int(2.5 * style.room_seconds * SAMPLE_RATE), dtype=np.float32) / np.float32(SAMPLE_RATE)
    room = rng.standard_normal((2, len(time)), dtype=np.float32) * np.exp(time / np.float32(-style.room_seconds))
    room *= 10 ** (style.room_db / 20) / np.sqrt(np.sum(room[0] ** 2))
    room[:, 0] += 1
    size = scipy.fft.next_fast_len(len(time) + 2048, real=True)
    octave = np.log2(np.maximum(scipy.fft.rfftfreq(size, 1 / SAMPLE_RATE), 20) / 1000)
    decibels = style.tilt_db * octave + style.peak_db * np.exp(-((octave - np.log2(style.peak_hz / 1000)) ** 2))
    equalised = scipy.fft.irfft(scipy.fft.rfft(room, size) * 10 ** (decibels / 20), size).astype(np.float32)
    return scipy.signal.oaconvolve(stereo, equalised, axes=1)[:, : stereo.shape[1]]
