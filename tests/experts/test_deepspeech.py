"""DeepSpeech: a graph written byte by byte here, torch's and NumPy's LSTM, the windows by loops."""

import math
import struct
import zipfile

import jax
import numpy as np
import pytest

from fg3dgs_jax.experts.audio import deepspeech
from fg3dgs_jax.media import mel
from fg3dgs_jax.weights import variables as variables_lib
from fg3dgs_jax.weights.formats import tf_graph

_WIDTHS, _HIDDEN = (24, 20, 28, 18, 29), 12
_FW = "bidirectional_rnn/fw/basic_lstm_cell"
_BW = "bidirectional_rnn/bw/basic_lstm_cell"


def _varint(value):
    out = bytearray()
    while True:
        out.append(value & 127 | (128 if value > 127 else 0))
        value >>= 7
        if not value:
            return bytes(out)


def _field(number, value):
    """A field of a protocol buffer: a number, or bytes, text or a message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _const(name, array, dtype=1):
    array = np.asarray(array)
    dims = b"".join(_field(2, _field(1, size)) for size in array.shape)
    tensor = _field(1, dtype) + _field(2, dims) + _field(4, array.tobytes())
    kind = _field(5, _field(1, "dtype") + _field(2, _field(6, dtype)))
    value = _field(5, _field(1, "value") + _field(2, _field(8, tensor)))
    return _field(1, _field(1, name) + _field(2, "Const") + kind + value)


def _graph(state):
    """What a frozen graph has around its weights: other nodes, numbers, the version."""
    other = _field(1, _field(1, "input_node") + _field(2, "Placeholder"))
    read = _field(1, _field(1, "h1/read") + _field(2, "Identity") + _field(3, "h1"))
    axis = _const("concat/axis", np.array([1, 2], np.int32), dtype=3)
    clip = _const("Minimum/y", np.float32(20))
    zeros = _const("initial_state", np.zeros((1, _HIDDEN), np.float32))
    zeros += _const("nothing", np.zeros((0, 3), np.float32))
    fixed = _varint(9 << 3 | 1) + b"12345678" + _varint(10 << 3 | 5) + b"1234"
    nodes = [_const(name, array) for name, array in state.items()]
    return b"".join([other, axis, clip, *nodes, read, zeros, _field(4, _field(1, 24)), fixed])


def _random_state(seed=0):
    """The graph's constants under its own names, at small widths."""
    rng = np.random.default_rng(seed)
    state, inputs = {}, deepspeech.INPUTS

    def matrix(rows, columns):
        return rng.normal(0, 1.5 / rows**0.5, (rows, columns)).astype(np.float32)

    def bias(size):
        return rng.normal(0, 0.3, size).astype(np.float32)

    for i, width in zip((1, 2, 3, 5, 6), _WIDTHS, strict=True):
        if i == 5:
            for scope in (_FW, _BW):
                state[f"{scope}/kernel"] = matrix(inputs + _HIDDEN, 4 * _HIDDEN)
                state[f"{scope}/bias"] = bias(4 * _HIDDEN)
            inputs = 2 * _HIDDEN
        state[f"h{i}"], state[f"b{i}"] = matrix(inputs, width), bias(width)
        inputs = width
    return state


def _sound(seconds, seed=0):
    rng, time = np.random.default_rng(seed), np.arange(int(seconds * 16_000)) / 16_000
    voice = np.sin(2 * np.pi * (200 * time + 300 * time**2)) + 0.3 * rng.normal(size=len(time))
    return (6000 * voice * np.sin(np.pi * 3 * time) ** 2).astype(np.int16)


@pytest.fixture(scope="module")
def state():
    return _random_state()


@pytest.fixture(scope="module")
def graph(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("deepspeech") / "graph.pb"
    path.write_bytes(_graph(state))
    return path


def _dense(state, i, x):
    return np.clip(x @ state[f"h{i}"] + state[f"b{i}"], 0, 20)


def _numpy_lstm(kernel, bias, x):
    cell, out, rows = np.zeros(_HIDDEN), np.zeros(_HIDDEN), []

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    for row in x:
        i, j, f, o = np.split(np.concatenate([row, out]) @ kernel + bias, 4)
        cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(j)
        out = sigmoid(o) * np.tanh(cell)
        rows.append(out)
    return np.array(rows)


def _numpy_network(state, x):
    x = x.astype(np.float64)
    for i in (1, 2, 3):
        x = _dense(state, i, x)
    forward = _numpy_lstm(state[f"{_FW}/kernel"], state[f"{_FW}/bias"], x)
    backward = _numpy_lstm(state[f"{_BW}/kernel"], state[f"{_BW}/bias"], x[::-1])[::-1]
    x = _dense(state, 5, np.concatenate([forward, backward], 1))
    return x @ state["h6"] + state["b6"]


def _torch_lstm(state):
    """torch's bidirectional LSTM: its blocks are i, f, j, o, and it has no forget bias of 1."""
    torch = pytest.importorskip("torch")
    inputs = _WIDTHS[2]
    lstm = torch.nn.LSTM(inputs, _HIDDEN, bidirectional=True, dtype=torch.float64)
    with torch.no_grad():
        for scope, end in ((_FW, ""), (_BW, "_reverse")):
            i, j, f, o = np.split(state[f"{scope}/kernel"].astype(np.float64), 4, 1)
            bi, bj, bf, bo = np.split(state[f"{scope}/bias"].astype(np.float64), 4)
            kernel = torch.tensor(np.concatenate([i, f, j, o], 1).T)
            getattr(lstm, f"weight_ih_l0{end}").copy_(kernel[:, :inputs])
            getattr(lstm, f"weight_hh_l0{end}").copy_(kernel[:, inputs:])
            getattr(lstm, f"bias_ih_l0{end}").copy_(torch.tensor(np.r_[bi, bf + 1, bj, bo]))
            getattr(lstm, f"bias_hh_l0{end}").zero_()
    return lstm


def _input(rows, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, deepspeech.INPUTS)).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 37, 83])
def test_network_equals_numpy_whatever_the_length(state, graph, monkeypatch, rows):
    monkeypatch.setattr(deepspeech, "_CHUNK", 37)  # one piece, two, or three of which one is short
    expected = _numpy_network(state, _input(rows))
    found = deepspeech._run(deepspeech.load(graph)["params"], _input(rows))
    assert found.shape == (rows, 29) and found.dtype == np.float32
    assert rows == 1 or expected.std(0).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_lstm_equals_torch(state, graph):
    torch = pytest.importorskip("torch")
    params = deepspeech.load(graph)["params"]
    x = np.random.default_rng(2).random((41, _WIDTHS[2])).astype(np.float32)
    expected = _torch_lstm(state)(torch.tensor(x, dtype=torch.float64))[0].detach().numpy()
    start, valid = (np.zeros(_HIDDEN, np.float32),) * 2, np.ones(41, bool)
    both = [
        deepspeech._recur(params, direction, x, start, valid)[0]
        for direction in ("forward", "backward")
    ]
    assert expected.std(0).min() > 1e-2
    np.testing.assert_allclose(np.concatenate(both, 1), expected, atol=1e-6)


def test_the_module_as_a_whole_equals_its_pieces(graph):
    params = deepspeech.load(graph)["params"]
    whole = jax.jit(deepspeech.network(params).apply)({"params": params}, _input(30))
    np.testing.assert_allclose(deepspeech._run(params, _input(30)), whole, atol=1e-5)


def test_published_sizes():
    """122 732 573 parameters, each of which the converter takes from one constant."""
    network = deepspeech.DeepSpeech((2048, 2048, 4096, 2048, 29), 2048)
    shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((2, 494), np.float32))
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == 122_732_573
    params = shapes["params"]
    names = {f"dense_{i}/kernel": f"h{i}" for i in (1, 2, 3, 5, 6)}
    names |= {f"dense_{i}/bias": f"b{i}" for i in (1, 2, 3, 5, 6)}
    for scope, direction in (("fw", "forward"), ("bw", "backward")):
        # The older spelling of TensorFlow 1.0.
        names[f"{direction}/kernel"] = f"rnn/{scope}/{scope}/basic_lstm_cell/weights"
        names[f"{direction}/bias"] = f"rnn/{scope}/{scope}/basic_lstm_cell/biases"
    # Arrays of the full shapes that take no memory; not constant, or they would count as fills.
    ramp = np.arange(8192, dtype=np.float32)
    state = {
        names[path]: np.broadcast_to(ramp[: leaf.shape[-1]], leaf.shape)
        for path, leaf in variables_lib.flatten(jax.tree.map(_Leaf, params)).items()
    }
    canonical = deepspeech._canonical(state)
    assert set(canonical) == set(deepspeech._NAMES)
    odd = dict(state)
    odd["first"], odd["third"] = odd.pop("h1"), odd.pop("h3")  # told by their shapes
    assert set(deepspeech._canonical(odd)) == set(deepspeech._NAMES)


class _Leaf(np.ndarray):
    """A shape that stands where an array does."""

    def __new__(cls, leaf):
        return np.broadcast_to(np.float32(0), leaf.shape).view(cls)


def test_a_zip_and_our_own_file_give_the_same(graph, tmp_path):
    expected = deepspeech.load(graph)
    with zipfile.ZipFile(tmp_path / "graph.pb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(graph, "deepspeech.pb")
    jax.tree.map(
        np.testing.assert_array_equal, deepspeech.load(tmp_path / "graph.pb.zip"), expected
    )
    variables_lib.save(tmp_path / "ours.npz", expected)
    jax.tree.map(np.testing.assert_array_equal, deepspeech.load(tmp_path / "ours.npz"), expected)


def test_other_graphs_are_refused(state):
    with pytest.raises(ValueError, match="nothing under 'h5'"):
        deepspeech.convert({k: v for k, v in state.items() if k != "h5"})
    with pytest.raises(ValueError, match="forward/bias"):
        deepspeech.convert({k: v for k, v in state.items() if k != f"{_FW}/bias"})
    with pytest.raises(ValueError, match="'peephole'"):
        deepspeech.convert(state | {"peephole": np.arange(3.0)})
    with pytest.raises(ValueError, match=r"\(20, 28\) under 'h3'; expected \(20, 27\)"):
        deepspeech.convert(state | {"b3": state["b3"][:27]})


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.5, 0.9, 0.9999])
def test_a_graph_cut_short_is_one_line(graph, tmp_path, share):
    whole = graph.read_bytes()
    (tmp_path / "cut.pb").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"cut\.pb") as caught:
        deepspeech.load(tmp_path / "cut.pb")
    assert "\n" not in str(caught.value)


def test_garbage_is_one_line(graph, tmp_path):
    """Random bytes, and the true graph with bytes changed, never end in another exception."""
    rng, path = np.random.default_rng(0), tmp_path / "garbage.pb"
    head = _const("a", np.ones((2, 3), np.float32))
    for trial in range(400):
        content = bytearray(rng.bytes(60) if trial < 100 else head)
        if trial >= 100:
            for at in rng.integers(0, len(content), 3):
                content[at] = rng.integers(256)
        path.write_bytes(content)
        try:
            arrays = tf_graph.load(path)
        except ValueError as error:
            assert "\n" not in str(error) and "garbage.pb" in str(error)
        else:
            assert all(a.dtype == np.float32 and a.ndim for a in arrays.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_field(1, _field(1, "a") + _field(2, "Const"))[:-1], "cut short"),
        (b"\x0b", "wire type 3"),
        (b"\xff" * 11, "more than ten bytes"),
        (_const("a", np.ones(2, np.float32)) * 2, "two nodes of the name 'a'"),
        (_field(1, _field(1, 7)), "number where a message"),
        (_field(1, _field(1, b"\xff\xfe")), "no text"),
        (_field(2, b"") * 3, "no float constants"),
        (struct.pack("<2I", 0x04034B50, 0), "no zip archive"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, message):
    (tmp_path / "bad.pb").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        tf_graph.load(tmp_path / "bad.pb")


def test_a_shape_that_the_content_does_not_fill_is_refused(tmp_path):
    dims = _field(2, _field(1, 1 << 62)) * 2
    tensor = _field(1, 1) + _field(2, dims) + _field(4, b"\0" * 16)
    node = _field(1, "a") + _field(2, "Const")
    node += _field(5, _field(1, "value") + _field(2, _field(8, tensor)))
    (tmp_path / "bad.pb").write_bytes(_field(1, node))
    with pytest.raises(ValueError, match="16 bytes for 'a'"):
        tf_graph.load(tmp_path / "bad.pb")


def test_stacked_input_equals_a_slow_loop():
    samples = _sound(0.5)
    rows = mel.mfcc(samples, 26)[::2]
    expected = np.zeros((len(rows), 19, 26))
    for t in range(len(rows)):
        for k in range(19):
            if 0 <= t + k - 9 < len(rows):
                expected[t, k] = rows[t + k - 9]
    expected = expected.reshape(len(rows), 494)
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(deepspeech.network_input(samples), expected, atol=1e-5)


@pytest.mark.parametrize("num_samples", [0, 100, 640, 3200, 16_000, 16_321, 212_885])
def test_windows_equal_the_published_loops(graph, monkeypatch, num_samples):
    """Steps 7 to 9 as the scripts have them: interpolate, windows of 1, windows of 16."""
    network_rows = 0 if not num_samples else -(-(1 + max(0, -(-(num_samples - 400) // 160))) // 2)
    logits = np.random.default_rng(1).normal(size=(network_rows, 29)).astype(np.float32)
    monkeypatch.setattr(deepspeech, "encode", lambda variables, samples: logits)
    found = deepspeech.features({}, np.ones(num_samples, np.int16))
    count = round(num_samples / 16_000 * 50)
    times = np.arange(network_rows) / 50, np.arange(count) / 50
    rows = np.zeros((count, 29))
    if count:
        rows = np.stack([np.interp(times[1], times[0], c) for c in logits.T], 1)
    rows = np.concatenate([rows[i : i + 1] for i in range(0, len(rows) - 1, 1)] or [rows[:0]])
    padded = np.pad(rows, ((8, 8), (0, 0)))
    expected = [padded[i : i + 16] for i in range(0, len(padded) - 16, 2)]
    assert found.shape == (len(expected), 16, 29) and found.dtype == np.float32
    if expected:
        np.testing.assert_allclose(found, expected, atol=1e-6)
    if num_samples == 212_885:
        assert network_rows == 665 and len(found) == 332
    frames = len(expected) + 12
    longer = deepspeech.features({}, np.ones(num_samples, np.int16), num_frames=frames)
    assert len(longer) == frames and not longer[-4:].any()
    np.testing.assert_array_equal(longer[: len(found)], found)


def test_features_of_a_sound(graph):
    variables_ = deepspeech.load(graph)
    samples = _sound(1.2)
    found = deepspeech.features(variables_, samples, num_frames=30)
    assert found.shape == (30, 16, 29) and np.isfinite(found).all() and found.std() > 0.05
    np.testing.assert_array_equal(
        deepspeech.features(variables_, samples / np.float32(32768), num_frames=30), found
    )
    assert not deepspeech.features(variables_, samples[:0], num_frames=2).any()
