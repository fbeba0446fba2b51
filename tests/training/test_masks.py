"""Which pixels a region is trained on."""

import jax.numpy as jnp
import numpy as np

from configs import quickstart
from fg3dgs_jax.clip import processed
from fg3dgs_jax.config.defaults import Data
from fg3dgs_jax.training import batches, masks


def test_masks_of_the_regions_leave_holes_in_the_face(folder):
    device = batches.device_clip(processed.load_clip(folder), Data(expression=("AU45",)))
    batch = batches.take(device, jnp.int32(3))
    classes = masks.region_labels(quickstart.get_config())
    face, ignored, _ = masks.region_masks("face", classes["face"], batch, 0, True)
    mouth, beside, fill = masks.region_masks("mouth", classes["mouth"], batch, 0, True)
    eyes, _, _ = masks.region_masks("eyes", classes["eyes"], batch, 0, True)
    assert not (face & (mouth | eyes)).any() and not ignored.any()
    np.testing.assert_array_equal(mouth, np.asarray(batch.labels) == 11)
    assert not (beside & mouth).any() and (mouth & ~fill).sum() == 0
    grown, _, _ = masks.region_masks("mouth", classes["mouth"], batch, 2, True)
    assert (grown & mouth).sum() == mouth.sum() and grown.sum() > mouth.sum()
