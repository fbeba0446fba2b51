"""The three parsers behind their door, with networks that are played."""

import contextlib
import types

import numpy as np
import pytest

from fg3dgs_jax.clip.format import LABELS
from fg3dgs_jax.experts.face import mediapipe_runtime, segmenter, selfie_multiclass
from fg3dgs_jax.preprocessing.label import from_landmarks, parsers
from fg3dgs_jax.weights import store
from tests.preprocessing.test_labels import landmarks, person

FILES = ("bisenet", "easyportrait", "selfie_multiclass", "selfie_segmenter")


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    """A registry of the parsers' weights; put a name into the set and its file is found."""
    there = set()

    def find(name):
        path = tmp_path / name
        path.write_bytes(name.encode())
        return path if name in there else None

    def require(name):
        if name not in there:
            raise store.WeightsMissing(f"{name} is in no folder")
        return find(name)

    monkeypatch.setattr(store, "REGISTRY", dict.fromkeys(FILES))
    monkeypatch.setattr(store, "find", find)
    monkeypatch.setattr(store, "require", require)
    for module in (parsers.bisenet, parsers.easyportrait):
        monkeypatch.setattr(module, "load", lambda path: {"file": np.zeros(3)})
    return there


def clip(count):
    image, mask = person()
    frames = np.stack([image] * count)
    frames[:, 0, 0, 0] = np.arange(count)
    return frames, np.stack([landmarks()] * count), mask


def test_auto_takes_the_best_that_is_there(shelf):
    with pytest.raises(store.WeightsMissing, match="selfie_segmenter"):
        parsers.choose()
    for name, parser in (
        ("selfie_segmenter", "landmarks"),
        ("easyportrait", "landmarks"),
        ("selfie_multiclass", "selfie_multiclass"),
        ("bisenet", "bisenet"),
    ):
        shelf.add(name)
        assert parsers.choose("auto").name == parser
    assert set(parsers.choose().weights) == {"bisenet", "easyportrait"}
    assert parsers.choose().description == "bisenet, teeth by EasyPortrait"
    shelf.remove("easyportrait")
    assert parsers.choose().description == "bisenet, teeth by colour"
    assert parsers.choose("landmarks").name == "landmarks"


def test_weights_asked_for_and_missing_are_named(shelf):
    shelf.add("selfie_segmenter")
    for name in ("bisenet", "selfie_multiclass"):
        with pytest.raises(store.WeightsMissing, match=name):
            parsers.choose(name)
    with pytest.raises(ValueError, match="expected one of auto, bisenet, selfie_multiclass"):
        parsers.choose("psychic")


def test_another_parser_or_another_file_makes_other_labels(shelf):
    shelf.update(FILES)
    full = parsers.choose("bisenet").made_by
    assert full["parser"] == "bisenet" and all(len(x) == 64 for x in full["weights"].values())
    shelf.remove("easyportrait")
    bare = parsers.choose("bisenet").made_by
    assert bare != full and bare == parsers.choose("bisenet").made_by


def test_landmarks_are_those_of_the_data_package(shelf, monkeypatch):
    shelf.add("selfie_segmenter")
    frames, points, mask = clip(3)
    monkeypatch.setattr(segmenter, "segment", lambda path, frames, *_: iter([mask] * len(frames)))
    found = list(parsers.choose().parse(frames, points))
    expected = from_landmarks.parse(frames[0], points[0], mask)
    assert len(found) == 3
    for parsed in found:
        np.testing.assert_array_equal(parsed.labels, expected.labels)
        np.testing.assert_array_equal(parsed.alpha, expected.alpha)


@pytest.mark.parametrize(("backend", "with_teeth"), [("gpu", True), ("gpu", False), ("cpu", True)])
def test_bisenet_runs_in_whole_batches(shelf, monkeypatch, backend, with_teeth):
    monkeypatch.setattr(parsers.jax, "default_backend", lambda: backend)
    shelf.update({"bisenet", "easyportrait"} if with_teeth else {"bisenet"})
    count = parsers.BATCH + 1
    frames, points, mask = clip(count)
    seen = []

    def segment(network, batch):
        seen.append(batch[:, 0, 0, 0].tolist())
        parts = np.full(batch.shape[:3], LABELS["skin"], np.uint8)
        parts[:, 150:160, 120:136] = LABELS["mouth"]
        parts[:, 60, :] = 1 + batch[:, 0, 0, :1]  # tells the frames apart
        return parts, np.stack([mask] * len(batch))

    def parse(network, batch):
        labels = np.zeros(batch.shape[:3], np.uint8)
        labels[:, 150:154, 120:136] = parsers.easyportrait.TEETH
        return labels

    monkeypatch.setattr(parsers.bisenet, "segment", segment)
    monkeypatch.setattr(parsers.easyportrait, "parse", parse)
    steps = []
    progress = lambda x: (steps.append(i) or i for i in x)  # noqa: E731
    found = list(parsers.choose().parse(frames, points, progress=progress))
    assert len(found) == count and steps == list(range(count))
    assert seen == {"cpu": [[0], [1], [2], [3], [4]], "gpu": [[0, 1, 2, 3], [4, 4, 4, 4]]}[backend]
    sides = {2: 3, 4: 5}  # at the person's right, whatever the network says
    for i, (labels, alpha) in enumerate(found):
        assert labels.shape == alpha.shape == frames.shape[1:3]
        assert (labels[60, 90:110] == sides.get(1 + i, 1 + i)).all()
        assert (labels[152, 122:134] == LABELS["teeth"]).all() == with_teeth
        assert (labels[158, 122:134] == LABELS["mouth"]).all() or not with_teeth


def played_mediapipe(monkeypatch, masks):
    """MediaPipe whose segmenter finds `masks` [C, H, W] in every picture; returns its calls."""
    calls = []

    class Segmenter(contextlib.AbstractContextManager):
        def __exit__(self, *_):
            calls.append("closed")

        def segment_for_video(self, image, time):
            calls.append((image.shape, time))
            found = [types.SimpleNamespace(numpy_view=lambda m=m: m[..., None]) for m in masks]
            return types.SimpleNamespace(confidence_masks=found)

    vision = types.SimpleNamespace(
        ImageSegmenterOptions=lambda **options: calls.append(options),
        RunningMode=types.SimpleNamespace(VIDEO="video"),
        ImageSegmenter=types.SimpleNamespace(create_from_options=lambda _: Segmenter()),
    )
    tasks = types.SimpleNamespace(BaseOptions=lambda model_asset_path: model_asset_path)
    mp = types.SimpleNamespace(
        Image=lambda image_format, data: data, ImageFormat=types.SimpleNamespace(SRGB="rgb")
    )
    tasks.vision = vision
    monkeypatch.setattr(mediapipe_runtime, "load", lambda: (mp, tasks))
    return calls


def test_selfie_multiclass_gives_six_confidences_a_pixel(monkeypatch):
    masks = np.random.default_rng(0).random((6, 8, 10), np.float32)
    calls = played_mediapipe(monkeypatch, masks)
    frames = np.zeros((2, 8, 10, 3), np.uint8)
    found = list(selfie_multiclass.segment("model.tflite", frames, 25.0))
    assert calls[0]["base_options"] == "model.tflite" and calls[0]["running_mode"] == "video"
    assert calls[1:] == [((8, 10, 3), 0), ((8, 10, 3), 40), "closed"]
    for confidences in found:
        np.testing.assert_array_equal(confidences, masks.transpose(1, 2, 0))
    person = list(segmenter.segment("model.tflite", frames))
    np.testing.assert_array_equal(person, [masks[-1]] * 2)


def test_another_model_is_not_taken_for_selfie_multiclass(monkeypatch):
    played_mediapipe(monkeypatch, np.zeros((2, 8, 10), np.float32))
    with pytest.raises(ValueError, match="tells 2 classes apart"):
        list(selfie_multiclass.segment("selfie_segmenter.tflite", np.zeros((1, 8, 10, 3), "u1")))


def test_selfie_multiclass_parses_a_clip(shelf, monkeypatch):
    shelf.add("selfie_multiclass")
    frames, points, mask = clip(2)
    masks = np.stack([1 - mask, 0 * mask, 0 * mask, mask, 0 * mask, 0 * mask])
    played_mediapipe(monkeypatch, masks)
    first, second = parsers.choose().parse(frames, points)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.labels[105, 151] == LABELS["left_eye"] and first.alpha[20, 20] == 0
