"""Pictures and the page that show what preprocessing found; drawn with OpenCV alone."""

import base64
import html
import pathlib

import cv2
import numpy as np

from fg3dgs_jax.clip.layers import over

# One colour a label (RGB), told apart at a glance; background stays as it is.
COLOURS = np.array(
    [(0, 0, 0), (225, 180, 120), (120, 60, 20), (160, 90, 30), (60, 120, 255), (0, 200, 255),
     (90, 90, 90), (255, 150, 90), (255, 190, 60), (255, 255, 0), (190, 130, 220), (120, 0, 40),
     (255, 60, 90), (200, 0, 130), (90, 200, 90), (0, 255, 180), (110, 110, 230), (40, 90, 60),
     (0, 0, 120), (255, 255, 255)], np.float32
)  # fmt: skip
STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:1500px}th{text-align:left;font-weight:normal;"
    "padding-right:2em;vertical-align:top}img{max-width:100%}.warn,.bad{color:#a00000}"
    ".usable{color:#8a5a00}.good{color:#207020}"
)
VERDICTS = ("good", "usable", "bad")


def contact_sheet(frames, labels, torso, plate, points, count=6):
    """uint8 picture: frames with landmarks, labels, torso over the plate, one column a frame."""
    columns = []
    for i in np.linspace(0, len(frames) - 1, count).astype(int):
        dotted = np.array(frames[i])
        _dot(dotted, points[i], (0, 255, 0), 12)
        tinted = np.where(
            labels[i][..., None] > 0, 0.45 * frames[i] + 0.55 * COLOURS[labels[i]], frames[i]
        )
        columns.append(np.concatenate([dotted, tinted.astype(np.uint8), over(torso[i], plate)], 0))
    sheet = np.concatenate(columns, 1)
    ratio = min(1.0, 1800 / sheet.shape[1])
    return cv2.resize(sheet, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)


def fit_sheet(frames, points, fitted, count=6, side=300):
    """uint8 picture: faces with landmarks (green) and the fitted head's points (red), enlarged.

    Args:
      frames: uint8 [T, H, W, 3].
      points, fitted: [T, P, 2] px, found in the picture and projected by the pose.
    """
    columns = []
    for i in np.linspace(0, len(frames) - 1, count).astype(int):
        low, high = points[i].min(0), points[i].max(0)
        scale = side / (1.3 * (high - low).max())
        move = np.column_stack([scale * np.eye(2), side / 2 - scale * (low + high) / 2])
        shift = move + np.array([[0, 0, 0.5 * scale - 0.5]] * 2)  # OpenCV's pixel centres
        face = cv2.warpAffine(frames[i], shift, (side, side), flags=cv2.INTER_LINEAR)
        for at, colour, radius in ((fitted[i], (255, 40, 40), 40), (points[i], (0, 255, 0), 22)):
            _dot(face, at * scale + move[:, 2], colour, radius)
        columns.append(face)
    return np.concatenate(columns, 1)


def _dot(picture, points, colour, radius):
    """Points [P, 2] px as discs onto a picture; radius in 1/16 px."""
    for x, y in points:
        at = (round(float(x * 16 - 8)), round(float(y * 16 - 8)))
        cv2.circle(picture, at, radius, colour, -1, cv2.LINE_8, 4)


def read_picture(path):
    """uint8 RGB [H, W, 3] of a PNG file."""
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


def write_report(folder, tables, pictures, warnings=()) -> pathlib.Path:
    """`report.html` in the folder: one page that carries its pictures in itself.

    Args:
      folder: the processed folder.
      tables: {title: {name: value}}; values that begin with a verdict are coloured by it.
      pictures: {title: uint8 RGB [H, W, 3]}.
      warnings: lines to be read first.
    """
    folder = pathlib.Path(folder)
    told = "".join(f"<li>{html.escape(w)}</li>" for w in warnings)
    told = f'<ul class="warn">{told}</ul>' if told else "<p>Nothing to warn of.</p>"
    first, *others = (f"<h2>{html.escape(t)}</h2>{_table(rows)}" for t, rows in tables.items())
    shown = "".join(
        f'<h2>{html.escape(title)}</h2><img alt="{html.escape(title)}" src="{_inline(picture)}">'
        for title, picture in pictures.items()
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(folder.name)}</title><style>{STYLE}</style>"
        f"<h1>What preprocessing found in {html.escape(folder.name)}</h1>"
        f"{told}{first}{shown}{''.join(others)}</html>"
    )
    part = folder / ".report.part.html"
    part.write_text(page, encoding="utf-8")
    part.replace(folder / "report.html")
    return folder / "report.html"


def _table(rows):
    body = "".join(
        f"<tr><th>{html.escape(str(k))}</th><td{_class(str(v))}>{html.escape(str(v))}</td></tr>"
        for k, v in rows.items()
    )
    return f"<table>{body}</table>"


def _class(text):
    verdict = text.split(":")[0]
    return f' class="{verdict}"' if verdict in VERDICTS else ""


def _inline(picture, quality=88):
    """A picture as a data URL: JPEG for photographs, PNG where that is smaller (drawings)."""
    bgr = np.ascontiguousarray(picture[..., ::-1])
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    png = cv2.imencode(".png", bgr)[1]
    kind, data = ("png", png) if len(png) < len(jpeg) else ("jpeg", jpeg)
    return f"data:image/{kind};base64," + base64.b64encode(data.tobytes()).decode()
