"""The native backend against gsplat's torch reference, which other people wrote, on 20,000
Gaussians: five times what this package's own dense reference can draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.rasterizer import reference
from scripts import peers

from .native import NATIVE, needs_native
from .scenes import draw, make_scene, relative

torch = pytest.importorskip("torch")
pytestmark = needs_native

N, SIZE = 20_000, 256
FIELDS = ("means", "quats", "scales", "opacities", "colors", "background")
# Relative L2 of the gradients: three times what was found, and it is the rounding of float32.
TOLERANCES = dict.fromkeys(FIELDS[:4], 1.5e-5) | dict(colors=5e-6, background=1e-6, pose=1e-6)


@pytest.fixture(scope="module")
def scene():
    """Depths are 30 um apart, so that rounding cannot swap two Gaussians; some are opaque."""
    scene = make_scene(N, SIZE, SIZE, seed=20, sigma_px=(0.5, 3.0))
    pose = np.float64(scene.camera.world_to_camera)
    seen = np.float64(scene.means) @ pose[:3, :3].T + pose[:3, 3]
    rank = np.argsort(np.argsort(seen[:, 2]))
    seen *= ((0.8 + 0.6 / N * rank) / seen[:, 2])[:, None]
    means = (seen - pose[:3, 3]) @ np.linalg.inv(pose[:3, :3]).T
    return scene._replace(means=jnp.float32(means), opacities=scene.opacities.at[:2000].set(1.0))


def draw_oracle(scene, tensors):
    intrinsics = [float(x) for x in scene.camera[1:]]
    return peers.gsplat_reference_render(
        *tensors, intrinsics, SIZE, SIZE, alpha_max=reference.ALPHA_MAX
    )


def clear_pixels(scene, tensors, monkeypatch):
    """[H, W] bool: where no pair lies so near a threshold that rounding decides about it."""
    images = []
    for change in (1 - 3e-5, 1 + 3e-5):
        monkeypatch.setattr(peers, "ALPHA_MIN", change * reference.ALPHA_MIN)
        monkeypatch.setattr(peers, "TRANSMITTANCE_MIN", change * reference.TRANSMITTANCE_MIN)
        with torch.no_grad():
            images.append(draw_oracle(scene, tensors)[0])
    monkeypatch.undo()
    return (images[0] == images[1]).all(-1)


def test_picture_and_gradients_agree_with_gsplat(scene, monkeypatch):
    try:
        peers.gsplat_reference()
    except peers.NotInstalled as missing:
        pytest.skip(str(missing))
    arrays = [getattr(scene, name) for name in FIELDS] + [scene.camera.world_to_camera]
    tensors = [torch.tensor(np.asarray(x), dtype=torch.float64) for x in arrays]
    clear = clear_pixels(scene, tensors, monkeypatch)
    assert clear.double().mean() > 0.98
    ramp = torch.linspace(0.3, 1.0, SIZE)[:, None] * torch.linspace(1.0, 0.4, SIZE)
    weight = torch.where(clear, ramp, 0.0)

    leaves = [x.requires_grad_() for x in tensors]
    image, alpha = draw_oracle(scene, leaves)
    value = torch.mean(weight[..., None] * (image - 0.3) ** 2)
    value = value + torch.mean(weight * torch.sin(2.0 * alpha))
    expected = torch.autograd.grad(value, leaves)

    weight, keep = jnp.asarray(weight.numpy()), clear.numpy()

    def loss(*arrays):
        here = scene._replace(
            **dict(zip(FIELDS, arrays, strict=False)),
            camera=scene.camera._replace(world_to_camera=arrays[-1]),
        )
        output = draw(NATIVE, here, SIZE, SIZE)[1]
        value = jnp.mean(weight[..., None] * (output.image - 0.3) ** 2)
        return value + jnp.mean(weight * jnp.sin(2.0 * output.alpha)), output

    found, output = jax.jit(jax.grad(loss, tuple(range(7)), has_aux=True))(*arrays)
    image, alpha = image.detach().numpy(), alpha.detach().numpy()
    np.testing.assert_allclose(np.asarray(output.image)[keep], image[keep], atol=2.5e-5)
    np.testing.assert_allclose(np.asarray(output.alpha)[keep], alpha[keep], atol=2.5e-5)
    for name, x, y in zip(TOLERANCES, found, expected, strict=True):
        assert relative(x, y) <= TOLERANCES[name], name
