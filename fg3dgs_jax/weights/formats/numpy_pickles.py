"""Pickled dicts of NumPy arrays read as data; nothing in the file is imported, called or built.

Some weights, LPIPS's in JAX among them, are published as `pickle.dump(params)`. What pickle would
do by calling NumPy's own functions is done here for plain arrays alone.
"""

import dataclasses
import math
import os
import pathlib

import numpy as np

from fg3dgs_jax.weights.formats import pickles
from fg3dgs_jax.weights.formats.pickles import CheckpointError

_MAX_DEPTH = 16  # of nested dicts
_MAX_NODES = 100_000  # entries of a file's tree
_CODES = frozenset("b1 u1 u2 u4 u8 i1 i2 i4 i8 f2 f4 f8".split())
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
_NAMES = frozenset(("numpy.ndarray", "numpy.dtype", *_RECONSTRUCT, *_FROM_BUFFER))


@dataclasses.dataclass
class _DType:
    """A dtype of the file: its code of two characters, then from its state the byte order."""

    code: str
    order: str = "|"

    def resolve(self) -> np.dtype:
        if self.order not in ("<", "|", "="):
            raise CheckpointError("has big-endian arrays; expected little-endian ones")
        return np.dtype(f"<{self.code}" if self.code[1] != "1" else self.code)


@dataclasses.dataclass
class _Array:
    """An array of the file, empty until its state has been read."""

    value: np.ndarray | None = None


class _ArrayReader(pickles.PickleReader):
    """Knows four more names than its parent: what makes an array and a dtype."""

    def _global(self, opcode, argument):
        if opcode == "GLOBAL":
            name = argument.replace(" ", ".", 1)
        else:
            name = ".".join(part for part in self._stack[-2:] if isinstance(part, str))
        if name not in _NAMES:
            return super()._global(opcode, argument)
        if opcode != "GLOBAL":
            self._pop()
            self._pop()
        return pickles.Global(name)

    def _reduce(self):
        function = self._stack[-2] if len(self._stack) > 1 else None
        name = function.name if isinstance(function, pickles.Global) else ""
        if name not in _NAMES:
            return super()._reduce()
        arguments = self._pop()
        self._pop()
        if not isinstance(arguments, tuple):
            raise CheckpointError("has a broken pickle (calls without arguments)")
        if name == "numpy.dtype":
            self._stack.append(_dtype(arguments))
        elif name in _RECONSTRUCT:
            self._stack.append(_Array())
        elif name in _FROM_BUFFER and len(arguments) == 4:
            raw, dtype, shape, order = arguments
            self._stack.append(_Array(_array(raw, dtype, shape, order == "F")))
        else:
            raise CheckpointError(f"calls {name} in a way that plain arrays do not")

    def _build(self):
        target = self._stack[-2] if len(self._stack) > 1 else None
        if not isinstance(target, _Array | _DType):
            return super()._build()
        state = self._pop()
        state = state if isinstance(state, tuple) else ()
        if isinstance(target, _DType) and len(state) > 1 and isinstance(state[1], str):
            target.order = state[1]
        elif isinstance(target, _Array) and len(state) == 5:
            _, shape, dtype, fortran, raw = state
            target.value = _array(raw, dtype, shape, bool(fortran))
        else:
            raise CheckpointError("has a broken pickle (an array or dtype of unknown state)")


# The instructions are looked up in a table of functions, so that overriding alone changes nothing.
_STEPS = {"BUILD": _ArrayReader._build, "REDUCE": _ArrayReader._reduce}


def load(path: os.PathLike | str) -> dict[str, np.ndarray]:
    """The arrays of a pickle of nested dicts, their keys joined by "/"; read-only.

    Raises:
      CheckpointError: the file is cut short, names anything but plain arrays (running it could
        execute code), or holds something else. One line.
      OSError: the file cannot be opened.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            return _flatten(_ArrayReader(file, steps=_STEPS).run())
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _dtype(arguments) -> _DType:
    code = arguments[0] if arguments else None
    if not isinstance(code, str) or code not in _CODES:
        raise CheckpointError(f"has arrays of dtype {pickles.line(code)}; expected plain numbers")
    return _DType(code)


def _array(raw, dtype, shape, fortran) -> np.ndarray:
    if not isinstance(dtype, _DType) or not isinstance(raw, bytes | bytearray):
        raise CheckpointError("has an array without its dtype or its values")
    shape, dtype = pickles.shape_of(shape), dtype.resolve()
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise CheckpointError(f"has {len(raw)} bytes for an array {dtype.name} {list(shape)}")
    array = np.frombuffer(bytes(raw), dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _flatten(tree) -> dict[str, np.ndarray]:
    if not isinstance(tree, dict):
        raise CheckpointError("holds no dict; expected a pickled dict of arrays")
    flat, todo, nodes = {}, [((), tree)], 0
    while todo:
        way, node = todo.pop()
        nodes += 1
        if isinstance(node, dict):
            if len(way) >= _MAX_DEPTH or nodes + len(todo) + len(node) > _MAX_NODES:
                raise CheckpointError(
                    f"nests deeper than {_MAX_DEPTH} or has more than {_MAX_NODES} entries; "
                    "expected a dict of arrays"
                )
            todo += [((*way, str(key)), child) for key, child in reversed(node.items())]
        elif isinstance(node, _Array) and node.value is not None:
            flat["/".join(way)] = node.value
        else:
            raise CheckpointError(
                f"holds {pickles.line(node)} under {pickles.line('/'.join(way))}; expected arrays"
            )
    if not flat:
        raise CheckpointError("holds no arrays")
    return flat
