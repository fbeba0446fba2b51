"""Other people's checkpoints (`.pth`, `.bin`, `.safetensors`) as NumPy arrays, without torch.

A torch file is a pickle, and a pickle is a program. It is not run here: `pickles` reads
its instructions as plain data, knows no more globals than tensors and dicts need, and turns down
the file at the first other one. Three containers, told apart by content:

- zip (torch 1.6 and later): `*/data.pkl`, and each storage raw in `*/data/<key>`;
- legacy (before): five pickles - magic, protocol, machine, object, list of storage keys -, then
  each storage as an int64 count and raw values;
- safetensors: a JSON header with dtype, shape and place of every array, then the raw values.
"""

import io
import json
import math
import mmap
import os
import pathlib
import struct
import zipfile
from collections.abc import Sequence

import numpy as np

from fg3dgs_jax.weights.formats.pickles import (
    INERT,
    TORCH_DTYPES,
    CheckpointError,
    PickleReader,
    Tensor,
    counts_of,
    line,
    names,
    shape_of,
)

_MAGIC = 0x1950A86A20F9469CFC6C  # of the legacy container
_PROTOCOL = 1001
_MAX_DEPTH = 64  # of nested dicts
_MAX_NODES = 1_000_000  # entries of a file's tree; a few bytes of pickle can stand for 2**50
_MAX_HEADER = 100_000_000  # bytes of a safetensors header, the format's own limit

_SAFETENSORS_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


def load(
    path: os.PathLike | str, root: str | Sequence[str] | None = None, inert: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """A checkpoint's arrays under flat keys; nothing in the file is executed.

    The dict to read is the one at `root`; without it, the one under "state_dict" if there is one,
    else the whole file. Dicts, lists and tuples in it are flattened, their keys joined by ".". What
    is no tensor (numbers, text, None) is left out. If every key begins with "module.", which
    torch's DataParallel puts there, that goes.

    Args:
      path: of a torch file, zip or legacy, or of a safetensors file; its name does not matter.
      root: None, a key, or the keys on the way down, e.g. ("model", "ema").
      inert: more globals, e.g. "mmengine.logging.history_buffer.HistoryBuffer", whose objects may
        stand in the file as metadata. They are not built even so: what they hold is skipped.

    Returns:
      key -> read-only array of the file's own dtype (bfloat16 and float8 are those of JAX), which
      shares memory with others of the same storage.

    Raises:
      CheckpointError: the file is cut short, has values of another size, is big-endian, names
        a global that tensors do not need, or holds no tensors there. One line.
      OSError: the file cannot be opened.
    """
    path = pathlib.Path(path)
    metadata = frozenset([inert] if isinstance(inert, str) else inert) | INERT
    keys = () if root is None else (root,) if isinstance(root, str) else tuple(root)
    try:
        with path.open("rb") as file:
            arrays = _load(file, keys, metadata)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if all(key.startswith("module.") for key in arrays):
        arrays = {key.removeprefix("module."): array for key, array in arrays.items()}
    return arrays


def _load(file, root, inert):
    start = file.read(9)
    if start.startswith(b"PK\x03\x04"):
        return _load_zip(file, root, inert)
    if len(start) < 9:
        raise CheckpointError(f"has {len(start)} bytes; expected a torch or a safetensors file")
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if start.endswith(b"{"):
        return _load_safetensors(data, root)
    return _load_legacy(data, root, inert)


def _load_zip(file, root, inert):
    # What zipfile raises for garbage is no one's contract; all of it means the same.
    garbage = (
        zipfile.BadZipFile,
        EOFError,
        LookupError,
        NotImplementedError,
        OSError,
        OverflowError,
        RuntimeError,
        ValueError,
        struct.error,
    )
    try:
        archive = zipfile.ZipFile(file)
        members = archive.infolist()
    except garbage as error:
        raise CheckpointError(f"is cut short or no zip archive ({line(error)})") from None
    sizes = {member.filename: member.file_size for member in members}
    if len(sizes) != len(members):
        raise CheckpointError("has two members of one name; expected a file of torch.save")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError("is compressed; expected a file of torch.save, which never is")
    if sum(sizes.values()) > file.seek(0, io.SEEK_END):
        raise CheckpointError("has members of more bytes than the file itself; it is damaged")
    pickles = [name for name in sizes if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(
            f"has {len(pickles)} members '*/data.pkl'; expected one, as torch.save writes"
        )
    folder = pickles[0].removesuffix("data.pkl")
    if any(name.startswith((f"{folder}code/", f"{folder}constants.pkl")) for name in sizes):
        raise CheckpointError(
            "is a TorchScript program; expected a state dict: save `module.state_dict()` instead"
        )

    def read(name):
        try:
            return archive.read(name)
        except garbage as error:
            raise CheckpointError(f"has a broken member {line(name)} ({line(error)})") from None

    if f"{folder}byteorder" in sizes and read(f"{folder}byteorder") != b"little":
        raise CheckpointError("is big-endian; expected little-endian: save it again on such a host")
    reader = PickleReader(io.BytesIO(read(pickles[0])), inert)
    leaves = _flatten(_descend(reader.run(), root))
    for key, storage in reader.storages.items():  # all, but only those under the root are read
        name, size = f"{folder}data/{key}", storage.count * storage.dtype.itemsize
        if sizes.get(name) != size:
            actual = f"{sizes[name]} bytes" if name in sizes else "nothing"
            raise CheckpointError(f"has {actual} under {line(name)}; expected {size} bytes")
    return _arrays(leaves, lambda storage: read(f"{folder}data/{storage.key}"))


def _load_legacy(data, root, inert):
    try:
        magic = PickleReader(data).run()
    except CheckpointError as error:
        raise CheckpointError(f"is no torch or safetensors file: {error}") from None
    if magic != _MAGIC:
        raise CheckpointError("is a pickle, but no file of torch.save, which is expected")
    protocol, machine = PickleReader(data).run(), PickleReader(data).run()
    if protocol != _PROTOCOL or not isinstance(machine, dict):
        raise CheckpointError(f"is not of torch's legacy protocol {_PROTOCOL}, which is expected")
    if machine.get("little_endian") is not True:
        raise CheckpointError("is big-endian; expected little-endian: save it again on such a host")
    reader = PickleReader(data, inert)
    leaves = _flatten(_descend(reader.run(), root))
    keys = PickleReader(data).run()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError("has no list of storage keys after its object; it is damaged")
    if len(set(keys)) != len(keys):
        raise CheckpointError("lists a storage twice; it is damaged")
    if unknown := set(keys) ^ reader.storages.keys():
        raise CheckpointError(f"lists other storages than it uses: {names(unknown)}")
    places, at = {}, data.tell()
    for key in keys:
        storage = reader.storages[key]
        begin, end = at + 8, at + 8 + storage.count * storage.dtype.itemsize
        if end > len(data):
            raise CheckpointError(
                f"has {len(data)} bytes; expected {end} up to storage {line(key)}: it is cut short"
            )
        if (count := int.from_bytes(data[at:begin], "little", signed=True)) != storage.count:
            raise CheckpointError(
                f"has {count} values in storage {line(key)}; expected {storage.count}"
            )
        places[key], at = slice(begin, end), end
    if at != len(data):
        raise CheckpointError(f"has {len(data)} bytes; expected {at}: it is damaged")
    return _arrays(leaves, lambda storage: data[places[storage.key]])


def _load_safetensors(data, root):
    if root:
        raise CheckpointError(f"is a safetensors file, which is flat; expected no root, not {root}")
    length = int.from_bytes(data[:8], "little")
    if length > min(_MAX_HEADER, len(data) - 8):
        raise CheckpointError(
            f"has {len(data)} bytes; expected a safetensors header of {length}: it is cut short"
        )
    try:
        header = json.loads(data[8 : 8 + length].decode(), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"has a header that is no JSON ({line(error)})") from None
    if not isinstance(header, dict):
        raise CheckpointError("has a header that is no JSON object")
    header.pop("__metadata__", None)
    places = {key: _safetensors_place(key, entry) for key, entry in header.items()}
    end = 0
    for begin, stop in sorted(place[2:] for place in places.values()):
        if begin != end:
            raise CheckpointError(f"has a gap or an overlap at byte {end} of its values")
        end = stop
    if len(data) != (expected := 8 + length + end):
        raise CheckpointError(
            f"has {len(data)} bytes; expected {expected}: it is cut short or damaged"
        )
    values = {
        key: _window(data[8 + length + begin : 8 + length + stop], dtype, shape)
        for key, (dtype, shape, begin, stop) in places.items()
    }
    if not values:
        raise CheckpointError("holds no tensors")
    return values


def _safetensors_place(key, entry):
    """A header's entry -> (dtype, shape, first byte, byte after the last), proved consistent."""
    entry = entry if isinstance(entry, dict) else {}
    name, shape, span = (entry.get(part) for part in ("dtype", "shape", "data_offsets"))
    if not isinstance(name, str) or name not in _SAFETENSORS_DTYPES:
        raise CheckpointError(f"has {line(key)} of dtype {line(name)}, which is not known here")
    dtype = np.dtype(TORCH_DTYPES[_SAFETENSORS_DTYPES[name]])
    if not isinstance(span, list) or len(span) != 2:
        raise CheckpointError(f"has no data_offsets of two numbers for {line(key)}")
    shape, (begin, stop) = shape_of(shape), counts_of(span)
    if stop - begin != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(
            f"has {stop - begin} bytes for {line(key)}; expected {dtype.name} {list(shape)}"
        )
    return dtype, shape, begin, stop


def _distinct(pairs):
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key stands twice")
    return entries


# The tree: from a pickle's value to arrays under flat keys


def _descend(tree, root):
    """The dict at the keys `root`, by default at "state_dict" if there is one."""
    if not root and isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        return tree["state_dict"]
    for depth, key in enumerate(root):
        if not isinstance(tree, dict) or key not in tree:
            keys = names(tree) if isinstance(tree, dict) else "no dict"
            raise CheckpointError(
                f"has no {key!r} under {list(root[:depth])}; expected one of its keys: {keys}"
            )
        tree = tree[key]
    return tree


def _flatten(tree) -> dict[str, Tensor]:
    """Tensors of nested dicts, lists and tuples under keys joined by ".", in the file's order."""
    if not isinstance(tree, dict | list | tuple):
        raise CheckpointError("holds a single value; expected a dict of tensors")
    leaves, todo, nodes = {}, [((), tree)], 0
    while todo:
        way, node = todo.pop()
        nodes += 1
        if isinstance(node, Tensor):
            key = ".".join(way)
            if key in leaves:
                raise CheckpointError(f"has two tensors that flatten to the key {line(key)}")
            leaves[key] = node
        elif isinstance(node, dict | list | tuple):
            children = list(node.items() if isinstance(node, dict) else enumerate(node))
            if len(way) >= _MAX_DEPTH or nodes + len(todo) + len(children) > _MAX_NODES:
                raise CheckpointError(
                    f"nests deeper than {_MAX_DEPTH} or has more than {_MAX_NODES} entries; "
                    "expected a state dict"
                )
            todo += [((*way, str(key)), child) for key, child in reversed(children)]
    if not leaves:
        raise CheckpointError("holds no tensors there; give the keys of its state dict as root")
    return leaves


def _arrays(leaves, raw) -> dict[str, np.ndarray]:
    """Reads each storage once; `raw(storage)` -> its bytes."""
    buffers = {}
    for tensor in leaves.values():
        if tensor.storage.key not in buffers:
            buffers[tensor.storage.key] = raw(tensor.storage)
    return {
        key: _window(
            buffers[tensor.storage.key], tensor.dtype, tensor.shape, tensor.offset, tensor.strides
        )
        for key, tensor in leaves.items()
    }


def _window(buffer: bytes, dtype, shape, offset=0, strides=None) -> np.ndarray:
    """Read-only array on the bytes; NumPy itself turns down one that leaves them."""
    item = dtype.itemsize
    if dtype == np.bool_:  # a byte of 2 would be neither True nor False to NumPy
        buffer = (np.frombuffer(buffer, np.uint8) != 0).tobytes()
    if not math.prod(shape):
        array = np.zeros(shape, dtype)
        array.flags.writeable = False
        return array
    steps = None if strides is None else tuple(item * stride for stride in strides)
    return np.ndarray(shape, dtype, buffer, offset * item, steps)
