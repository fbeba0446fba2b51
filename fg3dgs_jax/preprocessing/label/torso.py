"""The layers behind the head: the empty room (plate), and the torso that goes on under the chin."""

import cv2
import numpy as np

from fg3dgs_jax.clip.format import LABELS
from fg3dgs_jax.clip.inpaint import fill, fill_weighted
from fg3dgs_jax.preprocessing.label.from_landmarks import head_mask

CLEARANCE = 0.016  # of the picture height: how far from the person a background pixel must lie
UNDER_HEAD = 0.25  # of the head's height: how far the neck goes on upwards behind the jaw
GOES_ON = 0.04  # of the picture height: how far down body must go from the head to be neck
SIDES = 0.3  # of that at the neck's sides, for a round top
FADE = 0.994  # darker with each row upwards: the shadow under the chin


def background_plate(
    frames: np.ndarray, persons: np.ndarray, max_frames: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """The room without the person.

    Args:
      frames: uint8 [T, H, W, 3].
      persons: [T, H, W], > 0 where a pixel may show the person.
      max_frames: at most this many frames, evenly spread, are looked at.

    Returns:
      uint8 [H, W, 3], the median over the frames that show the room, and bool [H, W], where it was
      seen at all; the rest is filled smoothly from around.
    """
    use = np.unique(np.linspace(0, len(frames) - 1, min(max_frames, len(frames))).astype(int))
    height = frames.shape[1]
    reach = 2 * max(2, round(CLEARANCE * height)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    free = np.stack([cv2.dilate((persons[i] > 0).astype(np.uint8), kernel) == 0 for i in use])
    picked = np.stack([frames[i] for i in use])
    visible = np.asarray(free.any(0))
    plate = np.zeros(frames.shape[1:], np.uint8)
    for row in range(0, height, 32):  # in strips, for memory
        part = slice(row, row + 32)
        values = np.ma.array(picked[:, part], mask=np.repeat(~free[:, part, :, None], 3, -1))
        ordered = np.sort(values.filled(255), 0)  # hidden ones last
        middle = np.maximum(free[:, part].sum(0) - 1, 0) // 2
        chosen = np.take_along_axis(ordered, middle[None, ..., None], 0)[0]
        plate[part] = np.where(visible[part, :, None], chosen, 0)
    return fill(plate, visible), visible


def torso_layer(
    frame: np.ndarray, labels: np.ndarray, alpha: np.ndarray, plate: np.ndarray
) -> np.ndarray:
    """The person without the head, going on behind the jaw.

    Args:
      frame: uint8 [H, W, 3].
      labels: uint8 [H, W].
      alpha: float32 [H, W], how much of a pixel is the person.
      plate: uint8 [H, W, 3].

    Returns:
      uint8 [H, W, 4] straight alpha: over the plate it gives back the frame outside the head.
    """
    head = head_mask(labels)
    body = np.where(head, 0.0, alpha).astype(np.float32)
    # A soft rim of hair and ears belongs to the head, not to a torso in mid-air.
    solid = (body > 0.5) & (labels > 0)
    near_body = cv2.dilate(solid.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    body = np.where(near_body, body, 0.0)
    shade, under = _under_head(frame, labels, head, solid)
    out = np.empty((*head.shape, 4), np.uint8)
    out[..., :3] = np.where(head[..., None], np.rint(shade).astype(np.uint8), frame)
    edge = (body > 0) & (body < 1)  # few
    a = np.maximum(body[edge, None], 0.05)
    # C = a F + (1 - a) B, solved for F.
    front = (frame[edge].astype(np.float32) - (1 - a) * plate[edge].astype(np.float32)) / a
    out[edge, :3] = np.rint(np.clip(front, 0, 255))
    alpha = np.where(head, under, body)
    out[..., 3] = np.rint(255 * alpha)
    out[alpha < 1 / 255] = 0
    return out


def _under_head(frame, labels, head, solid):
    """What the head hides of the neck: its colour float32 [H, W, 3] and alpha float32 [H, W].

    Columns where the body meets the head from below go on upwards, in the neck's own colours. Their
    round top fades out. A synthesised jaw may be higher than the one in this frame.
    """
    height, width = head.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)
    alpha = np.zeros((height, width), np.float32)
    # The lowest head pixel of a column, and body under it that goes on: a sliver beside the jaw or
    # under an ear carries no neck.
    bottom = np.where(head.any(0), height - 1 - np.argmax(head[::-1], 0), -1)
    depth = max(4, round(GOES_ON * height))
    below = [solid[np.minimum(bottom + k, height - 1), columns] for k in range(1, depth)]
    meets = (bottom >= 0) & np.any(below[:3], 0) & np.all(below[3:], 0)
    meets = cv2.morphologyEx(meets[None].astype(np.uint8), cv2.MORPH_OPEN, np.ones((1, 9)))[0] > 0
    if not meets.any():
        return frame.astype(np.float32), alpha
    reach = max(4, UNDER_HEAD * np.ptp(np.flatnonzero(head.any(1))))
    first, last = np.flatnonzero(meets)[[0, -1]]
    across = np.clip(2 * (columns - first) / max(last - first, 1) - 1, -1, 1)
    reach = reach * (SIDES + (1 - SIDES) * np.sqrt(1 - across**2))
    away = bottom - rows  # px above the seam
    under = head & meets & (away >= 0) & (away < reach)
    alpha[under] = np.clip(3 - 3 * away / reach, 0, 1)[under]  # fades out in the highest third
    # Neck is known where no chin is mixed in; without one (a beard, a scarf) the clothes are.
    chin = cv2.dilate(head.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    known = (labels == LABELS["neck"]) & solid & ~chin
    if known.sum() < reach.max():
        known = solid & ~chin & ~head
    box = cv2.boundingRect(under.astype(np.uint8))
    depth = round(2 * CLEARANCE * height)
    near = np.s_[box[1] : box[1] + box[3] + depth, max(box[0] - depth, 0) : box[0] + box[2] + depth]
    colour = frame.astype(np.float32)
    if known[near].any():
        fade = (FADE ** np.maximum(away, 0))[near][..., None]
        colour[near] = fill_weighted(colour[near], known[near].astype(np.float32)) * fade
    return colour, alpha
