"""Settings: every default once, typed, and the named settings that differ from them."""

from fg3dgs_jax.config.defaults import Config, Stage
from fg3dgs_jax.config.loading import load
from fg3dgs_jax.config.methods import get_config

__all__ = ["Config", "Stage", "get_config", "load"]
