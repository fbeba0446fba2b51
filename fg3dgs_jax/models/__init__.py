"""Batch -> Gaussians: pure Flax Linen modules, one file per idea of the paper."""
