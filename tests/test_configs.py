"""Every file in configs/ loads; the tables are complete; bad settings are refused."""

import importlib

import pytest

from fg3dgs_jax import train
from fg3dgs_jax.types import REGIONS

ALL = [("default", None), ("quickstart", ""), ("quickstart", "tiny")]
ALL += [("obama", v) for v in ("", "cpu", "static")]


def load(name, variant):
    module = importlib.import_module(f"configs.{name}")
    return module.get_config() if variant is None else module.get_config(variant)


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_loads(name, variant):
    config = load(name, variant)
    assert [n for n, _ in train.stages_in_order(config)] == ["static", "motion", "fusion"]
    assert set(config.stages) == {"static", "motion", "fusion"}
    assert set(config.regions) == set(REGIONS)
    assert config.data.expression[-1] == "AU45"  # tau_e passes the last channel through
    for row in config.stages.values():
        assert set(row.losses) == set(load("default", None).stages.motion.losses)
        assert row.losses.l1 == 1.0 and row.losses.d_ssim == 0.2  # lambda_1


def test_the_paper_setting():
    stages = load("obama", "").stages
    assert [stages[s].steps for s in ("static", "motion", "fusion")] == [3000, 47_000, 10_000]
    assert stages.fusion.losses.lpips == 0.5  # lambda_2
    assert all(row.losses.guides == row.losses.detail == 0.0 for row in stages.values())  # ours


def test_unknown_variants_and_settings_are_refused():
    with pytest.raises(ValueError, match="has 'cpu' and 'static'"):
        load("obama", "gpu")
    with pytest.raises(ValueError, match=r"data\.path is empty"):
        train.check(load("default", None))
    config = load("quickstart", "")
    config.stages.motion.steps = 0
    with pytest.raises(ValueError, match=r"stages\.motion\.steps is 0"):
        train.check(config)
