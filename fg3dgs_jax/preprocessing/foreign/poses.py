"""Poses of other projects' folders in our axes, unit and origin.

Theirs are OpenGL cameras (x right, y up, looking along -z) in the frame of an upright face that
looks along +z. Ours are OpenCV cameras (y down, looking along +z) in the frame of a face that looks
along -z. So both frames are turned half a turn about x.

Their unit is meant to be the metre, but it hangs on the face model and the focal length that were
fitted, and some forks write decimetres. So the unit is set as in `head_pose`: the outer corners of
the eyes, triangulated through the imported cameras, are 0.09 m apart. The origin is put where
`head_pose` puts it, in the middle of the head. What the cameras see of the head stays the same.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import geometry
from fg3dgs_jax.clip.over_time import bridge
from fg3dgs_jax.preprocessing.track import head_pose
from fg3dgs_jax.types import Camera

FLIP = np.diag([1.0, -1.0, -1.0])  # half a turn about x
MAX_ERROR = 0.05  # of the picture height, RMS: beyond it poses are not of these pictures
MAX_FRAMES = 300  # that points are triangulated from


class PoseError(ValueError):
    """Poses that are not those of the frames; one line."""


class ImportedTrack(NamedTuple):
    """Poses of T frames, as in `head_pose.HeadTrack`, and how they came from theirs."""

    world_to_camera: np.ndarray  # float32 [T, 4, 4], OpenCV axes, metres
    valid: np.ndarray  # bool [T]: False where the pose is interpolated
    error: np.ndarray  # float32 [T] px, RMS over the rigid landmarks; 0 where there are none
    points: np.ndarray  # float32 [P, 3] m, the mean face in the head frame
    scale: float  # m per unit of theirs
    origin: np.ndarray  # [3], our origin in their unit, axes already ours


def track(
    poses: Mapping[int, np.ndarray],
    num_frames: int,
    intrinsics: tuple[float, float, float],
    pixels: np.ndarray,
    has_face: np.ndarray,
    height: int,
) -> ImportedTrack:
    """Their poses as ours.

    Args:
      poses: {frame: camera-to-world [4, 4]}, OpenGL axes, any unit.
      num_frames: T.
      intrinsics: focal length, cx, cy px.
      pixels: [T, P, 2] px landmarks.
      has_face: bool [T], frames with landmarks.
      height: px of the picture.

    Raises:
      PoseError: poses that are no rigid motions, or under which the landmarks are no rigid head.
    """
    theirs = np.tile(np.eye(4), (num_frames, 1, 1))
    valid = np.zeros(num_frames, bool)
    for i, matrix in poses.items():
        theirs[i], valid[i] = world_to_camera(matrix), True
    rotation = theirs[:, :3, :3]
    if np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max() > 1e-3:
        raise PoseError("a transform_matrix is no rotation; expected rigid poses in every frame")
    vectors = bridge(head_pose.rotation_vectors(rotation), valid)
    rotation = np.where(valid[:, None, None], rotation, head_pose.rotation_matrices(vectors))
    moves = bridge(theirs[:, :3, 3], valid).astype(np.float64)
    points = _triangulate(rotation, moves, intrinsics, pixels, valid & has_face)
    eyes = points[list(head_pose.OUTER_EYE_CORNERS)]
    scale = head_pose.EYE_DISTANCE / max(np.linalg.norm(eyes[0] - eyes[1]), 1e-9)
    # head_pose's origin: behind the eyes towards the ears, a little up.
    origin = eyes.mean(0) + np.array([0.0, -0.005, head_pose.HEAD_DEPTH]) / scale
    points = scale * (points - origin)
    out = np.tile(np.eye(4), (num_frames, 1, 1))
    out[:, :3, :3], out[:, :3, 3] = rotation, scale * (moves + rotation @ origin)
    error = np.where(valid & has_face, _errors(out, points, intrinsics, pixels), 0.0)
    rms = float(np.sqrt((error[valid & has_face] ** 2).mean()))
    if not rms <= MAX_ERROR * height:
        raise PoseError(
            f"under the imported poses the head's landmarks are {rms:.1f} px off, or it is behind "
            f"the camera; expected at most {MAX_ERROR * height:.1f} px: transforms_*.json and the "
            "pictures are not of one clip, or not numbered alike"
        )
    return ImportedTrack(
        world_to_camera=out.astype(np.float32),
        valid=valid,
        error=error.astype(np.float32),
        points=points.astype(np.float32),
        scale=float(scale),
        origin=origin,
    )


def world_to_camera(camera_to_world: np.ndarray) -> np.ndarray:
    """[4, 4] OpenGL camera to OpenGL face -> [4, 4] our face to our camera, their unit."""
    turn = np.eye(4)
    turn[:3, :3] = FLIP
    return turn @ np.linalg.inv(camera_to_world) @ turn


def _triangulate(rotation, moves, intrinsics, pixels, use):
    """float64 [P, 3] of their unit."""
    index = np.flatnonzero(use)
    if len(index) < 2:
        raise PoseError(f"{len(index)} frames have a pose and a face; expected most of them")
    index = index[:: max(1, len(index) // MAX_FRAMES)]
    # In units of the distance, so that numbers are near 1 whatever theirs is.
    unit = float(np.median(np.abs(moves[index, 2])))
    matrices = np.tile(np.eye(4), (len(index), 1, 1))
    matrices[:, :3, :3], matrices[:, :3, 3] = rotation[index], moves[index] / unit
    focal, cx, cy = (jnp.full(len(index), v, jnp.float32) for v in intrinsics)
    camera = Camera(jnp.asarray(matrices, jnp.float32), focal, focal, cx, cy)
    observed = jnp.asarray(pixels[index], jnp.float32)
    return unit * np.asarray(geometry.triangulate(observed, camera), np.float64)


def _errors(matrices, points, intrinsics, pixels):
    """[T] px, RMS over the rigid landmarks."""
    focal, cx, cy = intrinsics
    rigid = points[head_pose.RIGID]
    camera = rigid @ matrices[:, :3, :3].swapaxes(1, 2) + matrices[:, None, :3, 3]
    depth = np.where(camera[..., 2:] > 0, camera[..., 2:], np.nan)  # behind: no place at all
    shown = focal * camera[..., :2] / depth + np.array([cx, cy])
    return np.sqrt(((shown - pixels[:, head_pose.RIGID]) ** 2).sum(-1).mean(-1))
