import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.config.defaults import Encoding
from fg3dgs_jax.models import hash_encoding
from fg3dgs_jax.models.hash_encoding import TriPlaneHashEncoding, make_levels

FACE, MOUTH = make_levels(Encoding(16, 38.4)), make_levels(Encoding(64, 57.6))

encode = jax.jit(hash_encoding.encode, static_argnames="levels")


def encode_by_loops(tables, coords, levels):
    out = np.zeros((len(coords), levels.num_features))
    for n, point in enumerate(coords):
        column = 0
        for plane, (first, second) in enumerate(((0, 1), (1, 2), (0, 2))):
            u, v = ((float(point[a]) + levels.bound) / (2 * levels.bound) for a in (first, second))
            for size, scale, offset in zip(
                levels.resolutions, levels.scales, levels.offsets[:-1], strict=True
            ):
                if 0 <= u <= 1 and 0 <= v <= 1:
                    x, y = u * scale + 0.5, v * scale + 0.5
                    i, j = int(x), int(y)
                    for di in (0, 1):
                        for dj in (0, 1):
                            weight = (x - i if di else 1 - x + i) * (y - j if dj else 1 - y + j)
                            entry = offset + i + di + (j + dj) * (size + 1)
                            out[n, column] += weight * tables[plane * levels.offsets[-1] + entry]
                column += 1
    return out


def random_case(levels, count=40, seed=0, extent=0.14):
    rng = np.random.default_rng(seed)
    tables = rng.normal(size=levels.num_params).astype(np.float32)
    return jnp.array(tables), jnp.array(rng.uniform(-extent, extent, (count, 3)), jnp.float32)


def test_levels_have_the_published_sizes():
    assert FACE.resolutions == (16, 18, 19, 21, 22, 24, 26, 28, 31, 33, 36, 39)
    assert MOUTH.resolutions == (64, 64, 63, 63, 62, 62, 61, 60, 60, 59, 59, 58)
    assert FACE.num_params == 28_392
    assert MOUTH.num_params == 139_800
    assert FACE.num_features == MOUTH.num_features == 36


@pytest.mark.parametrize("levels", [FACE, MOUTH], ids=["face", "mouth"])
def test_encode_agrees_with_loops(levels):
    tables, coords = random_case(levels)
    coords = coords.at[0].set(0.149999).at[1].set(-0.149999).at[2, 1].set(0.2)
    expected = encode_by_loops(np.asarray(tables), np.asarray(coords), levels)
    # Positions are float32: a rounding of 1e-7 times a slope of some 60 cells is what may differ.
    np.testing.assert_allclose(encode(tables, coords, levels=levels), expected, atol=1e-4)


def test_outside_the_bound_only_the_planes_of_that_coordinate_are_zero():
    tables, _ = random_case(FACE)
    planes = encode(tables, jnp.array([[0.151, 0.01, 0.02]]), levels=FACE).reshape(3, 12)
    assert np.all(np.asarray(planes)[[0, 2]] == 0)
    assert np.all(np.asarray(planes)[1] != 0)
    grad = jax.grad(lambda c: encode(tables, c, levels=FACE).sum())(jnp.full((1, 3), 0.2))
    assert np.all(np.asarray(grad) == 0)


def test_gradients_are_those_of_a_bilinear_function():
    tables, coords = random_case(FACE, count=20)
    weights = jax.random.normal(jax.random.key(0), (20, 36))

    def value(tables, coords):
        return jnp.sum(weights * encode(tables, coords, levels=FACE))

    by_table, by_coords = jax.jit(jax.grad(value, argnums=(0, 1)))(tables, coords)
    np.testing.assert_allclose(jnp.vdot(by_table, tables), value(tables, coords), rtol=1e-4)
    # Linear along one axis within a cell: a central difference of 1e-5 m is exact where no border
    # is crossed.
    step = 1e-5
    cells = (np.asarray(coords)[:, None] + 0.15) / 0.3 * np.array(FACE.scales)[:, None] + 0.5
    clear = np.all(np.abs(cells - np.round(cells)) > 0.01, axis=1)  # [N, 3]
    assert clear.sum() > 20
    with jax.enable_x64(True):
        tables64, coords64 = np.float64(tables), np.float64(coords)
        for axis in range(3):
            shift = step * np.eye(3)[axis]
            ends = [
                encode(jnp.array(tables64), jnp.array(coords64 + s * shift), levels=FACE)
                for s in (1, -1)
            ]
            slope = np.sum(np.float64(weights) * np.asarray(ends[0] - ends[1]), 1) / (2 * step)
            ok = clear[:, axis]
            np.testing.assert_allclose(
                np.asarray(by_coords)[ok, axis], slope[ok], rtol=1e-3, atol=0.05
            )


def test_module_starts_near_zero_and_refuses_a_level_that_needs_hashing():
    module = TriPlaneHashEncoding(Encoding(16, 38.4))
    variables = module.init(jax.random.key(0), jnp.zeros((1, 3)))
    tables = variables["params"]["tables"]
    assert tables.shape == (28_392,) and tables.dtype == jnp.float32
    assert 0.9e-4 < float(jnp.abs(tables).max()) <= 1e-4
    assert module.apply(variables, jnp.zeros((5, 3))).shape == (5, 36)
    with pytest.raises(ValueError, match="log2_table_size"):
        make_levels(Encoding(64, 512))
