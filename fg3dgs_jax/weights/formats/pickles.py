"""Pickles read as data: torch's tensors come out as windows on storages, nothing is executed."""

import dataclasses
import functools
import math
import pickletools
import struct
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

_MAX_COUNT = 2**40  # elements; what is larger is no count but garbage
_MAX_DIMS = 32  # NumPy 1's limit
_NAMES_SHOWN = 8

TORCH_DTYPES = {
    "bool": np.bool_,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "float16": np.float16,
    "bfloat16": jnp.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
    "complex64": np.complex64,
    "complex128": np.complex128,
    "float8_e4m3fn": jnp.float8_e4m3fn,
    "float8_e5m2": jnp.float8_e5m2,
}
_STORAGES = {
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
# Metadata that stands beside the weights in real files. Never looked into, so that nothing of it
# needs to be built: whatever is made of such a name is one more inert value.
INERT = frozenset(
    {
        "__builtin__.set",
        "_codecs.encode",
        "builtins.set",
        "numpy.dtype",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "torch.Size",
        "torch.device",
    }
)


class CheckpointError(ValueError):
    """A file that is not a whole, harmless checkpoint, or not that of the network at hand."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """Raw values in a file, not read yet. `dtype` of an untyped one is uint8."""

    key: str
    dtype: np.dtype
    count: int
    first: int = 0  # where a view of storage `key`, in files before torch 0.4, begins


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A strided window on a storage; offset and strides in elements."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Global:
    """The name of something a pickle would import; only ever compared."""

    name: str


class _Inert:
    """Stands for an object that nobody looks into."""


class PickleReader:
    """Reads one pickle from a stream as data: nothing is imported, called or constructed.

    Python's own `pickletools` splits the stream into instructions. Of a tensor's instructions only
    a `Tensor` is made, of everything else dicts, lists, tuples, text, numbers and `_Inert`.
    """

    def __init__(self, stream, inert=(), steps=None):
        self._stream, self._inert = stream, inert
        self._steps = _STEPS | (steps or {})  # a reader of other values replaces some
        self._stack, self._marks, self._memo = [], [], {}
        self.storages: dict[str, Storage] = {}

    def run(self) -> Any:
        """Reads the pickle to its end; returns what it holds."""
        instructions = pickletools.genops(self._stream)
        while True:
            try:
                opcode, argument, _ = next(instructions)
            # The first is what it raises for garbage; the rest guard against its surprises.
            except (ValueError, LookupError, OverflowError, MemoryError, struct.error) as error:
                raise CheckpointError(f"has a broken pickle ({line(error)})") from None
            if opcode.name == "STOP":
                return self._pop()
            self._step(opcode.name, argument)

    def _step(self, name, argument):
        if name in _PUSHES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                raise CheckpointError("has a broken pickle (a value that was never stored)")
            self._stack.append(self._memo[argument])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._top()
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._stack.append(self._global(name, argument))
        elif name in self._steps:
            self._steps[name](self)
        elif name not in ("PROTO", "FRAME"):
            raise CheckpointError(
                f"uses the pickle instruction {name}, which no tensor needs; it may run code"
            )

    def _pop(self):
        value = self._top()
        self._stack.pop()
        return value

    def _top(self):
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise CheckpointError("has a broken pickle (an empty stack)")
        return self._stack[-1]

    def _pop_mark(self):
        if not self._marks:
            raise CheckpointError("has a broken pickle (no mark)")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _mark(self):
        self._marks.append(len(self._stack))

    def _drop(self):
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()  # Python's own machine pops a mark this way too
        else:
            self._pop()

    def _memoize(self):
        self._memo[len(self._memo)] = self._top()

    def _push_tuple(self, count=None):
        if count is None:
            self._stack.append(tuple(self._pop_mark()))
        else:
            self._stack.append(tuple([self._pop() for _ in range(count)][::-1]))

    def _extend(self, values):
        target = self._top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, _Inert):
            raise CheckpointError("has a broken pickle (appends to what is no list)")

    def _append(self):
        self._extend([self._pop()])

    def _update(self, values):
        target = self._top()
        if isinstance(target, dict):
            target.update(_pairs(values))
        elif not isinstance(target, _Inert):
            raise CheckpointError("has a broken pickle (sets items of what is no dict)")

    def _set_item(self):
        value, key = self._pop(), self._pop()
        self._update([key, value])

    def _build(self):
        """State of an object: an OrderedDict's is torch's `_metadata`, which is left aside."""
        self._pop()
        if not isinstance(self._top(), dict | _Inert | Tensor):
            raise CheckpointError("has a broken pickle (sets the state of a plain value)")

    def _global(self, opcode, argument) -> Global:
        if opcode == "GLOBAL":
            name = argument.replace(" ", ".", 1)  # pickletools joins module and name so
        else:
            attribute, module = self._pop(), self._pop()
            if not isinstance(attribute, str) or not isinstance(module, str):
                raise CheckpointError("has a broken pickle (a global without a name)")
            name = f"{module}.{attribute}"
        if name not in _CALLS and name not in _TYPES and name not in self._inert:
            raise CheckpointError(
                f"names the global {line(name)}, which no tensor needs: loading it could run "
                "code; expected a plain state dict (mere metadata can be skipped as `inert`)"
            )
        return Global(name)

    def _reduce(self):
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise CheckpointError("has a broken pickle (calls what is no global)")
        if function.name in _CALLS:
            self._stack.append(_CALLS[function.name](arguments))
        elif function.name in self._inert:
            self._stack.append(_Inert())
        else:
            raise CheckpointError(f"calls {function.name}, which is a type, not a function")

    def _persistent(self):
        """A storage, as torch refers to it: ("storage", type, key, device, count[, view])."""
        place = self._pop()
        if not isinstance(place, tuple) or len(place) not in (5, 6) or place[0] != "storage":
            raise CheckpointError("refers to something that is no storage")
        kind, key, count = place[1], place[2], place[4]
        dtype = _TYPES.get(kind.name) if isinstance(kind, Global) else None
        if dtype is None or not isinstance(key, str):
            raise CheckpointError("refers to a storage without a type or a key")
        storage = Storage(key, dtype, *counts_of([count]))
        if self.storages.setdefault(key, storage) != storage:
            raise CheckpointError(f"uses storage {line(key)} with two types or sizes")
        if len(place) == 6 and place[5] is not None:
            view = place[5]
            if not isinstance(view, tuple) or len(view) != 3:
                raise CheckpointError(f"has a broken view of storage {line(key)}")
            storage = dataclasses.replace(storage, first=counts_of(view[1:])[0])
        self._stack.append(storage)


def _pairs(flat):
    """[key, value, key, value, ...] -> dict with keys that hash at once and print shortly."""
    keys, values = flat[0::2], flat[1::2]
    for key in keys:
        number = type(key) is int and -_MAX_COUNT < key < _MAX_COUNT
        if not number and not isinstance(key, str | bool | float | bytes | None):
            raise CheckpointError(f"has a dict key of type {type(key).__name__}; expected text")
    if len(keys) != len(values):
        raise CheckpointError("has a broken pickle (a key without a value)")
    return dict(zip(keys, values, strict=True))


def _ordered_dict(arguments):
    """Empty, to be filled by SETITEMS, or as Python 2 wrote it, from a list of pairs."""
    items = arguments[0] if len(arguments) == 1 else arguments
    if not isinstance(items, list | tuple) or not all(
        isinstance(item, list | tuple) and len(item) == 2 for item in items
    ):
        raise CheckpointError("has a broken pickle (an OrderedDict of no pairs)")
    return _pairs([part for item in items for part in item])


def _tensor(arguments, fixed, own_dtype=False):
    """(storage, offset, size, stride, requires_grad, hooks, [dtype], [metadata]) -> Tensor.

    Args:
      arguments: as listed.
      fixed: how many of these torch's function of that name always has.
      own_dtype: whether [dtype] is one of them; without it the storage's holds.
    """
    if len(arguments) not in (fixed, fixed + (fixed > 4)) or not isinstance(arguments[0], Storage):
        raise CheckpointError("has a broken pickle (a tensor without its storage)")
    storage, offset, size, stride = arguments[:4]
    dtype = storage.dtype
    if own_dtype:
        named = arguments[6]
        dtype = _TYPES.get(named.name) if isinstance(named, Global) else None
        if dtype is None:
            raise CheckpointError("has a tensor without a dtype")
    if len(arguments) > fixed and arguments[fixed]:
        raise CheckpointError("has a conjugated or negated view; expected it resolved when saved")
    (offset,), shape, strides = counts_of([offset]), shape_of(size), counts_of(stride)
    if len(shape) != len(strides):
        raise CheckpointError(f"has a tensor of shape {shape} with strides {strides}")
    offset += storage.first
    last = offset + sum((s - 1) * step for s, step in zip(shape, strides, strict=True))
    if math.prod(shape) and (last + 1) * dtype.itemsize > storage.count * storage.dtype.itemsize:
        raise CheckpointError(
            f"has a tensor of shape {shape}, strides {strides} and offset {offset}, which leaves "
            f"its storage of {storage.count} values"
        )
    return Tensor(storage, dtype, offset, shape, strides)


def _parameter(arguments):
    """(tensor, requires_grad, hooks[, state]) -> the tensor."""
    if not arguments or not isinstance(arguments[0], Tensor):
        raise CheckpointError("has a broken pickle (a parameter that is no tensor)")
    return arguments[0]


def _from_type(arguments):
    """(rebuild function, Tensor or Parameter, its arguments, attributes) -> the tensor."""
    if (
        len(arguments) != 4
        or not all(isinstance(part, Global) for part in arguments[:2])
        or arguments[0].name not in _REBUILDS
        or arguments[1].name not in _TENSOR_CLASSES
        or not isinstance(arguments[2], tuple)
    ):
        raise CheckpointError("has a tensor subclass; expected plain tensors and parameters")
    return _REBUILDS[arguments[0].name](arguments[2])


_REBUILDS = {
    "torch._utils._rebuild_tensor": functools.partial(_tensor, fixed=4),
    "torch._utils._rebuild_tensor_v2": functools.partial(_tensor, fixed=6),
    "torch._utils._rebuild_tensor_v3": functools.partial(_tensor, fixed=7, own_dtype=True),
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_CALLS = _REBUILDS | {
    "collections.OrderedDict": _ordered_dict,
    "torch._tensor._rebuild_from_type_v2": _from_type,
}
_TENSOR_CLASSES = ("torch.Tensor", "torch.nn.parameter.Parameter")
_TYPES = (
    dict.fromkeys(_TENSOR_CLASSES)
    | {f"torch.{name}": np.dtype(dtype) for name, dtype in TORCH_DTYPES.items()}
    | {f"torch.{kind}": np.dtype(TORCH_DTYPES[name]) for kind, name in _STORAGES.items()}
    | {"torch.storage.UntypedStorage": np.dtype(np.uint8)}
)
_PUSHES = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE "
    "BINUNICODE8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": list}  # no weights stand in a set
_STEPS = {
    "MARK": PickleReader._mark,
    "POP": PickleReader._drop,
    "POP_MARK": PickleReader._pop_mark,
    "DUP": lambda machine: machine._stack.append(machine._top()),
    "MEMOIZE": PickleReader._memoize,
    "TUPLE": PickleReader._push_tuple,
    "TUPLE1": lambda machine: machine._push_tuple(1),
    "TUPLE2": lambda machine: machine._push_tuple(2),
    "TUPLE3": lambda machine: machine._push_tuple(3),
    "FROZENSET": PickleReader._push_tuple,
    "LIST": lambda machine: machine._stack.append(machine._pop_mark()),
    "DICT": lambda machine: machine._stack.append(_pairs(machine._pop_mark())),
    "APPEND": PickleReader._append,
    "APPENDS": lambda machine: machine._extend(machine._pop_mark()),
    "ADDITEMS": lambda machine: machine._extend(machine._pop_mark()),
    "SETITEM": PickleReader._set_item,
    "SETITEMS": lambda machine: machine._update(machine._pop_mark()),
    "BUILD": PickleReader._build,
    "REDUCE": PickleReader._reduce,
    "NEWOBJ": PickleReader._reduce,
    "BINPERSID": PickleReader._persistent,
}


def counts_of(values: Any) -> tuple[int, ...]:
    """A tuple of counts, each 0 or more; anything else is refused."""
    if not isinstance(values, list | tuple) or len(values) > _MAX_DIMS:
        raise CheckpointError(f"has a shape, stride or place that is no list of <= {_MAX_DIMS}")
    if not all(type(value) is int and 0 <= value < _MAX_COUNT for value in values):
        raise CheckpointError(f"has a shape, stride or place outside 0 ... {_MAX_COUNT}")
    return tuple(values)


def shape_of(values: Any) -> tuple[int, ...]:
    """A tuple of sizes that an array can have; anything else is refused."""
    shape = counts_of(values)
    if math.prod(max(size, 1) for size in shape) >= _MAX_COUNT:
        raise CheckpointError(f"has a tensor of shape {shape}; expected < {_MAX_COUNT} values")
    return shape


def line(value: object) -> str:
    """A value of the file in one short line, whatever it holds."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:77] + "...")
    if isinstance(value, Exception):
        return ascii(str(value))[1:-1][:120] or type(value).__name__
    return f"a {type(value).__name__}"


def names(keys: Iterable[str]) -> str:
    """The first few of them, for a message."""
    keys = list(keys)
    shown = ", ".join(
        line(key) if isinstance(key, str) else str(key)[:80] for key in keys[:_NAMES_SHOWN]
    )
    more = len(keys) - _NAMES_SHOWN
    return (shown or "none") + (f" and {more} more" if more > 0 else "")
