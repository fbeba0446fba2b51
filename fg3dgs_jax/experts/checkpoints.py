"""Other people's checkpoints (`.pth`, `.bin`, `.safetensors`) as NumPy arrays, without torch.

A torch file is a pickle, and a pickle is a program. It is not run here: a small machine of our own
reads its instructions as plain data, knows no more globals than tensors and dicts need, and turns
down the file at the first other one. Three containers, told apart by content:

- zip (torch 1.6 and later): `*/data.pkl`, and each storage raw in `*/data/<key>`;
- legacy (before): five pickles - magic, protocol, machine, object, list of storage keys -, then
  each storage as an int64 count and raw values;
- safetensors: a JSON header with dtype, shape and place of every array, then the raw values.
"""

import dataclasses
import functools
import io
import json
import math
import mmap
import pathlib
import pickletools
import struct
import zipfile

import jax.numpy as jnp
import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C  # of the legacy container
_PROTOCOL = 1001
_MAX_COUNT = 2**40  # elements; what is larger is no count but garbage
_MAX_DIMS = 32  # NumPy 1's limit
_MAX_DEPTH = 64  # of nested dicts
_MAX_NODES = 1_000_000  # entries of a file's tree; a few bytes of pickle can stand for 2**50
_MAX_HEADER = 100_000_000  # bytes of a safetensors header, the format's own limit
_NAMES_SHOWN = 8

_TORCH_DTYPES = {
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
# Metadata that stands beside the weights in real files. Never looked into, so that nothing of it
# needs to be built: whatever is made of such a name is one more inert value.
_INERT = frozenset(
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
class _Storage:
    """Raw values in a file, not read yet. `dtype` of an untyped one is uint8."""

    key: str
    dtype: np.dtype
    count: int
    first: int = 0  # where a view of storage `key`, in files before torch 0.4, begins


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A strided window on a storage; offset and strides in elements."""

    storage: _Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Global:
    """The name of something a pickle would import; only ever compared."""

    name: str


class _Inert:
    """Stands for an object that nobody looks into."""


def load(path, root=None, inert=()) -> dict[str, np.ndarray]:
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
    inert = frozenset([inert] if isinstance(inert, str) else inert) | _INERT
    root = () if root is None else (root,) if isinstance(root, str) else tuple(root)
    try:
        with path.open("rb") as file:
            arrays = _load(file, root, inert)
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
        raise CheckpointError(f"is cut short or no zip archive ({_line(error)})") from None
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
            raise CheckpointError(f"has a broken member {_line(name)} ({_line(error)})") from None

    if f"{folder}byteorder" in sizes and read(f"{folder}byteorder") != b"little":
        raise CheckpointError("is big-endian; expected little-endian: save it again on such a host")
    reader = _Machine(io.BytesIO(read(pickles[0])), inert)
    leaves = _flatten(_descend(reader.run(), root))
    for key, storage in reader.storages.items():  # all, but only those under the root are read
        name, size = f"{folder}data/{key}", storage.count * storage.dtype.itemsize
        if sizes.get(name) != size:
            found = f"{sizes[name]} bytes" if name in sizes else "nothing"
            raise CheckpointError(f"has {found} under {_line(name)}; expected {size} bytes")
    return _arrays(leaves, lambda storage: read(f"{folder}data/{storage.key}"))


def _load_legacy(data, root, inert):
    try:
        magic = _Machine(data).run()
    except CheckpointError as error:
        raise CheckpointError(f"is no torch or safetensors file: {error}") from None
    if magic != _MAGIC:
        raise CheckpointError("is a pickle, but no file of torch.save, which is expected")
    protocol, machine = _Machine(data).run(), _Machine(data).run()
    if protocol != _PROTOCOL or not isinstance(machine, dict):
        raise CheckpointError(f"is not of torch's legacy protocol {_PROTOCOL}, which is expected")
    if machine.get("little_endian") is not True:
        raise CheckpointError("is big-endian; expected little-endian: save it again on such a host")
    reader = _Machine(data, inert)
    leaves = _flatten(_descend(reader.run(), root))
    keys = _Machine(data).run()
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
                f"has {len(data)} bytes; expected {end} up to storage {_line(key)}: it is cut short"
            )
        if (count := int.from_bytes(data[at:begin], "little", signed=True)) != storage.count:
            raise CheckpointError(
                f"has {count} values in storage {_line(key)}; expected {storage.count}"
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
        raise CheckpointError(f"has a header that is no JSON ({_line(error)})") from None
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
        raise CheckpointError(f"has {_line(key)} of dtype {_line(name)}, which is not known here")
    dtype = np.dtype(_TORCH_DTYPES[_SAFETENSORS_DTYPES[name]])
    if not isinstance(span, list) or len(span) != 2:
        raise CheckpointError(f"has no data_offsets of two numbers for {_line(key)}")
    shape, (begin, stop) = _shape(shape), _counts(span)
    if stop - begin != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(
            f"has {stop - begin} bytes for {_line(key)}; expected {dtype.name} {list(shape)}"
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
            found = names(tree) if isinstance(tree, dict) else "no dict"
            raise CheckpointError(
                f"has no {key!r} under {list(root[:depth])}; expected one of its keys: {found}"
            )
        tree = tree[key]
    return tree


def _flatten(tree) -> dict[str, _Tensor]:
    """Tensors of nested dicts, lists and tuples under keys joined by ".", in the file's order."""
    if not isinstance(tree, dict | list | tuple):
        raise CheckpointError("holds a single value; expected a dict of tensors")
    leaves, todo, nodes = {}, [((), tree)], 0
    while todo:
        way, node = todo.pop()
        nodes += 1
        if isinstance(node, _Tensor):
            key = ".".join(way)
            if key in leaves:
                raise CheckpointError(f"has two tensors that flatten to the key {_line(key)}")
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


# The pickle machine


class _Machine:
    """Reads one pickle from a stream as data: nothing is imported, called or constructed.

    Python's own `pickletools` splits the stream into instructions. Of a tensor's instructions only
    a `_Tensor` is made, of everything else dicts, lists, tuples, text, numbers and `_Inert`.
    """

    def __init__(self, stream, inert=()):
        self._stream, self._inert = stream, inert
        self._stack, self._marks, self._memo = [], [], {}
        self.storages: dict[str, _Storage] = {}

    def run(self):
        instructions = pickletools.genops(self._stream)
        while True:
            try:
                opcode, argument, _ = next(instructions)
            # The first is what it raises for garbage; the rest guard against its surprises.
            except (ValueError, LookupError, OverflowError, MemoryError, struct.error) as error:
                raise CheckpointError(f"has a broken pickle ({_line(error)})") from None
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
        elif name in _STEPS:
            _STEPS[name](self)
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
        if not isinstance(self._top(), dict | _Inert | _Tensor):
            raise CheckpointError("has a broken pickle (sets the state of a plain value)")

    def _global(self, opcode, argument) -> _Global:
        if opcode == "GLOBAL":
            name = argument.replace(" ", ".", 1)  # pickletools joins module and name so
        else:
            attribute, module = self._pop(), self._pop()
            if not isinstance(attribute, str) or not isinstance(module, str):
                raise CheckpointError("has a broken pickle (a global without a name)")
            name = f"{module}.{attribute}"
        if name not in _CALLS and name not in _TYPES and name not in self._inert:
            raise CheckpointError(
                f"names the global {_line(name)}, which no tensor needs: loading it could run "
                "code; expected a plain state dict (mere metadata can be skipped as `inert`)"
            )
        return _Global(name)

    def _reduce(self):
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise CheckpointError("has a broken pickle (calls what is no global)")
        if function.name in _CALLS:
            self._stack.append(_CALLS[function.name](arguments))
        elif function.name in self._inert:
            self._stack.append(_Inert())
        else:
            raise CheckpointError(f"calls {function.name}, which is a type, not a function")

    def _persistent(self):
        """torch's reference to a storage: ("storage", type, key, device, count[, view])."""
        place = self._pop()
        if not isinstance(place, tuple) or len(place) not in (5, 6) or place[0] != "storage":
            raise CheckpointError("refers to something that is no storage")
        kind, key, count = place[1], place[2], place[4]
        dtype = _TYPES.get(kind.name) if isinstance(kind, _Global) else None
        if dtype is None or not isinstance(key, str):
            raise CheckpointError("refers to a storage without a type or a key")
        storage = _Storage(key, dtype, *_counts([count]))
        if self.storages.setdefault(key, storage) != storage:
            raise CheckpointError(f"uses storage {_line(key)} with two types or sizes")
        if len(place) == 6 and place[5] is not None:
            view = place[5]
            if not isinstance(view, tuple) or len(view) != 3:
                raise CheckpointError(f"has a broken view of storage {_line(key)}")
            storage = dataclasses.replace(storage, first=_counts(view[1:])[0])
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
    """(storage, offset, size, stride, requires_grad, hooks, [dtype], [metadata]) -> _Tensor.

    Args:
      fixed: how many of these torch's function of that name always has.
      own_dtype: whether [dtype] is one of them; without it the storage's holds.
    """
    if len(arguments) not in (fixed, fixed + (fixed > 4)) or not isinstance(arguments[0], _Storage):
        raise CheckpointError("has a broken pickle (a tensor without its storage)")
    storage, offset, size, stride = arguments[:4]
    dtype = storage.dtype
    if own_dtype:
        named = arguments[6]
        dtype = _TYPES.get(named.name) if isinstance(named, _Global) else None
        if dtype is None:
            raise CheckpointError("has a tensor without a dtype")
    if len(arguments) > fixed and arguments[fixed]:
        raise CheckpointError("has a conjugated or negated view; expected it resolved when saved")
    (offset,), shape, strides = _counts([offset]), _shape(size), _counts(stride)
    if len(shape) != len(strides):
        raise CheckpointError(f"has a tensor of shape {shape} with strides {strides}")
    offset += storage.first
    last = offset + sum((s - 1) * step for s, step in zip(shape, strides, strict=True))
    if math.prod(shape) and (last + 1) * dtype.itemsize > storage.count * storage.dtype.itemsize:
        raise CheckpointError(
            f"has a tensor of shape {shape}, strides {strides} and offset {offset}, which leaves "
            f"its storage of {storage.count} values"
        )
    return _Tensor(storage, dtype, offset, shape, strides)


def _parameter(arguments):
    """(tensor, requires_grad, hooks[, state]) -> the tensor."""
    if not arguments or not isinstance(arguments[0], _Tensor):
        raise CheckpointError("has a broken pickle (a parameter that is no tensor)")
    return arguments[0]


def _from_type(arguments):
    """(rebuild function, Tensor or Parameter, its arguments, attributes) -> the tensor."""
    if (
        len(arguments) != 4
        or not all(isinstance(part, _Global) for part in arguments[:2])
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
    | {f"torch.{name}": np.dtype(dtype) for name, dtype in _TORCH_DTYPES.items()}
    | {f"torch.{kind}": np.dtype(_TORCH_DTYPES[name]) for kind, name in _STORAGES.items()}
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
    "MARK": _Machine._mark,
    "POP": _Machine._drop,
    "POP_MARK": _Machine._pop_mark,
    "DUP": lambda machine: machine._stack.append(machine._top()),
    "MEMOIZE": _Machine._memoize,
    "TUPLE": _Machine._push_tuple,
    "TUPLE1": lambda machine: machine._push_tuple(1),
    "TUPLE2": lambda machine: machine._push_tuple(2),
    "TUPLE3": lambda machine: machine._push_tuple(3),
    "FROZENSET": _Machine._push_tuple,
    "LIST": lambda machine: machine._stack.append(machine._pop_mark()),
    "DICT": lambda machine: machine._stack.append(_pairs(machine._pop_mark())),
    "APPEND": _Machine._append,
    "APPENDS": lambda machine: machine._extend(machine._pop_mark()),
    "ADDITEMS": lambda machine: machine._extend(machine._pop_mark()),
    "SETITEM": _Machine._set_item,
    "SETITEMS": lambda machine: machine._update(machine._pop_mark()),
    "BUILD": _Machine._build,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "BINPERSID": _Machine._persistent,
}


def _counts(values) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or len(values) > _MAX_DIMS:
        raise CheckpointError(f"has a shape, stride or place that is no list of <= {_MAX_DIMS}")
    if not all(type(value) is int and 0 <= value < _MAX_COUNT for value in values):
        raise CheckpointError(f"has a shape, stride or place outside 0 ... {_MAX_COUNT}")
    return tuple(values)


def _shape(values) -> tuple[int, ...]:
    shape = _counts(values)
    if math.prod(max(size, 1) for size in shape) >= _MAX_COUNT:
        raise CheckpointError(f"has a tensor of shape {shape}; expected < {_MAX_COUNT} values")
    return shape


def _line(value) -> str:
    """A value of the file in one short line, whatever it holds."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:77] + "...")
    if isinstance(value, Exception):
        return ascii(str(value))[1:-1][:120] or type(value).__name__
    return f"a {type(value).__name__}"


def names(keys) -> str:
    """The first few of them, for a message."""
    keys = list(keys)
    shown = ", ".join(
        _line(key) if isinstance(key, str) else str(key)[:80] for key in keys[:_NAMES_SHOWN]
    )
    more = len(keys) - _NAMES_SHOWN
    return (shown or "none") + (f" and {more} more" if more > 0 else "")
