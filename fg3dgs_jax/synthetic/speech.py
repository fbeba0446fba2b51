"""Speech-like sound and the mouth that makes it: babble with the rhythm of speech.

Syllables of a few vowels and consonants, formant-synthesised. The same smoothed tracks (formants,
voicing, noise; jaw, spread, round, closure) give the samples and the mouth, so every mouth shape is
determined by the sound within about 100 ms.
"""

from typing import NamedTuple

import numpy as np

from fg3dgs_jax.media.clock import FPS, SAMPLE_RATE

TRACK_RATE = 1000  # Hz of the articulation tracks before they are read at frame centres
HARMONICS = 34  # of a voice near 120 Hz: the first 4 kHz
BANDWIDTHS = (90.0, 110.0, 170.0, 250.0)  # Hz of the four formants
# Hz: "s", "sh", "f" and bursts.
NOISE_BANDS = ((3800.0, 7600.0), (1900.0, 5200.0), (1200.0, 7800.0))


class Phone(NamedTuple):
    """Targets of one sound.

    Jaw, spread, round and closure in [0, 1] are the mouth, the rest is the voice.
    """

    formants: tuple[float, float, float]
    jaw: float
    spread: float
    round: float
    closure: float = 0.0
    voice: float = 1.0
    noise: tuple[float, float, float] = (0.0, 0.0, 0.0)


VOWELS = {
    "a": Phone((760, 1250, 2550), 1.0, 0.15, 0.0, voice=1.0),
    "e": Phone((540, 1850, 2550), 0.58, 0.65, 0.0, voice=0.85),
    "i": Phone((290, 2280, 3050), 0.26, 1.0, 0.0, voice=0.65),
    "o": Phone((480, 860, 2450), 0.58, 0.0, 0.75, voice=0.85),
    "u": Phone((310, 760, 2250), 0.24, 0.0, 1.0, voice=0.65),
    "ə": Phone((510, 1480, 2500), 0.42, 0.15, 0.1, voice=0.75),
}
CONSONANTS = {
    "m": Phone((240, 1000, 2200), 0.05, 0.1, 0.1, closure=1.0, voice=0.22),
    "b": Phone((230, 900, 2200), 0.05, 0.1, 0.1, closure=1.0, voice=0.06),
    "s": Phone((320, 1800, 2600), 0.12, 0.5, 0.0, voice=0.0, noise=(0.30, 0.0, 0.0)),
    "ʃ": Phone((320, 1700, 2500), 0.16, 0.0, 0.7, voice=0.0, noise=(0.0, 0.30, 0.0)),
    "f": Phone((340, 1100, 2300), 0.10, 0.2, 0.0, closure=0.55, voice=0.0, noise=(0.0, 0.0, 0.10)),
    "l": Phone((380, 1350, 2700), 0.26, 0.3, 0.0, voice=0.45),
    "d": Phone((260, 1700, 2600), 0.18, 0.3, 0.0, voice=0.10, noise=(0.0, 0.0, 0.05)),
}
PAUSE = Phone((500, 1480, 2500), 0.0, 0.1, 0.05, closure=0.35, voice=0.0)


def synthesize_speech(seed: int, seconds: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Makes babble, and the mouth that makes it.

    Args:
      seed: another seed is another text.
      seconds: length; rounded to whole frames of 1/25 s.

    Returns:
      samples int16 [T * 640] at 16 kHz, and the articulation at the centre of each frame: a dict of
      float32 [T] arrays in [0, 1]: `jaw` (openness), `spread` (wide lips), `round` (narrow,
      protruded lips), `closure` (lips pressed), `energy` (loudness of the voice and the noise).
    """
    frames = round(seconds * FPS)
    if frames < 1:
        raise ValueError(f"seconds is {seconds}; expected at least one frame of {1 / FPS} s")
    rng = np.random.default_rng([seed, 0x5EEC])
    tracks = _tracks(_script(rng, frames / FPS), frames * TRACK_RATE // FPS)
    samples = _voice(rng, tracks, frames * SAMPLE_RATE // FPS)
    at = (np.arange(frames) * 2 + 1) * TRACK_RATE // (2 * FPS)
    shape = {
        name: tracks[name][at].astype(np.float32) for name in ("jaw", "spread", "round", "closure")
    }
    loud = tracks["voice"] + tracks["noise"].sum(-1)
    return samples, {**shape, "energy": np.clip(loud[at], 0, 1).astype(np.float32)}


def _script(rng, seconds):
    """A list of (phone, seconds): phrases of 4-8 syllables with pauses between.

    Vowels come in shuffled rounds.
    """
    script, time, bag = [(PAUSE, 0.25)], 0.25, []
    while time < seconds:
        phrase = []
        for _ in range(rng.integers(4, 9)):
            bag = bag or list(rng.permutation(list(VOWELS)))
            phrase.append((CONSONANTS[rng.choice(list(CONSONANTS))], rng.uniform(0.07, 0.11)))
            phrase.append((VOWELS[bag.pop()], rng.uniform(0.13, 0.24)))
        phrase.append((PAUSE, rng.uniform(0.25, 0.55)))
        script += phrase
        time += sum(length for _, length in phrase)
    return script


def _tracks(script, length):
    """Piecewise constant targets -> smooth tracks at TRACK_RATE.

    The lips close faster than the jaw moves.
    """
    ends = np.cumsum([round(seconds * TRACK_RATE) for _, seconds in script])
    which = np.searchsorted(ends, np.arange(length), side="right").clip(max=len(script) - 1)
    smooth_ms = {
        "formants": 40,
        "jaw": 90,
        "spread": 90,
        "round": 90,
        "closure": 60,
        "voice": 30,
        "noise": 30,
    }
    return {
        name: _smooth(np.array([getattr(phone, name) for phone, _ in script], float)[which], ms)
        for name, ms in smooth_ms.items()
    }


def _smooth(track, milliseconds):
    """Centred Hann window over axis 0, edges repeated."""
    window = np.hanning(milliseconds * TRACK_RATE // 1000 + 2)[1:-1]
    window /= window.sum()
    left = len(window) // 2
    flat = np.pad(
        track.reshape(len(track), -1), ((left, len(window) - 1 - left), (0, 0)), mode="edge"
    )
    smooth = np.stack([np.convolve(column, window, "valid") for column in flat.T], -1)
    return smooth.reshape(track.shape)


def _voice(rng, tracks, length):
    """The tracks' sound, int16 [length].

    Additive glottal source under the formants' envelope, band noise, soft limiting.
    """
    time = np.arange(length) / SAMPLE_RATE

    def up(track):
        return np.interp(time * TRACK_RATE, np.arange(len(track)), track)

    wander = sum(
        np.sin(2 * np.pi * (f * time + p))
        for f, p in zip((0.37, 0.83, 2.1), rng.random(3), strict=True)
    )
    pitch = 118.0 + 9.0 * wander + 14.0 * up(tracks["voice"])
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    formants = [up(tracks["formants"][:, i]) for i in range(3)] + [np.full(length, 3500.0)]
    sound = np.zeros(length)
    for k in range(1, HARMONICS + 1):
        gain = np.ones(length)
        # |H| of a two-pole resonance, 1 at 0 Hz.
        for c, width in zip(formants, BANDWIDTHS, strict=True):
            f = k * pitch
            gain *= (c**2 + width**2) / np.sqrt(
                ((f - c) ** 2 + width**2) * ((f + c) ** 2 + width**2)
            )
        # The glottal source falls by about 12 dB an octave, lips give back 6.
        sound += gain / k**1.2 * np.sin(k * phase)
    sound *= up(tracks["voice"]) * 0.10
    white = np.fft.rfft(rng.standard_normal(length))
    hertz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    for i, (low, high) in enumerate(NOISE_BANDS):
        band = 1 / (1 + np.exp(-(hertz - low) / 150)) / (1 + np.exp((hertz - high) / 150))
        sound += np.fft.irfft(white * band, length) * up(tracks["noise"][:, i]) * 0.5
    # Room tone: a pause is never digital silence.
    sound += 0.0008 * np.fft.irfft(white / (1 + hertz / 400), length)
    return np.rint(np.tanh(sound) * 30000).astype(np.int16)
