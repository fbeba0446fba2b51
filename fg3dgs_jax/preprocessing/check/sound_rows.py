"""Verdicts on the sound: whether there is any, which track, speech, level, lips against it."""

from typing import NamedTuple

import numpy as np

from fg3dgs_jax.clip import av_offset
from fg3dgs_jax.media import loudness
from fg3dgs_jax.media.clock import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from fg3dgs_jax.preprocessing.check.rows import Row, graded
from fg3dgs_jax.preprocessing.check.sample import Evidence, follows

SILENT_END, SILENT_MIDDLE = 1.0, 3.0  # s without any sound that are told
MORE_SPEECH = 0.2  # of the time, by which another track has to be better


class Heard(NamedTuple):
    """How much is heard of a sound track."""

    level: float  # dBFS of its loud moments
    speech: float  # share of the time


def heard(samples: np.ndarray) -> Heard:
    """How much is heard in int16 [n] at 16 kHz."""
    level = loudness.levels(samples)
    speech = loudness.speech_blocks(samples)
    loud = float(np.percentile(level, 99)) if len(level) else -100.0
    return Heard(loud, float(speech.mean()) if len(speech) else 0.0)


def sound_rows(e: Evidence) -> list[Row]:
    """The rows that need no face."""
    return [_sound(e), _talk(e), _level(e)]


def _sound(e):
    """Whether something is heard, and what was done to it."""
    track, tracks, own = e.source.track, e.source.tracks, heard(e.samples)
    found = f"track {track} of {len(tracks)}" if len(tracks) > 1 else str(track).partition(" ")[2]
    found = found if len(tracks) > 1 else found.strip("()")
    better = max(e.other_tracks, key=lambda n: e.other_tracks[n].speech, default=None)
    more = better is not None and e.other_tracks[better].speech > own.speech + MORE_SPEECH
    other = f"--audio_track {better} takes the track on which more is spoken"
    if own.level < loudness.SILENCE_DB:
        what = "nothing louder than -60 dBFS" if np.any(e.samples) else "digital silence"
        advice = "film with sound, and check the microphone"
        return Row("sound", f"{found}: {what}", "bad", other if more else advice)
    notes, advice = [], []
    if e.source.inverted:
        notes.append("its channels cancel each other")
        advice.append("one channel is turned over: nothing to do, but check it by ear")
    if len(e.source.forms) > 1:
        notes.append(f"changes midway: {', then '.join(e.source.forms)}")
        advice.append("record with one setting")
    if silent := _silent_spans(e.samples, e.begin):
        notes.append(f"digital silence {silent} of the file")
        advice.append("--start and --end leave that out")
    if track.rate < SAMPLE_RATE:
        notes.append("no higher tones")
        advice.append("record at 16 kHz or more")
    if more:
        advice.append(other)
    found = ": ".join([found, *(["; ".join(notes)] if notes else [])])
    return Row("sound", found, "usable" if advice else "good", "; ".join(advice))


def _silent_spans(samples, begin):
    """Where a second or more at an end, or three in the middle, hold no sound at all; in words.

    `begin`: s of the file at which the samples begin.
    """
    blocks = samples[: len(samples) // loudness.BLOCK * loudness.BLOCK]
    empty = ~np.any(blocks.reshape(-1, loudness.BLOCK), axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], empty.astype(np.int8), [0]])))
    spans = []
    for start, stop in edges.reshape(-1, 2):
        at_end = start == 0 or stop == len(empty)
        if (stop - start) / 100 >= (SILENT_END if at_end else SILENT_MIDDLE):
            spans.append(f"{begin + start / 100:.1f} to {begin + stop / 100:.1f} s")
    return ", ".join(spans)


def _talk(e):
    level = loudness.levels(e.samples)
    quiet, loud = np.percentile(level, (5, 99)) if len(level) else (-100.0, -100.0)
    share = float(loudness.speech_map(e.samples, e.num_frames).mean())
    if loud >= loudness.SILENCE_DB and loud - quiet < loudness.MIN_RANGE_DB:
        found = f"not told apart from noise: the level varies by {loud - quiet:.0f} dB only"
        return Row("speech", found, "bad", "record the voice alone, nearer to the microphone")
    measured = f"{share:.0%} of the time"
    if share > 0.97:
        advice = "keep a few seconds of silence with the mouth shut: it has to be learnt too"
        return Row("speech", measured, "usable", advice)
    return graded("speech", measured, share, (0.5, 0.2), "speak most of the time")


def _level(e):
    if not loudness.speech_blocks(e.samples).any():
        return Row("sound level", "no speech to measure it by", "unknown", "")
    loud = np.abs(e.samples.astype(np.int32)) >= 32_700
    clipped, gain = float(loud.mean()), loudness.gain_db(e.samples)
    measured = f"speech at {loudness.TARGET_DB - gain:.0f} dBFS, {clipped:.2%} clipped"
    bad = max(clipped / 0.001, abs(gain) / 15)
    return graded("sound level", measured, -bad, (-1, -10), "adjust the microphone's level")


def step_row(e: Evidence, has_face: np.ndarray) -> Row:
    """Lips against sound in the longest piece; `has_face` is bool [N]."""
    pieces = np.split(np.arange(len(e.frames)), np.flatnonzero(~follows(e.frames)) + 1)
    rows = max(pieces, key=len)
    first = int(e.frames[rows[0]])
    sound = e.samples[first * SAMPLES_PER_FRAME : (first + len(rows)) * SAMPLES_PER_FRAME]
    measured = av_offset.estimate(e.pixels[rows], has_face[rows], sound)
    if not measured.certain:
        found = f"not certain from {len(rows) / FPS:.0f} s"
        return Row("lips and sound", found, "unknown", measured.reason)
    if not measured.out_of_step:
        return Row("lips and sound", measured.found, "good", "")
    if e.av_offset is None:
        advice = "it is moved into step, if all of the clip shows it (--av_offset auto)"
        return Row("lips and sound", measured.found, "usable", advice)
    advice = measured.in_words(e.av_offset).split(": ", 1)[1]
    verdict = "bad" if abs(measured.seconds) > 0.2 else "usable"
    return Row("lips and sound", measured.found, verdict, advice)
