"""A pytest plugin: what is built for CUDA is registered for JAX's CPU platform."""

from fg3dgs_jax import native

native.PLATFORMS["cuda"] = "cpu"
