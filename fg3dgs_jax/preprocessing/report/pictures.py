"""Pictures of what preprocessing found, drawn with OpenCV, and the page that holds them."""

import base64
import os
import pathlib
from collections.abc import Mapping, Sequence

import cv2
import jinja2
import numpy as np

from fg3dgs_jax.clip.decoded import Pictures
from fg3dgs_jax.clip.format import LABELS
from fg3dgs_jax.clip.layers import over

# Colours (RGB) of labels, told apart at a glance; background stays as it is.
_COLOURS = {
    "skin": (225, 180, 120),
    "left_brow": (120, 60, 20),
    "right_brow": (160, 90, 30),
    "left_eye": (60, 120, 255),
    "right_eye": (0, 200, 255),
    "glasses": (90, 90, 90),
    "left_ear": (255, 150, 90),
    "right_ear": (255, 190, 60),
    "earring": (255, 255, 0),
    "nose": (190, 130, 220),
    "mouth": (120, 0, 40),
    "upper_lip": (255, 60, 90),
    "lower_lip": (200, 0, 130),
    "neck": (90, 200, 90),
    "necklace": (0, 255, 180),
    "cloth": (110, 110, 230),
    "hair": (40, 90, 60),
    "hat": (0, 0, 120),
    "teeth": (255, 255, 255),
}
COLOURS = np.array([_COLOURS.get(name, (0, 0, 0)) for name in LABELS], np.float32)
VERDICTS = ("good", "usable", "bad")
# Escapes what it is given: names of files and advice may hold any sign.
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def contact_sheet(
    frames: Pictures,
    labels: Pictures,
    torso: Pictures,
    plate: np.ndarray,
    points: np.ndarray,
    shown: np.ndarray | None = None,
    count: int = 6,
) -> np.ndarray:
    """uint8 picture: frames with landmarks, labels, torso over the plate, one column a frame.

    `shown`: numbers of the frames that may be, None: of all.
    """
    columns = []
    for i in _spread(frames, shown, count):
        dotted = np.array(frames[i])
        _dot(dotted, points[i], (0, 255, 0), 12)
        tinted = np.where(
            labels[i][..., None] > 0, 0.45 * frames[i] + 0.55 * COLOURS[labels[i]], frames[i]
        )
        columns.append(np.concatenate([dotted, tinted.astype(np.uint8), over(torso[i], plate)], 0))
    sheet = np.concatenate(columns, 1)
    ratio = min(1.0, 1800 / sheet.shape[1])
    return cv2.resize(sheet, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)


def fit_sheet(
    frames: Pictures,
    points: np.ndarray,
    fitted: np.ndarray,
    shown: np.ndarray | None = None,
    count: int = 6,
    side: int = 300,
) -> np.ndarray:
    """uint8 picture: faces with landmarks (green) and the fitted head's points (red), enlarged.

    Args:
      frames: uint8 [T, H, W, 3].
      points: [T, P, 2] px, landmarks found in the picture.
      fitted: [T, P, 2] px, the same points of the head as the pose projects them.
      shown: numbers of the frames that may be shown. None: of all.
      count: of frames, evenly spread.
      side: px of the square that shows a face.
    """
    columns = []
    for i in _spread(frames, shown, count):
        low, high = points[i].min(0), points[i].max(0)
        scale = side / (1.3 * (high - low).max())
        move = np.column_stack([scale * np.eye(2), side / 2 - scale * (low + high) / 2])
        shift = move + np.array([[0, 0, 0.5 * scale - 0.5]] * 2)  # OpenCV's pixel centres
        face = cv2.warpAffine(frames[i], shift, (side, side), flags=cv2.INTER_LINEAR)
        for at, colour, radius in ((fitted[i], (255, 40, 40), 40), (points[i], (0, 255, 0), 22)):
            _dot(face, at * scale + move[:, 2], colour, radius)
        columns.append(face)
    return np.concatenate(columns, 1)


def _spread(frames, shown, count):
    """`count` frame numbers, evenly spread over those that may be shown."""
    shown = np.arange(len(frames)) if shown is None else shown
    return shown[np.linspace(0, len(shown) - 1, count).astype(int)]


def _dot(picture, points, colour, radius):
    """Points [P, 2] px as discs onto a picture; radius in 1/16 px."""
    for x, y in points:
        at = (round(float(x * 16 - 8)), round(float(y * 16 - 8)))
        cv2.circle(picture, at, radius, colour, -1, cv2.LINE_8, 4)


def read_picture(path: os.PathLike | str) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a PNG file."""
    image = cv2.imread(str(path))
    if image is None:
        raise OSError(f"{path} cannot be read as a picture; expected a PNG file")
    return np.ascontiguousarray(image[..., ::-1])


def write_report(
    folder: os.PathLike | str,
    tables: Mapping[str, Mapping[str, object]],
    pictures: Mapping[str, np.ndarray],
    warnings: Sequence[str] = (),
) -> pathlib.Path:
    """Writes `report.html` into the folder: one page that carries its pictures in itself.

    Args:
      folder: the processed folder.
      tables: {title: {name: value}}; values that begin with a verdict are coloured by it.
      pictures: {title: uint8 RGB [H, W, 3]}; they come after the first table.
      warnings: lines to be read first.

    Returns:
      The path of the page.
    """
    folder = pathlib.Path(folder)
    page = _TEMPLATES.get_template("page.html.jinja").render(
        name=folder.name,
        tables=tables,
        pictures={title: _inline(picture) for title, picture in pictures.items()},
        warnings=warnings,
        verdicts=VERDICTS,
    )
    part = folder / ".report.part.html"
    part.write_text(page, encoding="utf-8")
    part.replace(folder / "report.html")
    return folder / "report.html"


def _inline(picture, quality=88):
    """A picture as a data URL: JPEG for photographs, PNG where that is smaller (drawings)."""
    bgr = np.ascontiguousarray(picture[..., ::-1])
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    png = cv2.imencode(".png", bgr)[1]
    kind, data = ("png", png) if len(png) < len(jpeg) else ("jpeg", jpeg)
    return f"data:image/{kind};base64," + base64.b64encode(data.tobytes()).decode()
