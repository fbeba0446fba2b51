"""What a person looks at: comparison video panels, contact sheet, curves, one page of HTML and the
per-frame table.
"""

import csv
import html

import cv2
import numpy as np

from fg3dgs_jax.avatar import play

COLUMNS = ("truth", "render", "face layer", "eyes layer", "mouth layer", "error x4")
LAYERS = ("face", "eyes", "mouth")
ERROR_GAIN = 4.0  # an error of a quarter of the range is the hottest colour
LAYER_BACK = 0.5  # grey behind the layers: dark hair and white teeth both stand out
PANEL = 320  # px, the widest picture of the video and of the sheet
CAPTION = 22  # px


def panels(truth, frame) -> list[np.ndarray]:
    """The six uint8 [H, W, 3] pictures of `COLUMNS`. truth: float [H, W, 3] in [0, 1]; frame: one
    drawn Frame.
    """
    layers = [frame.layers[n] + (1.0 - frame.alphas[n][..., None]) * LAYER_BACK for n in LAYERS]
    return [play.to_uint8(p) for p in (truth, frame.image, *layers)] + [
        error_heat(truth, frame.image)
    ]


def error_heat(a, b) -> np.ndarray:
    """uint8 [H, W, 3]: mean absolute error over the channels, times `ERROR_GAIN`, from black to
    yellow.
    """
    heat = play.to_uint8(np.abs(a - b).mean(-1) * ERROR_GAIN)
    return cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO)[..., ::-1]


def caption(text, width) -> np.ndarray:
    """uint8 [CAPTION, width, 3] with a short text."""
    strip = np.full((CAPTION, width, 3), 24, np.uint8)
    scale = min(0.45, 0.45 * width / max(8.2 * len(text), 1))
    cv2.putText(
        strip, text, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, scale, (235, 235, 235), 1, cv2.LINE_AA
    )
    return strip


def shrink(pictures) -> list[np.ndarray]:
    """The pictures, no wider than `PANEL`, with even sides."""
    height, width = pictures[0].shape[:2]
    ratio = min(1.0, PANEL / width)
    size = (2 * round(width * ratio / 2), 2 * round(height * ratio / 2))
    if size == (width, height):
        return pictures
    return [cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures]


def comparison_row(pictures) -> np.ndarray:
    """One frame of the comparison video: captioned panels side by side, none wider than `PANEL`."""
    small = shrink(pictures)
    columns = [
        np.vstack([caption(name, p.shape[1]), p]) for name, p in zip(COLUMNS, small, strict=True)
    ]
    return np.hstack(columns)


def choose_frames(openings, blinks, count: int = 8) -> dict[int, str]:
    """{position: why} of frames for the contact sheet: mouth widest and closed, the fullest blink,
    the rest evenly spread.

    openings, blinks: [n] curves of the truth; blinks may be None.
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


def contact_sheet(columns) -> np.ndarray:
    """uint8 picture: one column per (title, six panels), one row per kind of panel."""
    strips = []
    columns = [(title, shrink(pictures)) for title, pictures in columns]
    for title, pictures in columns:
        width = pictures[0].shape[1]
        strips.append(np.vstack([caption(title, width), *pictures]))
    sheet = np.hstack(strips)
    height = columns[0][1][0].shape[0]
    names = [caption("", 96)]
    for name in COLUMNS:
        cell = np.full((height, 96, 3), 24, np.uint8)
        cell[:CAPTION] = caption(name, 96)
        names.append(cell)
    return np.hstack([np.vstack(names), sheet])


def write_csv(path, rows) -> None:
    """rows: list of dicts with the same keys; None becomes an empty cell."""
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def flatten(metrics) -> list[tuple[str, str, str]]:
    """(name, value, source or reason) of everything in metrics.json that is a figure."""
    sources = metrics["weights"]
    out = []
    for name, value in metrics.items():
        if name in ("weights", "per_frame"):
            continue
        if isinstance(value, dict):
            out += [(f"{name}.{k}", text(v), "") for k, v in value.items()]
        else:
            out.append((name, text(value), sources.get(name, "")))
    return out


def text(value) -> str:
    """A figure as a person reads it."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def write_html(path, metrics) -> None:
    """One page that shows the metrics and the pictures written beside it."""
    cells = (tuple(map(html.escape, row)) for row in flatten(metrics))
    rows = "\n".join(
        f"<tr><td>{n}</td><td class=v>{v}</td><td class=s>{s}</td></tr>" for n, v, s in cells
    )
    path.write_text(PAGE.replace("@ROWS@", rows), encoding="utf-8")


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Evaluation</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto;
  padding: 0 1rem; }
img, video { max-width: 100%; border: 1px solid #ddd; }
td { padding: .1rem 1rem .1rem 0; } .v { font-variant-numeric: tabular-nums; text-align: right; }
.s { color: #777; }
</style></head><body>
<h1>Evaluation</h1>
<video src="comparison.mp4" controls loop></video>
<table>
@ROWS@
</table>
<h2>Frames</h2><img src="contact_sheet.png" alt="truth, render, layers and error of eight frames">
<h2>Frame by frame</h2>
<img src="moments.png" alt="truth above render around a blink, a wide mouth, a closed mouth">
<h2>Sound and mouth</h2>
<img src="opening.png" alt="audio envelope, true and rendered opening">
<p>Every frame: <a href="per_frame.csv">per_frame.csv</a>;
all figures: <a href="metrics.json">metrics.json</a>.</p>
</body></html>
"""
