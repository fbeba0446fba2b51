"""A state dict of torch, handed out in Flax's layouts, every key exactly once."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np


class StateDict:
    """Hands out the arrays of a state dict; `finish` complains about those nobody asked for.

    A leading "module." (torch's DataParallel) is dropped from the keys, and so is
    `num_batches_tracked`, which counts the training steps of a batch norm and computes nothing.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], name: str):
        self._name = name  # of the network, for messages
        self._left = {
            key.removeprefix("module."): value
            for key, value in arrays.items()
            if not key.endswith("num_batches_tracked")
        }

    def take(self, key: str, shape: tuple[int, ...]):
        """The array under `key` as float32, which must have this shape.

        Raises:
          ValueError: there is none, or it has another shape.
        """
        if key not in self._left:
            raise ValueError(
                f"the state dict has nothing under {key!r}; expected {shape}, as in the checkpoint "
                f"of {self._name}"
            )
        array = np.asarray(self._left.pop(key))
        if array.shape != shape:
            raise ValueError(
                f"{key!r} has shape {array.shape}; expected {shape}, as in the checkpoint of "
                f"{self._name}"
            )
        return jnp.asarray(array, jnp.float32)

    def convolution(self, key: str, kernel: tuple[int, ...], channels: tuple[int, int]) -> dict:
        """[out, in, *kernel] -> {"kernel": [*kernel, in, out], "bias": [out]}."""
        weight = self.take(f"{key}.weight", (channels[1], channels[0]) + tuple(kernel))
        axes = tuple(range(2, weight.ndim)) + (1, 0)
        return {"kernel": weight.transpose(axes), "bias": self.take(f"{key}.bias", channels[1:])}

    def dense(self, key: str, channels: tuple[int, int]) -> dict:
        """[out, in] -> {"kernel": [in, out], "bias": [out]}."""
        return self.convolution(key, (), channels)

    def batch_norm(self, key: str, channels: int) -> tuple[dict, dict]:
        """A batch norm's parameters {"scale", "bias"} and its statistics {"mean", "var"}."""
        scale, bias, mean, var = (
            self.take(f"{key}.{leaf}", (channels,))
            for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        return {"scale": scale, "bias": bias}, {"mean": mean, "var": var}

    def finish(self) -> None:
        """Raises ValueError if an array was never taken."""
        if self._left:
            first, *others = sorted(self._left)
            raise ValueError(
                f"the state dict has {first!r}"
                + (f" and {len(others)} more keys" if others else "")
                + f" that {self._name} does not have; give that network's checkpoint alone"
            )
