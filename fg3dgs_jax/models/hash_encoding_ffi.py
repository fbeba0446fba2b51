"""The tri-plane encoding as a custom call; `encode` of `hash_encoding.py` is its definition.

XLA's CPU scatter-add makes the gradient of the tables cost tens of ms at 10k points; this one takes
one or two. On a GPU the same sum would need atomics, whose order is never the same twice; there the
custom call sorts instead. The table layout is `hash_encoding.Levels`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import native

_PLANES = 3


def is_available() -> bool:
    """Whether `encode` can run here: the library is there, and FG3DGS_BACKEND allows it."""
    return native.resolve_backend(group="hash_encoding") != "reference"


def encode(tables: jax.Array, coords: jax.Array, *, levels: Any) -> jax.Array:
    """Features [N, 3 * L] of coords [N, 3] metres; zeros in a plane whose square they miss.

    Args:
      tables: float32 [levels.num_params].
      coords: float32 [N, 3].
      levels: `hash_encoding.Levels`, static.

    Differentiable in tables and coords. Works under vmap, one batch entry after the other.
    """
    size = _PLANES * levels.offsets[-1]
    if tables.shape != (size,) or tables.dtype != jnp.float32:
        raise ValueError(f"tables are {tables.dtype} {tables.shape}; expected float32 ({size},)")
    if coords.ndim != 2 or coords.shape[1] != 3 or coords.dtype != jnp.float32:
        raise ValueError(f"coords are {coords.dtype} {coords.shape}; expected float32 [N, 3]")
    backend = native.resolve_backend(group="hash_encoding")
    if backend == "reference":
        raise ValueError(f"no compiled encoding to run: {native.BUILD_COMMAND}")
    return _encode((backend, levels), tables, coords)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _encode(static: Any, tables: jax.Array, coords: jax.Array) -> jax.Array:
    levels = static[1]
    features = jax.ShapeDtypeStruct((coords.shape[0], levels.num_features), jnp.float32)
    call = jax.ffi.ffi_call("fg3dgs_encode_fwd", features, vmap_method="sequential")
    return call(tables, coords, **_attributes(levels))


def _encode_fwd(static: Any, tables: jax.Array, coords: jax.Array) -> Any:
    return _encode(static, tables, coords), (tables, coords)


def _encode_bwd(static: Any, residuals: Any, v_features: jax.Array) -> Any:
    backend, levels = static
    results = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in residuals]
    if backend == "cuda":
        sizes = (v_features.shape[0], levels.num_features, levels.num_params)
        workspace = native.buffer_bytes("encode_grad", *sizes)
        results.append(jax.ShapeDtypeStruct((workspace,), jnp.uint8))
    call = jax.ffi.ffi_call("fg3dgs_encode_bwd", results, vmap_method="sequential")
    return tuple(call(*residuals, v_features, **_attributes(levels)))[:2]


_encode.defvjp(_encode_fwd, _encode_bwd)


def _attributes(levels: Any) -> dict[str, Any]:
    return {
        "resolutions": np.array(levels.resolutions, np.int32),
        "scales": np.array(levels.scales, np.float32),
        "offsets": np.array(levels.offsets, np.int32),
        "bound": np.float32(levels.bound),
    }
