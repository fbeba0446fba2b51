"""Custom calls of the train step, each beside the JAX that defines it."""
