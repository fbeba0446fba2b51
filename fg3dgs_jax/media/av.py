"""PyAV, imported when a media file is first opened.

What reads no video and writes none starts sooner and runs where PyAV is not installed: training on
a processed folder of arrays, for one.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av import AudioFrame as AudioFrame
    from av import AudioResampler as AudioResampler
    from av import AudioStream as AudioStream
    from av import Packet as Packet
    from av import VideoFrame as VideoFrame
    from av import VideoStream as VideoStream
    from av import codecs_available as codecs_available
    from av import open as open
    from av import time_base as time_base
    from av.container import InputContainer as InputContainer
    from av.error import FFmpegError as FFmpegError
    from av.error import InvalidDataError as InvalidDataError
    from av.filter import Graph as Graph
    from av.stream import Disposition as Disposition

# Names that PyAV does not define at its top.
_HOMES = {"InputContainer": "av.container", "Graph": "av.filter", "Disposition": "av.stream"}


def __getattr__(name: str) -> Any:
    """A name of PyAV, looked up when it is used (PEP 562)."""
    value = getattr(importlib.import_module(_HOMES.get(name, "av")), name)
    globals()[name] = value
    return value
