"""A clip on the device and the frames taken from it; all randomness from `fold_in(key, step)`.

So step s of a run sees the same frame whether or not the run was interrupted before. The pictures
are the bulk of a clip: they lie on the device where they fit, else the frames picked are decoded or
read from the folder and come with each dispatch (`training/feed.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import geometry
from fg3dgs_jax.clip import format, landmarks, processed, segments
from fg3dgs_jax.config.defaults import Data, Guides, Noise, Resident, Sampling
from fg3dgs_jax.media import clock
from fg3dgs_jax.models import lip_map
from fg3dgs_jax.system import memory
from fg3dgs_jax.types import REGIONS, Array, Batch, Camera, Conditions

MIN_PIXELS = 20 / 512**2  # a layer is not trained on frames that show less of its region (share)
KEPT_SHARE = 0.25  # of the machine's free memory: what decoded pictures may take
MOST_KEPT = 4 << 30  # bytes: they take no more than that
RESIDENT_SHARE = 0.5  # of the free memory: what pictures may take, a step's work needs the rest
# Bytes that a run takes besides its clip and state, as measured (docs/reliability.md): most of it
# while XLA compiles, some for each pixel of a step.
COMPILING, PIXEL = 3.0e9, 600.0


class Pictures(NamedTuple):
    """What is seen of some frames; they stay uint8 until they are used."""

    frames: Array | np.ndarray | None  # uint8 [..., H, W, 3]
    labels: Array | np.ndarray | None  # uint8 [..., H, W]
    torso: Array | np.ndarray | None  # uint8 [..., H, W, 4]


class DeviceClip(NamedTuple):
    """Every frame of a clip as arrays; without pictures (None) where they do not fit."""

    frames: Array | None  # uint8 [T, H, W, 3]
    labels: Array | None  # uint8 [T, H, W]
    torso: Array | None  # uint8 [T, H, W, 4], straight alpha
    plate: Array  # uint8 [H, W, 3], what is behind the torso
    world_to_camera: Array  # [T, 4, 4]
    intrinsics: Array  # [4] fx, fy, cx, cy px
    audio: Array  # [T, A, D]
    audio_scale: Array  # [D], standard deviations over the train split
    expression: Array  # [T, E]
    expression_scale: Array  # [E], standard deviations over the train split
    lips_boxes: Array  # int32 [T, 4]
    eyes_boxes: Array  # int32 [T, 2, 4]
    guides: Array  # [P, 3] metres
    guide_pixels: Array  # [T, P, 2]
    scores: dict[str, Array]  # "opening", "blink": [T] in [0, 1]
    eligible: dict[str, Array]  # region -> bool [T]: train frames that show the region
    sound_to_lips: lip_map.LipMap | None = None  # where the audio features are the prior's lips


def device_clip(
    clip: processed.Clip,
    data: Data,
    classes: Mapping[str, Sequence[int]] | None = None,
    resident: bool = True,
) -> DeviceClip:
    """Uploads a clip; frames outside the train split are never eligible.

    Args:
      clip: the processed folder.
      data: which features, channels and seconds of it are learnt from.
      classes: {region: label classes} that say which frames show a region, by default eyes and
        inside of the mouth.
      resident: with its pictures.
    """
    classes = {"eyes": format.EYE_LABELS, "mouth": format.MOUTH_LABELS} | dict(classes or {})
    train = learnt_frames(clip, data.seconds)
    pixels = MIN_PIXELS * clip.height * clip.width
    parts = ("eyes", "mouth")
    shown = _pixels_of(clip, train, [classes[r] for r in parts]) >= pixels
    seen = {"face": train & clip.valid} | dict(zip(parts, shown, strict=True))
    eligible = {r: seen[r] if seen[r].any() else train for r in REGIONS}
    guide_pixels = jnp.asarray(clip.landmarks[:, landmarks.GUIDES])
    intrinsics = jnp.asarray(clip.intrinsics, jnp.float32)
    seen_by = np.flatnonzero(train & clip.valid & clip.landmarks_valid)
    blink = clip.expression_channels(["AU45"])[:, 0]
    audio = jnp.asarray(clip.audio_features(data.audio_extractor))
    expression = jnp.asarray(clip.expression_channels(data.expression))
    cameras = cameras_of(clip, seen_by)
    guides = geometry.triangulate(guide_pixels[seen_by], cameras)
    leading = None
    if data.audio_extractor == lip_map.EXTRACTOR:
        moves = lip_map.displacements(guide_pixels[seen_by], guides, cameras)
        leading = lip_map.fit(np.asarray(audio), seen_by, np.asarray(moves), np.asarray(guides))
    found = DeviceClip(
        frames=None,
        labels=None,
        torso=None,
        plate=jnp.asarray(clip.background),
        world_to_camera=jnp.asarray(clip.world_to_camera),
        intrinsics=intrinsics,
        audio=audio,
        audio_scale=audio[train].std((0, 1)),
        expression=expression,
        expression_scale=expression[train].std(0),
        lips_boxes=jnp.asarray(clip.lips_boxes()),
        eyes_boxes=jnp.asarray(clip.eyes_boxes()),
        guides=guides,
        guide_pixels=guide_pixels,
        scores={
            "opening": jnp.asarray(_score(clip.mouth_openings(), train, 95)),
            "blink": jnp.asarray(_score(blink, train, 99)),
        },
        eligible={r: jnp.asarray(eligible[r]) for r in REGIONS},
        sound_to_lips=leading,
    )
    return jax.tree.map(jnp.asarray, with_pictures(found, clip)) if resident else found


def cameras_of(clip: processed.Clip, frames) -> Camera:
    """The cameras of some frames [N]."""
    intrinsics = jnp.broadcast_to(
        jnp.asarray(clip.intrinsics, jnp.float32)[:, None], (4, len(frames))
    )
    return Camera(jnp.asarray(clip.world_to_camera[frames]), *intrinsics)


def learnt_frames(clip: processed.Clip, seconds: float | None = None) -> np.ndarray:
    """Bool [T]: the train split, or the most informative so many seconds of it (None: all)."""
    frames = clip.split("train")
    blink = clip.expression_channels(["AU45"])[frames]
    seen = np.concatenate([clip.mouth_openings()[frames, None], blink], 1)
    chosen = frames[segments.most_informative(seen, seconds or 0.0, clock.FPS)]
    return np.isin(np.arange(clip.num_frames), chosen)


def with_pictures(device: DeviceClip, clip: processed.Clip) -> DeviceClip:
    """The same with the clip's own pictures, to be uploaded."""
    return device._replace(**read_pictures(clip, np.arange(clip.num_frames))._asdict())


def without_pictures(device: DeviceClip) -> DeviceClip:
    """The same without pictures."""
    return device._replace(frames=None, labels=None, torso=None)


def fits(clip: processed.Clip, setting: Resident) -> bool:
    """Whether a clip's pictures are to lie on each local device: `data.resident` of a config.

    By itself only where a device has a memory of its own and they take no more than a share of it.
    On a CPU they would be a second copy of what stays in memory anyway (`room_to_keep`).
    """
    if setting != Resident.AUTO:
        return setting == Resident.DEVICE
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" not in stats:
        return False
    needed = clip.frames.nbytes + clip.labels.nbytes + clip.torso.nbytes
    return needed <= RESIDENT_SHARE * (stats["bytes_limit"] - stats.get("bytes_in_use", 0))


def expected_bytes(clip: processed.Clip, state: Any, resident: bool, pixels: int) -> float:
    """Host memory, in bytes, that a run is expected to take at its peak.

    Args:
      clip: the processed folder.
      state: the first TrainState; with its gradients, the next one and a copy to save there are 4.
      resident: whether the pictures lie on each device.
      pixels: that a step draws.
    """
    pictures = clip.frames.nbytes + clip.labels.nbytes + clip.torso.nbytes
    # Decoded ones are kept in memory up to a limit, but a CPU's devices have copies of their own.
    kept = float(min(pictures, room_to_keep()))
    if resident:
        kept = float(pictures * (1 + jax.local_device_count() * (jax.default_backend() == "cpu")))
    states = 4 * sum(np.asarray(x).nbytes for x in jax.tree.leaves(state))
    return COMPILING + kept + states + PIXEL * pixels


def room_to_keep() -> int:
    """Bytes of decoded pictures that may stay in the memory of a training."""
    return int(min(KEPT_SHARE * memory.available(), MOST_KEPT))


def _pixels_of(clip, train, groups):
    """[groups, T] pixels of some groups of label classes; 0 in frames that are not learnt from."""
    out = np.zeros((len(groups), clip.num_frames), int)
    for i in np.flatnonzero(train):  # one by one: the labels may not fit in memory
        counts = np.bincount(clip.labels[i].ravel(), minlength=256)
        out[:, i] = [counts[list(classes)].sum() for classes in groups]
    return out


def read_pictures(clip: processed.Clip, index, with_torso=True) -> Pictures:
    """The pictures of frames `index` [...] in host memory."""
    index = np.asarray(index)
    stored = (clip.frames, clip.labels, clip.torso if with_torso else None)
    out = Pictures(
        *(None if x is None else np.empty(index.shape + x.shape[1:], np.uint8) for x in stored)
    )
    # Frame by frame: what a torso shares with its frame is decoded once.
    for place, i in np.ndenumerate(index):
        for target, source in zip(out, stored, strict=True):
            if target is not None and source is not None:
                target[place] = source[i]
    return out


def step_keys(seed: int, stage_number: int, step):
    """(key of a step's frames, key of its loss): a step of a stage draws the same in every run."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stage_number), step)
    return tuple(jax.random.split(key))


def _score(values, train, percentile):
    """[T] scaled so that the train split's minimum is 0 and its upper percentile 1, clipped."""
    low, high = values[train].min(), np.percentile(values[train], percentile)
    return np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0).astype(np.float32)


def sample_frames(
    key: Array,
    step: Array,
    clip: DeviceClip,
    region: str,
    rule: Sampling | None,
    progress: Array,
    count: int,
) -> Array:
    """Frame numbers [count] for one step.

    Args:
      key: consumed.
      step: of the stage.
      clip: what the frames are of.
      region: whose frames.
      rule: None (every eligible frame alike), or a window: on every `every`-th step only frames
        whose score lies in it are taken; where there is none, the nearest.
      progress: share of the stage done, in [0, 1].
      count: how many frames.
    """
    if rule is None:
        return _pick(key, clip, region, 0.0, count)
    low, high = (a + progress * (b - a) for a, b in (rule.low, rule.high))
    score = clip.scores[rule.score]
    outside = jnp.maximum(low - score, 0.0) + jnp.maximum(score - high, 0.0)
    return _pick(key, clip, region, jnp.where(step % rule.every == 0, outside, 0.0), count)


def _pick(key, clip: DeviceClip, region: str, far, count: int):
    """Frames [count] of a region: any of those at distance `far` 0, else the nearest."""
    # Random order among equals: distances (of scores in [0, 1]) outweigh the noise by far, and
    # frames that are not eligible lie farther than any distance.
    far = jnp.where(clip.eligible[region], 1e3 * far, 1e6)
    return jax.lax.top_k(jax.random.gumbel(key, clip.eligible[region].shape) * 1e-3 - far, count)[1]


def guide_frames(key: Array, clip: DeviceClip, rule: Guides) -> tuple[Batch, Conditions]:
    """A Batch of [rule.frames] random train frames, and what lids are to follow in them.

    Landmarks are taken from them.

    The first is of a random depth of blink, half as often again of the deepest: lids are shut in a
    few frames of a thousand, and a net that hardly ever met them does not shut them. What else so
    few frames have in common must not tell a blink: lids get the sound of another frame, and gaze
    and action units but AU45 get `rule.expression_noise` standard deviations of noise.

    Where the clip has a lip map, the sound does not get white noise: it moves by `rule.audio_noise`
    times what sounds of the clip lie apart, and lips and chin move with it (`lip_map.py`).

    No picture is read: labels are blank, they only give the picture's size.
    """
    key_frames, key_depth, key_blink, key_audio, key_noise = jax.random.split(key, 5)
    index = _pick(key_frames, clip, "face", 0.0, rule.frames)
    depth = jnp.minimum(1.5 * jax.random.uniform(key_depth), 1.0)
    blinking = _pick(key_blink, clip, "face", jnp.abs(clip.scores["blink"] - depth), 1)
    index = index.at[0].set(blinking[0])
    unseen = Pictures(None, jnp.zeros(clip.plate.shape[:2], jnp.uint8), None)
    keys = jax.random.split(key_audio, rule.frames)
    leads = clip.sound_to_lips
    noise = Noise(audio=0.0 if leads is not None else rule.audio_noise)
    frames = jax.vmap(lambda i, k: take(clip, i, k, noise, unseen))(index, keys)
    if leads is not None:
        off, moves = lip_map.moved(key_audio, leads, rule.frames, rule.audio_noise)
        pixels = jax.vmap(lip_map.shifted)(frames.guide_pixels, frames.guides, frames.camera, moves)
        conditions = frames.conditions._replace(audio=frames.conditions.audio + off[:, None, None])
        frames = frames._replace(conditions=conditions, guide_pixels=pixels)
    audio, expression = frames.conditions[:2]
    size = rule.expression_noise * clip.expression_scale.at[-1].set(0.0)
    expression = expression + size * jax.random.normal(key_noise, expression.shape)
    return frames, Conditions(jnp.roll(audio, 1, axis=0), expression)


def take(
    clip: DeviceClip,
    index: Array,
    key: Any = None,
    noise: Noise | None = None,
    pictures: Pictures | None = None,
) -> Batch:
    """Frame `index` [] of the clip as a Batch without batch dimension.

    Args:
      clip: where the frame is taken from.
      index: its number.
      key: consumed where there is noise.
      noise: white noise on the audio features, since a short clip's sounds could otherwise be
        learnt by heart. AU45 is off by up to `noise.blink`: it was measured in pictures, and no two
        of a shut eye gave the same.
      pictures: of this frame, where the clip has none; a field is None where its picture is.
    """
    total = clip.audio.shape[0]
    rows = index + jnp.arange(-4, 4)
    windows = clip.audio[jnp.clip(rows, 0, total - 1)]
    windows = jnp.where(((rows >= 0) & (rows < total))[:, None, None], windows, 0.0)
    expression = clip.expression[index]
    noise = noise or Noise()
    if noise.audio or noise.blink:
        key_audio, key_blink = jax.random.split(key)
    if noise.audio:
        size = noise.audio * clip.audio_scale
        windows = windows + size * jax.random.normal(key_audio, windows.shape)
    if noise.blink:
        off = jax.random.uniform(key_blink, minval=-noise.blink, maxval=noise.blink)
        expression = expression.at[-1].add(off)
    if pictures is None:
        stored = (clip.frames, clip.labels, clip.torso)
        pictures = Pictures(*(None if x is None else x[index] for x in stored))
    frame, labels, torso = pictures
    return Batch(
        index=index,
        conditions=Conditions(windows, expression),
        camera=Camera(clip.world_to_camera[index], *clip.intrinsics),
        image=None if frame is None else frame.astype(jnp.float32) / 255.0,
        labels=labels,
        background=None if torso is None else torso_over(clip.plate, torso),
        lips_box=clip.lips_boxes[index],
        eyes_box=clip.eyes_boxes[index],
        guides=clip.guides,
        guide_pixels=clip.guide_pixels[index],
    )


def torso_over(plate, torso):
    """B of eq. (14), [H, W, 3] in [0, 1], from uint8 layers; rounded as in `Clip.backgrounds`."""
    share = torso[..., 3:].astype(jnp.float32) / 255.0
    mixed = torso[..., :3] * share + plate * (1.0 - share)
    return jnp.rint(mixed) / 255.0
