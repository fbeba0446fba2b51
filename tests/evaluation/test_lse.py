"""LSE in `evaluate`: boxes and tracks, what is measured on which frames, and why something is not.

SyncNet's own arithmetic is in test_syncnet.py; here it has random weights or none.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.avatar import store as avatar_store
from fg3dgs_jax.clip import face_boxes
from fg3dgs_jax.clip import landmarks as landmarks_lib
from fg3dgs_jax.evaluate import main
from fg3dgs_jax.evaluation import lse, tracks
from fg3dgs_jax.experts.face import fan, s3fd
from fg3dgs_jax.experts.lips import syncnet
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.weights import store, variables
from tests import fake_avatar

_FACE = np.array([12.0, 8.0, 52.0, 60.0])


def _landmarks(count):
    """Points whose face oval fills `_FACE`, and whose others lie beyond it."""
    points = np.full((count, 478, 2), 63.0, np.float32)
    angle = np.linspace(0, 2 * np.pi, len(landmarks_lib.FACE_OVAL), endpoint=False)
    circle = np.stack([np.sin(angle), -np.cos(angle)], -1)
    middle, half = (_FACE[:2] + _FACE[2:]) / 2, (_FACE[2:] - _FACE[:2]) / 2
    points[:, landmarks_lib.FACE_OVAL] = middle + half * circle
    return points


def test_the_mesh_box_is_that_of_the_face_oval_up_to_the_hairline():
    expected = _FACE - [0, 0.135 * 52, 0, 0]
    np.testing.assert_allclose(face_boxes.mesh_boxes(_landmarks(3)), [expected] * 3, atol=1e-4)


def test_overlap_of_boxes():
    box = np.array([0.0, 0, 4, 4])
    assert tracks.overlap(box, box) == 1.0
    assert tracks.overlap(box, box + 2) == pytest.approx(4 / 28)
    assert tracks.overlap(box, box + 5) == 0.0


def _sightings(count, frames, box=_FACE):
    return [[np.append(box + 0.1 * t, 0.9)] if t in frames else [] for t in range(count)]


def test_a_track_goes_on_if_the_face_is_back_within_25_frames():
    seen = [*range(3, 10), *range(34, 41)]
    first, boxes = tracks.longest_track(_sightings(50, seen))
    assert first == 3 and boxes.shape == (38, 4)
    np.testing.assert_allclose(boxes, [_FACE + 0.1 * t for t in range(3, 41)])
    first, boxes = tracks.longest_track(_sightings(50, [*range(3, 9), *range(34, 41)]))
    assert first == 34 and len(boxes) == 7


def test_of_two_faces_the_one_that_is_longer_there():
    far = _FACE + 100
    near, other = _sightings(30, range(12)), _sightings(30, range(5, 25), far)
    both = [(near[t] + other[t])[:: 1 if t % 2 else -1] for t in range(30)]
    first, boxes = tracks.longest_track(both)
    assert first == 5
    np.testing.assert_allclose(boxes, [far + 0.1 * t for t in range(5, 25)])
    assert tracks.longest_track([[], [], []]) is None
    assert all(len(boxes) == (t < 12) + (5 <= t < 25) for t, boxes in enumerate(both))


def _expert(seen):
    def call(faces, samples):
        seen.append((faces, samples))
        return syncnet.LipSync(7.0 + len(seen), 2.0 * len(seen), len(seen), np.zeros(31))

    return OptionalNetwork(call, "SyncNet v2 (some file)")


def _frames(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)


def test_the_detected_track_is_heard_with_its_own_samples():
    truth, rendered, samples = _frames(40), _frames(40, 1), np.arange(40 * 640).astype(np.int16)
    order = iter([*_sightings(40, range(40)), *_sightings(40, range(9, 33))])
    faces = OptionalNetwork(lambda frame: next(order), "s3fd_syncnet")
    seen = []
    figures, note = lse.measure(_expert(seen), faces, truth, rendered, None, samples)
    assert figures["lse_truth"] == {"lse_c": 2.0, "lse_d": 8.0, "offset": 1}
    assert (figures["lse_c"], figures["lse_d"], figures["lse_offset"]) == (4.0, 9.0, 2)
    np.testing.assert_array_equal(seen[0][1], samples)
    np.testing.assert_array_equal(seen[1][1], samples[9 * 640 : 33 * 640])
    expected = syncnet.crop_track(rendered[9:33], [_FACE + 0.1 * t for t in range(9, 33)])
    np.testing.assert_array_equal(seen[1][0], expected)
    assert "lse(s3fd_syncnet)" in note and "24 of 40 frames" in note and "biased: 1.6 s" in note


def test_without_a_detector_the_mesh_says_where_the_face_is():
    seen = []
    faces = OptionalNetwork(None, "mesh-box")
    arguments = _frames(260), _frames(260, 1), _landmarks(260), np.ones(260 * 640, np.int16)
    figures, note = lse.measure(_expert(seen), faces, *arguments)
    assert "lse(mesh-box)" in note and "biased" not in note and "59 px" in note
    assert figures["lse_c"] == 4.0 and [len(f) for f, _ in seen] == [260, 260]
    figures, note = lse.measure(_expert(seen), faces, *arguments[:2], None, arguments[3])
    assert set(figures.values()) == {None} and "no face was tracked" in note


def test_what_cannot_be_measured_is_null_with_the_reason():
    frames, samples = _frames(6), np.zeros(6 * 640, np.int16)
    mesh = OptionalNetwork(None, "mesh-box")
    for call, words in ((lambda frame: [], "no face"), (None, "6 frames; expected 7 or more")):
        faces = OptionalNetwork(call, "x")
        figures, note = lse.measure(_expert([]), faces, frames, frames, _landmarks(6), samples)
        assert set(figures) == set(lse.NAMES) and set(figures.values()) == {None}
        assert words in note
    absent = OptionalNetwork(None, "weights of syncnet_v2 not found")
    figures, note = lse.measure(absent, mesh, frames, None, None, samples)
    assert set(figures.values()) == {None} and note == absent.source
    silent = np.zeros(3 * 640, np.int16)
    long = _frames(20)
    figures, note = lse.measure(_expert([]), mesh, long, long, _landmarks(20), silent)
    assert figures["lse_c"] is None and "with sound in 3 frames" in note


def test_frames_are_recorded_on_disk_and_leave_nothing(tmp_path):
    kept = lse.recording(tmp_path, 3, 4, 5)
    kept[1] = 7
    assert kept.shape == (3, 4, 5, 3) and kept.sum() == 7 * 60 and not list(tmp_path.iterdir())


def _random_syncnet():
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name, fan_in = path[-1].key, np.prod(leaf.shape[:-1])
        if name == "kernel":
            level = 64 if leaf.shape[2:3] == (15,) else 1  # of the pictures
            return rng.normal(0, (2 / fan_in) ** 0.5 / level, leaf.shape).astype(np.float32)
        low = 0.5 if name in ("scale", "var") else -0.2
        return rng.uniform(low, low + 1, leaf.shape).astype(np.float32)

    found = {"params": {}, "batch_stats": {}}
    for name, layers, shape in (
        ("lip", syncnet.LIP_LAYERS, (1, 224, 224, 15)),
        ("sound", syncnet.SOUND_LAYERS, (1, 13, 20, 1)),
    ):
        tower = jax.eval_shape(syncnet.Tower(layers).init, jax.random.key(0), jnp.zeros(shape))
        for kind, leaves in jax.tree_util.tree_map_with_path(draw, tower).items():
            found[kind][name] = leaves
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`evaluate` of a painted clip with the weights that are in a folder."""
    root = tmp_path_factory.mktemp("lse")
    data = fake_avatar.make_folder(root / "data", seconds=4)
    with np.load(data / "landmarks.npz") as file:
        arrays = dict(file)
    arrays["pixels"][:, landmarks_lib.FACE_OVAL] = _landmarks(100)[:, landmarks_lib.FACE_OVAL]
    np.savez(data / "landmarks.npz", **arrays)
    (root / "weights").mkdir()
    variables.save(root / "weights" / "syncnet_v2.npz", _random_syncnet())

    def evaluated(monkeypatch, *names):
        monkeypatch.setattr(avatar_store, "load", lambda _: fake_avatar.Avatar(data))
        monkeypatch.setattr(
            store, "find", lambda n: root / "weights" / f"{n}.npz" if n in names else None
        )
        workdir = root / "_".join(("run", *names))
        workdir.mkdir()
        assert main(["--workdir", str(workdir)]) == 0
        assert not list((workdir / "eval_test").glob(".*"))
        return json.loads((workdir / "eval_test" / "metrics.json").read_text())

    return evaluated


def test_evaluate_measures_lse_in_mesh_boxes(run, monkeypatch):
    small = functools.partial(syncnet.embed_clip, batch=5)  # the five windows there are
    monkeypatch.setattr(syncnet, "embed_clip", small)
    result = run(monkeypatch, "syncnet_v2")
    assert result["frames"] == 10
    truth = result["lse_truth"]
    assert min(truth["lse_c"], result["lse_c"]) >= 0 and abs(result["lse_offset"]) <= 15
    assert min(truth["lse_d"], result["lse_d"]) > 0
    assert result["lse_d"] != truth["lse_d"]  # the render is a little brighter
    for name in lse.NAMES:
        assert "lse(mesh-box)" in result["weights"][name] and "0.4 s" in result["weights"][name]
    assert result["lmd_fan"] is None and "fan_2d4" in result["weights"]["lmd_fan"]


def test_evaluate_says_why_there_is_no_lse(run, monkeypatch):
    result = run(monkeypatch)
    assert [result[name] for name in lse.NAMES] == [None] * 4
    assert "syncnet_v2 not found" in result["weights"]["lse_c"]


def test_evaluate_with_detector_and_fan(run, monkeypatch):
    """Both see a face wherever the painted lips are, FAN not in two of the ten renders."""
    seen = {"s3fd": 0, "s3fd_syncnet": 0}
    monkeypatch.setattr(s3fd, "load", lambda path: path.stem)
    monkeypatch.setattr(fan, "load", lambda path: path.stem)

    def detect(name, frame):
        seen[name] += 1
        blind = name == "s3fd" and seen[name] in (4, 8)  # truth and render take turns
        return np.zeros((0, 5)) if blind else np.append(_FACE, 0.99)[None].astype(np.float32)

    def landmarks(name, frame, box):
        assert name == "fan_2d4" and np.allclose(box[:4], _FACE)
        return np.random.default_rng(int(frame[50, 32].sum())).integers(0, 60, (68, 2))

    monkeypatch.setattr(lse, "load", lambda: _expert([]))
    monkeypatch.setattr(s3fd, "detect", detect)
    monkeypatch.setattr(fan, "landmarks", landmarks)
    result = run(monkeypatch, "s3fd", "s3fd_syncnet", "fan_2d4")
    assert seen == {"s3fd": 20, "s3fd_syncnet": 20}
    assert "lse(s3fd_syncnet)" in result["weights"]["lse_d"] and result["lse_d"] == 9.0
    assert result["lmd_fan_frames"] == 8 and result["lmd_fan"] > 1
    assert "boxes: s3fd" in result["weights"]["lmd_fan"] and result["lmd"] is None
