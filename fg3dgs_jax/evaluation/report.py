"""What a person looks at: panels of the comparison video, contact sheet, HTML page, frame table."""

import csv
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import jinja2
import numpy as np

from fg3dgs_jax.avatar import play

COLUMNS = ("truth", "render", "face layer", "eyes layer", "mouth layer", "error x4")
LAYERS = ("face", "eyes", "mouth")
# An error of a quarter of the range has the hottest colour.
ERROR_GAIN = 4.0
# Grey behind the layers: dark hair and white teeth both stand out.
LAYER_BACK = 0.5
# px, the widest picture of the video and of the sheet.
PANEL = 320
# px, height of a caption, and width of the names of the sheet's rows.
CAPTION, NAMES = 22, 96
# Grey value behind captions.
DARK = 24


def panels(truth: np.ndarray, frame: Any) -> list[np.ndarray]:
    """Returns the six uint8 [H, W, 3] pictures of `COLUMNS`.

    Args:
      truth: float [H, W, 3] in [0, 1].
      frame: one `draw.Frame` in NumPy.
    """
    layers = [frame.layers[n] + (1.0 - frame.alphas[n][..., None]) * LAYER_BACK for n in LAYERS]
    return [play.to_uint8(p) for p in (truth, frame.image, *layers)] + [
        error_heat(truth, frame.image)
    ]


def error_heat(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the mean absolute error over the channels as colours, uint8 [H, W, 3].

    It is multiplied by `ERROR_GAIN`, and shown from black (0) to yellow (1).
    """
    heat = play.to_uint8(np.abs(a - b).mean(-1) * ERROR_GAIN)
    return cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO)[..., ::-1]


def caption(text: str, width: int) -> np.ndarray:
    """Returns uint8 [CAPTION, width, 3] with a short text."""
    strip = np.full((CAPTION, width, 3), DARK, np.uint8)
    scale = min(0.45, 0.45 * width / max(8.2 * len(text), 1))
    cv2.putText(
        strip, text, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, scale, (235, 235, 235), 1, cv2.LINE_AA
    )
    return strip


def shrink(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the pictures, no wider than `PANEL`, with even sides."""
    height, width = pictures[0].shape[:2]
    ratio = min(1.0, PANEL / width)
    size = (2 * round(width * ratio / 2), 2 * round(height * ratio / 2))
    if size == (width, height):
        return pictures
    return [cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures]


def comparison_row(pictures: list[np.ndarray], names: Sequence[str] = COLUMNS) -> np.ndarray:
    """Returns one frame of the comparison video: captioned panels, none wider than `PANEL`."""
    small = shrink(pictures)
    columns = [
        np.vstack([caption(name, p.shape[1]), p]) for name, p in zip(names, small, strict=True)
    ]
    return np.hstack(columns)


def choose_frames(
    openings: np.ndarray, blinks: np.ndarray | None, count: int = 8
) -> dict[int, str]:
    """Returns the reason by position of frames for the contact sheet.

    The mouth is widest and closed, the blink is fullest, the other frames are evenly spread.

    Args:
      openings: [n], how far the mouth of the truth is open.
      blinks: AU45 [n] of the truth, where it is known.
      count: number of frames.
    """
    chosen = {int(np.argmax(openings)): "widest mouth"}
    chosen.setdefault(int(np.argmin(openings)), "closed mouth")
    if blinks is not None:
        chosen.setdefault(int(np.argmax(blinks)), "blink")
    spread = np.linspace(0, len(openings) - 1, count).round().astype(int)
    # Bisection order keeps the evenly spread ones apart whatever their number.
    for position in sorted(spread, key=lambda p: -min(abs(p - c) for c in chosen)):
        if len(chosen) >= min(count, len(openings)):
            break
        chosen.setdefault(int(position), "")
    return dict(sorted(chosen.items()))


def contact_sheet(
    columns: Sequence[tuple[str, list[np.ndarray]]], names: Sequence[str] = COLUMNS
) -> np.ndarray:
    """Returns a uint8 picture with a row per kind of panel.

    Args:
      columns: title and panels of each column.
      names: of the panels.
    """
    parts = []
    columns = [(title, shrink(pictures)) for title, pictures in columns]
    for title, pictures in columns:
        width = pictures[0].shape[1]
        parts.append(np.vstack([caption(title, width), *pictures]))
    height = columns[0][1][0].shape[0]
    heads = [caption("", NAMES)]
    for name in names:
        cell = np.full((height, NAMES, 3), DARK, np.uint8)
        cell[:CAPTION] = caption(name, NAMES)
        heads.append(cell)
    return np.hstack([np.vstack(heads), *parts])


def write_csv(path: os.PathLike[str] | str, rows: Sequence[dict]) -> None:
    """Writes dicts with the same keys as a table; None becomes an empty cell."""
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def flatten(metrics: dict) -> list[tuple[str, str, str]]:
    """Returns (name, value, source or reason) of every figure in metrics.json."""
    sources = metrics["weights"]
    out = []
    for name, value in metrics.items():
        if name in ("weights", "per_frame", "notes"):
            continue
        if isinstance(value, dict):
            out += [(f"{name}.{k}", text(v), "") for k, v in value.items()]
        else:
            out.append((name, text(value), sources.get(name, "")))
    return out


def text(value: Any) -> str:
    """Returns a figure as a person reads it."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def write_html(
    path: os.PathLike[str] | str,
    metrics: dict,
    pictures: Sequence[tuple[str, str, str]],
    film: str | None = "comparison.mp4",
) -> None:
    """Writes one page with the metrics and the pictures that are written beside it.

    Args:
      path: the file to write.
      metrics: what metrics.json holds.
      pictures: heading, name of the file and description of each picture.
      film: name of the video, None for none.
    """
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        keep_trailing_newline=True,
    )
    page = pages.get_template("report.html.j2").render(
        rows=flatten(metrics), pictures=pictures, film=film, rows_file=metrics.get("per_frame")
    )
    pathlib.Path(path).write_text(page, encoding="utf-8")
