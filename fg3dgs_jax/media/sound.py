"""The sound of a media file: which track, decoding, one channel of it, pieces at their times."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.media import av
from fg3dgs_jax.media import timeline as timeline_lib
from fg3dgs_jax.media.clock import SAMPLE_RATE
from fg3dgs_jax.media.container import AudioError, VideoError, local

_GAP = 0.06  # s; sound time stamps off by more than this are a hole or a jump, not jitter
# Energy of the sum of two channels over that of both: 2 for the same sound, 1 for different ones.
_CANCELS = 0.1
KEPT_RATE = 48_000  # Hz, of sound that is passed on


class Track(NamedTuple):
    """One sound track of a file."""

    number: int  # 1 is the first
    codec: str
    rate: int  # Hz
    channels: int
    language: str  # empty where the file says nothing
    default: bool  # the file names it as the one to play

    def __str__(self) -> str:
        words = [self.codec, f"{self.rate / 1000:g} kHz", _channels(self.channels), self.language]
        return f"{self.number} ({', '.join(word for word in words if word)})"


SILENT = Track(0, "", 0, 0, "", False)  # stands for no track at all


class Sound(NamedTuple):
    """A decoded track."""

    segments: list[tuple[float, np.ndarray]]  # (start s on the file's clock, int16 [n] mono 16 kHz)
    track: Track
    inverted: bool  # two channels that cancel each other: one is turned over before they are mixed
    forms: tuple[str, ...]  # rate and channels, in the order in which they were met
    damaged: int  # packets that could not be decoded


def tracks_of(container: av.InputContainer) -> list[Track]:
    """The sound tracks of an open file, in its order."""
    tracks = []
    for number, stream in enumerate(container.streams.audio, 1):
        context = stream.codec_context
        tracks.append(
            Track(
                number,
                context.name if context else "unknown codec",
                stream.rate or 0 if context else 0,
                context.channels if context else 0,
                "" if stream.language in (None, "und") else stream.language,
                bool(stream.disposition & av.Disposition.default),
            )
        )
    return tracks


def choose_track(
    container: av.InputContainer,
    number: int | None,
    path: os.PathLike | str,
    error: type[ValueError] = VideoError,
) -> Track:
    """The track of a number, or by default the one that players take.

    That is the first that the file names as default and that can be decoded, else the first that
    can be decoded.

    Raises:
      VideoError, AudioError: no sound, no such track, or one that cannot be decoded.
    """
    tracks = tracks_of(container)
    if not tracks:
        expected = (
            "an audio file, or a video with sound"
            if error is AudioError
            else "a video in which the person is heard speaking"
        )
        raise error(f"{path} has no sound; expected {expected}")
    known = [track for track in tracks if track.channels and track.rate]
    names = "; ".join(map(str, tracks))
    if number is None:
        if not known:
            raise error(f"{path} has sound that FFmpeg cannot decode: track {names}; expected AAC")
        return next((track for track in known if track.default), known[0])
    chosen = next((track for track in tracks if track.number == number), None)
    if chosen is None or chosen not in known:
        why = "cannot be decoded" if chosen else "is not there"
        raise error(f"sound track {number} of {path} {why}; expected one of: {names}")
    return chosen


def decode_sound(
    container: av.InputContainer,
    track: Track,
    shift: timeline_lib.Shift,
    path: os.PathLike | str,
) -> Sound:
    """Decodes a track at 16 kHz and mixes its channels.

    Args:
      container: opened anew.
      track: of it.
      shift: what is done to its time stamps.
      path: of the file.
    """
    mixer = _Mixer()
    segments, forms, damaged = _decode(container, track, shift, mixer)
    if mixer.cancels:
        with av.open(local(path)) as again:
            segments, forms, damaged = _decode(again, track, shift, _Difference())
    return Sound(segments, track, mixer.cancels, forms, damaged)


def as_it_came(
    container: av.InputContainer, track: Track, shift: timeline_lib.Shift
) -> Iterator[np.ndarray]:
    """Yields a track at 48 kHz with its one or two channels, block by block from its first sample.

    More channels become two. Holes are silence, and what is told twice is used once.

    Args:
      container: opened anew.
      track: of it.
      shift: what is done to its time stamps.

    Yields:
      int16 [n, C], C the same in all.
    """
    mixer, report = _Keeper(), _Report()
    start, due = None, 0
    for begin, block in _pieces(container, track, shift, mixer, report):
        start = begin if start is None else start
        if begin is not None and start is not None:
            at = round((begin - start) * mixer.rate)
            if at > due:
                yield np.zeros((at - due, mixer.channels), np.int16)
                due = at
            skip = max(due - at, 0)
        block, skip = block[skip:], max(skip - len(block), 0)
        if len(block):
            yield block
            due += len(block)


class _Report:
    """What was met on the way."""

    def __init__(self):
        self.forms: list[str] = []
        self.damaged = 0  # packets


def _decode(container, track, shift, mixer):
    """(pieces, forms, damaged packets): a new piece where time stamps or the form jump."""
    segments, report = [], _Report()
    for begin, samples in _pieces(container, track, shift, mixer, report):
        if begin is not None:
            segments.append((begin, []))
        segments[-1][1].append(samples)
    whole = [(begin, np.concatenate(blocks)) for begin, blocks in segments]
    return [piece for piece in whole if len(piece[1])], tuple(report.forms), report.damaged


def _pieces(container, track, shift, mixer, report):
    """Yields (time of the first sample, samples); no time where they follow those before."""
    resampler, form, due = None, None, 0.0
    stream = container.streams.audio[track.number - 1]
    for packet in timeline_lib.put_right(container.demux(stream), shift):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            report.damaged += 1
            continue  # damaged sound becomes a hole, filled with silence
        for frame in frames:
            if not frame.samples or not frame.sample_rate:
                continue
            time, begin = frame.time if frame.time is not None else due, None
            met = (frame.sample_rate, frame.layout.name, frame.format.name)
            if resampler is None or abs(time - due) > _GAP or met != form:
                if resampler is not None:
                    yield None, mixer.join(resampler.resample(None))
                begin = due = time
                form = met
                resampler = av.AudioResampler("s16", mixer.layout_for(frame), mixer.rate)
                name = f"{frame.sample_rate / 1000:g} kHz {_channels(frame.layout.nb_channels)}"
                if name not in report.forms:
                    report.forms.append(name)
            due += frame.samples / frame.sample_rate
            mixer.listen(frame)
            frame.pts = None
            yield begin, mixer.join(resampler.resample(frame))
    if resampler is not None:
        yield None, mixer.join(resampler.resample(None))


class _Mixer:
    """The mean of the channels as FFmpeg mixes them, and whether two cancel each other."""

    rate = SAMPLE_RATE

    def join(self, frames):
        blocks = [self.mono(frame) for frame in frames]
        return np.concatenate(blocks) if blocks else np.zeros(0, np.int16)

    def layout_for(self, frame):
        return "mono"

    def __init__(self):
        self.sum, self.parts = 0.0, 0.0

    def listen(self, frame):
        if frame.layout.nb_channels != 2:
            return
        samples = frame.to_ndarray()
        if samples.dtype == np.uint8:
            samples = samples.astype(np.float32) - 128
        samples = samples.astype(np.float32)
        left, right = samples if len(samples) == 2 else (samples[0, ::2], samples[0, 1::2])
        energy, cross = float(left @ left + right @ right), float(left @ right)
        self.parts += energy
        self.sum += energy + 2 * cross

    @property
    def cancels(self):
        return self.parts > 0 and self.sum < _CANCELS * self.parts

    def mono(self, frame):
        return frame.to_ndarray().reshape(-1)


class _Difference(_Mixer):
    """Half the difference of two channels."""

    def layout_for(self, frame):
        return "stereo" if frame.layout.nb_channels == 2 else "mono"

    def listen(self, frame):
        """Nothing is asked a second time."""

    def mono(self, frame):
        if frame.layout.nb_channels == 1:
            return super().mono(frame)
        pairs = frame.to_ndarray().reshape(-1, 2).astype(np.int32)
        return ((pairs[:, 0] - pairs[:, 1]) // 2).astype(np.int16)


class _Keeper(_Mixer):
    """One or two channels, as the first frame has them."""

    rate = KEPT_RATE
    channels = 0

    def layout_for(self, frame):
        self.channels = self.channels or min(frame.layout.nb_channels, 2)
        return "stereo" if self.channels == 2 else "mono"

    def listen(self, frame):
        """Channels that cancel each other stay as they came."""

    def join(self, frames):
        blocks = [frame.to_ndarray().reshape(-1, self.channels) for frame in frames]
        return np.concatenate(blocks) if blocks else np.zeros((0, self.channels), np.int16)


def lay_out(segments: Sequence[tuple[float, np.ndarray]], start: float) -> np.ndarray:
    """Pieces at their times -> int16 [n] from `start` on; silence in the holes."""
    offsets = [round((time - start) * SAMPLE_RATE) for time, _ in segments]
    length = max([o + len(s) for o, (_, s) in zip(offsets, segments, strict=True)], default=0)
    out = np.zeros(max(length, 0), np.int16)
    for offset, (_, samples) in zip(offsets, segments, strict=True):
        kept = samples[max(0, -offset) :]
        out[max(0, offset) : max(0, offset) + len(kept)] = kept
    return out


def _channels(count):
    return {0: "", 1: "mono", 2: "stereo"}.get(count, f"{count} channels")
