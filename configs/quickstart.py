"""The embedded subject at 192 px: what scripts/quickstart.sh trains, on two CPU cores in minutes.

python scripts/make_subject.py --out data/quickstart
python -m fg3dgs_jax.train --config configs/quickstart.py

`:tiny` runs every stage in under a minute, to see that everything works.
"""

from fg3dgs_jax.config import Config, methods


def get_config(variant: str = "") -> Config:
    """The tuned method with fewer steps than `small`; `tiny` has still fewer, at 96 px."""
    if variant not in ("", "tiny"):
        raise ValueError(f"variant is {variant!r}; configs/quickstart.py has only 'tiny'")
    config = Config(name="quickstart")
    methods.smaller(config, {"static": 600, "motion": 3000, "fusion": 600, "alignment": 0})
    methods.tuned(config)
    config.data.path = "data/quickstart"
    config.data.made_by = "python scripts/make_subject.py --out data/quickstart"
    config.gaussians.face.num, config.gaussians.face.capacity = 3000, 5120
    config.gaussians.mouth.num = 600
    config.stages.fusion.losses.lpips = 0.0  # no pretrained network: nothing to download
    if variant == "tiny":
        config.name = "quickstart_tiny"
        config.data.max_side = 96
        stages = config.stages
        stages.static.steps, stages.motion.steps, stages.fusion.steps = 100, 200, 100
        config.log.checkpoint_every = config.log.samples_every = 100
    return config
