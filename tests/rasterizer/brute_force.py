"""The tests' oracle: the rasterizer once more, in float64, a pixel and a Gaussian at a time.

It takes another road where it can: covariance by explicit products, the inverse by np.linalg, a
stop flag instead of products along a row, and its own literals for every constant.
"""

import numpy as np


def draw(scene, width, height):
    """(image [H, W, D], alpha [H, W]) of an unbatched scene."""
    splats = []
    for i in range(len(scene.means)):
        splat = _splat(scene, i, width, height)
        if splat is not None:
            splats.append(splat)
    splats.sort(key=lambda splat: splat[0])  # stable, so ties stay in input order
    background = np.asarray(scene.background, np.float64)
    image, alpha = np.zeros((height, width, len(background))), np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            color, left = _blend(splats, np.array([column + 0.5, row + 0.5]), len(background))
            image[row, column], alpha[row, column] = color + left * background, 1 - left
    return image, alpha


def _splat(scene, i, width, height):
    """(depth, centre, inverse covariance, opacity, colour) or None if the camera cannot see it."""
    pose = np.asarray(scene.camera.world_to_camera, np.float64)
    fx, fy, cx, cy = (float(value) for value in scene.camera[1:])
    point = pose[:3, :3] @ np.asarray(scene.means[i], np.float64) + pose[:3, 3]
    depth = point[2]
    if not 0.2 <= depth <= 1e10:
        return None
    w, *xyz = np.asarray(scene.quats[i], np.float64) / np.linalg.norm(scene.quats[i])
    cross = np.cross(np.eye(3), xyz)  # xyz x u = cross @ u
    rotation = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    shape = rotation @ np.diag(np.asarray(scene.scales[i], np.float64) ** 2) @ rotation.T
    low = np.array([-(cx / fx + 0.15 * width / fx), -(cy / fy + 0.15 * height / fy)])
    high = np.array(
        [(width - cx) / fx + 0.15 * width / fx, (height - cy) / fy + 0.15 * height / fy]
    )
    tx, ty = np.clip(point[:2] / depth, low, high) * depth
    jacobian = np.array(
        [[fx / depth, 0, -fx * tx / depth**2], [0, fy / depth, -fy * ty / depth**2]]
    )
    flat = jacobian @ pose[:3, :3] @ shape @ pose[:3, :3].T @ jacobian.T + 0.3 * np.eye(2)
    center = np.array([fx * point[0] / depth + cx, fy * point[1] / depth + cy])
    color = np.asarray(scene.colors[i], np.float64)
    return depth, center, np.linalg.inv(flat), float(scene.opacities[i]), color


def _blend(splats, pixel, channels):
    color, left = np.zeros(channels), 1.0
    for _, center, inverse, opacity, splat_color in splats:
        offset = center - pixel
        alpha = min(0.99, opacity * np.exp(-0.5 * offset @ inverse @ offset))
        if alpha < 1 / 255:
            continue
        if left * (1 - alpha) < 1e-4:
            break
        color += left * alpha * splat_color
        left *= 1 - alpha
    return color, left
