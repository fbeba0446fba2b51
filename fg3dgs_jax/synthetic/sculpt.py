"""The still head of the embedded subject: a radius and an albedo for each direction.

Sculpt axes: X to the image's right, Y up, Z towards the viewer; metres. A direction is written in
face coordinates (a, b), a stereographic chart seen from behind: dir = (2u, 2v, 1 - s) / (1 + s),
u = a / 0.2, v = b / 0.2, s = u^2 + v^2. Near the face, 0.1 m from the centre, a and b are metres
along the skin, so the features below are written in metres; |a| = 0.2 is the side.
"""

from types import ModuleType
from typing import Any

import cv2
import numpy as np

CHART = 0.2  # metres of face coordinate at 90 degrees from the front
EXTENT = 0.37  # the tables cover [-EXTENT, EXTENT]^2: 123 degrees from the front
TABLE = 448  # radius table, 1.7 mm at the face, interpolated
TEXTURE = 1024

EYE = (0.0375, 0.0005)  # face coordinates of the middle of the opening; the other eye is mirrored
EYEBALL = (0.0305, 0.0008, 0.0655)  # centre in sculpt axes
EYEBALL_RADIUS = 0.0127
MOUTH_B = -0.0665  # where the lips meet

# Half width, front depth and back depth of the head's horizontal slices, from the chin up.
SLICES = np.array(
    [
        (-0.1215, 0.008, 0.050, 0.004),
        (-0.119, 0.022, 0.066, 0.006),
        (-0.114, 0.033, 0.075, 0.010),
        (-0.105, 0.0425, 0.0805, 0.015),
        (-0.090, 0.0520, 0.0830, 0.025),
        (-0.070, 0.0600, 0.0850, 0.045),
        (-0.045, 0.0665, 0.0855, 0.070),
        (-0.020, 0.0695, 0.0855, 0.085),
        (0.000, 0.0715, 0.0865, 0.092),
        (0.025, 0.0735, 0.0905, 0.095),
        (0.045, 0.0735, 0.0895, 0.095),
        (0.065, 0.0695, 0.0835, 0.091),
        (0.085, 0.0600, 0.0710, 0.080),
        (0.100, 0.0455, 0.0540, 0.062),
        (0.109, 0.0300, 0.0360, 0.042),
        (0.1125, 0.0175, 0.0210, 0.025),
        (0.1137, 0.0050, 0.0060, 0.007),
    ],
    np.float64,
).T

# Additions to the radius: amplitude, middle (a, b), spread (a, b), all metres; mirrored where a >
# 0.
BUMPS = (
    (-0.0075, 0.0365, 0.002, 0.0150, 0.0105),  # eye sockets
    (-0.0030, 0.0170, 0.006, 0.0060, 0.0090),  # beside the bridge
    (0.0028, 0.0300, 0.0235, 0.0180, 0.0060),  # brow ridge
    (0.0035, 0.0540, -0.024, 0.0170, 0.0130),  # cheekbones
    (0.0025, 0.0340, -0.043, 0.0130, 0.0130),  # cheeks beside the mouth
    (-0.0022, 0.0330, -0.060, 0.0060, 0.0120),  # hollow beside the corners
    (-0.0030, 0.1100, 0.030, 0.0250, 0.0250),  # temples
    (0.0045, 0.0000, -0.0640, 0.0210, 0.0150),  # the muzzle under the lips
    (-0.0035, 0.0000, -0.0845, 0.0190, 0.0050),  # groove over the chin
    (0.0045, 0.0000, -0.1010, 0.0145, 0.0110),  # chin
    (-0.0012, 0.0000, -0.0510, 0.0026, 0.0060),  # philtrum and its ridges
    (0.0007, 0.0046, -0.0510, 0.0020, 0.0060),
    (0.0095, 0.0128, -0.0368, 0.0044, 0.0050),  # wings of the nose
)


# The lower edge of the hair: b at each |a|.
HAIRLINE = np.array(
    [
        (0.000, 0.073),
        (0.030, 0.075),
        (0.060, 0.074),
        (0.085, 0.064),
        (0.105, 0.048),
        (0.125, 0.030),
        (0.140, 0.004),
        (0.152, -0.034),
        (0.166, -0.040),
        (0.180, 0.050),
        (0.200, 0.075),
        (0.235, 0.075),
        (0.262, 0.045),
        (0.285, -0.050),
        (0.310, -0.160),
    ]
).T


def face_grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Face coordinates (a, b) of a [size, size] table; row 0 is b = -EXTENT."""
    axis = np.linspace(-EXTENT, EXTENT, size, dtype=np.float32)
    a, b = np.meshgrid(axis, axis)
    return a, b


def directions(a: Any, b: Any, xnp: ModuleType = np) -> Any:
    """Unit vectors [..., 3] (sculpt axes) of face coordinates."""
    u, v = a / CHART, b / CHART
    s = u * u + v * v
    return xnp.stack([2 * u, 2 * v, 1 - s], -1) / (1 + s)[..., None]


def gauss(x: np.ndarray, y: float | np.ndarray, sx: float, sy: float) -> np.ndarray:
    """A bell of height 1 and deviations (sx, sy), at (x, y) from its middle."""
    return np.exp(-0.5 * ((x / sx) ** 2 + (y / sy) ** 2))


def smooth(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, a smooth step between (also falling, where low > high)."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def skull_radius(d: np.ndarray) -> np.ndarray:
    """Radius [...] of the bare head along directions d [..., 3], without features.

    Superelliptic slices, by bisection.
    """

    def outside(r):
        x, y, z = (d * r[..., None]).transpose(2, 0, 1)
        width, front, back = (
            np.interp(y, SLICES[0], row, left=1e-3, right=1e-3) for row in SLICES[1:]
        )
        beyond = (y < SLICES[0, 0]) | (y > SLICES[0, -1])
        return beyond | (
            np.abs(x / width) ** 2.25 + np.abs(z / np.where(z > 0, front, back)) ** 2.25 > 1
        )

    low, high = np.full(d.shape[:2], 0.02), np.full(d.shape[:2], 0.2)
    for _ in range(16):
        middle = 0.5 * (low + high)
        out = outside(middle)
        low, high = np.where(out, low, middle), np.where(out, middle, high)
    return cv2.GaussianBlur(0.5 * (low + high), (0, 0), 2.0)


def nose(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Height of the bridge, tip and columella over the face."""
    along = np.interp(
        b,
        (-0.050, -0.0455, -0.0405, -0.036, -0.030, -0.012, 0.004, 0.016),
        (0, 0.0035, 0.0125, 0.0185, 0.0198, 0.0105, 0.0035, 0),
    )
    width = np.interp(b, (-0.045, -0.033, -0.015, 0.008), (0.0075, 0.0078, 0.0062, 0.0065))
    return along * np.exp(-0.5 * np.abs(a / width) ** 2.3)


def ear(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape of an ear in [0, 1] and its hollow in [0, 1].

    At the side the chart is stretched threefold.
    """
    x, y = (np.abs(a) - 0.222) / 0.034, (b + 0.012) / 0.078
    x = x - 0.25 * y
    s = np.sqrt(x * x + y * y * np.where(y < 0, 1.15, 1.0))
    return smooth(1.10, 0.65, s), smooth(0.70, 0.35, np.hypot(x + 0.12, y * 1.15))


def hair_depth(a: np.ndarray, b: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Thickness of the hair in metres, <= 0 where there is none; parted on the person's left."""
    x = np.abs(a)
    line = np.interp(x, *HAIRLINE)
    height = b - line + noise * 0.0035 - 0.006 * gauss(a - 0.03, 0.0, 0.02, 1.0)
    top = smooth(0.04, 0.17, b) * (0.006 + 0.006 * smooth(0.06, -0.05, a))
    part = -0.004 * gauss(a - 0.045 - 0.12 * (b - 0.08), 0.0, 0.006, 1.0) * smooth(0.07, 0.10, b)
    full = 0.0035 + 0.0085 * smooth(0.0, 0.05, height) + top + part + 0.0022 * noise
    return full * smooth(-0.002, 0.012, height) - 0.05 * smooth(0.002, -0.010, height)


def noises(rng: np.random.Generator, size: int, sigma: tuple[float, float]) -> np.ndarray:
    """Unit-variance smooth noise [size, size]; sigma (x, y) in texels."""
    field = cv2.GaussianBlur(
        rng.standard_normal((size, size)).astype(np.float32), (0, 0), sigma[0], sigmaY=sigma[1]
    )
    return field / field.std()


def strands(rng: np.random.Generator, size: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Noise drawn out along combed hair.

    Polar around the parting, so that strands run back and to the sides.
    """
    angle = np.arctan2(a - 0.04, b + 0.22)
    radius = np.hypot(a - 0.04, b + 0.22)
    fine = np.zeros((size, size), np.float32)
    for sigma, weight in (((0.8, 30), 0.55), ((2.2, 60), 0.6), ((6, 80), 0.5)):
        fine = fine + noises(rng, size, sigma) * weight
    column = ((angle / np.pi + 1) * 0.5 * 1.35 * size) % size
    row = (radius / 0.8 * size) % size
    return cv2.remap(
        fine,
        column.astype(np.float32),
        row.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )


def brow_mask(a: np.ndarray, b: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Density of the eyebrow hairs in [0, 1]."""
    x = np.abs(a)
    q = np.clip((x - 0.0135) / 0.047, 0, 1)
    middle = 0.0185 + 0.0075 * np.sin(np.pi * np.clip(q * 0.86 + 0.10, 0, 1)) - 0.0015 * q
    half = 0.0036 * (1 - 0.62 * q**1.6) * smooth(-0.02, 0.14, q)
    ends = smooth(0.0115, 0.0170, x) * smooth(0.0625, 0.0560, x)
    return ends * smooth(1.35, 0.75, np.abs(b - middle) / (half + 1e-4) + 0.22 * noise)


def sculpt() -> dict[str, np.ndarray]:
    """Everything that never moves, as NumPy float32.

    Returns:
      dict of `skin` [TABLE, TABLE] radius of the face without lips and lids, `hair` [TABLE, TABLE]
      radius of the hair (less than the skin's where there is none), `occlusion` [TABLE, TABLE] in
      (0, 1], `albedo` [TEXTURE, TEXTURE, 4] linear RGB of the skin with the brow mask, `hair_tone`
      [TEXTURE, TEXTURE] brightness of the strands.
    """
    rng = np.random.default_rng(7)  # one person: its skin does not depend on the clip's seed
    a, b = face_grid(TABLE)
    d = directions(a, b)
    skin = skull_radius(d) + nose(a, b)
    for amplitude, x, y, sx, sy in BUMPS:
        skin += amplitude * (
            gauss(a - x, b - y, sx, sy) + (gauss(a + x, b - y, sx, sy) if x > 0 else 0)
        )
    shape, hollow = ear(a, b)
    skin = skin + 0.0185 * shape - 0.0075 * shape * hollow
    fibre_t = strands(rng, TABLE, a, b)
    hair = skull_radius(d) + hair_depth(a, b, fibre_t * 0.55 + 0.6 * noises(rng, TABLE, (9, 9)))
    solid = np.maximum(skin, hair)
    blurred = sum(cv2.GaussianBlur(solid, (0, 0), s) for s in (3.0, 8.0)) / 2
    occlusion = np.clip(1 - 75 * np.maximum(blurred - solid, 0), 0.35, 1) * (
        1 - 0.35 * shape * hollow
    )
    occlusion *= 1 - 0.45 * smooth(-0.112, -0.165, b)  # under the jaw
    tables = {"skin": skin, "hair": hair, "occlusion": cv2.GaussianBlur(occlusion, (0, 0), 1.0)}
    return {name: table.astype(np.float32) for name, table in tables.items()} | _textures(rng)


def _textures(rng):
    a, b = face_grid(TEXTURE)
    x = np.abs(a)
    tone = (
        1
        + 0.035 * noises(rng, TEXTURE, (3, 3))
        + 0.03 * noises(rng, TEXTURE, (14, 14))
        + 0.02 * noises(rng, TEXTURE, (1, 1))
    )
    skin = np.array([0.66, 0.365, 0.245]) * tone[..., None]
    red = (
        0.55 * gauss(x - 0.050, b + 0.030, 0.019, 0.014)
        + 0.50 * gauss(a, b + 0.034, 0.013, 0.009)
        + 0.25 * gauss(a, b + 0.100, 0.020, 0.010)
        + 0.6 * smooth(0.16, 0.20, x)
        + 0.30 * gauss(x - 0.037, b - 0.002, 0.018, 0.010)
    )
    skin *= 1 - red[..., None] * np.array([0.04, 0.24, 0.22])
    under_eye = 0.35 * gauss(x - 0.033, b + 0.0125, 0.013, 0.004)
    fold = (
        0.18
        * np.exp(-0.5 * ((x - np.interp(b, (-0.072, -0.035), (0.036, 0.020))) / 0.0016) ** 2)
        * gauss(b + 0.05, 0, 0.011, 1)
    )
    beard = (
        0.13
        * smooth(-0.050, -0.075, b)
        * smooth(0.11, 0.06, x)
        * (1 + 0.5 * noises(rng, TEXTURE, (0.7, 0.7)))
    )
    skin *= (1 - under_eye * 0.5 - fold)[..., None] * (
        1 - beard[..., None] * np.array([1.0, 0.85, 0.75])
    )
    nostril = gauss(x - 0.0072, b + 0.0425 - 0.25 * (x - 0.0072), 0.0027, 0.0013)
    skin *= 1 - 0.90 * np.clip(1.3 * nostril, 0, 1)[..., None]
    for _ in range(26):  # freckles and two moles
        p, q, s = rng.uniform(-0.075, 0.075), rng.uniform(-0.05, 0.05), rng.uniform(0.0005, 0.0009)
        skin *= 1 - gauss(a - p, b - q, s, s)[..., None] * np.array([0.15, 0.25, 0.25])
    for p, q in ((0.043, -0.060), (-0.062, 0.002)):
        skin *= 1 - 0.75 * gauss(a - p, b - q, 0.0010, 0.0010)[..., None]
    hairs = noises(rng, TEXTURE, (2.6, 0.8))
    brow = brow_mask(a, b, hairs)
    dark = (brow * (0.80 + 0.12 * hairs)).clip(0, 1)[..., None]
    skin = skin * (1 - dark) + dark * np.array([0.050, 0.026, 0.015])
    fibre = strands(rng, TEXTURE, a, b)
    return {
        "albedo": np.concatenate([skin, brow[..., None]], -1).astype(np.float32),
        "hair_tone": np.exp(0.30 * fibre).astype(np.float32),
    }
