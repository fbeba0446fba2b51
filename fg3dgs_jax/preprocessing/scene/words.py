"""What a user is told of the frames that are left out."""

from collections.abc import Sequence

from fg3dgs_jax.media.clock import FPS
from fg3dgs_jax.preprocessing.scene.choice import Span

MOST = 6  # spans that are named
OTHERS = 3  # other scenes that are offered


def in_words(spans: Sequence[Span], start: float = 0.0) -> str:
    """When and why frames are left out: "0.00 to 0.04 s (blank), ...".

    Args:
      spans: the frames.
      start: s of the video at which the clip begins.
    """
    times = [(start + span.first / FPS, start + span.stop / FPS, span.why) for span in spans]
    named = [f"{a:.2f} to {b:.2f} s ({why})" for a, b, why in times[:MOST]]
    more = f" and {len(times) - MOST} times more" if len(times) > MOST else ""
    return ", ".join(named) + more


def lines(
    spans: Sequence[Span], others: Sequence[tuple[int, int]], num_frames: int, start: float = 0.0
) -> list[str]:
    """One line on what is left out, and one on how to take another scene; none if nothing is.

    Args:
      spans: the frames that are left out.
      others: (first frame, last + 1) of other scenes with a face.
      num_frames: of the clip.
      start: s of the video at which the clip begins.
    """
    if not spans:
        return []
    count = sum(span.stop - span.first for span in spans)
    told = [
        f"scene: {count} of {num_frames} frames are left out, which do not show the person in the "
        f"scene that is seen longest: {in_words(spans, start)}"
    ]
    flags = [f"--start {start + a / FPS:.2f} --end {start + b / FPS:.2f}" for a, b in others]
    if flags:
        told.append(f"scene: to take another one, give {' or '.join(flags[:OTHERS])}")
    return told
