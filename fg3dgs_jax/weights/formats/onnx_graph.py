"""The least of ONNX's file format: to read out of a network one value more than it gives.

An ONNX file is a protobuf message. Of a graph's fields only the nodes (1) and the outputs (12) are
looked at; an output is added by writing one more of the latter, which needs no package.
"""

from typing import NamedTuple

from fg3dgs_jax.weights.store import WeightsMissing

_GRAPH, _NODE, _OUTPUT = 7, 1, 12  # of a model, of a graph, of a graph
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Node(NamedTuple):
    """A node of a graph."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def nodes(model: bytes) -> list[Node]:
    """The nodes of a model's graph, in the file's order, which is the order of execution."""
    result = []
    for number, content in _fields(_graph(model)[1]):
        if number == _NODE:
            parts = {1: [], 2: [], 4: []}
            for part, text in _fields(content):
                if part in parts:
                    parts[part].append(_text(text))
            result.append(Node("".join(parts[4]), tuple(parts[1]), tuple(parts[2])))
    return result


def with_output(model: bytes, name: str) -> bytes:
    """The model with one more output, the value `name` of its graph."""
    (start, stop), graph = _graph(model)
    entry = _bytes_field(1, name.encode())  # a ValueInfo of a name alone: the runtime infers more
    return model[:start] + _bytes_field(_GRAPH, graph + _bytes_field(_OUTPUT, entry)) + model[stop:]


def _graph(model):
    """((first byte, byte after the last) of the field, its content)."""
    at = 0
    while at < len(model):
        number, content, after = _field(model, at)
        if number == _GRAPH and isinstance(content, bytes):
            return (at, after), content
        at = after
    raise WeightsMissing("the file has no graph; expected an ONNX model")


def _fields(message):
    at = 0
    while at < len(message):
        number, content, at = _field(message, at)
        yield number, content


def _field(message, at):
    """(number, content, next position); content is bytes where the field is a message or text."""
    key, at = _varint(message, at)
    kind, content = key & 7, None
    if kind == _BYTES:
        length, at = _varint(message, at)
        content = message[at : at + length]
        after = at + length
    elif kind in (_FIXED32, _FIXED64):
        after = at + (4 if kind == _FIXED32 else 8)
    elif kind == _VARINT:
        _, after = _varint(message, at)
    else:
        raise WeightsMissing("the file is no ONNX model")
    if after > len(message):
        raise WeightsMissing("the file is cut short; expected a whole ONNX model")
    return key >> 3, content, after


def _varint(message, at):
    value, shift = 0, 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
    raise WeightsMissing("the file is no whole ONNX model")


def _bytes_field(number, content):
    return _encoded(number << 3 | _BYTES) + _encoded(len(content)) + content


def _encoded(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _text(content):
    if not isinstance(content, bytes):
        raise WeightsMissing("the file is no ONNX model")
    return content.decode(errors="replace")
