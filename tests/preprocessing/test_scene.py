"""Frames that are not the person: painted over the embedded subject, they change nothing."""

import json
import types

import cv2
import numpy as np
import pytest

from fg3dgs_jax.avatar.subject import open_subject
from fg3dgs_jax.clip import format, processed
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.media import video, video_writer
from fg3dgs_jax.preprocess import main as preprocess
from fg3dgs_jax.preprocessing import from_video
from fg3dgs_jax.preprocessing.check import look, sample
from fg3dgs_jax.preprocessing.label import from_landmarks
from fg3dgs_jax.preprocessing.scene import choice, looks, words
from fg3dgs_jax.synthetic import landmarks as synthetic_landmarks
from tests import fake_avatar

TITLE, FADE = 12, 25  # frames


@pytest.fixture(scope="module")
def clip(subject):
    return processed.load_clip(subject)


def black(clip, count):
    return np.full((count, *clip.frames.shape[1:]), 2, np.uint8)


def title(clip, count):
    picture = np.full(clip.frames.shape[1:], 30, np.uint8)
    cv2.putText(picture, "A title", (10, clip.height // 2), 0, 0.9, (240, 230, 60), 3)
    return np.repeat(picture[None], count, 0)


def street(clip, count):
    """Another scene, without a face, in which things move."""
    rng = np.random.default_rng(7)
    wall = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (clip.width, clip.height))
    return np.stack([np.roll(wall, 3 * k, 1) for k in range(count)])


def fade(frames, start=0.0, colour=0):
    """Frames that come out of a colour."""
    share = np.linspace(start, 1, len(frames), endpoint=False)[:, None, None, None]
    return np.rint(colour + share * (frames.astype(float) - colour)).astype(np.uint8)


def stranger(clip, frames):
    """The same room with another person in the same place: hair, skin and features of others."""
    head = from_landmarks.head_mask(clip.labels[frames])[..., None]
    skin = (clip.labels[frames] == format.LABELS["skin"])[..., None]
    other = clip.frames[frames][..., ::-1] // 2
    return np.where(skin, other, np.where(head, 150, clip.frames[frames]))


def shown(clip, parts):
    """(frames, points, bool with a face) of parts: (pictures, numbers of the subject's frames)."""
    frames = np.concatenate([np.asarray(pictures) for pictures, _ in parts])
    numbers = np.concatenate(
        [np.full(len(p), -1) if n is None else np.arange(*n) for p, n in parts]
    )
    return frames, clip.landmarks[numbers], numbers >= 0


def recipes(clip):
    """{name: (parts, [first, last + 1, why] that must go, further frames that may go)}."""
    own = clip.frames
    reverse = own[FADE:0:-1]
    end, middle = len(own), 30

    def part(a, b):
        return own[a:b], (a, b)

    dissolve = np.linspace(0, 1, 20)[:, None, None, None]
    mixed = (1 - dissolve) * own[30:50] + dissolve * street(clip, 20)
    return {
        "clean": ([part(0, end)], [], 0),
        "black": ([(black(clip, 1), None), part(0, end)], [(0, 1, "blank")], 0),
        "flash": (
            [part(0, middle), (255 - black(clip, 1), None), part(middle, end)],
            [(middle, middle + 1, "blank")],
            0,
        ),
        "title": ([(title(clip, TITLE), None), part(0, end)], [(0, TITLE, "another scene")], 0),
        "fade": ([(fade(reverse), (0, FADE)), part(0, end)], [(2, FADE - 2, "fade")], 10),
        "white": (
            [(fade(reverse, 0.0, 255), (0, FADE)), part(0, end)],
            [(2, FADE - 2, "fade")],
            10,
        ),
        "insert": (
            [part(0, middle), (street(clip, 20), None), part(middle, end)],
            [(middle, middle + 20, "another scene")],
            0,
        ),
        "dissolve": (
            [part(0, 30), (mixed.astype(np.uint8), (30, 50)), (street(clip, 10), None)],
            [(36, 60, "another scene")],
            10,
        ),
        "other scene": (
            [part(0, 35), (255 - own[35:], (35, end))],
            [(35, end, "another scene")],
            0,
        ),
        "stranger": (
            [part(0, 35), (stranger(clip, slice(35, end)), (35, end))],
            [(35, end, "another face")],
            0,
        ),
        "away": (
            [part(0, 40), (np.repeat(clip.background[None], 30, 0), None), part(40, end)],
            [(40, 70, "no face")],
            0,
        ),
        "hidden": ([part(0, 30), (own[30:40], None), part(40, end)], [], 0),
    }


NAMES = tuple(recipes(types.SimpleNamespace(**dict.fromkeys(("frames",), [])))) if False else (
    "clean black flash title fade white insert dissolve other_scene stranger away hidden".split()
)


@pytest.mark.parametrize("name", NAMES)
def test_frames_of_something_else_are_left_out(clip, name):
    parts, expected, may_go = recipes(clip)[name.replace("_", " ")]
    frames, points, face = shown(clip, parts)
    seen = looks.look(frames, points, face)
    cuts = list(sample.cuts_in(seen.thumbs))
    spans = choice.choose(choice.Seen(seen, points, face, cuts))
    own = format.own_frames(len(frames), spans)
    must = ~format.own_frames(len(frames), expected)
    assert not (own & must).any(), spans
    assert (~own & ~must).sum() <= may_go, spans
    for first, stop, why in expected:
        assert why in {s.why for s in spans if s.first < stop and s.stop > first}, spans
