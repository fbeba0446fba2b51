"""The page that ends preprocessing: what was found in a clip, in figures, pictures and curves."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from fg3dgs_jax.clip import av_offset, decoded, format, over_time, processed
from fg3dgs_jax.media import clock, plots, video
from fg3dgs_jax.preprocessing.check import verdicts
from fg3dgs_jax.preprocessing.label import smoothing
from fg3dgs_jax.preprocessing.report import pictures as pictures_lib
from fg3dgs_jax.preprocessing.track import head_pose

# What is measured for flicker, and from what share of its area on it is worth a warning.
PARTS = {
    "head": (format.HEAD_LABELS, 0.005),
    "hair": ((format.LABELS["hair"], format.LABELS["hat"]), 0.02),
    "neck": ((format.LABELS["neck"],), 0.02),
}
LARGE_ERROR = 0.006  # of the picture height: a larger re-projection error means a bad track
LOST = 0.015  # of the picture height: a frame that is so far off has lost the head
WEAK_SOUND = 0.1  # correlation of loudness and mouth opening
CLOSE_UP = 15 * clock.FPS  # frames in which single syllables can be seen


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the page shows that is not in the folder's arrays."""

    facts: dict[str, str]  # for the table: "source" first, then what only the caller knows
    lateness: av_offset.Offset  # of the whole clip
    warnings: Sequence[str] = ()  # what the caller has to warn of
    checks: Sequence[verdicts.Row] = ()  # the video check
    cuts: Sequence[int] = ()  # frames that begin another scene
    own: np.ndarray | None = None  # bool [T], frames that are not left out. None: all
    # Seconds that each step took, by its name.
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    moved: float = 0.0  # s by which the sound has been moved back already


@dataclasses.dataclass(frozen=True)
class _Clip:
    """What the page measures, read from the folder."""

    arrays: dict[str, decoded.Pictures]  # of `format.ARRAYS`
    plate: np.ndarray  # uint8 [H, W, 3]
    camera: np.ndarray  # [T, 4, 4] world_to_camera
    error: np.ndarray  # [T] px
    valid: np.ndarray  # bool [T]
    points: np.ndarray  # [T, 478, 2] px
    fitted: np.ndarray  # [T, R, 2] px, the rigid landmarks of the fitted head
    focal: float  # px


def write(folder: os.PathLike | str, summary: Summary) -> pathlib.Path:
    """Writes `report.html` of a processed folder whose steps are all done; returns its path."""
    folder = pathlib.Path(folder)
    clip = _read(folder)
    points, valid = clip.points, clip.valid
    own = np.ones(len(points), bool) if summary.own is None else summary.own
    shot = format.longest_run(np.flatnonzero(own))
    part = slice(shot[0], shot[-1] + 1)
    flickers = flicker(clip.arrays["labels"][part], points[part])
    loud, opening = loudness(folder, len(points)), mouth_opening(points)
    together = float(np.nan_to_num(_correlation(loud[own], opening[own])))
    relative = clip.error / clip.plate.shape[0]
    warnings = [
        *_of_the_check(summary.checks),
        *summary.warnings,
        *_of_the_cuts(_inside(summary.cuts, own)),
        *_warnings(valid, relative, flickers, together, summary.lateness, summary.moved, own),
    ]
    tables = {"The clip": _facts(clip, summary, own, flickers, together)}
    if summary.checks:
        tables["The video check, from a sample"] = {
            row.name: f"{row.verdict}: {row.found}. {row.advice}".rstrip(". ")
            for row in summary.checks
        }
    if summary.seconds:
        tables["Time of each step, when it was last done"] = {
            **{name: f"{value:.1f} s" for name, value in summary.seconds.items()},
            "a frame": f"{sum(summary.seconds.values()) / len(points):.3f} s",
        }
    pictures = {
        "Landmarks, labels, torso": pictures_lib.contact_sheet(
            clip.arrays["frames"],
            clip.arrays["labels"],
            clip.arrays["torso"],
            clip.plate,
            points,
            np.flatnonzero(own),
        ),
        "Re-projection: fitted head red, landmarks green": pictures_lib.fit_sheet(
            clip.arrays["frames"],
            points[:, head_pose.RIGID],
            clip.fitted,
            np.flatnonzero(own),
        ),
        "Background plate": clip.plate,
    } | curves(folder, clip.camera, opening, loud, valid, summary.cuts)
    return pictures_lib.write_report(folder, tables, pictures, warnings)


def _read(folder):
    plate = pictures_lib.read_picture(folder / "background.png")
    height, width = plate.shape[:2]
    with np.load(folder / "camera.npz") as fields:
        camera, focal, head = (fields[name] for name in ("world_to_camera", "focal", "head_points"))
        error, valid = fields["error"], fields["valid"]
    with np.load(folder / "landmarks.npz") as fields:
        points = fields["pixels"]
    focal, centre = float(focal), np.array([width, height]) / 2
    return _Clip(
        arrays=processed.open_pictures(folder),
        plate=plate,
        camera=camera,
        error=error,
        valid=valid,
        points=points,
        fitted=project(camera, head[head_pose.RIGID], focal, centre),
        focal=focal,
    )


def _facts(clip, summary, own, flickers, together):
    """{name: text} of the first table."""
    points, valid = clip.points, clip.valid
    height, width = clip.plate.shape[:2]
    off = np.linalg.norm(clip.fitted - points[:, head_pose.RIGID], axis=-1)[valid]
    rms = float(np.sqrt((clip.error[valid] ** 2).mean()))
    degrees, millimetres = head_pose.jitter(clip.camera[format.longest_run(np.flatnonzero(own))])
    others = dict(summary.facts)
    return {
        "source": others.pop("source"),
        "frames": f"{len(points)} at 25 a second, {len(points) / clock.FPS:.1f} s",
        "size": f"{width} x {height} px",
        "frames left out": int((~own).sum()),
        "frames without a face": int((own & ~valid).sum()),
        "cuts": cuts_in_words(summary.cuts) if summary.cuts else "none",
        "re-projection": f"{np.median(off):.2f} px median, {rms:.2f} px RMS",
        "pose jitter": f"{degrees:.3f} degrees, {millimetres:.3f} mm a frame squared",
        "focal length, distance": f"{clip.focal:.0f} px, {clip.camera[:, 2, 3].mean():.2f} m",
        "blinks": verdicts.count_blinks(points[valid], np.flatnonzero(valid)),
        "labels that go there and back": ", ".join(f"{k} {v:.2%}" for k, v in flickers.items()),
        "lips and sound": summary.lateness.in_words(summary.moved),
        "loudness with mouth opening": f"correlation {together:.2f}",
        **others,
    }


# Rows of the video check that the page judges by every frame.
_JUDGED_HERE = ("cuts", "lips and sound", "face in view")


def _of_the_check(rows):
    """Lines on what the video check found bad."""
    for row in rows:
        if row.verdict == "bad" and row.name not in _JUDGED_HERE:
            yield f"{row.name}: {row.found}. {row.advice}"


def _of_the_cuts(cuts):
    """A line on cuts, if there are any, between frames that are all used."""
    if cuts:
        yield (
            f"{cuts_in_words(cuts)}, and both sides of it are used: they show the same room and "
            "face. Look at the plate: one shot makes the best avatar"
        )


def _inside(cuts, own):
    """Those cuts that have own frames on both sides."""
    return [cut for cut in cuts if own[cut - 1] and own[cut]]


def curves(
    folder: pathlib.Path,
    camera: np.ndarray,
    opening: np.ndarray,
    loud: np.ndarray,
    valid: np.ndarray,
    cuts: Sequence[int],
) -> dict[str, np.ndarray]:
    """{title: picture} of pose, mouth and eyes over the sound: the whole clip, and a close-up.

    Args:
      folder: path of the processed folder.
      camera: [T, 4, 4] world_to_camera.
      opening: [T] px, of the mouth.
      loud: [T], of the sound.
      valid: bool [T].
      cuts: frames that begin another scene.
    """
    with np.load(folder / "expression.npz") as fields:
        e, names = fields["e"], list(fields["names"])
    au45, gaze_x, gaze_y = (e[:, names.index(name)] for name in ("AU45", "gaze_x", "gaze_y"))
    turns = np.degrees(head_pose.rotation_vectors(camera[:, :3, :3].astype(np.float64)))
    moves = 1e3 * (camera[:, :3, 3] - camera[:, :3, 3].mean(0))
    mouth = plots.Strip("mouth opening, px", {"inner lips": opening})
    strips = [
        plots.Strip(
            "head turns, degrees", dict(zip(("nod", "turn", "tilt"), turns.T, strict=True))
        ),
        plots.Strip("head moves, mm", dict(zip(("right", "down", "away"), moves.T, strict=True))),
        mouth,
        plots.Strip("blink", {"AU45": au45}, (0.0, 1.0)),
        plots.Strip("gaze, -1 to 1", {"left": gaze_x, "up": gaze_y}),
    ]
    pictures = {"Over the sound (grey)": plots.plot_strips(strips, loud, valid, cuts)}
    if len(loud) > 2 * CLOSE_UP:
        sum_to = np.concatenate([[0], np.cumsum(loud)])
        first = int(np.argmax(sum_to[CLOSE_UP:] - sum_to[:-CLOSE_UP]))
        part = slice(first, first + CLOSE_UP)
        near = mouth._replace(curves={"inner lips": opening[part]})
        pictures["Lips and sound, the loudest 15 seconds"] = plots.plot_strips(
            [near], loud[part], valid[part], cuts, first, size=(1500, 200)
        )
    return pictures


def loudness(folder: pathlib.Path, count: int) -> np.ndarray:
    """Float [T]: RMS of the folder's sound in each of `count` frames."""
    samples = video.read_wav(folder / "audio.wav").astype(np.float32) / 32768
    return np.sqrt((samples.reshape(count, -1) ** 2).mean(1))


def mouth_opening(points: np.ndarray) -> np.ndarray:
    """Pixels [T] between the inner lips of landmarks [T, 478, 2]."""
    return np.linalg.norm(points[:, 14] - points[:, 13], axis=-1)


def cuts_in_words(cuts: Sequence[int]) -> str:
    """When other scenes begin, in words."""
    times = ", ".join(f"{c / clock.FPS:.2f} s" for c in cuts[:10])
    more = f" and {len(cuts) - 10} more" if len(cuts) > 10 else ""
    return f"another scene begins at {times}{more}"


def project(
    world_to_camera: np.ndarray, points: np.ndarray, focal: float, centre: np.ndarray
) -> np.ndarray:
    """Pixels [T, P, 2] of points [P, 3] m of the head under poses [T, 4, 4]."""
    rotation, move = world_to_camera[:, :3, :3], world_to_camera[:, None, :3, 3]
    camera = points @ np.swapaxes(rotation, 1, 2) + move
    return focal * camera[..., :2] / camera[..., 2:] + centre


def flicker(labels: decoded.Pictures, points: np.ndarray, count: int = 40) -> dict[str, float]:
    """{part: mean of `smoothing.flicker`} over `count` places of a clip [T, H, W]."""
    shares = {name: [] for name in PARTS}
    smooth = over_time.smooth(points)
    for t in np.unique(np.linspace(1, len(labels) - 2, count).astype(int)):
        three = slice(t - 1, t + 2)
        for name, (classes, _) in PARTS.items():
            share = smoothing.flicker(labels[three], smooth[three], classes)
            shares[name] += [] if share is None else [share]
    return {name: float(np.mean(values)) for name, values in shares.items() if values}


def _correlation(a, b):
    return np.corrcoef(a, b)[0, 1] if np.ptp(a) and np.ptp(b) else 0.0


def _warnings(valid, error, flickers, together, late, moved=0.0, own=None):
    """Lines on what would harm an avatar of this clip.

    `error` [T] is a share of the picture height, `together` the correlation of sound and mouth.
    `own` [T] are the frames that are used, None: all.
    """
    unseen = ~valid if own is None else ~valid & own
    if unseen.any():
        yield (
            f"no face in {unseen.sum()} of {len(valid)} frames ({_spans(unseen)}): their pose "
            "is interpolated"
        )
    usual = float(np.median(error[valid]))
    if usual > LARGE_ERROR:
        yield f"the head's fit is {usual:.1%} of the height off the landmarks: look at the track"
    elif (lost := error > LOST).any():
        yield f"the head's fit loses {lost.sum()} frames ({_spans(lost)}): look at them"
    for name, share in flickers.items():
        if share > PARTS[name][1]:
            yield f"the border of the {name} flickers ({share:.1%}): its seam will shimmer"
    if late.certain and abs(late.seconds) > av_offset.IN_STEP:
        yield f"lips and sound are not in step: {late.in_words(moved)}"
    elif not late.certain and together < WEAK_SOUND:
        yield (
            f"loudness and mouth opening hardly go together (correlation {together:.2f}): is this "
            "the sound of the person in the picture, and in step?"
        )


def _spans(flags, most=5):
    """When flags [T] are set, in words."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags, [0]])))
    begins, ends = edges[::2] / clock.FPS, edges[1::2] / clock.FPS
    spans = [f"{a:.2f} to {b:.2f} s" for a, b in zip(begins, ends, strict=True)]
    more = f" and {len(spans) - most} times more" if len(spans) > most else ""
    return ", ".join(spans[:most]) + more
