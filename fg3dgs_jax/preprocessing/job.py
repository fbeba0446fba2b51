"""What the steps of a pipeline are given: the folder, the source, and what was chosen and found."""

import abc
import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fg3dgs_jax.clip import av_offset, decoded, format
from fg3dgs_jax.experts.audio import audio_features
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.media import video
from fg3dgs_jax.preprocessing.express import sources
from fg3dgs_jax.preprocessing.resume import Folder
from fg3dgs_jax.preprocessing.settings import Consent
from fg3dgs_jax.weights import files, store


@dataclasses.dataclass
class Job(abc.ABC):
    """A processed folder to be made. The kinds of sources add what is theirs.

    The properties read what earlier steps have written: a step may use those whose files are among
    its `needs`.
    """

    folder: Folder
    consent: Consent
    landmarker: pathlib.Path  # face_landmarker.task
    expression: sources.ExpressionSources
    extractors: tuple[str, ...]  # of the audio features to compute

    @property
    @abc.abstractmethod
    def num_frames(self) -> int:
        """T."""

    @property
    @abc.abstractmethod
    def size(self) -> tuple[int, int]:
        """Height and width, px, of the folder's pictures."""

    @property
    def cuts(self) -> list[int]:
        """Frames that begin another scene."""
        return []

    @functools.cached_property
    def sound_record(self) -> Any:
        """What the folder's sound depends on besides the key (JSON)."""
        return True

    @abc.abstractmethod
    def meta(self) -> dict[str, Any]:
        """Arguments of `format.save_meta`, once the steps are done."""

    @property
    def frames(self) -> decoded.Decoded:
        """uint8 [T, H, W, 3] RGB, of `frames.mkv`."""
        return decoded.frames(self.folder.path / "frames.mkv")

    @property
    def landmarks(self) -> np.ndarray:
        """float32 [T, 478, 2] px, of `landmarks.npz`: gaps bridged, not smoothed."""
        with np.load(self.folder.path / "landmarks.npz") as fields:
            return fields["pixels"]

    @property
    def left_out(self) -> Sequence[Sequence]:
        """Frames that do not show the person in the scene of the clip: [first, last + 1, why]."""
        return []

    @property
    def own(self) -> np.ndarray:
        """Bool [T]: the other frames."""
        return format.own_frames(self.num_frames, self.left_out)

    def made_by(self, record: Any) -> Any:
        """What a step's files depend on (JSON), where they depend on the frames left out too."""
        spans = [list(span) for span in self.left_out]
        return {"made_by": record, "left_out": spans} if spans else record

    @property
    def borders(self) -> list[int]:
        """Frames over which nothing is smoothed: cuts, and where own frames begin and end."""
        return sorted({*self.cuts, *(int(k) + 1 for k in np.flatnonzero(np.diff(self.own)))})

    @functools.cached_property
    def track(self) -> face_landmarker.FaceTrack:
        """What the landmarker saw in own frames, of `faces.npz`."""
        track = face_landmarker.load_track(self.folder.path / "faces.npz")
        return track._replace(num_faces=np.where(self.own, track.num_faces, 0))

    @functools.cached_property
    def lateness(self) -> av_offset.Offset:
        """What lips and sound show about each other over the whole clip."""
        samples = video.read_wav(self.folder.path / "audio.wav")
        lips = self.folder.path / "audio_lips.npy"
        predicted = np.load(lips)[:, 0] if "lips" in self.extractors else None
        return av_offset.estimate(self.track.pixels, self.track.valid, samples, predicted)

    def predicted_lips(self, samples: np.ndarray) -> np.ndarray | None:
        """Opening, width and protrusion [T, 3] that the lip prior expects for a sound at 16 kHz.

        None where the job does not use the prior.
        """
        if "lips" not in self.extractors:
            return None
        return audio_features.expected_lips(samples, self.num_frames)

    def weights(self) -> dict[str, str]:
        """{name in the registry: sha256} of the networks that every source uses."""
        extractors = (audio_features.lookup(name).weights for name in self.extractors)
        names = ("face_landmarker", *self.expression.emotion.weights, *filter(None, extractors))
        return {name: files.digest(store.require(name)) for name in names}
