"""The constants of a frozen TensorFlow graph (`.pb`, a GraphDef) as NumPy arrays, no TensorFlow.

A GraphDef is a protocol buffer: a sequence of fields, each a tag (field number, wire type) and
a value. Only the path to a constant's values is followed, every length is checked against the
bytes that are there, and nothing in the file is executed:

    GraphDef.node = 1; NodeDef.name = 1, op = 2, attr = 5 (a map: key = 1, value = 2);
    AttrValue.tensor = 8; TensorProto.dtype = 1, tensor_shape = 2, tensor_content = 4;
    TensorShapeProto.dim = 2; Dim.size = 1.
"""

import io
import math
import mmap
import os
import pathlib
import zipfile
import zlib

import numpy as np

from fg3dgs_jax.weights.formats.pickles import CheckpointError, line

# What zipfile raises on damaged archives.
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, LookupError, OSError, RuntimeError, ValueError)
_MAX_UNPACKED = 1 << 31  # bytes of a graph inside a zip, about protocol buffers' own limit
_MAX_NODES = 1_000_000
_MAX_AXES = 8
_FLOAT = 1  # DataType.DT_FLOAT
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


def load(path: os.PathLike | str) -> dict[str, np.ndarray]:
    """Every float32 constant of rank 1 or more: node name -> read-only array.

    Args:
      path: of a `.pb`, or of a zip that holds one; its name does not matter.

    Raises:
      CheckpointError: the file is no GraphDef, is cut short, or has no such constants. One line.
      OSError: the file cannot be opened.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            arrays = _constants(memoryview(_content(file)))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if not arrays:
        raise CheckpointError(f"{path}: has no float constants; expected a frozen graph")
    return arrays


def _content(file):
    start = file.read(4)
    if not start:
        raise CheckpointError("is empty; expected a frozen TensorFlow graph")
    if not start.startswith(b"PK\x03\x04"):
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    file.seek(0, io.SEEK_SET)
    try:
        with zipfile.ZipFile(file) as archive:
            graphs = [m for m in archive.infolist() if m.filename.endswith(".pb")]
            if len(graphs) != 1:
                raise CheckpointError(f"is a zip of {len(graphs)} files '*.pb'; expected one")
            if graphs[0].file_size > _MAX_UNPACKED:
                raise CheckpointError(f"holds {graphs[0].file_size} bytes; no GraphDef is so long")
            # zipfile stops at the size that the directory states, and checks the CRC.
            return archive.read(graphs[0])
    except CheckpointError:
        raise
    except (*_ZIP_ERRORS, zlib.error) as error:
        raise CheckpointError(f"is cut short or no zip archive ({line(error)})") from None


def _constants(graph):
    arrays = {}
    nodes = 0
    for number, node in _fields(graph):
        if number != 1 or not isinstance(node, memoryview):
            continue
        nodes += 1
        if nodes > _MAX_NODES:
            raise CheckpointError(f"has more than {_MAX_NODES} nodes; expected a frozen graph")
        name, op, tensor = _node(node)
        array = _tensor(name, tensor) if op == "Const" and tensor is not None else None
        if array is None:
            continue
        if name in arrays:
            raise CheckpointError(f"has two nodes of the name {line(name)}; it is damaged")
        arrays[name] = array
    return arrays


def _node(node):
    """(name, op, the TensorProto of its attribute "value" or None)."""
    name, op, tensor = "", "", None
    for number, value in _fields(node):
        if number == 1:
            name = _text(value)
        elif number == 2:
            op = _text(value)
        elif number == 5:
            entry = dict(_fields(_message(value)))
            if 1 in entry and 2 in entry and _text(entry[1]) == "value":
                tensor = dict(_fields(_message(entry[2]))).get(8)
    return name, op, None if tensor is None else _message(tensor)


def _tensor(name, tensor):
    """A TensorProto as an array; None where it is not of float32, or is a number."""
    fields = dict(_fields(tensor))
    if fields.get(1) != _FLOAT or 2 not in fields:
        return None
    sizes = [
        dict(_fields(_message(dim))).get(1, 0)
        for number, dim in _fields(_message(fields[2]))
        if number == 2
    ]
    if not sizes:
        return None
    shape = [size for size in sizes if isinstance(size, int)]
    if len(sizes) > _MAX_AXES or len(shape) != len(sizes):
        raise CheckpointError(f"has no shape of 1 to {_MAX_AXES} sizes for {line(name)}")
    content = _message(fields.get(4, memoryview(b"")))
    if len(content) != 4 * math.prod(shape):  # a size of 2**63 and more simply does not fit
        raise CheckpointError(
            f"has {len(content)} bytes for {line(name)}; expected float32 {sizes} as raw content"
        )
    array = np.frombuffer(content, "<f4").reshape(shape)
    array.flags.writeable = False
    return array


def _fields(message):
    """Yields (field number, value): an int, or a memoryview of bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32, _BYTES):
            length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
            if length is None:
                length, at = _varint(message, at)
            if length > len(message) - at:
                raise CheckpointError(
                    f"ends within a field of {length} bytes: it is cut short, or no GraphDef"
                )
            value, at = message[at : at + length], at + length
        else:
            raise CheckpointError(f"has wire type {wire}, which a GraphDef has not")
        if not number:
            raise CheckpointError("has a field of number 0, which no protocol buffer has")
        yield number, value


def _varint(message, at):
    """(the number at `at`, seven bits a byte from the lowest; where the next field begins)."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise CheckpointError("ends within a number: it is cut short, or no GraphDef")
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise CheckpointError("has a number of more than ten bytes, which a GraphDef has not")


def _message(value):
    if not isinstance(value, memoryview):
        raise CheckpointError("has a number where a message is expected: it is no GraphDef")
    return value


def _text(value):
    try:
        return bytes(_message(value)).decode()
    except UnicodeDecodeError:
        raise CheckpointError("has a name that is no text: it is no GraphDef") from None
