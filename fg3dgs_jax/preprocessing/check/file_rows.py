"""Verdicts on the file: how long, how it was read, pictures a second, their size."""

import numpy as np

from fg3dgs_jax.media import colours
from fg3dgs_jax.media.clock import FPS
from fg3dgs_jax.preprocessing.check.rows import Row, graded
from fg3dgs_jax.preprocessing.check.sample import Evidence, follows

STILL = 1.0  # s without a new picture that are told
# Share of pixels in stripes of two fields, in the picture with most above the usual one. Of 40
# clips it was at most 0.0034. Fields woven from their neighbouring pictures made it more in 33.
COMBED = 0.005


def file_rows(e: Evidence) -> list[Row]:
    """The rows on what was decoded."""
    return [_length(e), _reading(e), _rate(e), _picture(e)]


def _length(e):
    seconds, advice = e.num_frames / FPS, "2 to 5 minutes are best"
    measured = f"{seconds:.0f} s"
    if e.file_seconds > seconds + 1:
        measured += f" of the {e.file_seconds:.0f} s in the file"
        advice += ": use more of the file (--start, --end, --max_seconds)"
    return graded("length", measured, seconds, (120, 15), advice)


def _reading(e):
    """What had to be done so that the pictures are as they were filmed."""
    source = e.source
    done, advice = [str(source.orientation), str(source.colours)], []
    if source.colours.guessed and source.colours.matrix == colours.BT709:
        done.append("colours not named, read as BT.709")
    if source.colours.transfer in (colours.HLG, colours.PQ):
        advice.append("film without HDR: bright skin is compressed")
    if source.colours.alpha:
        advice.append("put the person before a background")
    if source.interlaced:
        done.append("interlaced, two fields made one picture")
        advice.append("film progressive, 25p or 30p")
    elif _is_combed(e.greys.values()):
        done.append("stripes of two fields, not marked as interlaced")
        advice.append("deinterlace it, e.g. ffmpeg -i IN -vf bwdif -crf 12 OUT.mp4")
    if source.timeline.repairs:
        done.extend(source.timeline.repairs)
        advice.append("look at that place, or use the camera's own file")
    found = "; ".join(filter(None, done)) or "as it is"
    return Row("file", found, "usable" if advice else "good", "; ".join(advice))


def _is_combed(greys):
    """Whether what moves has stripes, in grey pictures [H, W]; fine patterns have them always."""
    shares = []
    for grey in greys:
        above, line, below = (grey[k : len(grey) - 2 + k].astype(np.int16) for k in range(3))
        stripe = ((above - line) * (below - line) > 150) & (np.abs(above - below) < 12)
        shares.append(stripe.mean())
    return len(shares) > 2 and max(shares) - np.median(shares) > COMBED


def _rate(e):
    same = [
        np.abs(b - a).max() < 0.5
        for a, b, near in zip(e.thumbs[:-1], e.thumbs[1:], follows(e.frames), strict=True)
        if near
    ]
    repeated = float(np.mean(same)) if same else 0.0
    fps = min(e.fps, FPS * (1 - repeated))
    measured = f"{e.fps:.4g} fps" + (f", {repeated:.0%} repeated" if repeated > 0.02 else "")
    row = graded("frame rate", measured, fps, (23, 14), "film at 25 or 30 fps, in good light")
    start, length = e.source.timeline.still
    seconds = e.num_frames / FPS
    inside = min(start + length, e.begin + seconds) - max(start, e.begin)
    if inside < STILL:
        return row
    found = f"{measured}, no new picture from {start:.1f} to {start + length:.1f} s of the file"
    worse = "usable" if row.verdict == "good" and inside < 0.1 * seconds else "bad"
    advice = f"--end {start:.1f} uses what is before that, --start {start + length:.1f} the rest"
    return Row("frame rate", found, worse, advice)


def _picture(e):
    (height, width), (rows, columns) = e.size, e.output
    measured = f"{width} x {height} px"
    if e.window is not None:
        measured += f", head cropped from {e.window[3]} x {e.window[2]} to {columns} x {rows}"
    side = min(e.window[2:]) if e.window is not None else min(e.size)
    return graded("picture", measured, side, (400, 200), "film at 720p or more, or nearer")
