"""The loss of a frame: its terms and their weights."""

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.clip import processed
from fg3dgs_jax.config import Config
from fg3dgs_jax.config.defaults import Data, Losses
from fg3dgs_jax.training import batches, losses, masks, objective


def test_lips_and_eyes_may_weigh_more_where_layers_are_fused(folder):
    device = batches.device_clip(processed.load_clip(folder), Data(expression=("AU45",)))
    batch, stage = batches.take(device, jnp.int32(3)), Config().stages.fusion
    image = jnp.clip(batch.image + 0.1, 0.0, 1.0)

    def pull(detail):
        stage.losses = Losses(l1=1.0, d_ssim=0.2, detail=detail)

        def loss(x):
            key, progress = jax.random.key(0), jnp.float32(0.0)
            view = losses.View(x, batch.image, batch, key, progress, stage.patches, None)
            return objective.weigh(stage, view)[0]

        return jax.grad(loss)(image)

    more = np.any(pull(0.2) != pull(0.0), -1)
    inside = np.asarray(masks.detail_mask(batch))
    assert inside.any() and not inside.all()
    assert not more[~inside].any() and more[inside].mean() > 0.9
