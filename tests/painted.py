"""A small painted clip whose mouth opens and whose eyes shut, and a config to train on it."""

import numpy as np

from configs import quickstart
from fg3dgs_jax.clip import format
from fg3dgs_jax.clip import landmarks as landmarks_lib
from fg3dgs_jax.types import REGIONS

SIZE, FRAMES = 32, 22


def paint(path):
    """Writes the clip as a processed folder."""
    labels = np.zeros((FRAMES, SIZE, SIZE), np.uint8)
    labels[:, 6:26, 8:24] = 1
    landmarks = np.full((FRAMES, 478, 2), 16.0, np.float32)
    rng = np.random.default_rng(0)
    for i in range(FRAMES):
        opening = i % 4
        labels[i, 20 : 21 + opening, 13:19] = 11
        labels[i, 12 : 14 - (i % 7 == 0), 11:14] = 5
        labels[i, 12 : 14 - (i % 7 == 0), 18:21] = 4
        for points, center, half in (
            (landmarks_lib.OUTER_LIPS, (16, 21), (4, 3)),
            (landmarks_lib.RIGHT_EYE, (12.5, 13), (2, 1)),
            (landmarks_lib.LEFT_EYE, (19.5, 13), (2, 1)),
        ):
            angle = np.linspace(0, 2 * np.pi, len(points), endpoint=False)
            circle = np.stack([np.cos(angle), np.sin(angle)], -1)
            landmarks[i, points] = np.array(center) + circle * half
        landmarks[i, landmarks_lib.INNER_LIPS[:11]] = 16, 20
        landmarks[i, landmarks_lib.INNER_LIPS[11:]] = 16, 20 + opening
    colors = rng.integers(40, 220, (20, 3)).astype(np.uint8)
    pose = np.tile(np.eye(4, dtype=np.float32), (FRAMES, 1, 1))
    pose[:, 2, 3] = 0.9
    names = np.array(quickstart.get_config().data.expression)
    expression = np.zeros((FRAMES, len(names)), np.float32)
    expression[:, -1] = np.arange(FRAMES) % 7 == 0
    opening = (np.arange(FRAMES) % 4)[:, None, None]
    format.save_arrays(
        path,
        frames=colors[labels],
        labels=labels,
        torso=np.zeros((*labels.shape, 4), np.uint8),
        background=np.broadcast_to(colors[0], (SIZE, SIZE, 3)),
        camera=dict(world_to_camera=pose, valid=np.ones(FRAMES, bool)),
        landmarks=dict(pixels=landmarks, valid=np.ones(FRAMES, bool)),
        expression=dict(e=expression, names=names),
        audio_mel=np.broadcast_to(opening / 3, (FRAMES, 16, 80)).astype(np.float32),
    )
    format.save_meta(
        path,
        num_frames=FRAMES,
        width=SIZE,
        height=SIZE,
        intrinsics=(120.0, 120.0, 16.0, 16.0),
        source="painted",
    )


def small(folder, **steps):
    """The quickstart with a few Gaussians and, unless told, five steps a stage and dispatch."""
    config = quickstart.get_config()
    config.data.path = str(folder)
    config.steps_per_dispatch = config.log.checkpoint_every = config.log.every = 5
    config.log.samples_every = 1000
    config.warm_up.steps = 2
    for region in REGIONS:
        population = getattr(config.gaussians, region)
        population.num, population.capacity = 60, 64
    for name in ("static", "motion", "fusion"):
        stage = getattr(config.stages, name)
        stage.steps = steps.get(name, 5)
        for rule in (stage.density or {}).values():
            rule.start = 0
    return config


def still(folder, batch=1, **steps):
    """As `small`, motion nets off: they quadruple the time that the stages take to compile."""
    config = small(folder, **steps)
    config.moves = False
    config.batch = batch
    return config
