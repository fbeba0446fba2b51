"""A trained avatar with the clip that it was trained on."""

import dataclasses

import numpy as np

from fg3dgs_jax.avatar import play
from fg3dgs_jax.clip import processed
from fg3dgs_jax.clip.open import open_clip
from fg3dgs_jax.media import clock, video


@dataclasses.dataclass
class Subject:
    """An avatar with the clip, sound and expressions that drive it."""

    avatar: object
    clip: processed.Clip
    features: np.ndarray  # [T, A, D]
    expression: np.ndarray  # [T, E]
    samples: np.ndarray  # int16 [T * 640]

    def draw(self, index):
        """Yields the frames `index` of the clip, drawn with their own sound."""
        return play.draw_frames(self.avatar, self.clip, self.features, self.expression, index)

    def sound(self, index):
        """The samples that belong to consecutive frames `index`."""
        step = clock.SAMPLES_PER_FRAME
        return self.samples[index[0] * step : (index[-1] + 1) * step]


def open_subject(workdir, data=None) -> Subject:
    """Loads the avatar of a workdir and the processed folder it was trained on (or `data`, where
    that has moved).

    Raises:
      ValueError: no avatar or folder there, or the folder's sound is not described as in training.
    """
    # Here, because it brings in networks, which --help does not need.
    from fg3dgs_jax.experts.audio import audio_features

    avatar = play.load_avatar(workdir)
    settings = avatar.config.data
    clip = open_clip(data or settings.path, settings.max_side or 0)
    features = clip.audio_features(settings.audio_extractor)
    audio_features.check_window(settings, features.shape[1:], clip.path)
    return Subject(
        avatar=avatar,
        clip=clip,
        features=features,
        expression=clip.expression_channels(tuple(settings.expression)),
        samples=video.read_wav(clip.path / "audio.wav"),
    )
