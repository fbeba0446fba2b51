"""The page that ends preprocessing: what was found in a clip, in figures, pictures and curves."""

import pathlib

import numpy as np

from fg3dgs_jax.data import dataset, preview, tracking, video


def write(folder, facts) -> pathlib.Path:
    """`report.html` of a processed folder whose steps are all done; returns its path.

    Args:
      folder: its path.
      facts: {name: text} for the table: "source" first, then what only the caller knows.
    """
    arrays = {n: np.load(folder / f"{n}.npy", mmap_mode="r") for n in dataset.ARRAYS}
    plate = preview.read_picture(folder / "background.png")
    with np.load(folder / "camera.npz") as c, np.load(folder / "landmarks.npz") as p:
        camera, error, valid, points = c["world_to_camera"], c["error"], c["valid"], p["pixels"]
        focal = float(c["focal"])
    with np.load(folder / "expression.npz") as fields:
        e, names = fields["e"], list(fields["names"])
    samples = video.read_wav(folder / "audio.wav").astype(np.float32) / 32768
    loud = np.sqrt((samples.reshape(len(points), -1) ** 2).mean(1))
    opening = np.linalg.norm(points[:, 14] - points[:, 13], axis=-1)
    turns = np.degrees(tracking.rotation_vectors(camera[:, :3, :3].astype(np.float64)))
    shakes = tracking.jitter(camera)
    pose = {f"turn {n} deg": turns[:, k] for k, n in enumerate("xyz")}
    pose |= {f"move {n} m": camera[:, k, 3] for k, n in enumerate("xyz")}
    facts = dict(facts)
    facts = {
        "source": facts.pop("source"),
        "frames": f"{len(points)} at 25 a second",
        "size": f"{plate.shape[1]} x {plate.shape[0]} px",
        "frames without a face": int((~valid).sum()),
        "reprojection error": f"{np.sqrt((error[valid] ** 2).mean()):.2f} px RMS",
        "pose jitter": f"{shakes[0]:.3f} degrees, {shakes[1]:.3f} mm a frame squared",
        "focal length, distance": f"{focal:.0f} px, {camera[:, 2, 3].mean():.2f} m",
        "loudness with mouth opening": f"correlation {np.corrcoef(loud, opening)[0, 1]:.2f}",
        **facts,
    }
    pictures = {
        "Landmarks, labels, torso": preview.contact_sheet(**arrays, plate=plate, points=points),
        "Background plate": plate,
        "Head pose": preview.plot(pose, "head pose over frames"),
        "Sound and mouth": preview.plot(
            {"loudness": loud, "mouth opening px": opening}, "in step?"
        ),
        "Blink and gaze": preview.plot(
            {n: e[:, names.index(n)] for n in ("AU45", "gaze_x", "gaze_y")}, "eyes"
        ),
    }
    return preview.write_report(folder, facts, pictures)
