"""What a config is made of: typed records whose names are checked, and learning-rate schedules."""

import dataclasses
import difflib
import enum
import types
import typing
from typing import Any, Self


class Settings:
    """Base of the config's dataclasses: a name that is not a field is refused, with a suggestion.

    They are mutable while a config is put together. Two with equal values are equal and hash alike
    (`unsafe_hash`), so that a network may hold its part of a config: nothing changes it after that.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets a field.

        Raises:
          AttributeError: there is no such field; the message names the nearest.
        """
        known = [f.name for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        if name not in known:
            raise AttributeError(unknown(name, known, type(self).__name__))
        super().__setattr__(name, value)

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON has them: dicts, lists, strings and numbers."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {f.name: _plain(getattr(self, f.name)) for f in fields}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The settings that `to_dict` gave; fields that are not there keep their defaults.

        Raises:
          AttributeError: a name that is no field.
        """
        kinds = typing.get_type_hints(cls)
        if odd := set(values) - set(kinds):
            raise AttributeError(unknown(min(odd), list(kinds), cls.__name__))
        return cls(**{name: _typed(kinds[name], value) for name, value in values.items()})


def unknown(name: str, known: list[str], where: str) -> str:
    """One line about a name that does not exist: what is there, and which one may be meant."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
    return f"{where} has no {name!r}; {hint}"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A learning rate over a stage: log-linear between knots (share of the stage, rate).

    Two knots at one share are a jump. See `training/rates.py` for the function that it describes.
    """

    knots: tuple[tuple[float, float], ...]


def constant(rate: float) -> Schedule:
    """The same rate from the stage's beginning to its end."""
    return fall(rate, rate)


def fall(start: float, end: float) -> Schedule:
    """A rate that falls log-linearly from `start` to `end`."""
    return Schedule(((0.0, start), (1.0, end)))


def part(whole: Schedule, begin: float, end: float) -> Schedule:
    """The rates of a stage that takes the shares `begin` to `end` of a plain fall."""
    (_, start), (_, stop) = whole.knots
    first, last = (start * (stop / start) ** share for share in (begin, end))
    return fall(first, last)


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.to_dict()
    if isinstance(value, Schedule):
        return [list(knot) for knot in value.knots]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, enum.Enum):
        return value.value
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _typed(kind: Any, value: Any) -> Any:
    """`value` of JSON as the annotation `kind` wants it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (a for a in arguments if a is not types.NoneType)
        return _typed(kind, value)
    if kind is Schedule:
        return Schedule(tuple((float(share), float(rate)) for share, rate in value))
    if origin is dict:
        return {k: _typed(arguments[1], v) for k, v in value.items()}
    if origin is tuple:
        inner = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return tuple(_typed(a, v) for a, v in zip(inner, value, strict=True))
    if isinstance(kind, type) and issubclass(kind, Settings):
        return kind.from_dict(value)
    return kind(value) if isinstance(kind, type) and kind is not object else value
