"""From torch's state dicts to Flax's parameters, one layer at a time, with no key left over."""

import difflib
import fnmatch
from collections.abc import Sequence

import numpy as np

from fg3dgs_jax.weights.formats import pickles


class Keys:
    """Hands out a state dict's arrays in Flax's layouts; a missing or a leftover key is an error.

    with Keys(checkpoints.load(path), ignore=["*.position_ids"]) as keys:
        params = {"conv": keys.conv("features.0"), "head": keys.linear("fc")}

    Leaving the block without an error checks that every key was read. `num_batches_tracked` of
    a batch norm never needs to be.

    Args:
      arrays: key -> array in torch's layout.
      ignore: shell patterns of keys that may stay unread; an absent one is no error.
      source: what the messages call the dict.
    """

    def __init__(self, arrays, ignore=(), source="the checkpoint"):
        parallel = all(key.startswith("module.") for key in arrays)  # torch's DataParallel
        self._arrays = {k.removeprefix("module.") if parallel else k: v for k, v in arrays.items()}
        self._source = source
        self._ignore, self._read = (*ignore, "*num_batches_tracked"), set()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.done()

    def __contains__(self, key):
        return key in self._arrays

    def done(self) -> None:
        """Raises pickles.CheckpointError with the names of the keys that nobody read."""
        left = [
            key
            for key in self._arrays
            if key not in self._read
            and not any(fnmatch.fnmatchcase(key, pattern) for pattern in self._ignore)
        ]
        if left:
            raise pickles.CheckpointError(
                f"{self._source} has {len(left)} keys that this network does not know: "
                f"{pickles.names(left)}; expected a checkpoint of this very network"
            )

    def take(self, key: str, shape: Sequence[int] | None = None) -> np.ndarray:
        """The array as float32, in torch's layout; `shape`, where given, must be its own."""
        if key not in self._arrays:
            near = difflib.get_close_matches(key, self._arrays, 3, 0.5)
            raise pickles.CheckpointError(
                f"{self._source} has nothing under {key!r}; expected a checkpoint of this very "
                f"network; nearest keys: {pickles.names(near)}"
            )
        array = np.asarray(self._arrays[key])
        if shape is not None and array.shape != tuple(shape):
            raise pickles.CheckpointError(
                f"{self._source} has {array.shape} under {key!r}; expected {tuple(shape)}"
            )
        self._read.add(key)
        return array.astype(np.float32)

    def linear(self, name: str, bias: bool = True, shape: Sequence[int] | None = None) -> dict:
        """Linear [out, in] -> Dense params, kernel [in, out]; `shape`: torch's, as in `take`."""
        return {"kernel": self._ranked(f"{name}.weight", 2, shape=shape).T} | self._bias(name, bias)

    def conv(self, name: str, bias: bool = True, shape: Sequence[int] | None = None) -> dict:
        """Conv1d/2d/3d [out, in / groups, *k] -> Conv params, kernel [*k, in / groups, out]."""
        kernel = self._ranked(f"{name}.weight", 3, 4, 5, shape=shape)
        return {"kernel": _conv_kernel(kernel)} | self._bias(name, bias)

    def conv_transpose(self, name: str, bias: bool = True) -> dict:
        """ConvTranspose1d/2d/3d [in, out, *k], one group -> Flax ConvTranspose params.

        Kernel [*k, in, out], turned around, since torch's is a convolution's gradient and Flax's
        (transpose_kernel=False) a convolution. torch's padding p and output_padding q are then
        Flax's padding (k - 1 - p, k - 1 - p + q).
        """
        kernel = self._ranked(f"{name}.weight", 3, 4, 5)
        axes = tuple(range(2, kernel.ndim))
        kernel = np.flip(kernel.transpose(*axes, 0, 1), tuple(range(len(axes))))
        return {"kernel": np.ascontiguousarray(kernel)} | self._bias(name, bias)

    def weight_norm_conv(self, name: str, bias: bool = True) -> dict:
        """A weight-normed Conv1d/2d/3d -> ordinary Conv params: g v / |v|, the norm over g's ones.

        Both spellings: `weight_g`, `weight_v` and `parametrizations.weight.original0`, `1`.
        """
        new = f"{name}.parametrizations.weight.original"
        g, v = (
            (f"{new}0", f"{new}1")
            if f"{new}0" in self
            else (f"{name}.weight_g", f"{name}.weight_v")
        )
        magnitude, direction = self.take(g), self._ranked(v, 3, 4, 5)
        if magnitude.ndim not in (0, direction.ndim):
            raise pickles.CheckpointError(
                f"{self._source} has {magnitude.shape} under {g!r} for {direction.shape} under "
                f"{v!r}; expected as many axes"
            )
        axes = tuple(
            i for i in range(direction.ndim) if magnitude.ndim == 0 or magnitude.shape[i] == 1
        )
        norm = np.sqrt(np.sum(direction.astype(np.float64) ** 2, axes, keepdims=True))
        kernel = (magnitude * (direction / norm)).astype(np.float32)
        return {"kernel": _conv_kernel(kernel)} | self._bias(name, bias)

    def norm(self, name: str) -> dict:
        """LayerNorm or GroupNorm -> {"scale", "bias"}."""
        return {"scale": self.take(f"{name}.weight"), "bias": self.take(f"{name}.bias")}

    def batch_norm(self, name: str, affine: bool = True) -> tuple[dict, dict]:
        """BatchNorm -> (params {"scale", "bias"}, batch_stats {"mean", "var"})."""
        stats = {"mean": self.take(f"{name}.running_mean"), "var": self.take(f"{name}.running_var")}
        return self.norm(name) if affine else {}, stats

    def embedding(self, name: str) -> dict:
        """Embedding [rows, width] -> {"embedding"}, the same."""
        return {"embedding": self._ranked(f"{name}.weight", 2)}

    def lstm(self, name: str, layer: int = 0, reverse: bool = False, bias: bool = True) -> dict:
        """One direction of one layer of an LSTM -> params of Flax's (Optimized)LSTMCell.

        torch stacks the gates i, f, g, o in rows; its two biases only ever appear as their sum,
        which is the bias of Flax's hidden half.
        """
        end = f"l{layer}" + "_reverse" * reverse
        inputs = np.split(self._ranked(f"{name}.weight_ih_{end}", 2), 4)
        hiddens = np.split(self._ranked(f"{name}.weight_hh_{end}", 2), 4)
        total = np.zeros(4 * len(hiddens[0]), np.float32)
        if bias:
            total = self.take(f"{name}.bias_ih_{end}") + self.take(f"{name}.bias_hh_{end}")
        params = {}
        for gate, w, u, b in zip("ifgo", inputs, hiddens, np.split(total, 4), strict=True):
            params[f"i{gate}"] = {"kernel": w.T}
            params[f"h{gate}"] = {"kernel": u.T, "bias": b}
        return params

    def _bias(self, name, bias):
        return {"bias": self._ranked(f"{name}.bias", 1)} if bias else {}

    def _ranked(self, key, *ranks, shape=None):
        array = self.take(key, shape)
        if array.ndim not in ranks:
            raise pickles.CheckpointError(
                f"{self._source} has {array.shape} under {key!r}; expected "
                f"{' or '.join(map(str, ranks))} axes"
            )
        return array


def _conv_kernel(weight):
    """[out, in, *k] -> [*k, in, out]."""
    return weight.transpose(*range(2, weight.ndim), 1, 0)
