"""What watches whole frames: FID by a plane in the network's place, LPIPS-VGG, their reasons."""

import numpy as np
import pytest

from fg3dgs_jax.evaluation import perception
from fg3dgs_jax.experts.image import inception, lpips
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.weights import store


def _show(watcher, truths, images):
    for truth, image in zip(truths, images, strict=True):
        watcher.add(truth, image)
    return watcher.result()


def test_fid_is_the_distance_of_the_features_and_says_how_many_frames(monkeypatch):
    monkeypatch.setattr(perception, "ROWS", 4)
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(12, 5))
    network = OptionalNetwork(
        lambda x: x.reshape(len(x), -1) / 255.0 @ plane, "a plane (plane.pth)"
    )
    frames = np.rint(255 * rng.random((9, 2, 2, 3))) / 255
    value, source = _show(perception.FrechetDistance(network), frames, frames)
    assert value == pytest.approx(0, abs=1e-9)
    assert "plane.pth" in source and "9 frames" in source
    # Mirrored in value: the covariance stays, the mean moves.
    value, _ = _show(perception.FrechetDistance(network), frames, 1 - frames)
    shift = (1 - 2 * frames.reshape(9, -1)) @ plane
    assert value == pytest.approx(np.sum(shift.mean(0) ** 2), rel=1e-6)
    value, reason = _show(perception.FrechetDistance(network), frames[:1], frames[:1])
    assert value is None and "1 frame; FID needs at least 2" in reason


def test_without_weights_there_is_a_reason(monkeypatch):
    monkeypatch.setattr(store, "find", lambda name: None)
    frames = np.zeros((2, 4, 4, 3))
    for watcher, name in (
        (perception.load_fid(), "fid_inception"),
        (perception.load_lpips_vgg(), "lpips_vgg"),
    ):
        value, reason = _show(watcher, frames, frames)
        assert value is None and f"weights of {name} not found" in reason


def test_the_networks_are_those_of_the_weights(monkeypatch, tmp_path):
    path = tmp_path / "weights.pth"
    monkeypatch.setattr(store, "find", lambda name: path)
    monkeypatch.setattr(inception, "load", lambda found: found == path)
    monkeypatch.setattr(inception, "features", lambda known, x: known * x.mean((1, 2)))
    monkeypatch.setattr(lpips, "load", lambda found: float(found == path))
    monkeypatch.setattr(lpips, "lpips", lambda known, x, y: known * abs(x - y).mean((1, 2, 3)))
    truths = np.random.default_rng(1).random((4, 8, 8, 3)).astype(np.float32)
    images = truths + np.float32([0.1, 0.2, 0.3, 0.4])[:, None, None, None]
    value, source = _show(perception.load_lpips_vgg(), truths, images)
    assert value == pytest.approx(0.25, rel=1e-5) and source == "lpips vgg v0.1 (weights.pth)"
    value, source = _show(perception.load_fid(), truths, truths[::-1])
    assert value == pytest.approx(0, abs=1e-9) and "(weights.pth); 4 frames" in source
