"""The page that ends preprocessing: what was found in a clip, in figures, pictures and curves."""

import pathlib

import numpy as np

from fg3dgs_jax.data import dataset, label_smoothing, parsing, preview, tracking, video

# What is measured for flicker, and from what share of its area on it is worth a warning.
PARTS = {
    "head": (dataset.HEAD_LABELS, 0.005),
    "hair": ((dataset.LABELS["hair"], dataset.LABELS["hat"]), 0.02),
    "neck": ((dataset.LABELS["neck"],), 0.02),
}
LARGE_ERROR = 0.006  # of the picture height: a re-projection error that tells of a bad track
WEAK_SOUND = 0.1  # correlation of loudness and mouth opening


def write(folder, facts, warnings=(), seconds=None) -> pathlib.Path:
    """`report.html` of a processed folder whose steps are all done; returns its path.

    Args:
      folder: its path.
      facts: {name: text} for the table: "source" first, then what only the caller knows.
      warnings: what the caller has to warn of.
      seconds: {step: seconds it took}.
    """
    arrays = {n: np.load(folder / f"{n}.npy", mmap_mode="r") for n in dataset.ARRAYS}
    plate = preview.read_picture(folder / "background.png")
    with np.load(folder / "camera.npz") as c, np.load(folder / "landmarks.npz") as p:
        camera, error, valid, points = c["world_to_camera"], c["error"], c["valid"], p["pixels"]
        focal, head_points = float(c["focal"]), c["head_points"]
    with np.load(folder / "expression.npz") as fields:
        e, names = fields["e"], list(fields["names"])
    samples = video.read_wav(folder / "audio.wav").astype(np.float32) / 32768
    loud = np.sqrt((samples.reshape(len(points), -1) ** 2).mean(1))
    opening = np.linalg.norm(points[:, 14] - points[:, 13], axis=-1)
    together = float(np.nan_to_num(_correlation(loud, opening)))
    turns = np.degrees(tracking.rotation_vectors(camera[:, :3, :3].astype(np.float64)))
    shakes = tracking.jitter(camera)
    pose = {f"turn {n} deg": turns[:, k] for k, n in enumerate("xyz")}
    pose |= {f"move {n} m": camera[:, k, 3] for k, n in enumerate("xyz")}
    rms = float(np.sqrt((error[valid] ** 2).mean()))
    flickers = flicker(arrays["labels"], points)
    facts = dict(facts)
    facts = {
        "source": facts.pop("source"),
        "frames": f"{len(points)} at 25 a second",
        "size": f"{plate.shape[1]} x {plate.shape[0]} px",
        "frames without a face": int((~valid).sum()),
        "reprojection error": f"{rms:.2f} px RMS",
        "pose jitter": f"{shakes[0]:.3f} degrees, {shakes[1]:.3f} mm a frame squared",
        "focal length, distance": f"{focal:.0f} px, {camera[:, 2, 3].mean():.2f} m",
        "labels that go there and back": ", ".join(f"{k} {v:.2%}" for k, v in flickers.items()),
        "loudness with mouth opening": f"correlation {together:.2f}",
        **facts,
    }
    warnings = [*warnings, *_warnings(valid, rms / plate.shape[0], flickers, together)]
    size = np.array(plate.shape[1::-1])
    fitted = project(camera, head_points[tracking.RIGID], focal, size / 2)
    pictures = {
        "Landmarks, labels, torso": preview.contact_sheet(**arrays, plate=plate, points=points),
        "Re-projection: fitted head red, landmarks green": preview.fit_sheet(
            arrays["frames"], points[:, tracking.RIGID], fitted
        ),
        "Background plate": plate,
        "Head pose": preview.plot(pose, "head pose over frames"),
        "Sound and mouth": preview.plot(
            {"loudness": loud, "mouth opening px": opening}, "in step?"
        ),
        "Blink and gaze": preview.plot(
            {n: e[:, names.index(n)] for n in ("AU45", "gaze_x", "gaze_y")}, "eyes"
        ),
    }
    return preview.write_report(folder, facts, pictures, warnings, seconds)


def project(world_to_camera, points, focal, centre):
    """float [T, P, 2] px: points [P, 3] m of the head under poses [T, 4, 4]."""
    seen = points @ np.swapaxes(world_to_camera[:, :3, :3], 1, 2) + world_to_camera[:, None, :3, 3]
    return focal * seen[..., :2] / seen[..., 2:] + centre


def flicker(labels, points, count=40):
    """{part: mean of `label_smoothing.flicker`} over `count` places of a clip [T, H, W]."""
    found = {name: [] for name in PARTS}
    smooth = parsing.smooth_in_time(points)
    for t in np.unique(np.linspace(1, len(labels) - 2, count).astype(int)):
        three = slice(t - 1, t + 2)
        for name, (classes, _) in PARTS.items():
            share = label_smoothing.flicker(labels[three], smooth[three], classes)
            found[name] += [] if share is None else [share]
    return {name: float(np.mean(shares)) for name, shares in found.items() if shares}


def _correlation(a, b):
    return np.corrcoef(a, b)[0, 1] if np.ptp(a) and np.ptp(b) else 0.0


def _warnings(valid, error, flickers, together):
    """Lines on what would harm an avatar of this clip; `error` as a share of the height."""
    if not valid.all():
        yield f"no face in {(~valid).sum()} of {len(valid)} frames: their pose is interpolated"
    if error > LARGE_ERROR:
        yield f"the head's fit is {error:.1%} of the height off the landmarks: look at the track"
    for name, share in flickers.items():
        if share > PARTS[name][1]:
            yield f"the border of the {name} flickers ({share:.1%}): its seam will shimmer"
    if together < WEAK_SOUND:
        yield (
            f"loudness and mouth opening hardly go together (correlation {together:.2f}): is this "
            "the sound of the person in the picture, and in step?"
        )
