"""The word of our own lip-sync expert on a render, and on its truth as the ceiling. Not LSE."""

import jax
import numpy as np

from fg3dgs_jax.lipsync import expert, shift_scores
from fg3dgs_jax.media import windows

FIGURES = ("score", "peak", "contrast", "aligned", "runs")


class OwnSync:
    """Watches frames as they are drawn (see `perception`): `add` each in order, then `result`."""

    def __init__(self, path, clip, index, samples):
        """Reads the expert that `lipsync fit` wrote.

        Args:
          path: of `sync_expert.npz`.
          clip: the processed folder, at the size of the frames.
          index: numbers of the consecutive frames to come.
          samples: int16 of the whole clip, 16 kHz.

        Raises:
          ValueError: no such expert.
        """
        self.expert, self.path = expert.load(path), path
        self.boxes = expert.mouth_boxes(clip.landmarks)[index]
        self.windows = windows.mel_windows(samples, clip.num_frames)[index]
        self.mouths = []  # [2, 48, 48, 3] of each frame: truth, render

    def add(self, truth, image):
        pictures = np.stack([truth, image]).astype(np.float32)
        self.mouths.append(np.asarray(_cut(pictures, self.boxes[len(self.mouths)])))

    def result(self) -> tuple[dict | None, str]:
        """The render's score, peak, contrast and share of aligned runs, see
        `shift_scores.summary`; the truth's under truth_*; and the source.
        """
        if len(self.mouths) < expert.FRAMES:
            needed = f"the expert needs {expert.FRAMES}"
            return None, f"not measured: {len(self.mouths)} frames; {needed}"
        middles = self.windows[expert.MIDDLE : len(self.mouths) - expert.MIDDLE]
        heard = np.asarray(expert.embed_sound(self.expert, middles))
        found = {}
        for name, mouths in zip(("truth_", ""), np.stack(self.mouths, 1), strict=True):
            seen = np.asarray(expert.embed_cut_mouths(self.expert, mouths[None]))[0]
            told = shift_scores.summary(expert.probability(self.expert, seen @ heard.T))
            found |= {f"{name}{key}": told[key] for key in FIGURES}
        return found, f"own lip-sync expert ({self.path}); not LSE, comparable within this expert"


_cut = jax.jit(expert.cut)
