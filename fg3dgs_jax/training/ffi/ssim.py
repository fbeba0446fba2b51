"""1 - SSIM as a custom call that returns its gradient with it; `losses.ssim_map` defines it.

As jnp it is four blurred pictures forward and three back, all written to memory: 15 ms for 225 x
225 px on one core. The custom call keeps the rows it needs in cache: about 1 ms, and less where the
pictures are equal, as layers on key colour mostly are. A GPU's keeps its tile in shared memory.
"""

import jax
import jax.numpy as jnp

from fg3dgs_jax import native


def is_available(*images) -> bool:
    """Whether `distance` can run here for these pictures."""
    backend = native.resolve_backend()
    single = all(x.dtype == jnp.float32 for x in images)
    return single and backend != "reference" and native.has_targets("ssim", backend)


@jax.custom_vjp
def distance(x, y):
    """Mean of 1 - SSIM [...] of pictures [..., H, W, C], float32; differentiable in both."""
    return _call(x, y)[0]


def _call(x, y):
    if x.shape != y.shape or x.ndim < 3:
        raise ValueError(f"pictures are {x.shape} and {y.shape}; expected two equal [..., H, W, C]")
    batch, size = x.shape[:-3], x.shape[-3:]
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (batch, x.shape)]
    if native.resolve_backend() == "cuda":
        work = native.buffer_bytes("ssim", *size)
        results.append(jax.ShapeDtypeStruct((*batch, work), jnp.uint8))
    call = jax.ffi.ffi_call("fg3dgs_ssim", results, vmap_method="broadcast_all")
    return call(x, y)[:2]


def _forward(x, y):
    value, v_x = _call(x, y)
    return value, (x, y, v_x)


def _backward(residuals, v):
    x, y, v_x = residuals
    _, v_y = _call(y, x)  # symmetric; dropped where nobody asks for it
    v = v[..., None, None, None]
    return v * v_x, v * v_y


distance.defvjp(_forward, _backward)
