"""The time stamps of a file, read without decoding: what is repaired, and what is refused.

Times are seconds on the file's own clock, which need not start at zero. A file that was joined from
pieces has a clock that begins anew with each piece, in pictures and sound alike. The pieces are
then laid one after the other. A clock that begins anew in only one of the two cannot be repaired:
nobody knows which sound belongs to which picture.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.media import av
from fg3dgs_jax.media.container import VideoError, tick

BACK = 0.1  # s; decoding times of a whole file never run back
OVERLAP = 1.0  # s; so much may be told twice by pictures or sound alone
AHEAD = 10.0  # s; a longer step forward in a broadcast's file is another clock, as for FFmpeg
STRAY = 5  # so many packets between two good ones may have senseless time stamps
TOGETHER = 2.0  # s; pictures and sound that jump by the same, but for their pieces' ends
_RESTARTS = 0x0200  # AVFMT_TS_DISCONT: formats whose clock may begin anew


class Shift(NamedTuple):
    """What is done to the time stamps of one stream; packets are counted in the file's order."""

    starts: tuple[int, ...] = ()  # packets from which on another shift holds
    seconds: tuple[float, ...] = ()  # what is added from there on
    strays: frozenset[int] = frozenset()  # packets whose time stamps are not used


class Timeline(NamedTuple):
    """The time stamps of a video, put right."""

    pictures: Shift
    sound: Shift
    end: float  # s, when the last picture leaves the screen
    count: int  # of pictures
    fps: float  # pictures a second, on average
    still: tuple[float, float]  # (start, length) s of the longest time without a new picture
    repairs: tuple[str, ...]  # in words

    @property
    def seekable(self) -> bool:
        """Whether the file's own time stamps lead to a picture."""
        return not (self.pictures.starts or self.pictures.strays)


class _Jump(NamedTuple):
    packet: int
    before: float  # s, when the packet was due
    after: float  # s, what its time stamp says

    @property
    def shift(self):
        return self.before - self.after


def survey(
    container: av.InputContainer,
    pictures: av.VideoStream,
    sound: av.AudioStream | None,
    path: os.PathLike | str,
) -> Timeline:
    """Reads the time stamps of a file from its beginning; nothing is decoded.

    Raises:
      VideoError: a clock that begins anew in pictures or sound alone.
    """
    streams = [pictures] if sound is None else [pictures, sound]
    packets: dict[int, list] = {stream.index: [] for stream in streams}
    damaged = 0
    for packet in container.demux(streams):
        if packet.size:
            damaged += packet.is_corrupt
            packets[packet.stream.index].append(_row(packet))
    tables = [_seconds(packets[s.index], float(tick(s))) for s in streams]
    fallback = 1 / float(pictures.average_rate or pictures.guessed_rate or 25)
    restarts = bool(container.format.flags & _RESTARTS)
    shifts, repairs = _put_right(path, [_jumps(table) for table in tables], restarts)
    shown, lengths = tables[0][:, 1] + added(shifts[0], len(tables[0])), tables[0][:, 2]
    shown[list(shifts[0].strays)] = np.nan
    known = np.isfinite(shown)
    if damaged:
        repairs.append(f"{damaged} damaged packets, which are bridged")
    if not known.any():
        count = len(shown)
        end = count * fallback
        return Timeline(*shifts, end, count, 1 / fallback, (0.0, 0.0), tuple(repairs))
    last = int(np.nanargmax(shown))
    end = float(shown[last] + (lengths[last] or fallback))
    times = np.append(np.unique(shown[known]), end)
    steps = np.diff(times)
    longest = int(np.argmax(steps))
    fps = (len(times) - 2) / (times[-2] - times[0]) if len(times) > 2 else 1 / fallback
    still = (float(times[longest] - times[0]), float(steps[longest]))
    return Timeline(*shifts, end, len(times) - 1, float(fps), still, tuple(repairs))


def survey_sound(container: av.InputContainer, sound: av.AudioStream) -> Shift:
    """What is done to the time stamps of sound without pictures: pieces follow each other."""
    rows = [_row(packet) for packet in container.demux(sound) if packet.size]
    jumps, strays = _jumps(_seconds(rows, float(tick(sound))))
    back = [jump for jump in jumps if jump.shift > 0]
    return _shift(back, [jump.shift for jump in back], strays)


def put_right(packets: Iterator[av.Packet], shift: Shift) -> Iterator[av.Packet]:
    """Yields the packets of one stream, from the file's beginning on, at their repaired times."""
    number, at, seconds = 0, 0, 0.0
    for packet in packets:
        if packet.size and shift != Shift():
            while at < len(shift.starts) and number >= shift.starts[at]:
                seconds, at = shift.seconds[at], at + 1
            if number in shift.strays:
                packet.pts = packet.dts = None
            else:
                ticks = round(seconds / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts + ticks
                packet.dts = None if packet.dts is None else packet.dts + ticks
            number += 1
        yield packet


def added(shift: Shift, count: int) -> np.ndarray:
    """Seconds [count] that are added to the time stamps of each packet."""
    which = np.searchsorted(shift.starts, np.arange(count), side="right")
    return np.array([0.0, *shift.seconds])[which]


def _row(packet):
    shown = None if packet.is_discard else packet.pts
    return packet.dts, packet.pts, shown, packet.duration


def _seconds(rows: Sequence[tuple], tick_seconds: float) -> np.ndarray:
    """[N, 3] s: order of decoding, time on screen, length; NaN where the file says nothing."""
    table = np.array([[np.nan if x is None else x for x in row] for row in rows], np.float64)
    decoded, stamped, shown, lengths = table.reshape(-1, 4).T * tick_seconds
    # Times on screen run back wherever pictures are reordered, and are no order of decoding.
    order = decoded if np.isfinite(decoded).any() else stamped
    return np.stack([order, shown, np.nan_to_num(lengths)], 1)


def _jumps(table):
    """(jumps, packets whose time stamps are senseless) of one stream."""
    jumps, strays = [], set()
    numbers = np.flatnonzero(np.isfinite(table[:, 0]))
    times, lengths = table[numbers, 0], table[numbers, 2]
    k, last = 1, 0
    while k < len(times):
        step = times[k] - times[last]
        if -BACK <= step <= AHEAD:
            last, k = k, k + 1
            continue
        ahead = times[k + 1 : k + 1 + STRAY] - times[last]
        good = np.flatnonzero((ahead >= -BACK) & (ahead <= AHEAD))
        if len(good):
            strays.update(numbers[k : k + 1 + good[0]].tolist())
            k += 1 + int(good[0])
            continue
        length = lengths[last] or _usual(times)
        jumps.append(_Jump(int(numbers[k]), float(times[last] + length), float(times[k])))
        last, k = k, k + 1
    return jumps, frozenset(strays)


def _usual(times):
    return float(np.median(np.abs(np.diff(times))))


def _put_right(path, found, restarts):
    """((Shift of pictures, Shift of sound), repairs in words)."""
    pictures, sound = found if len(found) == 2 else (found[0], ((), frozenset()))
    left, pairs, repairs = list(sound[0]), [], []
    for jump in pictures[0]:
        partner = next((s for s in left if abs(s.shift - jump.shift) < TOGETHER), None)
        if partner is not None:
            left.remove(partner)
            if jump.shift > 0 or restarts:
                pairs.append((jump, partner))
        elif jump.shift > 0:
            repairs.append(_bridged(path, "pictures", "sound", jump))
    repairs += [_bridged(path, "sound", "pictures", jump) for jump in left if jump.shift > 0]
    # The longer of the two ends a piece.
    total, moves = 0.0, []
    for jump, partner in pairs:
        # Each jump is told against the clock of the piece before it.
        moves.append(total := total + max(jump.shift, partner.shift))
        repairs.append(
            f"the clock jumps from {jump.before:.2f} to {jump.after:.2f} s: the rest is joined on"
        )
    for name, strays in (("pictures", pictures[1]), ("sound", sound[1])):
        if strays:
            repairs.append(f"{len(strays)} senseless time stamps of {name} are not used")
    shifts = (
        _shift([jump for jump, _ in pairs], moves, pictures[1]),
        _shift([partner for _, partner in pairs], moves, sound[1]),
    )
    return shifts, repairs


def _shift(jumps, moves, strays):
    return Shift(tuple(jump.packet for jump in jumps), tuple(moves), strays)


def _bridged(path, name, other, jump):
    """A short step back of pictures or sound alone, in words: what is told twice is used once."""
    step = f"run back from {jump.before:.2f} to {jump.after:.2f} s"
    if jump.shift > OVERLAP:
        raise VideoError(
            f"{path}: the time stamps of its {name} {step}, those of its {other} do not; expected "
            "one clock: cut the file there, or write it anew from the recording"
        )
    return f"the time stamps of {name} {step}: the later ones hold"
