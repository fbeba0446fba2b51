"""A trained avatar with the clip that lends it poses, background and expressions."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fg3dgs_jax.avatar import controls as controls_lib
from fg3dgs_jax.avatar import play
from fg3dgs_jax.avatar.controls import Controls
from fg3dgs_jax.clip.fingerprint import digest_of
from fg3dgs_jax.clip.open import open_clip
from fg3dgs_jax.clip.processed import Clip
from fg3dgs_jax.experts.audio import audio_features, lip_prior
from fg3dgs_jax.media import clock, loudness, video, windows

QUIET = 50  # frames of silence, in the middle of which nothing else is heard


class Speech(NamedTuple):
    """An avatar that speaks a sound."""

    frames: Iterator[np.ndarray]  # uint8 [H, W, 3], drawn as they are taken
    drive: play.Drive  # what drives them

    @property
    def poses(self) -> np.ndarray:
        """Int [n]: the clip's frame that lends each pose."""
        return self.drive.poses

    @property
    def num_frames(self) -> int:
        """The number of frames, 25 a second."""
        return self.drive.num_frames


@dataclasses.dataclass(frozen=True)
class Subject:
    """An avatar with the clip, sound and expressions that drive it."""

    avatar: play.Drawable
    clip: Clip
    features: np.ndarray  # [T, A, D]
    expression: np.ndarray  # [T, E]
    samples: np.ndarray  # int16 [T * 640]

    def drive(self, index: np.ndarray) -> play.Drive:
        """Returns what drives the frames `index` of the clip with their own sound."""
        index = np.asarray(index)
        return play.Drive(self.features, self.expression[index], poses=index, sounds=index)

    def draw(self, index: np.ndarray) -> Iterator[Any]:
        """Yields the `draw.Frame`s `index` of the clip, drawn with their own sound."""
        return play.draw_frames(self.avatar, self.clip, self.drive(index))

    def sound(self, index: np.ndarray) -> np.ndarray:
        """Returns the samples that belong to consecutive frames `index`."""
        step = clock.SAMPLES_PER_FRAME
        return self.samples[index[0] * step : (index[-1] + 1) * step]

    def speak(
        self,
        samples: np.ndarray,
        name: Any = "the sound",
        controls: Controls = controls_lib.UNCHANGED,
    ) -> Speech:
        """Makes the avatar speak with the clip's poses, played forwards and backwards.

        Args:
          samples: int16 [n] at 16 kHz.
          name: what an error message calls the sound.
          controls: what is to be otherwise than in the clip.

        Raises:
          ValueError: the avatar's audio features cannot be computed, the split is empty, or the
            avatar has not what the controls name.
        """
        num_frames = windows.num_frames_of(samples)
        settings = self.avatar.config.data
        controls_lib.check(controls, settings.expression)
        extractor = settings.audio_extractor
        audio_features.check_window(settings, audio_features.lookup(extractor).window, name)
        # A clip whose sound was brought to the common level has an avatar that needs the same.
        if "sound" in self.clip.meta:
            samples = loudness.apply_gain(samples, loudness.gain_db(samples))
        features = self._hear(samples, num_frames)
        cameras = np.linalg.inv(self.clip.world_to_camera)[:, :3, 3]
        poses = controls_lib.poses(controls, self.clip.shot(controls.split), cameras, num_frames)
        learnt = self.expression[self.clip.split("train")]
        drive = play.Drive(
            features,
            controls_lib.apply(controls, self.expression[poses], learnt, settings.expression),
            poses=poses,
            sounds=np.arange(num_frames),
            ease=self._ease(controls, num_frames),
        )
        return Speech(play.draw_pictures(self.avatar, self.clip, drive), drive)

    def _hear(self, samples: np.ndarray, num_frames: int) -> np.ndarray:
        """Features of new sound, by the lip prior that the clip's own came from."""
        prior = self.clip.path / f"{lip_prior.NAME}.npz"
        extractor = self.avatar.config.data.audio_extractor
        return audio_features.extract(
            extractor, samples, num_frames, prior if prior.is_file() else None
        )

    def _ease(self, controls: Controls, num_frames: int) -> play.Ease | None:
        if not controls.eases:
            return None
        still = self._hear(np.zeros(QUIET * clock.SAMPLES_PER_FRAME, np.int16), QUIET)
        silence = windows.slice_windows(still, np.array([QUIET // 2]))[0].astype(np.float32)
        return play.Ease(controls_lib.of_frames(controls.mouth_gain, num_frames), silence)


def open_subject(
    avatar: play.Drawable,
    data: os.PathLike[str] | str | None = None,
    size: int | None = None,
) -> Subject:
    """Opens the clip that an avatar was trained on.

    Args:
      avatar: a trained avatar.
      data: the processed folder, or packed file, where it has moved since training.
      size: px of the longer side of what is drawn, at most that of the folder. None: as in
        training.

    Raises:
      ValueError: there is no such folder, or its sound is not described as in training.
    """
    settings = avatar.config.data
    place = pathlib.Path(data or settings.path)
    if not place.exists():
        raise ValueError(
            f"{place} does not exist; expected the processed folder, or packed file, on which the "
            "avatar was trained: name its place with --data FOLDER"
        )
    clip = open_clip(data or settings.path, size or settings.max_side or 0)
    features = clip.audio_features(settings.audio_extractor)
    audio_features.check_window(settings, features.shape[1:], clip.path)
    if settings.audio_digest not in (None, digest_of(features)):
        print(
            f"the {settings.audio_extractor!r} features of {clip.path} were made anew since the "
            "avatar was trained, and it may follow these worse: train it again",
            file=sys.stderr,
        )
    return Subject(
        avatar=avatar,
        clip=clip,
        features=features,
        expression=clip.expression_channels(tuple(settings.expression)),
        samples=video.read_wav(clip.path / "audio.wav"),
    )
