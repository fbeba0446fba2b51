"""What a mouth does while phonemes are spoken: opening, width, protrusion, jaw and teeth.

Every letter of the phonetic alphabet has targets and a strength for each of them. A strong sound
keeps its shape, a weak one takes that of its neighbours. Strength spreads over time: rounding
begins well before the sound and the jaw is slow. Lips that close do so whatever the jaw does.
Nobody was measured: the numbers are phonetic common knowledge, in units of an open /a/.
"""

import functools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.media.clock import FPS

CURVES = ("opening", "width", "protrusion", "jaw", "teeth")
TRACK_RATE = 200  # Hz of the tracks before they are read at frame centres
LONG_PAUSE = 0.9  # s: lips come to rest in longer ones, and stay parted for breath in others
KEPT, EARLY = 0.35, 0.28  # s that lips stay parted after speech, and part before it
SHORT_PAUSE = 0.10  # s: no lips move for a shorter one


class Phone(NamedTuple):
    """One spoken sound: its name in the phonetic alphabet and when it begins."""

    name: str  # empty: a pause, BREATH: audible breathing in
    start: float  # s


class Gesture(NamedTuple):
    """Targets of one letter, and how strongly it insists on them."""

    opening: float  # of the lips, 1 for an open /a/
    width: float  # -1 rounded .. 1 spread
    protrusion: float  # 0 .. 1
    jaw: float  # 0 teeth meet .. 1 as for /a/
    teeth: float  # 0 hidden .. 1 shown
    hold: float = 1.0  # strength of opening, jaw and teeth
    hold_shape: float = 1.0  # strength of width and protrusion
    closure: float = 0.0  # 1: the lips meet


class Style(NamedTuple):
    """How somebody speaks; the defaults are an ordinary speaker."""

    haste: float = 1.0  # of all time constants: above 1 neighbours blend more
    rounding: float = 1.0  # of width and protrusion
    rest: float = 0.0  # opening of the lips in a long pause


ORDINARY = Style()


def _vowels():
    rows = {
        # opening, width, protrusion, jaw, teeth
        "aäɑɶ": (1.00, 0.25, 0.00, 1.00, 0.55),
        "æ": (0.95, 0.50, 0.00, 0.90, 0.75),
        "ɐʌ": (0.70, 0.20, 0.00, 0.70, 0.50),
        "ɛ": (0.65, 0.50, 0.00, 0.60, 0.70),
        "e": (0.50, 0.70, 0.00, 0.42, 0.75),
        "ɪᵻ": (0.38, 0.55, 0.00, 0.32, 0.65),
        "i": (0.33, 1.00, 0.00, 0.22, 0.80),
        "ɨɯ": (0.32, 0.40, 0.05, 0.25, 0.60),
        "ɤ": (0.45, 0.25, 0.10, 0.42, 0.50),
        "ɔɒ": (0.68, -0.55, 0.50, 0.75, 0.25),
        "o": (0.42, -0.80, 0.75, 0.48, 0.15),
        "u": (0.20, -1.00, 1.00, 0.25, 0.05),
        "ʊ": (0.28, -0.60, 0.60, 0.30, 0.20),
        "ʉ": (0.22, -0.75, 0.80, 0.25, 0.10),
        "y": (0.20, -0.85, 0.95, 0.22, 0.10),
        "ʏ": (0.27, -0.60, 0.75, 0.30, 0.15),
        "øɵ": (0.36, -0.70, 0.80, 0.42, 0.15),
        "œɞ": (0.52, -0.50, 0.65, 0.58, 0.25),
    }
    table = {k: Gesture(*row) for letters, row in rows.items() for k in letters}
    table["ə"] = Gesture(0.40, 0.10, 0.10, 0.38, 0.50, hold=0.5, hold_shape=0.3)
    table["ɘ"] = table["ə"]
    table["ɜ"] = Gesture(0.48, -0.15, 0.25, 0.45, 0.45, hold=0.9, hold_shape=0.6)
    table["ɝ"] = table["ɚ"] = Gesture(0.36, -0.40, 0.45, 0.35, 0.40, hold=0.9, hold_shape=0.7)
    return table


def _consonants():
    rows = {
        # opening, width, protrusion, jaw, teeth, hold, hold_shape, closure
        "pbm": (0.20, -0.15, 0.05, 0.25, 0.00, 0.7, 0.25, 1.0),
        "ɸβ": (0.20, 0.00, 0.10, 0.25, 0.05, 1.0, 0.3, 0.75),
        "ʙ": (0.20, 0.00, 0.30, 0.25, 0.05, 1.0, 0.5, 0.8),
        "fv": (0.12, 0.15, 0.00, 0.18, 0.55, 2.0, 0.5, 0.45),
        "ʋɱ": (0.16, 0.10, 0.00, 0.20, 0.45, 1.5, 0.4, 0.35),
        "θð": (0.27, 0.20, 0.00, 0.20, 0.70, 1.2, 0.4, 0.0),
        "tdn": (0.26, 0.20, 0.00, 0.16, 0.70, 0.9, 0.25, 0.0),
        "sz": (0.22, 0.45, 0.00, 0.04, 0.90, 1.7, 0.7, 0.0),
        "l": (0.36, 0.20, 0.00, 0.32, 0.60, 0.8, 0.25, 0.0),
        "ɫ": (0.36, -0.05, 0.10, 0.36, 0.50, 0.8, 0.3, 0.0),
        "ɬɮ": (0.28, 0.30, 0.00, 0.20, 0.70, 0.9, 0.3, 0.0),
        "rɾ": (0.32, 0.10, 0.05, 0.28, 0.60, 0.7, 0.2, 0.0),
        "ɹɻ": (0.26, -0.60, 0.60, 0.25, 0.45, 1.0, 1.1, 0.0),
        "ʃʒʂʐ": (0.25, -0.60, 0.85, 0.06, 0.75, 1.7, 1.6, 0.0),
        "ɕʑ": (0.24, 0.10, 0.35, 0.06, 0.80, 1.6, 0.9, 0.0),
        "ʈɖɳɭɽ": (0.30, 0.00, 0.15, 0.20, 0.60, 0.8, 0.25, 0.0),
        "jʝ": (0.28, 0.75, 0.00, 0.18, 0.70, 0.9, 0.8, 0.0),
        "çcɟɲʎ": (0.28, 0.50, 0.00, 0.20, 0.70, 0.9, 0.5, 0.0),
        "kɡgŋ": (0.30, 0.10, 0.00, 0.30, 0.55, 0.55, 0.12, 0.0),
        "xɣɰ": (0.40, 0.10, 0.05, 0.38, 0.50, 0.4, 0.12, 0.0),
        "qɢχʁʀɴ": (0.42, 0.05, 0.05, 0.42, 0.45, 0.4, 0.12, 0.0),
        "ħʕ": (0.60, 0.15, 0.00, 0.60, 0.50, 0.4, 0.12, 0.0),
        "hɦʔ": (0.45, 0.10, 0.00, 0.45, 0.50, 0.12, 0.05, 0.0),
        "w": (0.12, -1.00, 1.00, 0.22, 0.02, 1.6, 1.8, 0.0),
        "ʍ": (0.12, -0.90, 0.90, 0.22, 0.02, 1.5, 1.6, 0.0),
        "ɥ": (0.14, -0.85, 0.95, 0.20, 0.05, 1.5, 1.7, 0.0),
    }
    return {k: Gesture(*row) for letters, row in rows.items() for k in letters}


BREATH = "↓"  # the sign for air drawn in
VOWELS, CONSONANTS = _vowels(), _consonants()
GESTURES = VOWELS | CONSONANTS
GESTURES[BREATH] = Gesture(0.42, 0.30, 0.05, 0.38, 0.40, hold=0.6, hold_shape=0.2)
_UNKNOWN = Gesture(0.35, 0.0, 0.1, 0.35, 0.5, hold=0.3, hold_shape=0.1)
_PALATAL = CONSONANTS["j"]._replace(hold=0.4, hold_shape=0.5)
_ROUND = CONSONANTS["w"]._replace(hold=0.4, hold_shape=1.0)
_REST = Gesture(0.0, 0.30, 0.05, 0.05, 0.05, hold=1.0, hold_shape=0.5)
_PARTED = Gesture(0.20, 0.30, 0.05, 0.20, 0.30, hold=0.5, hold_shape=0.2)
_READY = Gesture(0.28, 0.30, 0.05, 0.26, 0.35, hold=0.5, hold_shape=0.2)

# s, within which strength falls to 1/e before and after a sound, for each of CURVES.
_AHEAD = np.array([0.060, 0.110, 0.130, 0.075, 0.060])
_BEHIND = np.array([0.060, 0.080, 0.090, 0.080, 0.060])
_PAUSE_REACH = 0.6  # of those: speech shows in a pause earlier than a pause in speech
_CORE = 0.5  # of a sound's length, in its middle, at full strength
# The jaw turns about a joint behind and above: an open mouth's lower lip lies further back.
_SWING = 0.5
_SHUT, _OPEN = 0.055, 0.065  # s in which the lips meet before a closure and part after it


class _Part(NamedTuple):
    gesture: Gesture
    start: float
    stop: float
    pause: bool


@functools.lru_cache(maxsize=4096)
def gestures(name: str) -> tuple[Gesture, ...]:
    """The gestures of a phoneme in the phonetic alphabet, one after the other.

    A diphthong or an affricate has several, a vowel with marks of length, stress or nasality one.
    A name without any known letter takes its neighbours' shapes.
    """
    parts = []
    for letter in unicodedata.normalize("NFC", name):
        plain = unicodedata.normalize("NFD", letter)[0]
        if letter in GESTURES or plain in GESTURES:
            parts.append(GESTURES.get(letter) or GESTURES[plain])
        elif letter == "ʲ":
            parts.append(_PALATAL)
        elif letter in "ʷᵝ" and parts:
            rounder = parts[-1]
            parts[-1] = rounder._replace(
                width=min(rounder.width, -0.4),
                protrusion=max(rounder.protrusion, 0.4),
                hold_shape=max(rounder.hold_shape, _ROUND.hold_shape),
            )
        elif letter == "˞" and parts:
            parts.append(VOWELS["ɚ"])
    return tuple(parts) or (_UNKNOWN,)


def lip_motion(
    phones: Sequence[Phone],
    seconds: float,
    effort: np.ndarray | None = None,
    style: Style = ORDINARY,
) -> np.ndarray:
    """The motion of a mouth that speaks.

    Args:
      phones: in order of time; the last one lasts until the end. Lips rest before the first.
      seconds: length of the sound.
      effort: [n] over that length, 1 for ordinary effort: opening and jaw grow with it.
      style: how the speaker does it.

    Returns:
      float32 [round(seconds * 25), 5], the columns of `CURVES`, at the middle of every frame.
    """
    frames = round(seconds * FPS)
    times = (np.arange(int(np.ceil(seconds * TRACK_RATE)) + 1) + 0.5) / TRACK_RATE
    parts = _parts(phones, seconds, style)
    tracks = _blend(parts, times, style)
    tracks[:, 1:3] *= style.rounding
    if effort is not None:
        at = np.linspace(0, seconds, len(effort))
        scale = np.interp(times, at, effort)
        tracks[:, 0] *= scale
        tracks[:, 3] *= scale
    tracks[:, 2] -= _SWING * tracks[:, 3]
    tracks = _smooth(tracks, 0.022 * style.haste)
    shut = _closures(parts, times, style)
    tracks[:, 0] *= 1 - shut
    tracks[:, 4] *= 1 - shut
    middles = (np.arange(frames) + 0.5) / FPS
    curves = [np.interp(middles, times, _smooth(track, 0.010)) for track in tracks.T]
    return np.stack(curves, 1).astype(np.float32)


def _parts(phones, seconds, style):
    """Every phoneme's gestures with their times; pauses long and short."""
    starts = [max(phone.start, 0.0) for phone in phones] + [seconds]
    rest = _REST._replace(opening=style.rest)
    merged: list[tuple[str, float, float]] = [("", 0.0, starts[0])]
    for phone, start, stop in zip(phones, starts[:-1], starts[1:], strict=True):
        if not phone.name and not merged[-1][0]:
            merged[-1] = ("", merged[-1][1], stop)
        else:
            merged.append((phone.name, start, stop))
    parts = []
    for name, start, stop in merged:
        if stop <= start:
            continue
        if not name:
            if stop - start < SHORT_PAUSE:
                continue
            parts += _pause(start, stop, rest, start > 0.0, stop < seconds)
            continue
        several = gestures(name)
        # The first vowel of a diphthong is the longer one.
        weights = np.array([1.3] + [1.0] * (len(several) - 1))
        cuts = start + (stop - start) * np.concatenate([[0], np.cumsum(weights / weights.sum())])
        parts += [_Part(g, cuts[i], cuts[i + 1], False) for i, g in enumerate(several)]
    return parts


def _pause(start, stop, rest, follows, leads):
    """Parted lips, or at length parted, at rest, and ready before speech."""
    last = max(stop - EARLY, start) if leads else stop
    if follows and leads and stop - start < LONG_PAUSE:
        first = last
    else:
        first = min(start + KEPT, last) if follows else start
    cuts = ((_PARTED, start, first), (rest, first, last), (_READY, last, stop))
    return [_Part(gesture, a, b, True) for gesture, a, b in cuts if b > a]


def _blend(parts, times, style):
    """Mean of all targets, weighted by strength: [n, 5]."""
    total, weight = np.zeros((len(times), 5)), np.full((len(times), 5), 1e-9)
    for part in parts:
        gesture = part.gesture
        margin = 0.0 if part.pause else 0.5 * (1 - _CORE) * (part.stop - part.start)
        first, last = part.start + margin, part.stop - margin
        near = slice(*np.searchsorted(times, (first - 0.7, last + 0.7)))
        early = np.maximum(first - times[near], 0)[:, None]
        late = np.maximum(times[near] - last, 0)[:, None]
        reach = style.haste * (_PAUSE_REACH if part.pause else 1.0)
        fall = np.exp(-early / (_AHEAD * reach) - late / (_BEHIND * reach))
        hold = np.array([gesture.hold, *[gesture.hold_shape] * 2, *[gesture.hold] * 2])
        total[near] += hold * fall * np.array(gesture[:5])
        weight[near] += hold * fall
    return total / weight


def _closures(parts, times, style):
    """How far lips are pressed together or on the teeth, whatever the jaw does: [n]."""
    shut = np.zeros(len(times))
    for part in parts:
        if part.gesture.closure:
            # Stops open at the end of their closure, which is before their release ends.
            last = part.start + 0.75 * (part.stop - part.start)
            near = slice(*np.searchsorted(times, (part.start - 0.3, part.stop + 0.3)))
            at = times[near]
            before = np.clip((at - part.start + _SHUT * style.haste) / (_SHUT * style.haste), 0, 1)
            after = np.clip((last + _OPEN * style.haste - at) / (_OPEN * style.haste), 0, 1)
            ramp = np.minimum(before, after)
            bell = part.gesture.closure * ramp * ramp * (3 - 2 * ramp)
            shut[near] = np.maximum(shut[near], bell)
    return shut


def _smooth(tracks, seconds):
    """Gaussian of that deviation along the first axis; ends are held."""
    deviation = max(seconds * TRACK_RATE, 1e-3)
    half = int(np.ceil(3 * deviation))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / deviation) ** 2)
    kernel /= kernel.sum()
    flat = tracks.reshape(len(tracks), -1)
    padded = np.pad(flat, ((half, half), (0, 0)), mode="edge")
    smooth = [np.convolve(column, kernel, mode="valid") for column in padded.T]
    return np.stack(smooth, 1).reshape(tracks.shape)
