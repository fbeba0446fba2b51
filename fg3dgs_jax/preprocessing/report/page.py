"""The page that ends preprocessing: what was found in a clip, in figures, pictures and curves."""

import pathlib

import numpy as np

from fg3dgs_jax.clip import format, over_time
from fg3dgs_jax.media import clock, plots, video
from fg3dgs_jax.preprocessing.check import av_offset, verdicts
from fg3dgs_jax.preprocessing.label import smoothing
from fg3dgs_jax.preprocessing.report import pictures as pictures_lib
from fg3dgs_jax.preprocessing.track import head_pose

# What is measured for flicker, and from what share of its area on it is worth a warning.
PARTS = {
    "head": (format.HEAD_LABELS, 0.005),
    "hair": ((format.LABELS["hair"], format.LABELS["hat"]), 0.02),
    "neck": ((format.LABELS["neck"],), 0.02),
}
LARGE_ERROR = 0.006  # of the picture height: a re-projection error that tells of a bad track
LOST = 0.015  # of the picture height: a frame that is so far off has lost the head
WEAK_SOUND = 0.1  # correlation of loudness and mouth opening
CLOSE_UP = 15 * clock.FPS  # frames in which single syllables can be seen


def write(
    folder, facts, late, warnings=(), checks=None, cuts=(), seconds=None, moved=0.0
) -> pathlib.Path:
    """`report.html` of a processed folder whose steps are all done; returns its path.

    Args:
      folder: its path.
      facts: {name: text} for the table: "source" first, then what only the caller knows.
      late: `av_offset.Offset` of the whole clip.
      warnings: what the caller has to warn of.
      checks: rows of `video_check`.
      cuts: frames that begin another scene.
      seconds: {step: seconds it took}.
      moved: s by which the sound has been moved back already.
    """
    arrays = {n: np.load(folder / f"{n}.npy", mmap_mode="r") for n in format.ARRAYS}
    plate = pictures_lib.read_picture(folder / "background.png")
    with np.load(folder / "camera.npz") as c, np.load(folder / "landmarks.npz") as p:
        camera, error, valid, points = c["world_to_camera"], c["error"], c["valid"], p["pixels"]
        focal, head_points = float(c["focal"]), c["head_points"]
    height, width = plate.shape[:2]
    fitted = project(camera, head_points[head_pose.RIGID], focal, np.array([width, height]) / 2)
    off = np.linalg.norm(fitted - points[:, head_pose.RIGID], axis=-1)[valid]
    rms = float(np.sqrt((error[valid] ** 2).mean()))
    shakes = head_pose.jitter(camera)
    flickers = flicker(arrays["labels"], points)
    loud, opening = loudness(folder, len(points)), mouth_opening(points)
    together = float(np.nan_to_num(_correlation(loud, opening)))
    facts = dict(facts)
    facts = {
        "source": facts.pop("source"),
        "frames": f"{len(points)} at 25 a second, {len(points) / clock.FPS:.1f} s",
        "size": f"{width} x {height} px",
        "frames without a face": int((~valid).sum()),
        "cuts": told_cuts(cuts) if cuts else "none",
        "re-projection": f"{np.median(off):.2f} px median, {rms:.2f} px RMS",
        "pose jitter": f"{shakes[0]:.3f} degrees, {shakes[1]:.3f} mm a frame squared",
        "focal length, distance": f"{focal:.0f} px, {camera[:, 2, 3].mean():.2f} m",
        "blinks": verdicts.count_blinks(points[valid], np.flatnonzero(valid)),
        "labels that go there and back": ", ".join(f"{k} {v:.2%}" for k, v in flickers.items()),
        "lips and sound": late.told(moved),
        "loudness with mouth opening": f"correlation {together:.2f}",
        **facts,
    }
    bad = [r for r in checks or () if r.verdict == "bad"]
    warnings = [
        *(f"{r.name}: {r.found}. {r.advice}" for r in bad if r.name not in _SEEN_WHOLE),
        *warnings,
        *([f"{told_cuts(cuts)}: one shot makes one avatar, cut the video"] if cuts else ()),
        *_warnings(valid, error / height, flickers, together, late, moved),
    ]
    tables = {"The clip": facts}
    if checks:
        tables["The video check, from a sample"] = {
            r.name: f"{r.verdict}: {r.found}. {r.advice}".rstrip(". ") for r in checks
        }
    if seconds:
        tables["Time of each step, when it was last done"] = {
            **{name: f"{value:.1f} s" for name, value in seconds.items()},
            "a frame": f"{sum(seconds.values()) / len(points):.3f} s",
        }
    pictures = {
        "Landmarks, labels, torso": pictures_lib.contact_sheet(
            **arrays, plate=plate, points=points
        ),
        "Re-projection: fitted head red, landmarks green": pictures_lib.fit_sheet(
            arrays["frames"], points[:, head_pose.RIGID], fitted
        ),
        "Background plate": plate,
    } | curves(folder, camera, opening, loud, valid, cuts)
    return pictures_lib.write_report(folder, tables, pictures, warnings)


_SEEN_WHOLE = ("cuts", "lips and sound", "face in view")  # of the check: here every frame tells


def curves(folder, camera, opening, loud, valid, cuts):
    """{title: picture} of pose, mouth and eyes over the sound: the whole clip, and a close-up.

    Args:
      folder: path of the processed folder.
      camera: [T, 4, 4] world_to_camera.
      opening, loud: [T], of the mouth in px and of the sound.
      valid: bool [T].
      cuts: frames that begin another scene.
    """
    with np.load(folder / "expression.npz") as fields:
        e, names = fields["e"], list(fields["names"])
    channel = lambda name: e[:, names.index(name)]  # noqa: E731
    turns = np.degrees(head_pose.rotation_vectors(camera[:, :3, :3].astype(np.float64)))
    moves = 1e3 * (camera[:, :3, 3] - camera[:, :3, 3].mean(0))
    strips = [
        plots.Strip(
            "head turns, degrees", dict(zip(("nod", "turn", "tilt"), turns.T, strict=True))
        ),
        plots.Strip("head moves, mm", dict(zip(("right", "down", "away"), moves.T, strict=True))),
        (mouth := plots.Strip("mouth opening, px", {"inner lips": opening})),
        plots.Strip("blink", {"AU45": channel("AU45")}, (0.0, 1.0)),
        plots.Strip("gaze, -1 to 1", {"left": channel("gaze_x"), "up": channel("gaze_y")}),
    ]
    pictures = {"Over the sound (grey)": plots.plot_strips(strips, loud, valid, cuts)}
    if len(loud) > 2 * CLOSE_UP:
        heard = np.concatenate([[0], np.cumsum(loud)])
        first = int(np.argmax(heard[CLOSE_UP:] - heard[:-CLOSE_UP]))
        part = slice(first, first + CLOSE_UP)
        near = mouth._replace(curves={"inner lips": opening[part]})
        pictures["Lips and sound, the loudest 15 seconds"] = plots.plot_strips(
            [near], loud[part], valid[part], cuts, first, size=(1500, 200)
        )
    return pictures


def loudness(folder, count):
    """float [T]: RMS of the folder's sound in each of `count` frames."""
    samples = video.read_wav(folder / "audio.wav").astype(np.float32) / 32768
    return np.sqrt((samples.reshape(count, -1) ** 2).mean(1))


def mouth_opening(points):
    """px [T]: between the inner lips of landmarks [T, 478, 2]."""
    return np.linalg.norm(points[:, 14] - points[:, 13], axis=-1)


def told_cuts(cuts):
    """In words: when other scenes begin."""
    times = ", ".join(f"{c / clock.FPS:.2f} s" for c in cuts[:10])
    more = f" and {len(cuts) - 10} more" if len(cuts) > 10 else ""
    return f"another scene begins at {times}{more}"


def project(world_to_camera, points, focal, centre):
    """float [T, P, 2] px: points [P, 3] m of the head under poses [T, 4, 4]."""
    seen = points @ np.swapaxes(world_to_camera[:, :3, :3], 1, 2) + world_to_camera[:, None, :3, 3]
    return focal * seen[..., :2] / seen[..., 2:] + centre


def flicker(labels, points, count=40):
    """{part: mean of `smoothing.flicker`} over `count` places of a clip [T, H, W]."""
    found = {name: [] for name in PARTS}
    smooth = over_time.smooth(points)
    for t in np.unique(np.linspace(1, len(labels) - 2, count).astype(int)):
        three = slice(t - 1, t + 2)
        for name, (classes, _) in PARTS.items():
            share = smoothing.flicker(labels[three], smooth[three], classes)
            found[name] += [] if share is None else [share]
    return {name: float(np.mean(shares)) for name, shares in found.items() if shares}


def _correlation(a, b):
    return np.corrcoef(a, b)[0, 1] if np.ptp(a) and np.ptp(b) else 0.0


def _warnings(valid, error, flickers, together, late, moved=0.0):
    """Lines on what would harm an avatar of this clip; `error` [T] as shares of the height."""
    if not valid.all():
        yield (
            f"no face in {(~valid).sum()} of {len(valid)} frames ({_spans(~valid)}): their pose "
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
        yield f"lips and sound are not in step: {late.told(moved)}"
    elif not late.certain and together < WEAK_SOUND:
        yield (
            f"loudness and mouth opening hardly go together (correlation {together:.2f}): is this "
            "the sound of the person in the picture, and in step?"
        )


def _spans(flags, most=5):
    """In words: when flags [T] are set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags, [0]])))
    begins, ends = edges[::2] / clock.FPS, edges[1::2] / clock.FPS
    spans = [f"{a:.2f} to {b:.2f} s" for a, b in zip(begins, ends, strict=True)]
    more = f" and {len(spans) - most} times more" if len(spans) > most else ""
    return ", ".join(spans[:most]) + more
