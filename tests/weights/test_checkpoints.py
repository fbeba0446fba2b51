"""Checkpoints that torch wrote; hostile and broken files; Flax layouts against torch's layers."""

import collections
import copy
import copyreg
import functools
import io
import itertools
import json
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import zipfile

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.weights import keys
from fg3dgs_jax.weights.formats import checkpoints, pickles

torch = pytest.importorskip("torch")
CONTAINERS = ("zip", "legacy")
DTYPES = list(pickles.TORCH_DTYPES)


def _save(path, value, container="zip", **options):
    torch.save(value, path, _use_new_zipfile_serialization=container == "zip", **options)
    return path


def _bits(tensor):
    """dtype name, shape and raw bytes of a tensor, also of dtypes that NumPy lacks."""
    tensor = tensor.detach().contiguous()
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), raw


def _assert_same(arrays, tensors):
    assert list(arrays) == list(tensors)
    for key, tensor in tensors.items():
        array = arrays[key]
        assert (array.dtype.name, array.shape, array.tobytes()) == _bits(tensor), key
        assert not array.flags.writeable


def _random(dtype, shape, seed=0):
    """Every bit pattern may come up; what is not a bool keeps its own NaNs."""
    dtype = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, 256, (*shape, dtype.itemsize), dtype=torch.uint8, generator=generator)
    return raw[..., 0] > 127 if dtype == torch.bool else raw.view(dtype)[..., 0].clone()


# Whole files


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_dtype_shape_and_window(tmp_path, container, protocol):
    tensors = {dtype: _random(dtype, (3, 5)) for dtype in DTYPES}
    base = torch.arange(60.0).reshape(3, 4, 5)
    tensors |= {
        "scalar": torch.tensor(3.5),
        "scalar of a row": base[1, 2, 3],
        "empty": torch.zeros(0, 4),
        "base": base,
        "transposed": base.permute(2, 0, 1),
        "stepped": base[::2, 1:, ::3],
        "expanded": base[:1, :1].expand(6, 7, 5),
        "rows": base[1:],
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "bool window": _random("bool", (9,))[2:7:2],
        "ключ / key\n": torch.ones(1),
    }
    path = _save(tmp_path / "file.bin", tensors, container, pickle_protocol=protocol)
    _assert_same(checkpoints.load(path), tensors)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_modules_state_dict(tmp_path, container):
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.LSTM(4, 5, bidirectional=True)
    )
    path = _save(tmp_path / "file.pth", module.state_dict(), container)
    _assert_same(checkpoints.load(path), module.state_dict())


@pytest.mark.parametrize("container", CONTAINERS)
def test_tied_weights_share_memory(tmp_path, container):
    weight = torch.randn(4, 6)
    path = _save(tmp_path / "file.pt", {"a": weight, "b": weight.T, "c": weight + 0}, container)
    arrays = checkpoints.load(path)
    assert np.shares_memory(arrays["a"], arrays["b"])
    assert not np.shares_memory(arrays["a"], arrays["c"])


@pytest.mark.parametrize("container", CONTAINERS)
def test_training_checkpoints_roots_and_prefixes(tmp_path, container):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    wrapped = {f"module.{key}": value for key, value in model.state_dict().items()}
    content = {
        "state_dict": collections.OrderedDict(wrapped),
        "optimizer": optimizer.state_dict(),
        "ema": {"net": model.state_dict(), "ring": [torch.zeros(1), (torch.ones(2), "x")]},
        "epoch": 7,
        "best": np.float64(0.5),
        "size": torch.Size([2]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "tags": {"a", 1},
        "nothing": None,
    }
    path = _save(tmp_path / "file.pth", content, container)
    plain = dict(model.state_dict())
    _assert_same(checkpoints.load(path), plain)
    _assert_same(checkpoints.load(path, ("ema", "net")), plain)
    assert set(checkpoints.load(path, "ema")) == {
        "net.weight",
        "net.bias",
        "ring.0",
        "ring.1.0",
    }
    moments = checkpoints.load(path, ["optimizer", "state"])
    assert np.array_equal(moments["0.exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    for root, message in (("net", "expected one of its keys: 'state_dict'"), ("epoch", "single")):
        with pytest.raises(checkpoints.CheckpointError, match=message):
            checkpoints.load(path, root)
    with pytest.raises(checkpoints.CheckpointError, match="no dict"):
        checkpoints.load(path, ("epoch", "x"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no tensors"),
        ({"epoch": 3}, "no tensors"),
        ([1, "x"], "no tensors"),
        (3, "single value"),
        (torch.ones(2), "single value"),
        ({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}, "flatten to the key 'a.b'"),
        ({(1, 2): torch.ones(1)}, "dict key of type tuple"),
        ({1 << 50: torch.ones(1)}, "dict key of type int"),
        ({"a": torch.ones(2, dtype=torch.complex64).conj()}, "conjugated"),
        ({"a": torch.ones(2).to_sparse()}, "global 'torch._utils._rebuild_sparse_tensor'"),
        ({"a": torch.nn.Linear(1, 1)}, "global 'torch.nn.modules.linear.Linear'"),
    ],
)
@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_no_state_dict(tmp_path, content, message, container):
    path = _save(tmp_path / "file.pth", content, container)
    _refused(path, message)


def _refused(path, message=None, **options):
    with pytest.raises(checkpoints.CheckpointError, match=message) as caught:
        checkpoints.load(path, **options)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text and len(text) < 600
    return text


@pytest.mark.parametrize("container", CONTAINERS)
def test_tensors_and_parameters_with_attributes(tmp_path, container):
    tensor, parameter = torch.randn(3), torch.nn.Parameter(torch.randn(2))
    tensor.note = parameter.note = "kept by torch, left aside here"
    path = _save(tmp_path / "file.pth", {"t": tensor, "p": parameter}, container)
    assert b"_rebuild_from_type_v2" in path.read_bytes()
    assert b"_rebuild_parameter_with_state" in path.read_bytes()
    _assert_same(checkpoints.load(path), {"t": tensor, "p": parameter})


def test_a_bool_is_true_or_false(tmp_path):
    header = b'{"a": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\1\2")
    np.testing.assert_array_equal(checkpoints.load(path)["a"].view(np.uint8), [0, 1, 1])


def test_python_2_files(tmp_path):
    """Byte strings for text, OrderedDict from a list of pairs, a view of a storage."""
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x01kU\x03cpuK\x06%stQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(%sK\x01K\x02\x85K\x01\x85tR"
    view = tensor % (storage % b"(U\x01vK\x02K\x04t")
    whole = tensor % (storage % b"N")
    content = b"\x80\x02ccollections\nOrderedDict\n](]U\x01aa%sa]U\x01ba%sae\x85R."
    content = content % (view, whole)
    path = tmp_path / "file.pth"
    path.write_bytes(_legacy(content, ["k"], [np.arange(6, dtype=np.float32)]))
    arrays = checkpoints.load(path)
    assert list(arrays) == ["a", "b"]
    np.testing.assert_array_equal(arrays["a"], [3, 4])
    np.testing.assert_array_equal(arrays["b"], [1, 2])


def _legacy(content, storage_keys, values, magic=checkpoints._MAGIC, protocol=1001, little=True):
    info = {"protocol_version": protocol, "little_endian": little, "type_sizes": {}}
    start = [pickle.dumps(part, 2) for part in (magic, protocol, info)]
    raw = [struct.pack("<q", value.size) + value.tobytes() for value in values]
    return b"".join([*start, content, pickle.dumps(storage_keys, 2), *raw])


def _rezipped(source, target, edit):
    """Copies an archive; `edit(name, content)` -> new content, or None to leave a member out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = edit(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def test_flipped_bits_missing_members_and_other_archives(tmp_path):
    good = _save(tmp_path / "good.pth", {"a": torch.arange(5.0)})

    def put(ending, content):
        return lambda name, old: content if name.endswith(ending) else old

    for ending, content, message in (
        ("data/0", None, "nothing under 'good/data/0'"),
        ("data/0", bytes(19), "19 bytes under 'good/data/0'; expected 20"),
        ("data/0", bytes(21), "21 bytes"),
        ("byteorder", b"big", "big-endian"),
        ("data.pkl", None, "0 members"),
        ("data.pkl", b"", "broken pickle"),
        ("data.pkl", b"nonsense", "broken pickle"),
    ):
        _refused(_rezipped(good, tmp_path / "bad.pth", put(ending, content)), message)
    raw = good.read_bytes()
    at = raw.index(np.float32([0, 1, 2, 3, 4]).tobytes()) + 7
    (tmp_path / "flip.pth").write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    _refused(tmp_path / "flip.pth", "broken member 'good/data/0'")
    with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10_000))
    _refused(tmp_path / "packed.pth", "compressed")
    with zipfile.ZipFile(tmp_path / "twice.pth", "w") as archive:
        with pytest.warns(UserWarning, match="Duplicate"):
            for _ in range(2):
                archive.writestr("x/data.pkl", b"N.")
    _refused(tmp_path / "twice.pth", "two members")
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w") as archive:
        archive.writestr("x/data.pkl", b"N.")
        archive.writestr("x/data/0", bytes(1000))
        for i in range(1, 5):  # four more names for the same bytes
            entry = copy.copy(archive.getinfo("x/data/0"))
            entry.filename = f"x/data/{i}"
            archive.filelist.append(entry)
    _refused(tmp_path / "bomb.pth", "more bytes than the file")
    with zipfile.ZipFile(tmp_path / "script.pth", "w") as archive:
        archive.writestr("x/data.pkl", b"N.")
        archive.writestr("x/code/__torch__.py", b"")
    _refused(tmp_path / "script.pth", "TorchScript")


def test_legacy_files_of_another_kind_or_size(tmp_path):
    good = _save(tmp_path / "good.pth", {"a": torch.arange(5.0)}, "legacy").read_bytes()
    path = tmp_path / "bad.pth"
    key = _legacy_key(good)
    content = b"".join(_pickles(good)[3:4])
    values = [np.arange(5, dtype=np.float32)]
    path.write_bytes(_legacy(content, [key], values))
    np.testing.assert_array_equal(checkpoints.load(path)["a"], values[0])
    for bad, message in (
        (good + b"\0", "it is damaged"),
        (good[:-1], "cut short"),
        (_legacy(content, [key], [values[0][:4]]), "cut short"),
        (_legacy(content, [key], [np.arange(6, dtype=np.float32)]), "6 values in storage"),
        (_legacy(content, [key], [values[0].astype(np.float64)]), "damaged"),
        (_legacy(content, [key], values, little=False), "big-endian"),
        (_legacy(content, [key], values, protocol=1002), "legacy protocol"),
        (_legacy(content, [key], values, magic=1), "no file of torch.save"),
        (_legacy(content, [], []), "lists other storages"),
        (_legacy(content, [key, "x"], values), "lists other storages"),
        (_legacy(content, [key, key], values * 2), "a storage twice"),
        (_legacy(content, {"x": 1}, values), "no list of storage keys"),
        (pickle.dumps({"a": 1}), "no file of torch.save"),
        (b"<!DOCTYPE html><html>", "no torch or safetensors file"),
        (b"", "has 0 bytes"),
    ):
        path.write_bytes(bad)
        _refused(path, message)
    with pytest.raises(FileNotFoundError):
        checkpoints.load(tmp_path / "absent.pth")


def _pickles(raw):
    """The five pickles at a legacy file's start."""
    stream, parts = io.BytesIO(raw), []
    for _ in range(5):
        begin = stream.tell()
        for _ in pickletools.genops(stream):
            pass
        parts.append(raw[begin : stream.tell()])
    return parts


def _legacy_key(raw):
    return pickle.loads(_pickles(raw)[4])[0]


# Hostile files


class _Reduced:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, *reduced):
        self._reduced = reduced

    def __reduce_ex__(self, protocol):
        return self._reduced


def _hostile(canary):
    """Values and raw pickles that make the file `canary` in Python's own unpickler."""
    shell, code = f"touch {canary}", f"open({str(canary)!r}, 'w')"
    text = code.encode()
    short = b"\x8c" + bytes([len(text)]) + text
    return {
        "os.system": _Reduced(os.system, (shell,)),
        "eval": _Reduced(eval, (code,)),
        "exec": _Reduced(exec, (code,)),
        "open": _Reduced(open, (str(canary), "w")),
        "subprocess": _Reduced(subprocess.call, (["touch", str(canary)],)),
        "getattr": _Reduced(getattr, ("a", "upper")),
        "partial": _Reduced(functools.partial(eval, code), ()),
        "reconstructor": _Reduced(copyreg._reconstructor, (dict, object, None)),
        "state setter": _Reduced(dict, (), {"x": 1}, None, None, None),
        "in a key": {"weight": torch.ones(1), "more": [{"x": _Reduced(eval, (code,))}]},
        "in hooks": _Reduced(
            torch._utils._rebuild_parameter, (torch.ones(1), False, _Reduced(eval, (code,)))
        ),
        "in state": _Reduced(collections.OrderedDict, (), {"x": _Reduced(eval, (code,))}),
        "raw global": b"cbuiltins\neval\n(" + short + b"tR.",
        "raw stack global": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93" + short + b"\x85R.",
        "raw copyreg": b"ccopyreg\n__newobj__\n(cbuiltins\nmap\ncbuiltins\neval\n("
        + short
        + b"ttR.",
        "raw inst": b"(" + short + b"ibuiltins\neval\n.",
        "raw obj": b"(cbuiltins\neval\n" + short + b"o.",
        "raw newobj": b"cbuiltins\neval\n" + short + b"\x85\x81.",
        "raw newobj_ex": b"\x80\x04cbuiltins\neval\n" + short + b"\x85}\x92.",
        "raw extension": b"\x80\x02\x82\x01.",
        "raw dotted": b"\x80\x04\x8c\x02os\x8c\x0bpath.sys.os\x93.",
        "raw spaced": b"cbuiltins eval\nx\n.",
        "raw memo": b"cbuiltins\neval\np0\n0g0\n(" + short + b"tR.",
        "raw build": b"ccollections\nOrderedDict\n)R(cbuiltins\neval\n" + short + b"db.",
        "raw persistent": b"Pos.system\n.",
    }


@pytest.mark.parametrize("name", list(_hostile("x")))
@pytest.mark.parametrize("container", CONTAINERS)
def test_nothing_of_a_hostile_file_runs(tmp_path, container, name):
    canary, path = tmp_path / "canary", tmp_path / "file.pth"
    value = _hostile(canary)[name]
    raw = value if isinstance(value, bytes) else None
    if container == "zip":
        _save(path, {"a": torch.ones(1)} if raw else value)
        if raw:
            path.rename(tmp_path / "good.pth")
            _rezipped(
                tmp_path / "good.pth", path, lambda n, old: raw if n.endswith(".pkl") else old
            )
    elif raw:
        path.write_bytes(_legacy(raw, [], []))
    else:
        _save(path, value, "legacy")
    _refused(path)
    # Nor when such a pickle stands in front, where the magic number is expected.
    path.write_bytes(raw or pickle.dumps(value, 2))
    _refused(path)
    assert not canary.exists()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file"
)
def test_the_canary_would_sing(tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(_hostile(canary)["eval"], 2))
    assert canary.exists()


def test_the_reader_needs_no_torch(tmp_path):
    path = _save(tmp_path / "file.pth", {"a": torch.ones(1)})
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from fg3dgs_jax.weights.formats import checkpoints\n"
        "print(list(checkpoints.load(sys.argv[1])), 'pickle' in vars(checkpoints))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True
    )
    assert result.stdout.split("\n")[0] == "['a'] False"


def test_metadata_classes_are_named_and_skipped(tmp_path):
    content = {"state_dict": {"a": torch.ones(1)}, "meta": collections.Counter(a=3)}
    path = _save(tmp_path / "file.pth", content)
    _refused(path, "global 'collections.Counter'")
    assert list(checkpoints.load(path, inert="collections.Counter")) == ["a"]
    path = _save(tmp_path / "file.pth", {"a": torch.ones(1), "b": _Reduced(os.getcwd, ())})
    assert list(checkpoints.load(path, inert=[f"{os.name}.getcwd"])) == ["a"]


_STORAGE = b"(U\x07storagectorch\n%sStorage\nU\x01kU\x03cpuK\x06tQ"
_FROM_TYPE = b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch.%s\nctorch%s\n)NtR."


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"]q\x00h\x00a.", "nests deeper"),  # a list that holds itself
        (b"}q\x00U\x01ah\x00s.", "nests deeper"),  # a dict that does
        (b"]" * 300 + b"a" * 299 + b".", "nests deeper"),
        (b"K\x00" + b"\x85" * 100_000 + b".", "nests deeper"),
        (b"]" + b"".join(b"q\x00]h\x00ah\x00a" for _ in range(50)) + b".", "more than 1000000"),
        (b"\x8a\xff" + bytes(254) + b"\x01.", "single value"),
        (b"}" + b"K\x00" + b"\x85" * 100_000 + b"Ns.", "dict key of type tuple"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "broken pickle"),  # a text of 2**63 bytes
        (b"\x8b\xff\xff\xff\x7f.", "broken pickle"),
        (b"I" + b"9" * 5000 + b"\n.", "broken pickle"),
        (b"0.", "empty stack"),
        (b".", "empty stack"),
        (b"N(.", "empty stack"),
        (b"t.", "no mark"),
        (b"h\x07.", "never stored"),
        (b"NNR.", "no global"),
        (b"NNb.", "state of a plain value"),
        (b"NNa.", "no list"),
        (b"NNNs.", "no dict"),
        (b"}(Nu.", "without a value"),
        (b"NNQ.", "no storage"),
        (b"NN\x93.", "without a name"),
        (b"ctorch\nFloatStorage\n)R.", "a type"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "without its storage"),
        (b"ctorch._utils\n_rebuild_parameter\n)R.", "no tensor"),
        (b"ctorch._tensor\n_rebuild_from_type_v2\n)R.", "subclass"),
        (_FROM_TYPE % (b"_tensor\n_rebuild_from_type_v2", b"\nTensor"), "subclass"),
        (_FROM_TYPE % (b"_utils\n_rebuild_tensor_v2", b"\nFloatStorage"), "subclass"),
        (_FROM_TYPE % (b"_utils\n_rebuild_tensor_v2", b"\nTensor"), "without its storage"),
        (b"".join(_STORAGE % kind for kind in (b"Float", b"Int")) + b"\x86.", "two types or sizes"),
        (b"ccollections\nOrderedDict\nK\x01\x85R.", "no pairs"),
        (b"ccollections\nOrderedDict\n]\x85R.", "no tensors"),
    ],
)
def test_pickles_that_are_no_program_at_all(tmp_path, pickled, message):
    path = tmp_path / "file.pth"
    path.write_bytes(_legacy(pickled, [], []))
    _refused(path, message)


@pytest.mark.parametrize(
    ("offset", "size", "stride", "count", "message"),
    [
        (0, (7,), (1,), 6, "leaves"),
        (1, (6,), (1,), 6, "leaves"),
        (0, (2, 3), (4, 1), 6, "leaves"),
        (6, (), (), 6, "leaves"),
        (-1, (2,), (1,), 6, "outside 0"),
        (0, (2,), (-1,), 6, "outside 0"),
        (0, (-2,), (1,), 6, "outside 0"),
        (0, (2.0,), (1,), 6, "outside 0"),
        (0, (True,), (1,), 6, "outside 0"),
        (0, (2,), (1, 1), 6, "with strides"),
        (0, (1 << 30, 1 << 30), (0, 0), 6, "expected < "),
        (0, (0, 1 << 30, 1 << 30), (0, 0, 0), 6, "expected < "),
        (0, (1 << 70,), (0,), 6, "outside 0"),
        (0, (1,) * 33, (0,) * 33, 6, "no list of <= 32"),
        (0, 3, (1,), 6, "no list"),
        (0, (2,), (1,), -6, "outside 0"),
        (0, (2,), (1,), 1 << 39, "cut short"),
        (0, (2,), (1,), 5, "6 values in storage"),
    ],
)
def test_windows_that_leave_their_storage(tmp_path, offset, size, stride, count, message):
    def plain(value):
        return pickle.dumps(value, 2)[2:-1]

    storage = b"(U\x07storagectorch\nFloatStorage\nU\x01kU\x03cpu%stQ" % plain(count)
    window = storage + plain(offset) + plain(size) + plain(stride) + b"\x89N"
    pickled = b"}U\x01actorch._utils\n_rebuild_tensor_v2\n(" + window + b"tRs."
    path = tmp_path / "file.pth"
    path.write_bytes(_legacy(pickled, ["k"], [np.arange(6, dtype=np.float32)]))
    _refused(path, message)


# Damaged files


def _tolerates_nothing_else(path, raw):
    """Loads, or raises CheckpointError; says whether it was loaded."""
    path.write_bytes(raw)
    try:
        checkpoints.load(path)
    except checkpoints.CheckpointError as error:
        assert "\n" not in str(error)
        return False
    return True


@pytest.fixture(scope="module", params=[*CONTAINERS, "safetensors"])
def sound(request, tmp_path_factory):
    """The bytes of a small sound file."""
    tensors = {
        "a.weight": torch.randn(3, 4),
        "a.bias": torch.arange(3),
        "b": torch.ones(2, dtype=torch.bfloat16),
        "c": torch.tensor(True),
    }
    path = tmp_path_factory.mktemp("sound") / "file"
    if request.param == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(tensors, path)
    else:
        _save(path, {"state_dict": collections.OrderedDict(tensors), "epoch": 3}, request.param)
    return path.read_bytes()


def test_truncations_are_refused(tmp_path, sound):
    path = tmp_path / "file"
    assert _tolerates_nothing_else(path, sound)
    for length in range(0, len(sound), max(1, len(sound) // 600)):
        assert not _tolerates_nothing_else(path, sound[:length]), length


def test_random_damage_raises_nothing_else(tmp_path, sound):
    rng = np.random.default_rng(0)
    for _ in range(500):
        raw = bytearray(sound)
        for at in rng.integers(0, len(raw), rng.integers(1, 4)):
            raw[at] = rng.integers(256)
        if rng.random() < 0.3:
            begin, end = np.sort(rng.integers(0, len(raw), 2))
            del raw[begin : min(end, begin + 20)]
        _tolerates_nothing_else(tmp_path / "file", bytes(raw))


def test_random_pickles_raise_nothing_else(tmp_path):
    """Instructions drawn from a sound pickle's and from all there are, in any order."""
    rng = np.random.default_rng(1)
    value = {"a": torch.ones(2, 3), "b": [torch.ones(1), (1, 2.0, None, "x")]}
    raw = _pickles(_save(tmp_path / "good", value, "legacy").read_bytes())[3]
    ends = [place for *_, place in pickletools.genops(raw)] + [len(raw)]
    words = [raw[a:b] for a, b in itertools.pairwise(ends)][1:-1]
    words += [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
    for _ in range(500):
        chosen = rng.choice(len(words), rng.integers(2, 30))
        pickled = b"".join(words[i] for i in chosen) + b"."
        _tolerates_nothing_else(tmp_path / "file", _legacy(pickled, [], []))
        kept = [word for word in words[: len(ends) - 3] if rng.random() < 0.95]
        _tolerates_nothing_else(tmp_path / "file", _legacy(b"".join(kept) + b".", [], []))


# safetensors


def test_safetensors_of_every_dtype(tmp_path):
    library = pytest.importorskip("safetensors.torch")
    names = set(checkpoints._SAFETENSORS_DTYPES.values())
    tensors = {dtype: _random(dtype, (3, 5)) for dtype in sorted(names)}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "ключ": torch.ones(2)}
    path = tmp_path / "model.safetensors"
    library.save_file(tensors, path, metadata={"format": "pt"})
    arrays = checkpoints.load(path)
    _assert_same({key: arrays[key] for key in tensors}, tensors)
    assert len(arrays) == len(tensors)
    _refused(path, "flat", root="model")


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        ({"a": ("F32", [2], [0, 8])}, 7, "expected"),
        ({"a": ("F32", [2], [0, 8])}, 9, "expected"),
        ({"a": ("F32", [3], [0, 8])}, 8, "8 bytes for 'a'"),
        ({"a": ("F32", [1], [4, 8])}, 8, "gap or an overlap at byte 0"),
        ({"a": ("F32", [1], [0, 4]), "b": ("F32", [1], [0, 4])}, 4, "gap or an overlap"),
        ({"a": ("F32", [1], [0, 4]), "b": ("F32", [1], [8, 12])}, 12, "gap or an overlap"),
        ({"a": ("F32", [-1], [4, 0])}, 8, "outside 0"),
        ({"a": ("F32", [1 << 50], [0, 1 << 52])}, 8, "outside 0"),
        ({"a": ("F32", [True], [0, 4])}, 4, "outside 0"),
        ({"a": ("F32", 2, [0, 8])}, 8, "no list"),
        ({"a": ("F32", [2], 8)}, 8, "data_offsets"),
        ({"a": ("F33", [2], [0, 8])}, 8, "dtype 'F33'"),
        ({"a": (["F32"], [2], [0, 8])}, 8, "dtype a list"),
        ({}, 0, "no tensors"),
        (b'{"a": 1}', 0, "dtype a NoneType"),
        (b'{"a": {}, "a": {}}', 0, "stands twice"),
        (b'{"a": ' + b"[" * 100_000, 0, "no JSON"),
        (b'{"\xff', 0, "no JSON"),
    ],
)
def test_safetensors_of_another_size_or_kind(tmp_path, header, size, message):
    if isinstance(header, dict):
        parts = ("dtype", "shape", "data_offsets")
        entries = {key: dict(zip(parts, entry, strict=True)) for key, entry in header.items()}
        header = json.dumps(entries).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    _refused(path, message)


# Layouts


def _randomised(module, seed=0):
    """A torch module in eval mode with nothing left at a default, and its state as NumPy."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if "var" in name else tensor.normal_()
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    return module.eval(), keys.Keys(state)


def _assert_agrees(flax_out, torch_out):
    """Channels last against channels first."""
    expected = np.moveaxis(torch_out.detach().numpy(), 1, -1)
    np.testing.assert_allclose(flax_out, expected, atol=1e-5 * np.abs(expected).max())


def _input(*shape):
    """torch's [N, C, ...] and Flax's [N, ..., C]."""
    x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    return torch.from_numpy(x), np.moveaxis(x, 1, -1)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_of_every_rank(rank, bias):
    kind = getattr(torch.nn, f"Conv{rank}d")
    size = (3, 4, 2)[:rank]
    with _pair(kind(4, 6, size, 2, 1, groups=2, bias=bias)) as (module, reader):
        params = {"params": reader.conv("x", bias)}
    x, y = _input(2, 4, *(9, 8, 7)[:rank])
    layer = nn.Conv(6, size, (2,) * rank, [(1, 1)] * rank, feature_group_count=2, use_bias=bias)
    _assert_agrees(layer.apply(params, y), module[0](x))


class _pair:
    """with _pair(module) as (Sequential under the name "x", reader): every key must be read."""

    def __init__(self, module):
        holder = torch.nn.Sequential(collections.OrderedDict(x=module))
        self._module, self._reader = _randomised(holder)

    def __enter__(self):
        return self._module, self._reader.__enter__()

    def __exit__(self, *error):
        return self._reader.__exit__(*error)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(("k", "stride", "p", "q"), [(4, 2, 1, 0), (3, 2, 1, 1), (3, 1, 0, 0)])
def test_transposed_convolutions(rank, k, stride, p, q):
    kind = getattr(torch.nn, f"ConvTranspose{rank}d")
    with _pair(kind(3, 5, k, stride, p, q)) as (module, reader):
        params = {"params": reader.conv_transpose("x")}
    x, y = _input(2, 3, *(5, 6)[:rank])
    padding = [(k - 1 - p, k - 1 - p + q)] * rank
    layer = nn.ConvTranspose(5, (k,) * rank, (stride,) * rank, padding)
    _assert_agrees(layer.apply(params, y), module(x))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize("dim", [0, 2, None])
@pytest.mark.parametrize("new", [True, False])
def test_weight_norm_is_folded(dim, new):
    old = torch.nn.utils.weight_norm
    wrap = torch.nn.utils.parametrizations.weight_norm if new else old
    if dim is None and new:
        dim = -1  # the new spelling's word for "all axes" is the same number as the last axis
    with _pair(wrap(torch.nn.Conv1d(4, 6, 3), dim=dim)) as (module, reader):
        params = {"params": reader.weight_norm_conv("x")}
    x, y = _input(2, 4, 9)
    layer = nn.Conv(6, (3,), padding="VALID")
    _assert_agrees(layer.apply(params, y), module(x))


def test_weight_norm_with_a_magnitude_of_other_axes():
    arrays = {"x.weight_g": np.ones((2, 1)), "x.weight_v": np.ones((2, 3, 4))}
    with pytest.raises(checkpoints.CheckpointError, match=r"\(2, 1\) under 'x.weight_g'"):
        keys.Keys(arrays).weight_norm_conv("x", bias=False)


def test_norms_linear_and_embedding():
    x, y = _input(2, 8, 5)
    with _pair(torch.nn.BatchNorm1d(8)) as (module, reader):
        params, stats = reader.batch_norm("x")
    layer = nn.BatchNorm(use_running_average=True, epsilon=1e-5)
    _assert_agrees(layer.apply({"params": params, "batch_stats": stats}, y), module(x))
    with _pair(torch.nn.GroupNorm(2, 8)) as (module, reader):
        params = {"params": reader.norm("x")}
    _assert_agrees(nn.GroupNorm(2, epsilon=1e-5).apply(params, y), module(x))
    with _pair(torch.nn.Linear(5, 3)) as (module, reader):
        params = {"params": reader.linear("x")}
    expected = module(x).detach().numpy()
    np.testing.assert_allclose(nn.Dense(3).apply(params, x.numpy()), expected, atol=1e-5)
    with _pair(torch.nn.Embedding(7, 3)) as (module, reader):
        params = {"params": reader.embedding("x")}
    found = nn.Embed(7, 3).apply(params, jnp.array([2, 6]))
    np.testing.assert_array_equal(found, module(torch.tensor([2, 6])).detach().numpy())


@pytest.mark.parametrize("bias", [True, False])
def test_lstm_of_two_directions(bias):
    lstm = torch.nn.LSTM(4, 5, batch_first=True, bidirectional=True, bias=bias)
    with _pair(lstm) as (module, reader):
        sides = [reader.lstm("x", reverse=reverse, bias=bias) for reverse in (False, True)]
    x = np.random.default_rng(3).normal(size=(2, 6, 4)).astype(np.float32)
    outputs = [
        nn.RNN(nn.OptimizedLSTMCell(5), reverse=reverse, keep_order=True).apply(
            {"params": {"cell": side}}, x
        )
        for reverse, side in zip((False, True), sides, strict=True)
    ]
    expected = module[0](torch.from_numpy(x))[0].detach().numpy()
    np.testing.assert_allclose(np.concatenate(outputs, -1), expected, atol=1e-5)


def test_missing_leftover_and_misshapen_keys_are_named():
    arrays = {
        "a.weight": np.ones((2, 3), np.float16),
        "a.bias": np.ones(2),
        "b.num_batches_tracked": np.int64(1),
        "c.position_ids": np.arange(3),
    }
    with pytest.raises(checkpoints.CheckpointError, match=r"1 keys .* 'c.position_ids'"):
        with keys.Keys(arrays) as reader:
            params = reader.linear("a")
    assert params["kernel"].dtype == params["bias"].dtype == np.float32
    with keys.Keys(arrays, ignore=["*.position_ids", "absent"]) as reader:
        assert "a.bias" in reader and "a" not in reader
        reader.linear("a")
    with pytest.raises(checkpoints.CheckpointError, match=r"file.pth has nothing .*'aa.weight'"):
        with keys.Keys(arrays, source="file.pth") as reader:
            reader.linear("aa")
    with pytest.raises(checkpoints.CheckpointError, match=r"\(2, 3\) under 'a.weight'.* 3 or 4"):
        keys.Keys(arrays).conv("a")
    with pytest.raises(
        checkpoints.CheckpointError, match=r"\(2,\) under 'a.bias'; expected \(3,\)"
    ):
        keys.Keys(arrays).take("a.bias", (3,))
    reader = keys.Keys({f"k{i}": np.ones(1) for i in range(20)})
    with pytest.raises(checkpoints.CheckpointError, match=r"20 keys .* and 12 more"):
        reader.done()
