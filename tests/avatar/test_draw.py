"""Compositing (eq. 14) and the avatar file."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import quickstart
from fg3dgs_jax.avatar import draw as draw_lib
from fg3dgs_jax.avatar import store
from fg3dgs_jax.models import gaussians as gaussians_lib
from fg3dgs_jax.types import REGIONS, Camera, Conditions


def layer(color, alpha):
    image = jnp.broadcast_to(jnp.array(color), (2, 2, 3)) * alpha
    return draw_lib.Layer(image, jnp.full((2, 2), alpha), None, None, None)


def test_composite_is_equation_14():
    colors = {r: np.random.default_rng(i).random(3) for i, r in enumerate(REGIONS)}
    a = {"face": 0.3, "eyes": 0.6, "mouth": 0.2}
    background = jnp.asarray(np.random.default_rng(9).random((2, 2, 3)))
    image = draw_lib.composite({r: layer(colors[r], a[r]) for r in REGIONS}, background)
    under = (1 - a["eyes"]) * background + a["eyes"] * colors["eyes"]  # C_e, over the background
    expected = (1 - a["mouth"]) * under + a["mouth"] * colors["mouth"]
    expected = expected * (1 - a["face"]) + colors["face"] * a["face"]
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_opaque_face_hides_everything_and_empty_layers_show_the_background():
    background = jnp.full((2, 2, 3), 0.7)
    layers = {r: layer([0.1, 0.2, 0.3], 1.0) for r in REGIONS}
    np.testing.assert_allclose(draw_lib.composite(layers, background)[0, 0], [0.1, 0.2, 0.3])
    layers = {r: layer([0.1, 0.2, 0.3], 0.0) for r in REGIONS}
    np.testing.assert_allclose(draw_lib.composite(layers, background), background)


@pytest.fixture(scope="module")
def trained():
    """Untrained regions of a small config: (config, regions, alive)."""
    config = quickstart.get_config()
    nets = draw_lib.make_nets(config)
    regions, alive = {}, {}
    for i, r in enumerate(REGIONS):
        key, rng = jax.random.key(i), np.random.default_rng(i)
        points, colors = rng.uniform(-0.05, 0.05, (20, 3)), np.full((20, 3), 0.5)
        gaussians, alive[r] = gaussians_lib.init_gaussians_from_points(points, colors, 32)
        conditions = Conditions(jnp.zeros((8, 16, 80)), jnp.zeros(8))
        regions[r] = draw_lib.Region(gaussians, nets[r].init(key, gaussians.means, conditions))
    return config, regions, alive


def draw(drawer):
    rng = np.random.default_rng(0)
    pose = np.eye(4, dtype=np.float32)
    pose[2, 3] = 1.0
    camera = Camera(pose[None], *(np.full(1, v, np.float32) for v in (60, 60, 16, 16)))
    inputs = [rng.random(s).astype(np.float32) for s in ((1, 8, 16, 80), (1, 8))]
    return drawer.draw(*inputs, camera, np.zeros((1, 32, 32, 3), np.float32))


def test_a_saved_avatar_draws_the_same_frame(trained, tmp_path):
    config, regions, alive = trained
    (tmp_path / store.CONFIG_FILE).write_text(json.dumps(config.to_dict()))
    store.save(tmp_path, regions, alive)
    before, after = draw(draw_lib.Avatar(config, regions, alive)), draw(store.load(tmp_path))
    assert after.image.shape == (1, 32, 32, 3) and before.alphas["face"].max() > 0.05
    np.testing.assert_allclose(before.image, after.image, atol=1e-6)


@pytest.mark.parametrize("how", ("truncated", "a flipped byte", "empty", "other"))
@pytest.mark.parametrize("name", (store.CONFIG_FILE, store.AVATAR_FILE))
def test_a_damaged_workdir_names_the_file_and_the_way_out(trained, tmp_path, name, how):
    config, regions, alive = trained
    (tmp_path / store.CONFIG_FILE).write_text(json.dumps(config.to_dict()))
    store.save(tmp_path, regions, alive)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    ways = {"truncated": data[: len(data) // 2], "a flipped byte": data, "empty": b""}
    path.write_bytes(ways.get(how, b'{"gaussians": {"nose": 1}}'))
    with pytest.raises(store.AvatarError) as caught:
        store.load(tmp_path)
    line = str(caught.value)
    assert f"{path} is damaged" in line and "fg3dgs_jax.train" in line and "\n" not in line


def test_a_region_without_a_layer_is_clear(trained):
    config, regions, alive = trained
    config = copy.deepcopy(config)
    config.regions = ("face",)
    frame = draw(draw_lib.Avatar(config, {"face": regions["face"]}, {"face": alive["face"]}))
    assert frame.alphas["face"].max() > 0.05
    for region in ("eyes", "mouth"):
        assert not frame.layers[region].any() and not frame.alphas[region].any()
    np.testing.assert_array_equal(frame.image, np.clip(frame.layers["face"], 0.0, 1.0))


def test_no_avatar_is_one_clear_line(tmp_path):
    with pytest.raises(store.AvatarError, match="does not exist; train one"):
        store.load(tmp_path / "nothing")
    with pytest.raises(store.AvatarError, match="holds no trained avatar yet"):
        store.load(tmp_path)


def test_drawn_twice_the_second_picture_moves_and_does_not_paint(trained):
    config, regions, alive = trained
    nets, rng = draw_lib.make_nets(config), np.random.default_rng(0)
    pose = jnp.eye(4).at[2, 3].set(1.0)
    camera = Camera(pose, *jnp.array([60.0, 60.0, 16.0, 16.0]))
    conditions = Conditions(*(jnp.asarray(rng.random(s), jnp.float32) for s in ((8, 16, 80), 8)))
    target = jnp.asarray(rng.random((32, 32, 3)), jnp.float32)

    def loss(regions, first):
        background = jnp.zeros((32, 32, 3))
        options = draw_lib.FrameOptions(twice=first is not None)
        image, _ = draw_lib.draw(nets, regions, alive, conditions, camera, background, options)
        part = image if first is None else image[..., first : first + 3]
        return jnp.sum(jnp.square(part - target))

    value_and_grad = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    (once, wanted), (painted, paints), (moved, moves) = (
        value_and_grad(regions, first) for first in (None, 0, 3)
    )
    np.testing.assert_allclose([painted, moved], once, rtol=1e-6)
    for region in REGIONS:
        np.testing.assert_allclose(
            paints[region].gaussians.sh, wanted[region].gaussians.sh, rtol=1e-4, atol=1e-5
        )
        assert np.any(wanted[region].gaussians.sh) and not np.any(moves[region].gaussians.sh)
        # Colours also change with the direction one looks from, a little; the rest is the same.
        a, b = moves[region].gaussians, wanted[region].gaussians
        np.testing.assert_allclose(a.logit_opacities, b.logit_opacities, rtol=1e-4, atol=1e-5)
        assert all(np.any(leaf) for leaf in jax.tree.leaves(moves[region].gaussians.means))
        assert np.isfinite(jax.tree.leaves(moves[region].motion)[0]).all()
