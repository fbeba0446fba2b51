"""EmotiEffLib's networks: a small ONNX graph of the same make, against NumPy."""

import sys

import cv2
import numpy as np
import pytest

from fg3dgs_jax.experts.face import emotieff, emotions
from fg3dgs_jax.weights import store

WIDTH = 12


def _save(path, scores=8, size="side", seed=0, last="Gemm"):
    """3 x 3 convolution, ReLU, mean over the picture, Gemm: (path, kernel, weight, bias)."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(seed)
    arrays = {
        "kernel": rng.normal(size=(WIDTH, 3, 3, 3)).astype(np.float32) / 5,
        "weight": rng.normal(size=(scores, WIDTH)).astype(np.float32),
        "bias": rng.normal(size=scores).astype(np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["input", "kernel"], ["conv"], strides=[4, 4]),
        node("Relu", ["conv"], ["relu"]),
        node("GlobalAveragePool", ["relu"], ["pool"]),
        node("Flatten", ["pool"], ["latent"], name="flat"),
        node(last, ["latent", "weight", "bias"], ["output"], transB=1)
        if last == "Gemm"
        else node("Identity", ["latent"], ["output"]),
    ]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "emotions",
        [tensor("input", onnx.TensorProto.FLOAT, ["batch", 3, size, size])],
        [tensor("output", onnx.TensorProto.FLOAT, ["batch", scores])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path, arrays


def _oracle(arrays, faces):
    windows = np.lib.stride_tricks.sliding_window_view(faces, (3, 3), (2, 3))[:, :, ::4, ::4]
    maps = np.einsum("bchwij,ocij->bohw", windows.astype(np.float64), arrays["kernel"])
    latent = np.maximum(maps, 0).mean((2, 3))
    return latent, latent @ arrays["weight"].T + arrays["bias"]


@pytest.fixture
def runtime():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.mark.parametrize("scores", [8, 10])
def test_features_and_logits_are_the_graphs(runtime, tmp_path, scores):
    path, arrays = _save(tmp_path / "enet_b0_8_best_afew.onnx", scores)
    network = emotieff.load(path)
    assert network.size == 224
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (40, 50, 3), np.uint8)
    faces = emotieff.crops(network, image, [[3, 33, 5, 45], [-4, 20, 30, 60.2]])
    found = emotieff.run(network, faces)
    latent, logits = _oracle(arrays, faces)
    np.testing.assert_allclose(found.features, latent, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.logits, logits[:, :8], rtol=1e-4, atol=1e-5)
    powers = np.exp(logits[:, :8])
    np.testing.assert_allclose(found.probabilities, powers / powers.sum(1)[:, None], rtol=1e-4)
    assert latent.std(0).max() > 0.01
    if scores == 8:
        assert found.mood is None
    else:
        np.testing.assert_allclose(found.mood, logits[:, 8:], rtol=1e-4, atol=1e-5)


def test_faces_are_stretched_and_normalised(runtime, tmp_path):
    network = emotieff.load(_save(tmp_path / "enet_b2_8.onnx")[0])
    assert network.size == 260
    image = np.random.default_rng(2).integers(0, 256, (80, 60, 3), np.uint8)
    faces = emotieff.crops(network, image, [[10, 70, 20, 50]])
    assert faces.shape == (1, 3, 260, 260) and faces.dtype == np.float32
    expected = cv2.resize(image[10:70, 20:50], (260, 260)).astype(np.float64) / 255
    expected = (expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(faces[0], expected.transpose(2, 0, 1), atol=1e-5)
    for bad, box in ((image / 255, [0, 9, 0, 9]), (image, [90, 99, 0, 9])):
        with pytest.raises(ValueError, match=r"expected uint8|no pixel"):
            emotieff.crops(network, bad, [box])


def test_the_graphs_own_size_comes_first(runtime, tmp_path):
    assert emotieff.load(_save(tmp_path / "enet_b0_8.onnx", size=64)[0]).size == 64
    with pytest.raises(store.WeightsMissing, match="how large its faces"):
        emotieff.load(_save(tmp_path / "other.onnx")[0])


def test_other_files_are_one_line(runtime, tmp_path):
    good = _save(tmp_path / "enet_b0_8.onnx")[0].read_bytes()
    for content in (b"", b"not onnx", good[:-40], good[:9], bytes(100)):
        (tmp_path / "bad_b0_.onnx").write_bytes(content)
        with pytest.raises(store.WeightsMissing, match="none of EmotiEffLib's") as caught:
            emotieff.load(tmp_path / "bad_b0_.onnx")
        assert "\n" not in str(caught.value)
    with pytest.raises(store.WeightsMissing, match="no Gemm"):
        emotieff.load(_save(tmp_path / "none_b0_.onnx", WIDTH, last="Identity")[0])
    wrong = emotieff.load(_save(tmp_path / "five_b0_.onnx", 5)[0])
    with pytest.raises(store.WeightsMissing, match="gives 5 scores"):
        emotieff.run(wrong, np.zeros((1, 3, 224, 224), np.float32))


def test_a_missing_runtime_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(store.WeightsMissing, match=r"pip install 'fg3dgs_jax\[emotion\]'"):
        emotieff.load(tmp_path / "a.onnx")


def test_the_emotion_networks_have_one_interface(runtime, tmp_path):
    path, arrays = _save(tmp_path / "enet_b0_8_va_mtl.onnx", 10)
    network = emotions.load("emotieff", path)
    assert network.names[:2] == ("emotion_anger", "emotion_contempt")
    assert network.names[8:11] == ("emotion_valence", "emotion_arousal", "emotieff_0")
    assert len(network.names) == 10 + WIDTH
    image = np.random.default_rng(3).integers(0, 256, (70, 60, 3), np.uint8)
    points = np.array([[12.0, 9.0], [40.0, 20.0], [30.0, 60.0]])  # x, y
    row = network.call(image, points)
    faces = emotieff.crops(emotieff.load(path), image, [[9, 60, 12, 40]])
    latent, scores = _oracle(arrays, faces)
    np.testing.assert_allclose(row[10:], latent[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(row[8:10], scores[0, 8:], rtol=1e-4, atol=1e-5)
    assert row[:8].sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="expected one of fer, emotieff"):
        emotions.load("deepface", path)
