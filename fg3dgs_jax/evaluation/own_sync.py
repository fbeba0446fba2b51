"""Lip-sync score of a render by our own expert, with the ground truth's as upper bound. Not LSE."""

import os

import jax
import numpy as np

from fg3dgs_jax.clip.processed import Clip
from fg3dgs_jax.lipsync import expert, shift_scores
from fg3dgs_jax.media import windows

FIGURES = ("score", "peak", "contrast", "aligned", "runs")


class OwnSync:
    """The score of our own expert. A `watcher.Measure`."""

    def __init__(
        self, path: os.PathLike[str] | str, clip: Clip, index: np.ndarray, samples: np.ndarray
    ):
        """Reads the expert that `lipsync fit` wrote.

        Args:
          path: its `sync_expert.npz`.
          clip: the processed folder, at the size of the frames.
          index: numbers of the consecutive frames to come.
          samples: int16 of the whole clip, 16 kHz.

        Raises:
          ValueError: no such expert.
        """
        self.expert, self.path = expert.load(path), path
        self.boxes = expert.mouth_boxes(clip.landmarks)[index]
        self.windows = windows.mel_windows(samples, clip.num_frames)[index]
        self.mouths: list[np.ndarray] = []  # [2, 48, 48, 3] of each frame: truth, render

    def add(self, truth: np.ndarray, image: np.ndarray) -> None:
        """Takes in one pair of frames [H, W, 3] in [0, 1]."""
        pictures = np.stack([truth, image]).astype(np.float32)
        self.mouths.append(np.asarray(_cut(pictures, self.boxes[len(self.mouths)])))

    def result(self) -> tuple[dict | None, str]:
        """Returns the score, peak, contrast and share of aligned runs, and their source.

        See `shift_scores.summary`; the figures of the truth are called truth_*.
        """
        if len(self.mouths) < expert.FRAMES:
            needed = f"the expert needs {expert.FRAMES}"
            return None, f"not measured: {len(self.mouths)} frames; {needed}"
        middles = self.windows[expert.MIDDLE : len(self.mouths) - expert.MIDDLE]
        sounds = np.asarray(expert.embed_sound(self.expert, middles))
        figures = {}
        for name, mouths in zip(("truth_", ""), np.stack(self.mouths, 1), strict=True):
            pictures = np.asarray(expert.embed_cut_mouths(self.expert, mouths[None]))[0]
            scores = np.asarray(expert.probability(self.expert, pictures @ sounds.T))
            summary = shift_scores.summary(scores)
            figures |= {f"{name}{key}": summary[key] for key in FIGURES}
        return figures, f"own lip-sync expert ({self.path}); not LSE, comparable within this expert"


_cut = jax.jit(expert.cut)
