"""DeepSpeech 0.1.0: sound -> logits of 29 letters, 50 rows a second -> a window per video frame.

Three dense layers, a bidirectional LSTM, two dense layers, on the MFCC of 0.4 s around each row.
Network and constants are those of Mozilla's frozen graph, the nine steps from samples to windows
those of the feature scripts of AD-NeRF and its successors, one function each where it does more
than index. Later DeepSpeech releases have another network: their features do not serve here.
"""

import os
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.experts.audio.wav2vec2_features import logit_windows
from fg3dgs_jax.media import mel
from fg3dgs_jax.weights import variables as variables_lib
from fg3dgs_jax.weights.formats import tf_graph
from fg3dgs_jax.weights.keys import Keys

LETTERS = 29  # space, a to z, apostrophe, blank
SAMPLES_PER_ROW = 320  # 50 rows a second at 16 kHz: two per video frame
COEFFICIENTS = 26
CONTEXT = 9  # rows before and after
INPUTS = COEFFICIENTS * (2 * CONTEXT + 1)  # 494
CLIP = 20.0  # of the dense layers' ReLU
FORGET_BIAS = 1.0
_CHUNK = 250  # rows a call: one program for every length, memory that does not grow with it
_PRECISION = jax.lax.Precision.HIGHEST
_MFCC_STRIDE = 2  # of 100 rows a second
_DENSE = (1, 2, 3, 5, 6)
_DIRECTIONS = ("forward", "backward")

# Published inputs and outputs of each matrix; where a name is not found, a shape that only one
# constant has will do.
WIDTHS = {
    "h1": (INPUTS, 2048),
    "h2": (2048, 2048),
    "h3": (2048, 4096),
    "h5": (4096, 2048),
    "h6": (2048, LETTERS),
}
# The graph's node names; those of the LSTM depend on the TensorFlow that wrote it.
_NAMES = {f"{kind}{i}": rf"(.*/)?{kind}{i}" for i in _DENSE for kind in "hb"}
for _direction, _scope in zip(_DIRECTIONS, ("fw", "bw"), strict=True):
    _NAMES[f"{_direction}/kernel"] = rf"(.*/)?{_scope}/(.*/)?(kernel|weights)"
    _NAMES[f"{_direction}/bias"] = rf"(.*/)?{_scope}/(.*/)?(bias|biases)"


class Lstm(nn.Module):
    """One direction: rows [T, C] and a carry -> rows [T, hidden] and the carry after the last.

    TensorFlow's BasicLSTMCell: kernel [C + hidden, 4 hidden], column blocks i, j, f, o;
    c' = sigmoid(f + 1) c + sigmoid(i) tanh(j), h' = sigmoid(o) tanh(c').
    """

    hidden: int
    reverse: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, carry: tuple[jax.Array, jax.Array], valid: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Runs over the rows.

        Args:
          x: [T, C].
          carry: (cell, output), [hidden] each.
          valid: bool [T]; rows that are not leave the carry as it is.

        Returns:
          [T, hidden], and the carry after the last row.
        """
        inputs, width = x.shape[-1], 4 * self.hidden
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (inputs + self.hidden, width))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        # Outside the loop: all rows' product with the input, and the cut, which copies 64 MB.
        projected = jnp.dot(x, kernel[:inputs], precision=_PRECISION) + bias
        recurrent = kernel[inputs:]

        def step(carry, row):
            cell, out = carry
            gates, alive = row
            gates = gates + jnp.dot(out, recurrent, precision=_PRECISION)
            i, j, f, o = jnp.split(gates, 4)
            after = nn.sigmoid(f + FORGET_BIAS) * cell + nn.sigmoid(i) * jnp.tanh(j)
            now = nn.sigmoid(o) * jnp.tanh(after)
            carry = jnp.where(alive, after, cell), jnp.where(alive, now, out)
            return carry, carry[1]

        carry, rows = jax.lax.scan(step, carry, (projected, valid), reverse=self.reverse)
        return rows, carry


class DeepSpeech(nn.Module):
    """Standardised stacked MFCC [T, 494] -> logits [T, letters], the whole sound at once.

    `before`, the two `Lstm` and `after` can also be applied each by itself.
    """

    widths: tuple[int, int, int, int, int]  # outputs of the dense layers 1, 2, 3, 5, 6
    hidden: int

    def setup(self) -> None:
        """Names the layers, which `convert` fills."""
        self.dense = {
            str(i): nn.Dense(width, precision=_PRECISION)
            for i, width in zip(_DENSE, self.widths, strict=True)
        }
        self.forward = Lstm(self.hidden, reverse=False)
        self.backward = Lstm(self.hidden, reverse=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Standardised stacked MFCC [T, 494] -> logits [T, letters]."""
        x, valid = self.before(x), jnp.ones(len(x), bool)
        start = jnp.zeros(self.hidden), jnp.zeros(self.hidden)
        return self.after(self.forward(x, start, valid)[0], self.backward(x, start, valid)[0])

    def before(self, x: jax.Array) -> jax.Array:
        """[T, 494] -> what the LSTM hears."""
        for i in "123":
            x = _clipped(self.dense[i](x))
        return x

    def after(self, forward: jax.Array, backward: jax.Array) -> jax.Array:
        """Both directions' rows [T, hidden] -> logits [T, letters]."""
        return self.dense["6"](_clipped(self.dense["5"](jnp.concatenate([forward, backward], -1))))


def _clipped(x):
    return jnp.clip(x, 0.0, CLIP)


def convert(state: dict[str, np.ndarray]) -> dict:
    """The frozen graph's float constants, node name -> array -> {"params"}.

    Constants that are not weights but one number many times (an initial state) may be there too.

    Raises:
      ValueError: a constant is missing or unknown, or the shapes do not fit together.
    """
    named = _canonical(state)
    dense, lstm = {}, {}
    with Keys(named, source="the DeepSpeech graph") as keys:
        inputs = INPUTS
        for i in _DENSE:
            if i == 5:
                hidden = keys.take("forward/bias").size // 4
                shape = (inputs + hidden, 4 * hidden)
                for direction in _DIRECTIONS:
                    lstm[direction] = {
                        "kernel": keys.take(f"{direction}/kernel", shape),
                        "bias": keys.take(f"{direction}/bias", shape[1:]),
                    }
                inputs = 2 * hidden
            outputs = keys.take(f"b{i}").size
            kernel = keys.take(f"h{i}", (inputs, outputs))
            dense[f"dense_{i}"] = {"kernel": kernel, "bias": keys.take(f"b{i}", (outputs,))}
            inputs = outputs
    return {"params": dense | lstm}


def _canonical(state):
    """The same arrays under the names of `_NAMES`; those that none fits keep their own."""
    named, left = {}, dict(state)
    for ours, pattern in _NAMES.items():
        matches = [name for name in left if re.fullmatch(pattern, name)]
        if len(matches) == 1:
            named[ours] = left.pop(matches[0])
    for ours, shape in WIDTHS.items():
        matches = [name for name in left if left[name].shape == shape]
        if ours not in named and len(matches) == 1:
            named[ours] = left.pop(matches[0])
    weights = {name: array for name, array in left.items() if array.size and np.ptp(array) > 0}
    return named | weights


def load(path: os.PathLike | str) -> dict:
    """Variables from the published `.pb`, a zip that holds it, or our converted `.npz`.

    Raises:
      ValueError: the file is damaged or is not of this network.
    """
    if pathlib.Path(path).suffix == ".npz":
        return variables_lib.load(path, convert)
    return convert(tf_graph.load(path))


def features(variables: dict, samples: np.ndarray, num_frames: int | None = None) -> np.ndarray:
    """16 kHz mono samples [n], int16 or float in [-1, 1] -> float32 [N, 16, 29], one per frame.

    Row i holds the logits 2i - 8 to 2i + 7 of 50 a second, zeros outside the sound. N is
    `num_frames`, where rows after the sound's end are windows that reach less and less of it, or
    as published ceil((M - 1) / 2) for M = round(50 seconds): 212 885 samples give 332.
    """
    samples = mel.as_int16(samples)
    rows = published_rows(encode(variables, samples), len(samples))
    num_frames = -(-len(rows) // 2) if num_frames is None else num_frames
    return logit_windows(rows, num_frames)


def encode(variables: dict, samples: np.ndarray) -> np.ndarray:
    """int16 samples [n], 16 kHz -> logits float32 [T, 29], row k centred on sample 320 k + 200."""
    params = variables["params"]
    if not len(samples):
        return np.zeros((0, params["dense_6"]["bias"].size), np.float32)
    return _run(params, network_input(samples))


def network_input(samples: np.ndarray) -> np.ndarray:
    """int16 samples [n > 0] -> float32 [T, 494], a row for every 20 ms.

    26 MFCC of every second frame; 9 frames before and after beside each, oldest first, zeros
    outside the sound; one mean and one standard deviation of the whole, zeros included, removed.
    """
    rows = mel.mfcc(samples, COEFFICIENTS)[::_MFCC_STRIDE]
    padded = np.pad(rows, ((CONTEXT, CONTEXT), (0, 0)))
    stacked = np.concatenate([padded[k : k + len(rows)] for k in range(2 * CONTEXT + 1)], 1)
    return ((stacked - stacked.mean()) / max(stacked.std(), 1e-12)).astype(np.float32)


def published_rows(rows: np.ndarray, num_samples: int) -> np.ndarray:
    """Network rows [T, D] -> [max(0, M - 1), D], M = round(50 seconds).

    The scripts interpolate from one 50 Hz grid to another, which copies, the last row repeated;
    then their windows of one row leave out the last.
    """
    count = round(num_samples / SAMPLES_PER_ROW)
    index = np.minimum(np.arange(max(0, count - 1)), len(rows) - 1)
    return rows[index]


def _run(params, x):
    """[T, 494] -> [T, letters], in pieces of `_CHUNK` rows through which the LSTMs are carried."""
    params = jax.device_put(params)  # once, not with every piece
    total = len(x)
    pieces = -(-total // _CHUNK)
    x = np.pad(x, ((0, pieces * _CHUNK - total), (0, 0))).reshape(pieces, _CHUNK, -1)
    valid = (np.arange(pieces * _CHUNK) < total).reshape(pieces, _CHUNK)
    inputs = [_before(params, piece) for piece in x]
    outs = {}
    for direction in _DIRECTIONS:
        carry = (jnp.zeros(params[direction]["bias"].size // 4),) * 2
        order = range(pieces) if direction == "forward" else reversed(range(pieces))
        outs[direction] = {}
        for k in order:
            rows, carry = _recur(params, direction, inputs[k], carry, valid[k])
            outs[direction][k] = rows
    logits = [np.asarray(_after(params, *(outs[d][k] for d in _DIRECTIONS))) for k in range(pieces)]
    return np.concatenate(logits)[:total]


def network(params: dict) -> DeepSpeech:
    """The module that the parameters are of."""
    widths = tuple(params[f"dense_{i}"]["bias"].size for i in _DENSE)
    return DeepSpeech(widths, params["forward"]["bias"].size // 4)


@jax.jit
def _before(params, x):
    return network(params).apply({"params": params}, x, method="before")


@jax.jit
def _after(params, forward, backward):
    return network(params).apply({"params": params}, forward, backward, method="after")


def _recur(params, direction, x, carry, valid):
    return _lstm({"params": params[direction]}, x, carry, valid, reverse=direction == "backward")


def _lstm_of(variables, x, carry, valid, reverse):
    hidden = variables["params"]["bias"].size // 4
    return Lstm(hidden, reverse).apply(variables, x, carry, valid)


_lstm = jax.jit(_lstm_of, static_argnames="reverse")
