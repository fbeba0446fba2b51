"""H_3 of eqs. (7) and (9): bilinear look-ups in multiresolution grids on three planes.

The grids are small enough to be stored densely, so no hash ever collides: `make_levels` refuses a
level that would not fit its table. The features of a position are ordered plane by plane (xy, yz,
xz), coarse to fine within a plane.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from fg3dgs_jax.config.defaults import Encoding
from fg3dgs_jax.models import hash_encoding_ffi
from fg3dgs_jax.types import Array

PLANES = ((0, 1), (1, 2), (0, 2))  # the two coordinates of each plane: fast axis, slow axis


class Levels(NamedTuple):
    """Static (hashable) description of one plane's grids. All three planes are alike.

    Entry (x, y) of level l of plane p is
    `tables[p * offsets[-1] + offsets[l] + x + y * (resolutions[l] + 1)]`.
    """

    # R: a level stores (R + 1)^2 entries, rounded up to a multiple of 8.
    resolutions: tuple[int, ...]
    scales: tuple[float, ...]  # a coordinate u in [0, 1] sits at u * scale + 0.5 in units of cells
    offsets: tuple[int, ...]  # levels + 1 numbers; the last is the size of one plane's table
    bound: float  # metres: the cube [-bound, bound]^3 is encoded

    @property
    def num_features(self) -> int:
        """Length of a position's feature."""
        return len(PLANES) * len(self.resolutions)

    @property
    def num_params(self) -> int:
        """Entries of the tables of all planes."""
        return len(PLANES) * self.offsets[-1]


def make_levels(encoding: Encoding) -> Levels:
    """Resolutions go geometrically from the base to the desired resolution, in cells a side.

    Raises:
      ValueError: a level has more entries than 2^log2_table_size.
    """
    base, levels = encoding.base_resolution, encoding.levels
    growth = (encoding.desired_resolution / base) ** (1 / max(levels - 1, 1))
    sizes = [base * growth**i for i in range(levels)]
    # Subtracting a little keeps a level that is a whole number up to rounding from gaining a cell.
    resolutions = tuple(math.ceil(size - 1e-6) for size in sizes)
    offsets = [0]
    for resolution in resolutions:
        entries = (resolution + 1) ** 2
        if entries > 2**encoding.log2_table_size:
            raise ValueError(
                f"a level of resolution {resolution} needs {entries} entries; the table has "
                f"2^{encoding.log2_table_size}: raise log2_table_size or lower desired_resolution"
            )
        offsets.append(offsets[-1] + -(-entries // 8) * 8)
    return Levels(
        resolutions, tuple(size - 1.0 for size in sizes), tuple(offsets), float(encoding.bound)
    )


def encode(
    tables: Float[Array, "P"], coords: Float[Array, "N 3"], *, levels: Levels
) -> Float[Array, "N C"]:
    """Looks positions up: the definition, whose values and gradients a compiled version must give.

    Args:
      tables: float32 [levels.num_params], laid out as `Levels` says.
      coords: [N, 3] metres.
      levels: static.

    Returns:
      [N, 3 * L] features. A plane one of whose coordinates lies outside the bound gives zeros.
      Differentiable in both `tables` and `coords`.
    """
    num_levels = len(levels.resolutions)
    u = (coords + levels.bound) / (2 * levels.bound)
    pairs = jnp.stack([u[:, list(plane)] for plane in PLANES], 1)  # [N, 3, 2]
    inside = jnp.all((pairs >= 0) & (pairs <= 1), -1)  # [N, 3]
    pairs = jnp.where(inside[..., None], pairs, 0.0)
    scales = jnp.array(levels.scales, coords.dtype)[:, None]
    position = pairs[:, :, None] * scales + 0.5  # [N, 3, L, 2]
    # The last cell is a level's last index but one; rounding must not step over it.
    limit = jnp.array(levels.resolutions, jnp.int32)[:, None] - 1
    cell = jnp.minimum(jnp.floor(jax.lax.stop_gradient(position)).astype(jnp.int32), limit)
    fraction = position - cell
    planes = jnp.arange(len(PLANES))[:, None] * levels.offsets[-1]
    start = planes + jnp.array(levels.offsets[:-1])  # [3, L]
    stride = jnp.array(levels.resolutions, jnp.int32) + 1
    index = start + cell[..., 0] + cell[..., 1] * stride  # [N, 3, L]
    right, below = fraction[..., 0], fraction[..., 1]
    value = (
        tables[index] * (1 - right) * (1 - below)
        + tables[index + 1] * right * (1 - below)
        + tables[index + stride] * (1 - right) * below
        + tables[index + stride + 1] * right * below
    )
    return jnp.where(inside[..., None], value, 0.0).reshape(len(coords), len(PLANES) * num_levels)


class TriPlaneHashEncoding(nn.Module):
    """Means [N, 3] metres -> h [N, 3 * levels], with learned tables."""

    config: Encoding

    @nn.compact
    def __call__(self, means: Float[Array, "N 3"]) -> Float[Array, "N C"]:
        """Looks the means up in the grids."""
        spec = make_levels(self.config)
        tables = self.param("tables", _uniform_tables, (spec.num_params,))
        compiled = means.dtype == jnp.float32 and hash_encoding_ffi.is_available()
        return (hash_encoding_ffi.encode if compiled else encode)(tables, means, levels=spec)


def _uniform_tables(key: Array, shape: tuple[int, ...]) -> Array:
    """Near zero, so that training starts from almost no motion."""
    return jax.random.uniform(key, shape, jnp.float32, -1e-4, 1e-4)
