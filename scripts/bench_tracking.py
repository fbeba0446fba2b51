"""Measures head poses of a processed folder: landmarks, jitter, lag, skin, and the static avatar.

    python scripts/bench_tracking.py --data data/obama --out bench_tracking.json

Four tracks of the same clip are compared: `mediapipe` (its own matrix of every frame), `stored`
(camera.npz), `landmarks` (the bundle adjustment alone) and `aligned` (with the alignment of skin,
what preprocess writes). Printed for each:

- reprojection: median distance of rigid landmarks, px at 512 px of height;
- jitter: standard deviation of second differences, and how many times less it is than that of
  poses fitted frame by frame with the same shape (rotation, x and y, z). The motion of the head
  itself is in both, so the quotient has a ceiling: `steady` is the jitter above 6 Hz alone, where a
  head hardly moves;
- lag in frames behind the frame-by-frame rotations, and the share of their motion of 0.3 to 2 Hz
  that is kept;
- skin: median deviation of grey levels on the skin from the clip's own, in hundredths of their
  mean size;
- PSNR on test frames of the static avatar trained with these poses (two minutes each on a core).
"""

import argparse
import importlib
import json
import pathlib
import sys
import tempfile
import time

import numpy as np

from fg3dgs_jax.avatar import store as avatar_store
from fg3dgs_jax.avatar import subject as subject_lib
from fg3dgs_jax.clip import format, processed
from fg3dgs_jax.experts.face import mediapipe_runtime
from fg3dgs_jax.media import clock
from fg3dgs_jax.preprocessing.track import bundle_adjustment, head_pose, photometric
from fg3dgs_jax.training import loop
from fg3dgs_jax.weights import store

TRACKS = ("mediapipe", "stored", "landmarks", "aligned")
MEDIAPIPE_FOCAL = 0.5 / np.tan(np.radians(63 / 2))  # heights: its geometry module's camera
STEADY = 6.0  # Hz
ROOT = pathlib.Path(__file__).resolve().parents[1]


def parse(argv):
    """Flags of the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=pathlib.Path, help="processed folder")
    parser.add_argument("--tracks", nargs="+", default=TRACKS, choices=TRACKS, help="default: all")
    parser.add_argument("--steps", type=int, default=1200, help="of the static avatar; 0: none")
    parser.add_argument("--seeds", type=int, default=1, help="trainings to average (default: 1)")
    parser.add_argument("--side", type=int, default=225, help="height it is trained at, px")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for the figures")
    return parser.parse_args(argv)


def main(argv=None):
    """Measures every track; returns the program's exit code."""
    args = parse(argv)
    frames = processed.load_clip(args.data).frames
    with np.load(args.data / "faces.npz") as fields:
        faces = {k: fields[k] for k in fields.files}
    figures = {}
    for name in args.tracks:
        begin = time.perf_counter()
        poses, points, focal = make_track(name, args.data, frames, faces)
        figures[name] = {"ms_a_frame": 1e3 * (time.perf_counter() - begin) / len(frames)}
        figures[name] |= measure_track(frames, faces, poses, points, focal)
        if args.steps:
            psnr = [
                static_psnr(args.data, poses, faces["num_faces"] > 0, focal, args, seed)
                for seed in range(args.seeds)
            ]
            figures[name] |= {"psnr": float(np.mean(psnr, 0)[0]), "psnr_head": np.mean(psnr, 0)[1]}
        print(f"{name:10}", *(f"{k} {np.round(v, 3)}" for k, v in figures[name].items()), sep="  ")
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1, default=lambda x: np.asarray(x).tolist()))
    return 0


def make_track(name, folder, frames, faces):
    """Poses [T, 6], mean face [478, 3] m and focal length of a track."""
    valid, size = faces["num_faces"] > 0, frames.shape[1:3]
    sighting = head_pose.Sighting(faces["pixels"], faces["depth"], faces["rotation"], valid, size)
    if name in ("landmarks", "aligned"):
        fit = head_pose.fit_head(sighting, frames=frames if name == "aligned" else None)
        return as_vectors(fit.world_to_camera), fit.points.astype(np.float64), fit.focal
    if name == "stored":
        with np.load(folder / "camera.npz") as fields:
            poses = as_vectors(fields["world_to_camera"])
            return poses, fields["head_points"].astype(np.float64), float(fields["focal"])
    poses, focal = as_vectors(mediapipe_matrices(frames)), MEDIAPIPE_FOCAL * size[0]
    points = head_pose.fit_head(sighting).points.astype(np.float64)
    for _ in range(2):  # its head frame is not ours: a loose tie, and time to get there
        points = bundle_adjustment.solve_points(
            bundle_adjustment.Unknowns(poses, points, focal),
            points,
            faces["pixels"],
            valid,
            np.array(size[::-1]) / 2,
            4e-3 * size[0],
            0.1,
        )
    return poses, points, focal


def mediapipe_matrices(frames):
    """World-to-camera [T, 4, 4], OpenCV axes, metres; the last known one where there is no face."""
    mp, tasks = mediapipe_runtime.load()
    options = tasks.vision.FaceLandmarkerOptions(
        base_options=tasks.BaseOptions(model_asset_path=str(store.require("face_landmarker"))),
        running_mode=tasks.vision.RunningMode.VIDEO,
        num_faces=2,  # as in preprocess: one face alone would be smoothed
        output_facial_transformation_matrixes=True,
    )
    flip, found = np.diag([1.0, -1.0, -1.0, 1.0]), [np.diag([1.0, 1, 1, 1])]
    with tasks.vision.FaceLandmarker.create_from_options(options) as landmarker:
        for i, frame in enumerate(frames):
            picture = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
            seen = landmarker.detect_for_video(picture, round(i * 1000 / clock.FPS))
            widths = [np.ptp([p.x for p in face]) for face in seen.face_landmarks]
            if not widths:
                found.append(found[-1])
                continue
            matrix = seen.facial_transformation_matrixes[int(np.argmax(widths))].astype(np.float64)
            matrix[:3, 3] /= 100  # centimetres
            found.append(flip @ matrix @ flip)
    return np.stack(found[1:])


def as_vectors(matrices):
    """[T, 4, 4] -> [T, 6]: rotation vector and translation."""
    matrices = np.asarray(matrices, np.float64)
    turns = head_pose.rotation_vectors(matrices[:, :3, :3])
    return np.concatenate([turns, matrices[:, :3, 3]], -1)


def measure_track(frames, faces, poses, points, focal):
    """All figures but the PSNR."""
    valid, height = faces["num_faces"] > 0, frames.shape[1]
    centre = np.array(frames.shape[2:0:-1]) / 2
    rigid, pixels = points[head_pose.RIGID], faces["pixels"][:, head_pose.RIGID].astype(np.float64)
    off = np.linalg.norm(head_pose.project(poses, rigid, focal, centre) - pixels, axis=-1)
    alone = head_pose.frame_by_frame(poses, rigid, pixels, valid, focal, centre)
    parts = (slice(0, 3), slice(3, 5), slice(5, 6))

    def shakes(track):
        return np.array([np.diff(track[:, p], 2, axis=0).std() for p in parts])

    fast = [shakes(band(track, STEADY, np.inf)) for track in (poses, alone)]
    lag, kept = delay(poses[:, :3], alone[:, :3])
    skin = photometric.skin_points(points)
    return {
        "reprojection_px": np.median(off[valid]) * 512 / height,
        "jitter_degrees_mm": shakes(poses)[[0, 1]] * [np.degrees(1), 1e3],
        "times_less": shakes(alone) / shakes(poses),
        "times_less_steady": fast[1] / fast[0],
        "lag_frames": lag,
        "kept": kept,
        "skin_percent": 100 * photometric.deviation(frames, valid, poses, skin, focal, centre),
    }


def band(track, low, high):
    """Motion [T, D] between two frequencies (Hz)."""
    rates = np.fft.rfftfreq(len(track), 1 / clock.FPS)
    spectrum = np.fft.rfft(track - track.mean(0), axis=0)
    spectrum[(rates < low) | (rates > high)] = 0
    return np.fft.irfft(spectrum, len(track), axis=0)


def delay(track, other):
    """By how many frames `track` [T, D] is behind `other`, and how much of its motion it has."""
    a, b = band(track, 0.2, 4.0), band(other, 0.2, 4.0)
    shifts = np.arange(-4, 5)
    match = np.array([(np.roll(a, -s, axis=0) * b).sum() for s in shifts])
    i = int(np.clip(np.argmax(match), 1, len(shifts) - 2))
    before, at, after = match[i - 1 : i + 2]
    peak = shifts[i] + 0.5 * (before - after) / (before - 2 * at + after)  # of a parabola
    slow, true = band(track, 0.3, 2.0), band(other, 0.3, 2.0)
    return peak, (slow * true).sum() / (true**2).sum()


def static_psnr(folder, poses, valid, focal, args, seed):
    """PSNR (dB) of the static avatar on test frames: whole pictures, and the head alone."""
    with tempfile.TemporaryDirectory() as scratch:
        copy, workdir = pathlib.Path(scratch) / "data", pathlib.Path(scratch) / "run"
        copy.mkdir()
        for file in folder.iterdir():
            if file.name not in ("camera.npz", "meta.json"):
                (copy / file.name).symlink_to(file.resolve())
        matrices = np.tile(np.eye(4), (len(poses), 1, 1))
        matrices[:, :3, :3] = head_pose.rotation_matrices(poses[:, :3])
        matrices[:, :3, 3] = poses[:, 3:]
        format.save_arrays(
            copy, camera={"world_to_camera": matrices.astype(np.float32), "valid": valid}
        )
        meta = json.loads((folder / "meta.json").read_text())
        meta["intrinsics"].update(fx=float(focal), fy=float(focal))
        (copy / "meta.json").write_text(json.dumps(meta))
        sys.path.insert(0, str(ROOT))  # configs/ is not part of the package
        config = importlib.import_module("configs.obama").get_config("static")
        config.data.path, config.data.audio_extractor = str(copy), "mel"
        config.data.max_side = args.side
        config.seed = seed
        config.stages.static.steps = config.stages.fusion.steps = args.steps // 4
        config.stages.motion.steps = args.steps
        for _, stage in config.stages.items():
            stage.losses.lpips = 0.0
        config.log.samples_every = config.log.checkpoint_every = 10**6
        loop.fit(config, workdir)
        subject = subject_lib.open_subject(avatar_store.load(workdir), copy)
        index, rows = subject.clip.split("test"), []
        for i, drawn in zip(index, subject.draw(index), strict=True):
            off = 255.0 * np.asarray(drawn.image, np.float64) - subject.clip.frames[i]
            head = np.isin(subject.clip.labels[i], format.HEAD_LABELS)
            rows.append([20 * np.log10(255 / np.sqrt((x**2).mean())) for x in (off, off[head])])
        return np.mean(rows, 0)


if __name__ == "__main__":
    sys.exit(main())
