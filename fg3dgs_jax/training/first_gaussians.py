"""First Gaussians (eq. 4): coloured points where the masked training frames show a region.

TalkingGaussian starts from a random cube, most of which it has to prune away. Here a random pixel
of a random frame's mask is lifted onto the head (the face's landmarks, an ellipsoid's front beyond
them) and takes that pixel's colour, so that optimisation starts from a picture of the person.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from scipy.interpolate import LinearNDInterpolator

from fg3dgs_jax import geometry
from fg3dgs_jax.avatar import draw
from fg3dgs_jax.clip.landmarks import GUIDES
from fg3dgs_jax.clip.processed import Clip
from fg3dgs_jax.config import Config
from fg3dgs_jax.models import gaussians as gaussians_lib
from fg3dgs_jax.models import motion as motion_lib
from fg3dgs_jax.models.audio_encoder import with_statistics
from fg3dgs_jax.training import batches, density, guides, masks
from fg3dgs_jax.training.batches import DeviceClip
from fg3dgs_jax.types import REGIONS, Array, Conditions

HEAD_RADII = (0.085, 0.12, 0.09)  # metres: half width, half height, half depth
DEPTH_JITTER = {"face": 0.01, "eyes": 0.005, "mouth": 0.012}  # on the ellipsoid
MESH_JITTER = 0.3  # of that on the mesh, which is nearer the truth
BEHIND = {"face": 0.0, "eyes": 0.004, "mouth": 0.008}  # metres behind either
MESH_FRAMES = 200  # that landmarks are triangulated from
LIFT_FRAMES = 24  # whose pixels are lifted


def init_regions(
    key: Array,
    clip: Clip,
    on_device: DeviceClip,
    config: Config,
    nets: Mapping[str, nn.Module],
    warm_up: bool = True,
) -> tuple[dict[str, draw.Region], dict[str, Array]]:
    """{region: avatar.Region} and {region: alive} from a clip's train split.

    Args:
      key: consumed.
      clip: the processed folder.
      on_device: the same on the device.
      config: of the run.
      nets: motion net of each region.
      warm_up: whether the nets learn from the landmarks first, as the config says.
    """
    regions, alive = {}, {}
    classes = masks.region_labels(config)
    mesh = face_mesh(clip)
    for r in config.regions:
        key_r = jax.random.fold_in(key, REGIONS.index(r))
        seed = int(jax.random.randint(key_r, (), 0, 2**31 - 1))
        frames = np.flatnonzero(np.asarray(on_device.eligible[r]))
        sizes = getattr(config.gaussians, r)
        rng = np.random.default_rng(seed)
        points, colors = lift(rng, clip, mesh, frames, r, classes[r], sizes.num)
        gaussians, alive[r] = gaussians_lib.init_gaussians_from_points(
            points, colors, density.first_slots(sizes, r), config.sh_degree
        )
        windows = jnp.zeros((8, *on_device.audio.shape[1:]))
        expression = jnp.zeros(on_device.expression.shape[1])
        # One program of the parameters alone; else each operation of the net is one, and runs.
        init = jax.jit(nets[r].init)
        motion: Any = init(key_r, gaussians.means, Conditions(windows, expression))
        motion = with_statistics(motion, on_device.audio[clip.split("train")])
        if "lips" in motion.get("statistics", {}):
            lips = on_device.guides[np.array([GUIDES.index(point) for point in motion_lib.LIPS])]
            motion = {**motion, "statistics": {**motion["statistics"], "lips": lips}}
        leading = guides.guided(config).get(r)
        if leading is not None and config.moves and config.warm_up.steps and warm_up:
            motion = guides.learn_from_guides(key_r, nets[r], motion, leading, on_device, config)
        regions[r] = draw.Region(gaussians, motion)
    return regions, alive


def face_mesh(clip: Clip) -> np.ndarray:
    """The landmarks [478, 3] of a clip's train split in the head's frame, metres.

    They are an average: lips and lids are a little open.
    """
    train = clip.split("train")
    seen = train[(clip.valid & clip.landmarks_valid)[train]]
    seen = seen[np.linspace(0, len(seen) - 1, min(MESH_FRAMES, len(seen))).astype(int)]
    camera = batches.cameras_of(clip, seen)
    return np.asarray(geometry.triangulate(jnp.asarray(clip.landmarks[seen]), camera), np.float64)


def lift(
    rng: np.random.Generator,
    clip: Clip,
    mesh: np.ndarray,
    frames: np.ndarray,
    region: str,
    classes: Sequence[int],
    num: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Points [num, 3] metres with colours [num, 3] in [0, 1] from pixels of a region.

    Args:
      rng: is used up.
      clip: the processed folder.
      mesh: of `face_mesh`.
      frames: numbers of the frames that may be looked at.
      region: its name.
      classes: its label classes.
      num: how many points.

    Raises:
      ValueError: no frame shows the region.
    """
    count = min(LIFT_FRAMES, len(frames))
    chosen = frames[np.linspace(0, len(frames) - 1, count).astype(int)]
    share = -(-num // len(chosen))
    points, colors = [], []
    fx, fy, cx, cy = clip.intrinsics
    for i in chosen:
        rows, cols = np.nonzero(np.isin(clip.labels[i], classes))
        if len(rows) == 0:
            continue
        pick = rng.integers(0, len(rows), share)
        u, v = cols[pick] + rng.random(share), rows[pick] + rng.random(share)
        colors.append(np.asarray(clip.frames[i])[rows[pick], cols[pick]] / 255.0)
        rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(share)], -1)
        pose = clip.world_to_camera[i].astype(np.float64)
        points.append(_on_head(rng, rays, pose, mesh, region))
    if not points:
        raise ValueError(
            f"no training frame shows the {region}; expected some pixels of it in labels.mkv: "
            "look at the report of preprocess, or use a clip in which the person speaks and blinks"
        )
    points, colors = np.concatenate(points), np.concatenate(colors)
    keep = rng.permutation(len(points))[:num]
    return points[keep].astype(np.float32), colors[keep].astype(np.float32)


def _on_head(rng, rays, pose, mesh, region):
    """Where rays [P, 3] (camera axes, z = 1) meet the face, in world axes.

    Beside the face it is the front of the ellipsoid.
    """
    center = pose[:3, 3]
    at_center = rays * center[2]
    offset = (at_center - center)[:, :2] / np.array(HEAD_RADII[:2])
    inside = np.clip(1.0 - (offset**2).sum(-1), 0.0, 1.0)
    depth = -HEAD_RADII[2] * np.sqrt(inside)  # metres behind the head's centre
    jitter = DEPTH_JITTER[region] * rng.standard_normal(len(rays))
    corners = mesh @ pose[:3, :3].T + center
    face = LinearNDInterpolator(corners[:, :2] / corners[:, 2:], corners[:, 2] - center[2])(
        rays[:, :2]
    )
    met = np.isfinite(face)
    depth, jitter = np.where(met, face, depth), np.where(met, MESH_JITTER * jitter, jitter)
    camera_points = rays * (center[2] + depth + BEHIND[region] + jitter)[:, None]
    return (camera_points - center) @ pose[:3, :3]
