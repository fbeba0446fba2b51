"""Measures on drawn frames how well the mouth follows the sound."""

from collections.abc import Iterable, Iterator

import numpy as np

from fg3dgs_jax.clip.processed import Clip
from fg3dgs_jax.lipsync import openings


class Meter:
    """Passes frames through and records how far each mouth is open."""

    def __init__(self, clip: Clip, poses: np.ndarray):
        """Fits the colours of mouth and skin on the clip.

        Args:
          clip: the processed folder, at the size of the frames.
          poses: int [n], the clip's frame that lends each frame its pose.
        """
        some = openings.some_of(clip.split("train"))
        boxes = openings.steady_boxes(clip.lips_boxes(), clip.height, clip.width)
        self.colours = openings.fit_mouth_colours(clip.frames[some], clip.labels[some], boxes[some])
        self.boxes = boxes[poses]
        self.openings: list[float] = []

    def watch(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the frames, uint8 [H, W, 3], unchanged."""
        for frame in frames:
            if self.colours is not None:
                box = self.boxes[len(self.openings)]
                self.openings.append(openings.mouth_opening(frame, box, self.colours))
            yield frame

    def verdict(self, samples: np.ndarray) -> str:
        """Returns one line about the mouth and the sound, int16 at 16 kHz."""
        figures = openings.check(np.array(self.openings), samples) if self.openings else {}
        correlation = figures.get("envelope_correlation")
        if correlation is None:
            return (
                "mouth opening against sound: not measurable (the mouth or the sound never changes)"
            )
        line = f"correlation of mouth opening and sound: {correlation:.3f}"
        shifted = figures["envelope_correlation_shifted"]
        if not shifted:
            return line
        return (
            f"{line}; with the sound shifted: mean {shifted['mean']:.3f}, max {shifted['max']:.3f}"
        )
