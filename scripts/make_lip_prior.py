"""Makes the lip-motion prior that ships: learnt from synthetic speech, from no person.

    python scripts/make_lip_prior.py --out fg3dgs_jax/experts/audio/lip_prior.npz --flite

espeak-ng (Debian: libespeak-ng1) speaks words, numbers and syllables without meaning in thirteen
languages and tells when each sound begins. `synthetic.articulation` says what a mouth does then,
`synthetic.recording` puts the speech into rooms, microphones and noise. Pauses, noise, music and
knocks have resting lips.
"""

import argparse
import ctypes
import functools
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from fg3dgs_jax.experts.audio import lip_prior, whisper
from fg3dgs_jax.lipsync import lip_fit
from fg3dgs_jax.media import loudness
from fg3dgs_jax.media.clock import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.synthetic import nonsense, recording
from fg3dgs_jax.synthetic.articulation import BREATH, CURVES, Phone, Style, lip_motion
from fg3dgs_jax.weights import store

# Weights of the languages; English more, because it is spoken in more manners.
SHARES = {"en": 6, "fr": 2, "de": 2, "es": 2, "it": 2, "pt": 1, "ru": 2, "ar": 1}
SHARES |= {"zh": 2, "ko": 1, "ja": 1, "pl": 1, "tr": 1}
ENGLISH = ("en-us", "en-us", "en-us-nyc", "en-gb-x-rp", "en-gb-scotland", "en-029")
MEN = ("", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "klatt", "klatt2", "klatt4", "Andy")
MEN += ("Denis", "Gene", "Jacky", "Lee", "Mario", "Michael", "max", "paul", "rob", "john", "ed")
WOMEN = ("f1", "f2", "f3", "f4", "f5", "Annie", "Alicia", "Andrea", "anika", "belinda", "linda")
WOMEN += ("steph", "shelby", "grandma", "victor")
# The phonemes of American English in flite's letters.
ARPABET = dict(
    zip(
        "aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh "
        "uw v w y z zh".split(),
        "ɑ æ ʌ ɔ aʊ ə aɪ b tʃ d ð ɛ ɚ eɪ f ɡ h ɪ i dʒ k l m n ŋ oʊ ɔɪ p ɹ s ʃ t θ ʊ u v w j z "
        "ʒ".split(),
        strict=True,
    )
) | {"pau": "", "ssil": ""}
ACTIVE_DB = -40.0  # of the peak: what is quieter does not count as speech for the level


class Record(NamedTuple):
    """A clip: what a microphone heard, and the lips that spoke."""

    samples: np.ndarray  # int16 [n], 16 kHz
    curves: np.ndarray  # float32 [n / 640, 5], columns articulation.CURVES
    language: str


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("text", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("uid", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("id", _EventId),
    ]


class Speaker:
    """The library espeak-ng: text in, samples and phonemes out; one in a process (`speaker`)."""

    PHONEME, RATE, PITCH, RANGE = 7, 1, 3, 4  # its numbers of an event and of three settings

    def __init__(self):
        try:
            self._library = ctypes.CDLL("libespeak-ng.so.1")
        except OSError:
            sys.exit("libespeak-ng.so.1 is not installed; Debian: apt install libespeak-ng1")
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int,
            ctypes.POINTER(ctypes.c_short),
            ctypes.c_int,
            ctypes.POINTER(_Event),
        )
        self._callback = kind(self._hear)
        self._c_library = ctypes.CDLL(None)
        self._pieces, self._phones = [], []
        # Sound to the callback, phonemes as events with names in the phonetic alphabet.
        self.sample_rate = self._library.espeak_Initialize(1, 0, None, 1 | 2)
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: str, rate: int, pitch: int, pitch_range: int):
        """Speaks; returns float samples at 16 kHz and phones."""
        self._pieces, self._phones = [], []
        self._c_library.srand(rate + 1000 * pitch)  # what espeak-ng draws, repeatably
        if self._library.espeak_SetVoiceByName(voice.encode()):
            sys.exit(f"espeak-ng has no voice {voice!r}; install espeak-ng-data")
        for setting, value in ((self.RATE, rate), (self.PITCH, pitch), (self.RANGE, pitch_range)):
            self._library.espeak_SetParameter(setting, value, 0)
        # The library looks a little beyond the end.
        code = text.encode() + bytes(64)
        self._library.espeak_Synth(code, len(code), 0, 0, 0, 1, None, None)
        self._library.espeak_Synchronize()
        sound = np.concatenate([np.zeros(1), *self._pieces]) / 32768
        return recording.resample(sound, self.sample_rate / SAMPLE_RATE), list(self._phones)

    def _hear(self, samples, count, events):
        if count > 0 and samples:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float64))
        k = 0
        while events[k].type:
            if events[k].type == self.PHONEME:
                # Eight bytes may end within a letter.
                name = events[k].id.text.decode("utf-8", "ignore")
                if not name.startswith("("):  # a change of language
                    self._phones.append(Phone(name, events[k].milliseconds / 1000))
            k += 1
        return 0


@functools.cache
def speaker() -> Speaker:
    """The process's speaker: the library hangs if it is set up twice."""
    return Speaker()


class Flite:
    """The program flite: English of voices that were made from recordings, less robotic."""

    VOICES: ClassVar = {"rms": 95, "slt": 170, "awb": 115}  # and their mean pitch in Hz

    def __init__(self):
        if shutil.which("flite") is None:
            sys.exit("flite is not installed; Debian: apt install flite, or leave out --flite")

    def say(self, text: str, voice: str, rate: int, pitch: int, pitch_range: int):
        """As `Speaker.say`, with the same scales."""
        settings = {
            "duration_stretch": 165 / rate,
            "int_f0_target_mean": self.VOICES[voice] * 2 ** ((pitch - 47) / 60),
            "int_f0_target_stddev": 0.4 * pitch_range,
        }
        flags = [
            part for item in settings.items() for part in ("--setf", "{}={:.3f}".format(*item))
        ]
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "speech.wav"
            command = ["flite", "-voice", voice, *flags, "-psdur", "-t", text, "-o", str(path)]
            spoken = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            with wave.open(str(path)) as file:
                sound = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
                sample_rate = file.getframerate()
        # "name:end" of every phoneme, in s.
        names, ends = zip(*(word.split(":") for word in spoken.split()), strict=True)
        starts = [0.0, *map(float, ends[:-1])]
        phones = [Phone(ARPABET[n], start) for n, start in zip(names, starts, strict=True)]
        return recording.resample(sound, sample_rate / SAMPLE_RATE), phones


class Clip(NamedTuple):
    """Clean speech and its lips, before it is recorded."""

    samples: np.ndarray  # float [n]
    curves: np.ndarray
    language: str


def speak(teller: Speaker | Flite, rng: np.random.Generator, flite: Flite | None = None) -> Clip:
    """One speaker's phrases with pauses between: 8 to 24 s."""
    names = list(SHARES)
    shares = np.array([SHARES[name] for name in names], float)
    language = str(rng.choice(names, p=shares / shares.sum()))
    man = rng.uniform() < 0.6
    voice = str(rng.choice(ENGLISH)) if language == "en" else nonsense.LANGUAGES[language].voice
    variant = str(rng.choice(MEN if man else WOMEN))
    voice += f"+{variant}" if variant else ""
    if flite and language == "en" and rng.uniform() < 0.6:
        teller, voice = flite, str(rng.choice(list(Flite.VOICES)))
        man = voice != "slt"
    rate, pitch = rng.integers(115, 215), rng.integers(25, 70)
    size = rng.uniform(0.86, 1.12) if man else rng.uniform(0.95, 1.2)
    talkative = rng.uniform()  # how rarely this speaker pauses
    pieces, phones, efforts, at = [], [], [], 0.0
    length = rng.uniform(8, 24)
    while at < length:
        pause = rng.exponential(0.25 + 0.5 * (1 - talkative)) * (rng.uniform() > 0.2)
        pause = float(np.clip(pause, 0.0, 2.0))
        words = nonsense.text(language, int(rng.integers(3, 12)), rng)
        sound, spoken = teller.say(
            words,
            voice,
            int(rate / size * rng.uniform(0.9, 1.1)),
            int(pitch),
            int(rng.integers(30, 80)),
        )
        sound = recording.resample(sound, size)
        spoken = [Phone(name, start / size) for name, start in spoken]
        sound, effort = _with_emphasis(sound, spoken, rng)
        quiet = np.zeros(int(pause * SAMPLE_RATE))
        phones.append(Phone("", at))
        if pause > 0.35 and rng.uniform() < 0.6:
            breath = _breath(min(rng.uniform(0.25, 0.5), pause - 0.05), rng)
            quiet[len(quiet) - len(breath) :] = breath
            phones.append(Phone(BREATH, at + pause - len(breath) / SAMPLE_RATE))
        pieces += [quiet, sound]
        phones += [Phone(name, at + pause + start) for name, start in spoken]
        efforts += [np.ones(len(quiet) // 160), effort]
        at = sum(map(len, pieces)) / SAMPLE_RATE
        phones.append(Phone("", at))
    samples = np.concatenate(pieces)
    count = len(samples) // SAMPLES_PER_FRAME
    samples = samples[: count * SAMPLES_PER_FRAME]
    style = Style(haste=float(np.clip(150 / rate, 0.85, 1.15)))
    curves = lip_motion(phones, count / FPS, np.concatenate(efforts), style)
    return Clip(samples / max(_level(samples), 1e-6) * 0.1, curves, language)


def _breath(seconds, rng):
    """Air drawn in through the mouth: noise that swells and stops."""
    count = int(seconds * SAMPLE_RATE)
    swell = np.sin(np.pi * np.linspace(0, 1, count) ** 1.5) ** 2
    noise = recording.equalise(recording.coloured_noise(count, rng, 0.7), rng, 5.0)
    return noise * swell * 10 ** (-rng.uniform(28, 50) / 20)


def _with_emphasis(sound, phones, rng):
    """Random loudness by phrase and by syllable, and the effort [n / 160] that goes with it."""
    count = len(sound) // 160 + 1
    decibel = np.full(count, rng.normal() * 3.0)
    knots = np.sort([phone.start for phone in phones])[::4] * 100
    if len(knots) > 1:
        decibel += np.interp(np.arange(count), knots, rng.normal(size=len(knots)) * 4.0)
    decibel = np.clip(decibel, -12, 8)
    gain = np.interp(np.arange(len(sound)) / 160, np.arange(count), 10 ** (decibel / 20))
    return sound * gain, np.clip(1 + 0.04 * decibel, 0.5, 1.4)


def _level(samples):
    """RMS of what is spoken."""
    blocks = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    power = np.mean(blocks**2, 1)
    active = power > power.max() * 10 ** (ACTIVE_DB / 10)
    return float(np.sqrt(power[active].mean())) if active.any() else 0.0


def record(clip: Clip, others: list[np.ndarray], rng: np.random.Generator) -> Record:
    """The clip through a room, a microphone and noise.

    Args:
      clip: clean.
      others: clean samples of other clips, for babble.
      rng: chooses all of it.
    """
    samples, level = clip.samples, 0.1
    count = len(samples)
    if rng.uniform() < 0.7:
        seconds, direct = rng.uniform(0.1, 0.7), 10 ** rng.uniform(-0.2, 1.5)
        samples = recording.reverberate(samples, rng, seconds, direct)
    kind = rng.choice(["white", "pink", "babble", "music", "none"], p=[0.2, 0.35, 0.1, 0.1, 0.25])
    ratio = rng.uniform(10, 40)
    if kind == "babble" and others:
        crowd = np.sum([np.resize(others[k], count) for k in rng.integers(len(others), size=4)], 0)
        samples = recording.mixed(samples, crowd, max(ratio, 12), level)
    elif kind == "music":
        samples = recording.mixed(samples, recording.music(count, rng), max(ratio, 12), level)
    elif kind != "none":
        slope = {"white": 0.0, "pink": rng.uniform(0.7, 2.0)}.get(kind, 1.0)
        samples = recording.mixed(
            samples, recording.coloured_noise(count, rng, slope), ratio, level
        )
    samples = samples + level * 10 ** (-rng.uniform(45, 75) / 20) * rng.normal(size=count)
    samples = recording.equalise(samples, rng, rng.uniform(0, 4))
    if rng.uniform() < 0.4:  # a compressor, as in broadcasts
        samples = np.tanh(samples * rng.uniform(1, 4) / 0.3) * 0.3
    return Record(_as_int16(samples, rng), clip.curves, clip.language)


def unspoken(rng: np.random.Generator) -> Record:
    """Noise, music or knocks of 6 to 12 s, with resting lips."""
    count = int(rng.uniform(6, 12) * FPS) * SAMPLES_PER_FRAME
    kind = str(rng.choice(["noise", "music", "bursts"], p=[0.25, 0.5, 0.25]))
    if kind == "noise":
        samples = recording.coloured_noise(count, rng, rng.uniform(0, 2))
    elif kind == "music":
        samples = recording.music(count, rng)
    else:
        samples = recording.bursts(count, rng)
        samples += 0.001 * rng.normal(size=count)
    curves = lip_motion([Phone("", 0.0)], count / SAMPLE_RATE)
    return Record(_as_int16(recording.equalise(0.1 * samples, rng, 3.0), rng), curves, kind)


def _as_int16(samples, rng):
    samples = samples * 10 ** (rng.uniform(-8, 6) / 20)
    samples = samples / max(np.abs(samples).max() / 0.97, 1.0)
    return np.rint(samples * 32767).astype(np.int16)


def records(minutes: float, seed: int, flite: Flite | None = None) -> Iterator[Record]:
    """Clips of speech, and one in nine of something else, until they last `minutes`."""
    voice, rng = speaker(), np.random.default_rng(seed)
    others, seconds = [], 0.0
    while seconds < 60 * minutes:
        if rng.uniform() < 1 / 9:
            made = unspoken(rng)
        else:
            clip = speak(voice, rng, flite)
            made = record(clip, others, rng)
            others = [*others[-19:], clip.samples]
        seconds += len(made.curves) / FPS
        yield made


def fit(made: Sequence[Record], path: pathlib.Path, steps: int, seed: int) -> None:
    """Learns lips from sound and writes the prior."""
    encoder = whisper.load(store.require("whisper_tiny_en"))
    heard = []
    for clip in progress(made, desc="listen", unit="clip"):
        samples = loudness.apply_gain(clip.samples, loudness.gain_db(clip.samples))
        heard.append(lip_prior.hear(encoder, samples, len(clip.curves)))
    prior = lip_fit.reduce(np.concatenate(heard))
    curves = np.concatenate([clip.curves for clip in made])
    curves = curves[:, [CURVES.index(name) for name in lip_prior.CURVES]]
    curves = (curves - curves.mean(0)) / curves.std(0)
    rows = np.concatenate([lip_prior.in_context(prior, one) for one in heard])
    params = lip_fit.train(lip_fit.Rows(rows, curves.astype(np.float32)), steps, seed)
    facts = {
        "learnt_from": "synthetic speech of espeak-ng and flite, no person's lips",
        "clips": len(made),
        "seconds": round(len(curves) / FPS, 1),
        "steps": steps,
        "seed": seed,
    }
    lip_prior.save(path, prior._replace(params=params, facts=facts))


def main(argv: list[str] | None = None) -> None:
    """Generates, fits, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, default=70.0)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--flite", action="store_true", help="flite speaks 60 %% of the English too"
    )
    args = parser.parse_args(argv)
    begin = time.time()
    made = list(records(args.minutes, args.seed, Flite() if args.flite else None))
    print(f"{len(made)} clips in {time.time() - begin:.0f} s")
    fit(made, args.out, args.steps, args.seed)
    print(f"{args.out}, {args.out.stat().st_size:,} bytes, after {time.time() - begin:.0f} s")


if __name__ == "__main__":
    main()
