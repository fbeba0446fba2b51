"""What labels a clip's pixels: three parsers with one interface, from the best to the simplest.

| name | network | landmarks give |
|---|---|---|
| `bisenet` | BiSeNet: 19 classes; EasyPortrait, where found: teeth | left and right |
| `selfie_multiclass` | MediaPipe: hair, skins, clothes, others | eyes, brows, nose, mouth, ears |
| `landmarks` | MediaPipe: the person | all parts, with colour |

Where no network knows the teeth, they are found by colour.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from fg3dgs_jax.experts.face import bisenet, easyportrait, segmenter, selfie_multiclass
from fg3dgs_jax.preprocessing import threads
from fg3dgs_jax.preprocessing.label import from_landmarks, from_networks
from fg3dgs_jax.weights import files as files_lib
from fg3dgs_jax.weights import store

BATCH = 4  # frames a call of the Flax networks; on a CPU one, for more only take longer each


@dataclasses.dataclass(frozen=True)
class FaceParser:
    """One way to make `labels.mkv`, with the files it takes."""

    name: str
    weights: dict[str, pathlib.Path]  # by their names in the registry
    _run: Callable  # (frames, points, fps, progress) -> `from_landmarks.Parsed`s

    def parse(
        self,
        frames: np.ndarray,
        points: np.ndarray,
        fps: float = 25.0,
        progress: Callable[[Iterable], Iterable] = iter,
    ) -> Iterator[from_landmarks.Parsed]:
        """Yields a `from_landmarks.Parsed` for each frame: labels uint8, alpha float32, [H, W].

        Args:
          frames: uint8 [T, H, W, 3] RGB, in order; they may be decoded as they are read.
          points: float [T, 478, 2] px, smoothed with `over_time.smooth`.
          fps: frames a second.
          progress: wraps the frames, e.g. for a bar.
        """
        yield from self._run(frames, points, fps, progress)

    @property
    def description(self) -> str:
        """The name and, where there is a choice, where the teeth come from; for people."""
        if self.name != "bisenet":
            return self.name
        source = "EasyPortrait" if "easyportrait" in self.weights else "colour"
        return f"{self.name}, teeth by {source}"

    @property
    def made_by(self) -> dict:
        """What the labels depend on, to compare and to keep: the name, and each file's sha256."""
        return {
            "parser": self.name,
            "weights": {n: files_lib.digest(f) for n, f in self.weights.items()},
        }


def _landmarks(files):
    def run(frames, points, fps, progress):
        masks = segmenter.segment(files["selfie_segmenter"], frames, fps, progress)
        yield from threads.map_ahead(from_landmarks.parse, frames, points, masks)

    return run


def _selfie_multiclass(files):
    def run(frames, points, fps, progress):
        masks = selfie_multiclass.segment(files["selfie_multiclass"], frames, fps, progress)
        yield from threads.map_ahead(from_networks.from_multiclass, frames, points, masks)

    return run


def _bisenet(files):
    network, teeth = jax.device_put(bisenet.load(files["bisenet"])), None
    if "easyportrait" in files:
        teeth = jax.device_put(easyportrait.load(files["easyportrait"]))

    def run(frames, points, fps, progress):
        del fps
        size = 1 if jax.default_backend() == "cpu" else BATCH
        times = iter(progress(range(len(frames))))
        while batch := list(itertools.islice(times, size)):
            # The last batch is filled up, because each shape is compiled by itself.
            full = np.stack([frames[i] for i in (batch + batch[-1:] * size)[:size]])
            parts, person = bisenet.segment(network, full)
            shown = [None] * size
            if teeth:
                shown = np.asarray(easyportrait.parse(teeth, full)) == easyportrait.TEETH
            rows = zip(batch, parts, person, shown, strict=False)
            for i, classes, confidence, is_tooth in rows:
                yield from_networks.from_celebamask(
                    frames[i], points[i], classes, confidence, is_tooth
                )

    return run


# The best first; of each: what makes it run, the weights it needs, those it takes if found.
_PARSERS = {
    "bisenet": (_bisenet, ("bisenet",), ("easyportrait",)),
    "selfie_multiclass": (_selfie_multiclass, ("selfie_multiclass",), ()),
    "landmarks": (_landmarks, ("selfie_segmenter",), ()),
}
NAMES = ("auto", *_PARSERS)


def choose(name: str = "auto") -> FaceParser:
    """The parser of a name, its networks read; "auto": the best whose weights are found.

    Raises:
      ValueError: no parser has that name. Weights of that parser (of "auto": of the last) are
        missing, are not the registered ones, or are not of that network.
    """
    if name not in NAMES:
        raise ValueError(f"no face parser is called {name!r}; expected one of {', '.join(NAMES)}")
    if name == "auto":
        *better, name = _PARSERS
        name = next((n for n in better if all(map(store.find, _PARSERS[n][1]))), name)
    prepare, needed, optional = _PARSERS[name]
    paths = {n: store.require(n) for n in needed}
    paths |= {n: path for n in optional if (path := store.find(n))}
    return FaceParser(name, paths, prepare(paths))
