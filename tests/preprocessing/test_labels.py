"""Labels, plate and torso of a drawn person whose parts are known."""

import cv2
import numpy as np

from fg3dgs_jax.clip import format, inpaint, layers, over_time
from fg3dgs_jax.clip import landmarks as landmarks_lib
from fg3dgs_jax.clip.format import LABELS
from fg3dgs_jax.preprocessing.express import channels
from fg3dgs_jax.preprocessing.label import from_landmarks
from fg3dgs_jax.preprocessing.label import torso as torso_lib

SIZE = 256
SKIN, HAIR, SHIRT, ROOM = (200, 140, 110), (40, 30, 25), (40, 60, 160), (90, 160, 90)


def ring(count, centre, radii, start=0.0, turn=1):
    angle = start + turn * 2 * np.pi * np.arange(count) / count
    return np.stack(
        [centre[0] + radii[0] * np.sin(angle), centre[1] - radii[1] * np.cos(angle)], -1
    )


def landmarks(opening=10.0):
    """478 points of a simple face, 100 px wide, at the middle of the picture."""
    points = np.tile([128.0, 120.0], (478, 1))
    points[list(landmarks_lib.FACE_OVAL)] = ring(36, (128, 120), (50, 65))
    points[list(landmarks_lib.OUTER_LIPS)] = ring(20, (128, 155), (20, 8 + opening / 2), -np.pi / 2)
    points[list(landmarks_lib.INNER_LIPS)] = ring(20, (128, 155), (14, opening / 2), -np.pi / 2)
    points[list(landmarks_lib.RIGHT_EYE)] = ring(16, (105, 105), (10, 5), -np.pi / 2, -1)
    points[list(landmarks_lib.LEFT_EYE)] = ring(16, (151, 105), (10, 5))
    points[list(landmarks_lib.RIGHT_BROW)] = ring(10, (105, 90), (12, 3))
    points[list(landmarks_lib.LEFT_BROW)] = ring(10, (151, 90), (12, 3))
    points[list(landmarks_lib.NOSE)] = ring(24, (128, 122), (8, 14))
    points[list(landmarks_lib.CHEEKS)] = ring(10, (128, 128), (30, 12))
    points[168], points[2] = (128, 105), (128, 136)
    return points


def person():
    """A picture with its true parts: hair above, face, neck, shirt; and the soft person mask."""
    image = np.full((SIZE, SIZE, 3), ROOM, np.uint8)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for canvas, colour in ((image, lambda c: c), (mask, lambda c: 255)):
        cv2.ellipse(canvas, (128, 100), (58, 70), 0, 0, 360, colour(HAIR), -1)
        cv2.rectangle(canvas, (100, 160), (156, 215), colour(SKIN), -1)
        cv2.ellipse(canvas, (128, 120), (50, 65), 0, 0, 360, colour(SKIN), -1)
        cv2.rectangle(canvas, (30, 210), (226, 255), colour(SHIRT), -1)
    return image, mask.astype(np.float32) / 255


def test_every_part_gets_its_label():
    image, mask = person()
    labels, alpha = from_landmarks.parse(image, landmarks(), mask)
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
    }
    found = {at: labels[at] for at in expected}
    assert found == {at: LABELS[name] for at, name in expected.items()}
    assert labels[155, 128] in format.MOUTH_LABELS
    assert alpha.dtype == np.float32 and alpha[120, 128] == 1 and alpha[20, 20] == 0


def test_head_mask_is_the_drawn_head():
    image, mask = person()
    head = from_landmarks.head_mask(from_landmarks.parse(image, landmarks(), mask).labels)
    true = (np.abs(image.astype(int) - HAIR).sum(-1) == 0) | landmarks_lib.polygon(
        ring(90, (128, 120), (50, 65)), (SIZE, SIZE)
    )
    assert (head & true).sum() / (head | true).sum() > 0.95


def test_shut_mouth_has_no_inside():
    image, mask = person()
    labels = from_landmarks.parse(image, landmarks(opening=0.5), mask).labels
    assert not np.isin(labels, format.MOUTH_LABELS).any()


def test_teeth_are_the_bright_grey_pixels_of_the_mouth():
    image, mask = person()
    interior = landmarks_lib.polygon(landmarks()[list(landmarks_lib.INNER_LIPS)], (SIZE, SIZE))
    image[interior] = (60, 10, 10)
    image[151:154, 120:137] = (230, 225, 215)
    labels = from_landmarks.parse(image, landmarks(), mask).labels
    assert (labels[151:154, 122:134] == LABELS["teeth"]).all()
    assert (labels[156:158, 122:134] == LABELS["mouth"]).all()


def test_polygon_of_a_square_has_its_area():
    corners = np.array([(10.0, 20.0), (30.0, 20.0), (30.0, 50.0), (10.0, 50.0)])
    mask = landmarks_lib.polygon(corners, (64, 64))
    assert abs(mask.sum() - 600) <= 60 and mask[21:49, 11:29].all()


def test_smoothing_has_no_lag_and_keeps_cubics():
    t = np.linspace(-1, 1, 40)
    curve = (t**3 - 0.5 * t)[:, None]
    np.testing.assert_allclose(over_time.smooth(curve)[2:-2], curve[2:-2], atol=1e-6)
    noise = np.random.default_rng(0).normal(size=(400, 3))
    assert over_time.smooth(noise).std() < 0.8 * noise.std()


def test_smoothing_does_not_reach_across_a_cut():
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    rows[23:] += 50
    found = over_time.smooth(rows, cuts=[23])
    np.testing.assert_array_equal(found[:23], over_time.smooth(rows[:23]))
    np.testing.assert_array_equal(found[23:], over_time.smooth(rows[23:]))
    assert (over_time.scenes(4, [1, 3]) == [0, 1, 1, 2]).all() and not over_time.scenes(2).any()


def test_bridge_interpolates_frames_without_a_face():
    values = np.arange(12.0).reshape(6, 2)
    valid = np.array([1, 1, 0, 0, 1, 1], bool)
    broken = values.copy()
    broken[~valid] = 0
    np.testing.assert_allclose(over_time.bridge(broken, valid), values)


def test_plate_is_seen_behind_a_moving_person():
    rng = np.random.default_rng(0)
    room = cv2.GaussianBlur(rng.integers(0, 255, (96, 96, 3), np.uint8), (0, 0), 3)
    frames, masks = [], []
    for x in range(10, 80, 5):
        mask = np.zeros((96, 96), np.uint8)
        cv2.circle(mask, (x, 50), 14, 1, -1)
        noisy = np.clip(room + rng.normal(0, 2, room.shape), 0, 255).astype(np.uint8)
        noisy[mask > 0] = (255, 0, 0)
        frames.append(noisy)
        masks.append(mask)
    plate, seen = torso_lib.background_plate(np.stack(frames), np.stack(masks))
    assert seen.mean() > 0.99
    assert np.abs(plate.astype(int) - room)[seen].mean() < 2.5


def test_unseen_plate_is_filled_between_its_neighbours():
    image = np.full((64, 64, 3), 100, np.uint8)
    known = np.ones((64, 64), bool)
    known[20:40, 20:40] = False
    image[~known] = 255
    filled = inpaint.fill(image, known)
    np.testing.assert_array_equal(filled, 100)


def test_torso_over_plate_is_the_frame_outside_the_head():
    image, mask = person()
    parsed = from_landmarks.parse(image, landmarks(), mask)
    plate = np.full_like(image, ROOM)
    torso = torso_lib.torso_layer(image, *parsed, plate)
    head = from_landmarks.head_mask(parsed.labels)
    rim = cv2.dilate(head.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    error = np.abs(layers.over(torso, plate).astype(int) - image)[~rim]
    assert error.mean() < 1 and np.percentile(error, 99) < 6


def test_a_sliver_beside_the_jaw_is_head_and_carries_no_neck():
    image, mask = person()
    for canvas, colour in ((image, (60, 60, 60)), (mask, 1.0)):  # a shadow that hangs on the neck
        cv2.ellipse(canvas, (128, 120), (52, 67), 0, 20, 62, colour, 3)
    parsed = from_landmarks.parse(image, landmarks(), mask)
    shadow = np.zeros((SIZE, SIZE), np.uint8)
    cv2.ellipse(shadow, (128, 120), (52, 67), 0, 24, 50, 1, 1)
    assert from_landmarks.head_mask(parsed.labels)[shadow > 0].mean() > 0.9
    wrong = np.where((shadow > 0) & (parsed.alpha > 0.5), LABELS["cloth"], parsed.labels)
    room = np.full_like(image, ROOM)
    for labels in (parsed.labels, wrong):  # other parsers may leave it with the clothes
        layer = torso_lib.torso_layer(image, labels, parsed.alpha, room)
        above = np.cumsum(shadow[::-1], 0)[::-1] > 0
        above &= (cv2.dilate(shadow, np.ones((7, 7))) == 0) & (np.arange(SIZE) > 160)
        assert above.sum() > 1000 and not layer[above][:, 3].any()


def test_neck_goes_on_behind_the_chin_and_not_into_the_hair():
    image, mask = person()
    parsed = from_landmarks.parse(image, landmarks(), mask)
    torso = torso_lib.torso_layer(image, *parsed, np.full_like(image, ROOM))
    assert (torso[172:184, 115:140, 3] == 255).all()  # head pixels right above the seam
    assert np.abs(torso[176, 128, :3].astype(int) - SKIN).max() < 40
    assert (torso[:120, :, 3] == 0).all()


def test_action_units_and_gaze():
    names = (
        "eyeBlinkLeft",
        "eyeBlinkRight",
        "browInnerUp",
        "browDownLeft",
        "browDownRight",
        "eyeWideLeft",
        "eyeWideRight",
        "cheekSquintLeft",
        "cheekSquintRight",
        "eyeSquintLeft",
        "eyeSquintRight",
        "eyeLookOutLeft",
        "eyeLookInRight",
        "eyeLookInLeft",
        "eyeLookOutRight",
        "eyeLookUpLeft",
        "eyeLookUpRight",
        "eyeLookDownLeft",
        "eyeLookDownRight",
    )
    values = np.zeros((10, len(names)), np.float32)
    values[:, :2], values[:, 11:13], values[:, 17:] = (0.4, 0.8), 0.5, 0.3
    e, found = channels.expression_channels(values, names, np.ones(10, bool))
    row = dict(zip(found, e[5], strict=True))
    assert found[-1] == "AU45" and np.isclose(row["AU45"], 0.6)
    assert np.isclose(row["gaze_x"], 0.5) and np.isclose(row["gaze_y"], -0.3)
    assert row["AU01"] == 0


def test_a_blink_begins_when_the_lid_falls():
    names = [n for parts in channels.ACTION_UNITS.values() for n in parts]
    names += [n for halves in channels.GAZE.values() for parts in halves for n in parts]
    values = np.full((20, len(names)), 0.1, np.float32)
    values[8:11] = 0.9
    e, found = channels.expression_channels(values, tuple(names), np.arange(20) != 9)
    column = dict(zip(found, e.T, strict=True))
    np.testing.assert_allclose(column["AU45"], values[:, 0], atol=1e-6)
    assert column["AU01"][7] > 0.15  # others are smoothed: brows are slow and noisy
