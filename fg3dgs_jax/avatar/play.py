"""Draws an avatar frame by frame with a clip's poses: what `evaluate` and `synthesize` share."""

import dataclasses
import sys

import jax
import numpy as np

from fg3dgs_jax import types
from fg3dgs_jax.media import windows as windows_lib

BATCH = 4


def load_avatar(workdir):
    """The trained avatar of a workdir, or AvatarError (a ValueError) with one line."""
    # Here, because it brings in the models, which --help does not need.
    from fg3dgs_jax.avatar import store

    return store.load(workdir)


def ping_pong(count: int, length: int) -> np.ndarray:
    """[count] indices 0 .. length-1 .. 0 .. that play a clip forth and back; neighbours are never
    more than one apart.
    """
    if length < 1:
        raise ValueError("no frames to take poses from: the split is empty; choose --split all")
    period = max(2 * (length - 1), 1)
    phase = np.arange(count) % period
    return np.minimum(phase, period - phase) if length > 1 else np.zeros(count, int)


def cameras(clip, index) -> types.Camera:
    """The cameras of frames `index` [B] with leading dimension B."""
    fx, fy, cx, cy = (np.full(len(index), v, np.float32) for v in clip.intrinsics)
    return types.Camera(clip.world_to_camera[index], fx, fy, cx, cy)


def backgrounds(clip, index) -> np.ndarray:
    """uint8 [B, H, W, 3]: torso over plate of frames `index` only, so that memory does not grow
    with the clip.
    """
    return dataclasses.replace(clip, torso=clip.torso[index]).backgrounds()


def draw_frames(
    avatar, clip, features, expression, pose_index, sound_index=None, batch: int = BATCH
):
    """Yields one drawn frame (the avatar's Frame without its batch dimension, in NumPy) per entry
    of `pose_index`.

    Args:
      features: float32 [S, A, D], one row per frame of sound.
      expression: float32 [T, E] of the clip.
      pose_index: int [n], the clip's frame that lends pose, background and expression.
      sound_index: int [n], row of `features`; by default `pose_index` (the clip with its own
        sound).
    """
    return _in_batches(avatar.draw, clip, features, expression, pose_index, sound_index, batch)


def draw_pictures(
    avatar, clip, features, expression, pose_index, sound_index=None, batch: int = BATCH
):
    """As `draw_frames`, but only the picture, uint8 [H, W, 3], which costs less."""
    draw = avatar.draw_pictures
    drawn = _in_batches(draw, clip, features, expression, pose_index, sound_index, batch)
    return (picture.image for picture in drawn)


def _in_batches(draw, clip, features, expression, pose_index, sound_index, batch):
    pose_index = np.asarray(pose_index)
    sound_index = pose_index if sound_index is None else np.asarray(sound_index)
    short = 0
    ahead = _draw_ahead(draw, clip, features, expression, pose_index, sound_index, batch)
    for drawn, count in ahead:
        drawn = jax.device_get(drawn)
        short += int(np.sum(drawn.overflow[:count]))
        for i in range(count):
            yield jax.tree.map(lambda x, i=i: x[i], drawn)
    if short:
        print(
            f"{short} of {len(pose_index)} frames lack their farthest Gaussians: the GPU's list of "
            "(tile, Gaussian) pairs was too short for them; JAX_PLATFORMS=cpu draws all",
            file=sys.stderr,
        )


def _draw_ahead(draw, clip, features, expression, pose_index, sound_index, batch):
    """Yields (a batch of frames, how many of it count); while one is taken out and encoded, the
    next is under way."""
    waiting = None
    for start in range(0, len(pose_index), batch):
        count = min(batch, len(pose_index) - start)
        pick = np.minimum(
            np.arange(start, start + batch), len(pose_index) - 1
        )  # one size, so one compilation
        drawn = draw(*inputs(clip, features, expression, pose_index[pick], sound_index[pick]))
        if waiting is not None:
            yield waiting
        waiting = (drawn, count)
    if waiting is not None:
        yield waiting


def inputs(clip, features, expression, pose_index, sound_index):
    """The four arguments of `draw.draw` for B frames."""
    windows = windows_lib.slice_windows(features, sound_index).astype(np.float32)
    return windows, expression[pose_index], cameras(clip, pose_index), backgrounds(clip, pose_index)


def to_uint8(image) -> np.ndarray:
    """float [..., 3] in [0, 1] -> uint8, rounded."""
    return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
