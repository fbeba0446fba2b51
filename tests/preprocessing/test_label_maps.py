"""From the classes of two networks to our labels, on a drawn person."""

import numpy as np
import pytest

from fg3dgs_jax.clip import format
from fg3dgs_jax.clip import landmarks as landmarks_lib
from fg3dgs_jax.clip.format import LABELS
from fg3dgs_jax.preprocessing.label import from_networks
from tests.preprocessing.test_labels import HAIR, ROOM, SHIRT, SIZE, landmarks, person

SHAPE = (SIZE, SIZE)


def inside(outline, points):
    return landmarks_lib.polygon(points[list(outline)], SHAPE)


@pytest.fixture
def drawn():
    """Picture, person mask, landmarks, and the true class of each pixel but background."""
    image, mask = person()
    points = landmarks()
    parts = np.full(SHAPE, LABELS["neck"], np.uint8)
    for colour, name in ((HAIR, "hair"), (SHIRT, "cloth"), (ROOM, "cloth")):
        parts[(image == colour).all(-1)] = LABELS[name]
    parts[inside(landmarks_lib.FACE_OVAL, points)] = LABELS["skin"]
    for name, outline in (
        ("left_eye", landmarks_lib.LEFT_EYE),
        ("right_eye", landmarks_lib.RIGHT_EYE),
        ("left_brow", landmarks_lib.LEFT_BROW),
        ("right_brow", landmarks_lib.RIGHT_BROW),
        ("lower_lip", landmarks_lib.OUTER_LIPS),
        ("mouth", landmarks_lib.INNER_LIPS),
    ):
        parts[inside(outline, points)] = LABELS[name]
    parts[100:130, 180:184] = LABELS["left_ear"]  # the person's left: image right
    parts[100:130, 72:76] = LABELS["right_ear"]
    return image, mask, points, parts


def mirrored_names(parts):
    out = parts.copy()
    for left, right in ((2, 3), (4, 5), (7, 8)):
        out[parts == left], out[parts == right] = right, left
    return out


def test_celebamask_classes_are_kept(drawn):
    image, mask, points, parts = drawn
    labels, alpha = from_networks.from_celebamask(image, points, parts, mask)
    assert labels.dtype == np.uint8 and alpha.dtype == np.float32
    sure = (mask == 1) & (alpha > 0.9)  # not at the edge, which the picture decides
    np.testing.assert_array_equal(labels[sure], parts[sure])
    assert not labels[:20].any() and alpha[20, 20] == 0 and alpha[120, 128] == 1
    assert sure.mean() > 0.2


def test_left_and_right_are_the_persons_own(drawn):
    image, mask, points, parts = drawn
    true = from_networks.from_celebamask(image, points, parts, mask).labels
    assert true[115, 182] == LABELS["left_ear"] and true[105, 151] == LABELS["left_eye"]
    swapped = from_networks.from_celebamask(image, points, mirrored_names(parts), mask).labels
    np.testing.assert_array_equal(swapped, true)
    mixed = np.where(np.arange(SIZE)[:, None] % 2 == 0, parts, mirrored_names(parts))
    found = from_networks.from_celebamask(image, points, mixed, mask).labels
    np.testing.assert_array_equal(found, true)


def test_teeth_of_another_network_lie_over_mouth_and_lips_only(drawn):
    image, mask, points, parts = drawn
    teeth = np.zeros(SHAPE, bool)
    teeth[146:156, 120:136] = True  # upper half of the mouth and a row of the lip
    teeth[240:250, 60:90] = True  # on the shirt
    labels = from_networks.from_celebamask(image, points, parts, mask, teeth).labels
    assert (labels[146:156, 120:136] == LABELS["teeth"]).all()
    assert (labels[240:250, 60:90] == LABELS["cloth"]).all()
    assert (labels[158, 128] == LABELS["mouth"]) and LABELS["teeth"] in format.MOUTH_LABELS


def test_without_a_network_teeth_are_told_by_colour(drawn):
    image, mask, points, parts = drawn
    image[parts == LABELS["mouth"]] = (60, 10, 10)
    image[151:154, 120:137] = (230, 225, 215)
    labels = from_networks.from_celebamask(image, points, parts, mask).labels
    assert (labels[151:154, 122:134] == LABELS["teeth"]).all()
    assert (labels[156:158, 122:134] == LABELS["mouth"]).all()


def test_what_does_not_hang_on_the_person_is_background(drawn):
    image, mask, points, parts = drawn
    mask[10:20, 230:240] = 1.0
    image[10:20, 230:240] = SHIRT
    labels, alpha = from_networks.from_celebamask(image, points, parts, mask)
    assert not labels[5:25, 225:245].any() and not alpha[5:25, 225:245].any()


def multiclass(mask, parts, sure=0.9):
    """Confidences [H, W, 6] as the network would give them for the drawn classes."""
    kind = np.full(SHAPE, from_networks.FACE_SKIN)
    kind[parts == LABELS["neck"]] = from_networks.BODY_SKIN
    kind[parts == LABELS["cloth"]] = from_networks.CLOTHES
    kind[parts == LABELS["hair"]] = from_networks.HAIR
    kind[parts == LABELS["hat"]] = from_networks.OTHERS
    kind = np.where(mask > 0.5, kind, 0)
    spread = np.full((*SHAPE, 6), (1 - sure) / 5, np.float32)
    np.put_along_axis(spread, kind[..., None], sure, -1)
    return spread


def test_multiclass_and_landmarks_make_all_parts(drawn):
    image, mask, points, parts = drawn
    labels, alpha = from_networks.from_multiclass(image, points, multiclass(mask, parts))
    expected = {
        (38, 128): "hair",
        (120, 90): "skin",
        (105, 105): "right_eye",
        (105, 151): "left_eye",
        (90, 105): "right_brow",
        (90, 151): "left_brow",
        (122, 128): "nose",
        (196, 128): "neck",
        (240, 60): "cloth",
        (20, 20): "background",
        (145, 128): "upper_lip",
        (166, 128): "lower_lip",
        (120, 182): "left_ear",
        (120, 74): "right_ear",
    }
    found = {at: labels[at] for at in expected}
    assert found == {at: LABELS[name] for at, name in expected.items()}
    assert labels[155, 128] in format.MOUTH_LABELS
    assert alpha.dtype == np.float32 and alpha[120, 128] == 1 and alpha[20, 20] == 0


def test_hair_before_the_face_and_glasses_and_a_hat_are_seen(drawn):
    image, mask, points, parts = drawn
    parts[85:110, 140:165] = LABELS["hair"]  # a fringe over the left eye
    parts[98:112, 95:115] = LABELS["hat"]  # "others" on the right eye: glasses
    parts[32:45, 110:150] = LABELS["hat"]
    parts[235:245, 100:120] = LABELS["hat"]  # "others" on the shirt
    labels = from_networks.from_multiclass(image, points, multiclass(mask, parts)).labels
    assert labels[105, 151] == labels[90, 151] == LABELS["hair"]
    assert labels[99, 97] == LABELS["glasses"] and labels[105, 105] == LABELS["right_eye"]
    assert labels[38, 128] == LABELS["hat"] and labels[240, 110] == LABELS["cloth"]
