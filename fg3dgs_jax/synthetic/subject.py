"""The embedded subject: a procedural talking person as a processed folder, exact by nature.

With it a fresh machine can train. `make_clip` writes it; speech is in `speech`, the head in `head`
(ray-cast, independent of our rasterizer), torso and room in `room`. It is one person; the seed
chooses what is spoken and how the head, brows, lids and eyes move.
"""

import concurrent.futures
import functools
import os
import pathlib
import wave
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.clip import format
from fg3dgs_jax.media.clock import FPS, SAMPLE_RATE
from fg3dgs_jax.synthetic import head, landmarks, room, shading
from fg3dgs_jax.synthetic.speech import synthesize_speech

__all__ = ["make_clip", "make_motion", "render_clip", "synthesize_speech"]

FOCAL = 2.6  # in frame heights: at 1 m the face oval fills about half of it
# Metres, head frame: the top of the spine, about which a head turns.
PIVOT = np.array([0.0, 0.085, 0.015])
# The head's centre in the camera's frame when nothing moves, metres.
REST = np.array([0.0, -0.018, 1.0])
NECK_TOP = 0.5 + FOCAL * (REST[1] - room.TOP - 0.03)  # of the height: no torso above
# Metres up, down, left, right of REST that a head can cover while it moves.
REACH = (-0.145, 0.155, -0.130, 0.130)

# The last channel is AU45; gaze is positive to the image's right and up.
EXPRESSIONS = ("AU01", "AU04", "AU05", "AU06", "AU07", "gaze_x", "gaze_y", "AU45")


def make_clip(
    path: os.PathLike | str,
    *,
    seed: int = 0,
    seconds: float = 14.0,
    size: int = 192,
    with_features: bool = True,
    features: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] | None = None,
) -> pathlib.Path:
    """Writes a processed folder of the embedded subject.

    Args:
      path: folder to write.
      seed: chooses text, head motion, blinks; the person stays the same.
      seconds: length of the clip; rounded to whole frames.
      size: height and width in px, a multiple of 2 from 32 on.
      with_features: False leaves out the audio features.
      features: extractor name -> function(samples int16 [n], num_frames) -> float32 [T, A, D]; each
        becomes `audio_<name>.npy`.

    Returns:
      the folder.
    """
    if size < 32 or size % 2:
        raise ValueError(f"size is {size}; expected an even number of px from 32 on")
    path = pathlib.Path(path)
    samples, articulation = synthesize_speech(seed, seconds)
    frames = len(articulation["jaw"])
    motion = make_motion(seed, articulation)
    arrays: dict[str, Any] = dict(render_clip(articulation, motion, size))
    valid = np.ones(frames, bool)
    arrays["camera"] = {"world_to_camera": motion["world_to_camera"], "valid": valid}
    arrays["landmarks"] = {"pixels": arrays["landmarks"], "valid": valid}
    arrays["expression"] = {"e": motion["expression"], "names": np.array(EXPRESSIONS)}
    for name, extract in (features or {}).items() if with_features else ():
        arrays[f"audio_{name}"] = np.asarray(extract(samples, frames), np.float32)
    format.save_arrays(path, **arrays)
    _write_wave(path / "audio.wav", samples)
    format.save_meta(
        path,
        num_frames=frames,
        width=size,
        height=size,
        intrinsics=_intrinsics(size),
        source={"kind": "synthetic", "seed": int(seed), "seconds": frames / FPS},
        consent={"basis": "none needed", "subject": "procedural, no real person"},
    )
    return path


def make_motion(seed: int, articulation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How the person moves while it says `articulation` (see `synthesize_speech`).

    Returns:
      dict of world_to_camera and torso_to_camera float32 [T, 4, 4], and expression float32 [T,
      len(EXPRESSIONS)].
    """
    frames = len(articulation["jaw"])
    rng = np.random.default_rng([seed, 0x40D])
    beat = _lagged(articulation["energy"], 6) - 0.5
    yaw = _wander(rng, frames, 0.05, 0.30) * 7.5 + beat * 1.0
    pitch = _wander(rng, frames, 0.07, 0.45) * 4.0 + beat * 3.0
    roll = _wander(rng, frames, 0.05, 0.35) * 3.2
    angles = np.radians(np.clip(np.stack([yaw, pitch, roll], -1), -12, 12))
    shift = np.stack([_wander(rng, frames, 0.05, 0.25) * s for s in (0.006, 0.0035, 0.008)], -1)
    slow_angles, slow_shift = (np.stack([_lagged(c, 12) for c in v.T], -1) for v in (angles, shift))
    torso_angles = slow_angles * (0.18, 0.10, 0.22)
    torso_shift = 0.55 * slow_shift
    brow = np.clip(
        _events(rng, frames, 2.8, 0.9) * 0.9 + 0.12 * _wander(rng, frames, 0.2, 0.8), 0, 1
    )
    frown = np.clip(_events(rng, frames, 4.5, 1.1) * 0.8, 0, 1) * (1 - brow)
    wide = np.clip(0.7 * _events(rng, frames, 5.0, 0.8), 0, 1)
    cheek = np.clip(_events(rng, frames, 4.0, 1.4) * 0.9, 0, 1)
    squint = np.clip(0.5 * cheek + 0.25 * frown + 0.12 * _wander(rng, frames, 0.1, 0.6), 0, 1) * (
        1 - wide
    )
    gaze_x, gaze_y = _gaze(rng, frames, yaw / 12, pitch / 12)
    channels = (brow, frown, wide, cheek, squint, gaze_x, gaze_y, _blinks(rng, frames))
    return {
        "world_to_camera": _poses(angles, shift),
        "torso_to_camera": _poses(torso_angles, torso_shift),
        "expression": np.stack(channels, -1).astype(np.float32),
    }


def render_clip(
    articulation: dict[str, np.ndarray], motion: dict[str, np.ndarray], size: int
) -> dict[str, np.ndarray]:
    """Draws every frame.

    Returns:
      dict of frames uint8 [T, H, W, 3], labels uint8 [T, H, W], torso uint8 [T, H, W, 4],
      background uint8 [H, W, 3], landmarks float32 [T, 478, 2] px.
    """
    plate = room.room(size)
    poses = _face_poses(articulation, motion["expression"])

    def frame(i):
        pose = {name: jnp.float32(track[i]) for name, track in poses.items()}
        drawn = _draw_frame(
            pose, motion["world_to_camera"][i], motion["torso_to_camera"][i], size, plate
        )
        return [np.asarray(part) for part in drawn]

    head.still_head()  # once, before two threads ask for it
    # One compiled stage does not fill two cores.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        frames = list(pool.map(frame, range(len(articulation["jaw"]))))
    names = ("frames", "labels", "torso", "landmarks")
    stacked = {name: np.stack([f[k] for f in frames]) for k, name in enumerate(names)}
    return {**stacked, "background": plate}


def _draw_frame(pose, world_to_camera, torso_to_camera, size, plate):
    intrinsics = _intrinsics(size)
    tables = head.surface(pose)
    window = _window(size)
    rgba, label = shading.draw(pose, tables, world_to_camera, intrinsics, window)
    torso, behind = room.draw_torso(torso_to_camera, intrinsics, size, size, int(size * NECK_TOP))
    points = landmarks.world_points(pose, tables[0])
    pixels = landmarks.project(points, world_to_camera, intrinsics)
    return *_compose(rgba, label, torso, behind, plate, window), pixels


@functools.partial(jax.jit, static_argnums=5)
def _compose(rgba, label, torso, behind, plate, window):
    """Head over torso over plate -> frame, labels, torso as they are stored."""
    row0, row1, col0, col1 = window
    torso = jnp.rint(torso * 255).astype(jnp.uint8)
    alpha = torso[..., 3:] / 255.0
    back = jnp.rint(torso[..., :3] * alpha + plate * (1 - alpha))
    part = back[row0:row1, col0:col1]
    frame = back.at[row0:row1, col0:col1].set(
        jnp.rint(rgba[..., :3] * 255 + part * (1 - rgba[..., 3:]))
    )
    labels = behind.at[row0:row1, col0:col1].set(
        jnp.where(label > 0, label, behind[row0:row1, col0:col1])
    )
    return jnp.clip(frame, 0, 255).astype(jnp.uint8), labels, torso


def _intrinsics(size):
    return FOCAL * size, FOCAL * size, size / 2, size / 2


def _window(size):
    middle = size / 2 + FOCAL * size * REST[1] / REST[2]
    edges = [middle + FOCAL * size * r for r in REACH[:2]] + [
        size / 2 + FOCAL * size * r for r in REACH[2:]
    ]
    row0, row1, col0, col1 = (int(np.clip(round(e), 0, size)) for e in edges)
    return row0, row1, col0, col1


def _face_poses(articulation, expression):
    e = dict(zip(EXPRESSIONS, expression.T, strict=True))
    return {
        **{name: articulation[name] for name in ("jaw", "spread", "round", "closure")},
        "brow_up": e["AU01"],
        "brow_in": e["AU04"],
        "wide": e["AU05"],
        "squint": np.clip(0.75 * e["AU07"] + 0.35 * e["AU06"], 0, 1),
        "blink": e["AU45"],
        "gaze_x": e["gaze_x"],
        "gaze_y": e["gaze_y"],
    }


def _poses(angles, shift):
    """World to camera [T, 4, 4] float32.

    From yaw, pitch, roll [T, 3] radians about PIVOT and shift [T, 3] metres from REST.
    """
    (cy, cp, cr), (sy, sp, sr) = np.cos(angles).T, np.sin(angles).T
    one, zero = np.ones_like(cy), np.zeros_like(cy)

    def stack(rows):
        return np.stack([np.stack(r, -1) for r in rows], -2)

    turn = stack([[cy, zero, sy], [zero, one, zero], [-sy, zero, cy]])
    nod = stack([[one, zero, zero], [zero, cp, -sp], [zero, sp, cp]])
    tilt = stack([[cr, -sr, zero], [sr, cr, zero], [zero, zero, one]])
    out = np.tile(np.eye(4), (len(angles), 1, 1))
    out[:, :3, :3] = tilt @ turn @ nod
    out[:, :3, 3] = PIVOT - out[:, :3, :3] @ PIVOT + REST + shift
    return out.astype(np.float32)


def _wander(rng, frames, low, high):
    """A smooth random track [T], rarely beyond 1.

    Eight sines between `low` and `high` Hz, slower ones stronger.
    """
    hertz = np.linspace(low, high, 8) * rng.uniform(0.85, 1.15, 8)
    gain = 1 / np.sqrt(hertz)
    time = np.arange(frames)[:, None] / FPS
    track = (gain * np.sin(2 * np.pi * (hertz * time + rng.random(8)))).sum(-1)
    return track / (1.8 * np.sqrt(0.5 * (gain**2).sum()))


def _events(rng, frames, every, length):
    """Smooth bumps [T] of random height in [0.4, 1].

    One each `every` seconds on average, `length` seconds long.
    """
    out, time = np.zeros(frames), rng.uniform(0, every)
    at = np.arange(frames) / FPS
    while time < frames / FPS:
        half = 0.5 * length * rng.uniform(0.8, 1.5)
        phase = np.clip((at - time) / half, -1, 1)
        out = np.maximum(out, rng.uniform(0.4, 1.0) * (0.5 + 0.5 * np.cos(np.pi * phase)))
        time += every * rng.uniform(0.5, 1.5)
    return out


def _blinks(rng, frames):
    """AU45 [T]: shut within 2 frames, open again within 5, each 1.4 to 3.6 s."""
    shape = np.array([0.45, 1.0, 1.0, 0.72, 0.38, 0.12])
    out, at = np.zeros(frames), int(rng.integers(12, 30))
    while at < frames:
        part = shape[: frames - at]
        out[at : at + len(part)] = part
        at += int(rng.uniform(1.4, 3.6) * FPS)
    return out


def _gaze(rng, frames, yaw, pitch):
    """Fixations joined by saccades of 2 frames.

    Half of the head's turn is undone, as eyes that keep to the camera do.
    """
    x, y, at = np.zeros(frames), np.zeros(frames), 0
    while at < frames:
        end = at + int(rng.uniform(0.5, 2.0) * FPS)
        away = rng.random() < 0.4
        x[at:end], y[at:end] = rng.uniform(-0.75, 0.75) * away, rng.uniform(-0.5, 0.4) * away
        at = end
    x, y = (np.convolve(np.pad(v, 1, mode="edge"), (0.25, 0.5, 0.25), "valid") for v in (x, y))
    return np.clip(x - 0.35 * yaw, -1, 1), np.clip(y - 0.3 * pitch, -1, 1)


def _lagged(track, frames):
    """A track [T] that lags exponentially by a time constant in frames.

    Run twice, started at the first value.
    """
    keep = np.exp(-1 / (0.5 * frames))
    for _ in range(2):
        out = np.empty_like(track, dtype=np.float64)
        value = track[0]
        for i, target in enumerate(track):
            value = keep * value + (1 - keep) * target
            out[i] = value
        track = out
    return track


def _write_wave(path, samples):
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(samples.astype("<i2").tobytes())
