"""The emotion network against a torch twin with every parameter and statistic random."""

import numpy as np
import pytest

from fg3dgs_jax.experts.face import fer
from fg3dgs_jax.weights import store

WIDTHS = (16, 32, 64, 128)


def random_arrays(seed=0):
    """Arrays named and shaped as Keras stores them."""
    rng = np.random.default_rng(seed)
    arrays = {}

    def kernel(name, *shape):
        arrays[name] = rng.normal(0, (2 / np.prod(shape[:3])) ** 0.5, shape).astype(np.float32)

    def norm(number, width):
        for name, low, high in (
            ("gamma", 0.5, 1.5),
            ("beta", -0.5, 0.5),
            ("moving_mean", -0.5, 0.5),
            ("moving_variance", 0.3, 2.0),
        ):
            array = rng.uniform(low, high, width).astype(np.float32)
            arrays[f"batch_normalization_{number}/{name}"] = array

    kernel("conv2d_1/kernel", 3, 3, 1, 8), norm(1, 8)
    kernel("conv2d_2/kernel", 3, 3, 8, 8), norm(2, 8)
    before = 8
    for i, width in enumerate(WIDTHS):
        kernel(f"conv2d_{i + 3}/kernel", 1, 1, before, width), norm(3 * i + 3, width)
        for k, channels in enumerate((before, width)):
            layer = f"separable_conv2d_{2 * i + k + 1}"
            kernel(f"{layer}/depthwise_kernel", 3, 3, channels, 1)
            kernel(f"{layer}/pointwise_kernel", 1, 1, channels, width)
            norm(3 * i + 4 + k, width)
        before = width
    kernel("conv2d_7/kernel", 3, 3, 128, 7)
    arrays["conv2d_7/bias"] = rng.normal(size=7).astype(np.float32)
    return arrays


def torch_twin(arrays, faces):
    """The same network written with torch's functions, TensorFlow's padding by hand."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    a = {k: torch.from_numpy(v).double() for k, v in arrays.items()}

    def conv(x, name, stride=1, padding=0, bias=None, groups=1):
        kernel = a[name].permute(3, 2, 0, 1) if groups == 1 else a[name].permute(2, 3, 0, 1)
        return F.conv2d(x, kernel, bias, stride, padding, groups=groups)

    def norm(x, number):
        p = {
            k: a[f"batch_normalization_{number}/{k}"]
            for k in ("moving_mean", "moving_variance", "gamma", "beta")
        }
        return F.batch_norm(x, *p.values(), eps=1e-3)

    def separable(x, number):
        layer = f"separable_conv2d_{number}"
        x = conv(x, f"{layer}/depthwise_kernel", padding=1, groups=x.shape[1])
        return conv(x, f"{layer}/pointwise_kernel")

    def pool(x):
        total = max((-(-x.shape[-1] // 2) - 1) * 2 + 3 - x.shape[-1], 0)
        before, after = total // 2, total - total // 2
        padded = F.pad(x, (before, after, before, after), value=-torch.inf)
        return F.max_pool2d(padded, 3, 2)

    x = torch.from_numpy(faces).double().permute(0, 3, 1, 2)
    for i in (1, 2):
        x = norm(conv(x, f"conv2d_{i}/kernel"), i).relu()
    for i in range(4):
        shortcut = norm(conv(x, f"conv2d_{i + 3}/kernel", stride=2), 3 * i + 3)
        x = norm(separable(x, 2 * i + 1), 3 * i + 4).relu()
        x = pool(norm(separable(x, 2 * i + 2), 3 * i + 5)) + shortcut
    x = conv(x, "conv2d_7/kernel", padding=1, bias=a["conv2d_7/bias"])
    return x.mean((2, 3)).softmax(-1).numpy()


def test_equals_a_torch_twin():
    arrays = random_arrays()
    faces = np.random.default_rng(1).uniform(-1, 1, (3, 64, 64, 1)).astype(np.float32)
    found = fer.emotions(fer.convert(arrays), faces)
    expected = torch_twin(arrays, faces)
    assert np.ptp(expected, axis=0).max() > 0.01  # the faces are told apart
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_missing_and_unknown_arrays_are_named():
    arrays = random_arrays()
    with pytest.raises(ValueError, match="no conv2d_5/kernel"):
        fer.convert({k: v for k, v in arrays.items() if k != "conv2d_5/kernel"})
    with pytest.raises(ValueError, match="extra/kernel"):
        fer.convert({**arrays, "extra/kernel": np.zeros(1)})


def test_a_crop_is_square_grey_and_scaled():
    image = np.zeros((200, 300, 3), np.uint8)
    image[50:150, 100:200] = (255, 0, 0)
    face = np.asarray(fer.crops(image, np.array([[70, 130, 120, 180]])))[0, ..., 0]
    assert face.shape == (64, 64)
    np.testing.assert_allclose(face, 2 * 0.299 - 1, atol=1e-5)  # red only: inside the square
    wide = np.asarray(fer.crops(image, np.array([[90, 110, 50, 250]])))[0, ..., 0]
    np.testing.assert_allclose(wide[32, [2, 32, 61]], [-1, 2 * 0.299 - 1, -1], atol=1e-5)
    assert wide[2, 32] == -1.0  # 200 px high too


def test_the_published_network_loads():
    pytest.importorskip("h5py", reason="h5py is not installed")
    path = store.find("fer_emotion")
    if path is None:
        pytest.skip("fer_emotion is not in $FG3DGS_WEIGHTS")
    variables = fer.load(path)
    found = np.asarray(fer.emotions(variables, np.zeros((1, 64, 64, 1), np.float32)))
    assert found.shape == (1, 7) and abs(found.sum() - 1) < 1e-5


def test_a_file_that_is_not_one_is_a_line(tmp_path):
    pytest.importorskip("h5py", reason="h5py is not installed")
    path = tmp_path / "emotion.hdf5"
    path.write_bytes(b"not hdf5")
    with pytest.raises(store.WeightsMissing, match="is not the emotion network"):
        fer.load(path)
