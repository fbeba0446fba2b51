"""Losses, density control, optimizers, stages, the step, checkpoints."""
