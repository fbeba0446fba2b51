"""Draws an avatar frame by frame with a clip's poses: what evaluation and synthesis share."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from fg3dgs_jax.clip.processed import Clip
from fg3dgs_jax.media import windows as windows_lib
from fg3dgs_jax.types import Camera

# Frames that are drawn in one call.
BATCH = 4


@runtime_checkable
class Drawable(Protocol):
    """What draws frames: `draw.Avatar`."""

    config: Any

    def draw(self, audio: Any, expression: Any, camera: Any, background: Any, /) -> Any:
        """Returns the `draw.Frame` of a batch, see `inputs`."""
        ...

    def draw_pictures(
        self, audio: Any, expression: Any, camera: Any, background: Any, ease: Any = None, /
    ) -> Any:
        """Returns the `draw.Picture` of a batch, see `inputs`."""
        ...


class Ease(NamedTuple):
    """How far what sound moves goes from where silence has it."""

    gain: Any  # [n], 1 as learnt
    silence: Any  # [8, A, D], the windows of a frame of silence


class Drive(NamedTuple):
    """What drives each of n frames.

    The sound's row and the pose may differ: new speech is spoken with the poses of a clip.
    """

    features: np.ndarray  # float32 [S, A, D], one row per frame of sound
    expression: np.ndarray  # float32 [n, E]
    poses: np.ndarray  # int [n]: the clip's frame that lends pose and background
    sounds: np.ndarray  # int [n]: row of `features`
    ease: "Ease | None" = None  # None: lips move as learnt

    @property
    def num_frames(self) -> int:
        """The number of frames, n."""
        return len(self.poses)

    def take(self, which: np.ndarray) -> "Drive":
        """Returns the drive of some frames only: int [B] in 0 .. n-1."""
        return self._replace(
            expression=self.expression[which],
            poses=self.poses[which],
            sounds=self.sounds[which],
            ease=self.ease and self.ease._replace(gain=self.ease.gain[which]),
        )


def ping_pong(count: int, length: int) -> np.ndarray:
    """Returns [count] indices 0 .. length-1 .. 0 .. that play a clip forwards and backwards.

    Neighbours are never more than one apart.

    Raises:
      ValueError: the clip has no frames.
    """
    if length < 1:
        raise ValueError("no frames to take poses from: the split is empty; choose --split all")
    period = max(2 * (length - 1), 1)
    phase = np.arange(count) % period
    return np.minimum(phase, period - phase) if length > 1 else np.zeros(count, int)


def cameras(clip: Clip, index: np.ndarray) -> Camera:
    """Returns the cameras of frames `index` [B] with leading dimension B."""
    intrinsics = (np.full(len(index), v, np.float32) for v in clip.intrinsics)
    return Camera(*jax.device_put((clip.world_to_camera[index], *intrinsics)))


def backgrounds(clip: Clip, index: np.ndarray) -> np.ndarray:
    """Returns uint8 [B, H, W, 3], the torso over the plate, of frames `index` only.

    Memory does not grow with the clip.
    """
    return dataclasses.replace(clip, torso=clip.torso[index]).backgrounds()


def inputs(clip: Clip, drive: Drive) -> tuple[Any, ...]:
    """Returns the arguments of `Avatar.draw` for all frames of a drive at once."""
    audio = windows_lib.slice_windows(drive.features, drive.sounds).astype(np.float32)
    poses = drive.poses
    arguments = audio, drive.expression, cameras(clip, poses), backgrounds(clip, poses)
    return arguments if drive.ease is None else (*arguments, drive.ease)


def draw_frames(avatar: Drawable, clip: Clip, drive: Drive, batch: int = BATCH) -> Iterator[Any]:
    """Yields each `draw.Frame` of a drive, in NumPy and without a batch dimension."""
    return _in_batches(avatar.draw, clip, drive, batch)


def draw_pictures(
    avatar: Drawable, clip: Clip, drive: Drive, batch: int = BATCH
) -> Iterator[np.ndarray]:
    """Yields each picture of a drive, uint8 [H, W, 3]; it costs less than `draw_frames`."""
    drawn = _in_batches(avatar.draw_pictures, clip, drive, batch)
    return (picture.image for picture in drawn)


def _in_batches(draw: Callable[..., Any], clip: Clip, drive: Drive, batch: int) -> Iterator[Any]:
    incomplete = 0
    for drawn, count in _draw_ahead(draw, clip, drive, batch):
        drawn = jax.device_get(drawn)
        incomplete += int(np.sum(drawn.overflow[:count]))
        for i in range(count):
            yield jax.tree.map(lambda x, i=i: x[i], drawn)
    if incomplete:
        print(
            f"{incomplete} of {drive.num_frames} frames lack their farthest Gaussians: the GPU's "
            "list of (tile, Gaussian) pairs was too short for them; JAX_PLATFORMS=cpu draws all",
            file=sys.stderr,
        )


def _draw_ahead(
    draw: Callable[..., Any], clip: Clip, drive: Drive, batch: int
) -> Iterator[tuple[Any, int]]:
    """Yields (a batch of frames, how many of them count).

    While one batch is copied and encoded, the next is being drawn.
    """
    waiting = None
    for start in range(0, drive.num_frames, batch):
        count = min(batch, drive.num_frames - start)
        # The last batch is filled up with its last frame: one size, so one compilation.
        which = np.minimum(np.arange(start, start + batch), drive.num_frames - 1)
        drawn = draw(*inputs(clip, drive.take(which)))
        if waiting is not None:
            yield waiting
        waiting = (drawn, count)
    if waiting is not None:
        yield waiting


def to_uint8(image: Any) -> np.ndarray:
    """Returns float [..., 3] in [0, 1] as uint8, rounded."""
    return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
