"""Every file in configs/ loads; the tables are complete; bad settings are refused."""

import importlib

import ml_collections
import pytest

from configs import variants
from fg3dgs_jax import train
from fg3dgs_jax.training import masks, optim
from fg3dgs_jax.types import REGIONS

ALL = [("default", None), ("quickstart", ""), ("quickstart", "tiny")]
ALL += [("obama", v) for v in ("", "cpu", "static", "quick", *variants.NAMED)]
ALL += [("obama", f"cpu,{v}") for v in (*variants.NAMED, "lambda1=0.3", "audio=hubert")]
STAGES = ["static", "motion", "fusion", "alignment"]


def load(name, variant):
    module = importlib.import_module(f"configs.{name}")
    return module.get_config() if variant is None else module.get_config(variant)


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_loads(name, variant):
    config = load(name, variant)
    if config.data.path:
        train.check(config)
    aligned = config.moves and name != "quickstart" and "no_hrpa" not in (variant or "")
    assert [n for n, _ in train.stages_in_order(config)] == STAGES[: 3 + aligned]
    assert set(config.stages) == set(STAGES)
    assert set(config.regions) == set(REGIONS) >= set(config.layers) >= {"face"}
    assert config.data.expression[-1] == "AU45"  # tau_e passes the last channel through
    for row in config.stages.values():
        assert set(row.losses) == set(load("default", None).stages.motion.losses)
        assert row.losses.l1 == 1.0
        assert row.losses.d_ssim == (0.3 if "lambda1" in (variant or "") else 0.2)  # lambda_1


def test_no_two_stages_share_a_table():
    def tables(value):
        if isinstance(value, ml_collections.ConfigDict):
            yield id(value)
            for inner in value.values():
                yield from tables(inner)

    found = list(tables(load("default", None)))
    assert len(found) == len(set(found))


def test_rates_and_floors_are_talkinggaussians_iteration_by_iteration():
    """Spec, section 11: rates of means over the scene's extent and of the motion nets, floors
    of opacities and the ends of density control.
    """
    stages = load("default", None).stages
    lengths = {"static": 3000, "motion": 47_000}

    def at(iteration):
        name = "static" if iteration < 3000 else "motion"
        done = (iteration - 3000 * (name == "motion")) / lengths[name]
        return stages[name], done

    for iteration, expected in [
        (0, 1.6e-4), (2999, 1.177e-4), (3000, 1.177e-4), (10_000, 5.75e-5), (20_000, 2.07e-5),
        (30_000, 7.43e-6), (45_000, 1.6e-6),
    ]:  # fmt: skip
        stage, done = at(iteration)
        assert optim.rate(stage.learn.gaussians.means, done) == pytest.approx(
            0.2 * expected, rel=3e-3
        )
    for iteration, face, mouth in [
        (3000, 0.9493, 0.9481), (10_000, 0.8409, 0.8372), (20_000, 0.7071, 0.7009),
        (39_999, 0.5, 0.1526), (40_000, 0.1585, 0.1526), (45_000, 0.1259, 0.1207),
        (49_999, 0.1, 0.0954),
    ]:  # fmt: skip
        stage, done = at(iteration)
        for group, start in (("attentive", 1e-4), ("other", 1e-5), ("tables", 5e-3)):
            for region, share in (("face", face), ("eyes", face), ("mouth", mouth)):
                found = optim.rate(stage.learn.motion[group][region], done)
                assert found == pytest.approx(share * start, rel=4e-4), (iteration, group, region)
    for iteration, face, mouth in [
        (9000, 0.0959, 0.1), (25_000, 0.1776, 0.1889), (45_000, 0.2796, 0.3)
    ]:  # fmt: skip
        stage, done = at(iteration)
        for region, expected in (("face", face), ("mouth", mouth)):
            low, high = stage.density.min_opacity[region]
            assert low + done * (high - low) == pytest.approx(expected, abs=1e-4)
    stops = {r: 3000 + 47_000 * share for r, share in stages["motion"].density.stop.items()}
    expected = {"face": 49_000, "eyes": 49_000, "mouth": 45_000}
    assert stops == pytest.approx(expected, abs=3)


def test_the_paper_setting():
    stages = load("obama", "").stages
    assert [stages[s].steps for s in STAGES] == [3000, 47_000, 5000, 5000]
    assert stages.alignment.losses.lpips == 0.5  # lambda_2
    assert stages.alignment.losses.sync == 0.03  # lambda_3
    assert all(row.losses.guides == row.losses.detail == 0.0 for row in stages.values())  # ours


def test_ablations_say_which_pixels_are_whose():
    full, two, one, lips = (
        masks.region_labels(load("obama", v)) for v in ("", "no_fad", "single", "mouth_lips")
    )
    assert list(full) == ["face", "eyes", "mouth"] and list(two) == ["face", "mouth"]
    head = set(one["face"])
    for split in (full, two, lips):
        assert sorted(sum(split.values(), ())) == sorted(head)  # each class once
    assert set(two["face"]) - set(full["face"]) == {4, 5}
    assert set(lips["mouth"]) - set(full["mouth"]) == {12, 13}


def test_without_alignment_as_many_steps_are_left():
    with_it, without = load("obama", "cpu").stages, load("obama", "cpu,no_hrpa").stages
    assert without.fusion.steps == with_it.fusion.steps + with_it.alignment.steps
    assert without.fusion.lpips.start * without.fusion.steps == 800  # as with it
    total = without.fusion.steps
    for kind, rates in without.fusion.learn.items():  # and each of them with the same rates
        for name in rates:
            for row, first, done in (("fusion", 0, 800), ("alignment", 3200, 3500)):
                bounds, part = with_it[row].learn[kind][name], (done - first) / with_it[row].steps
                expected = optim.rate(rates[name], done / total)
                assert optim.rate(bounds, part) == pytest.approx(expected), (kind, name, row)
    without = load("obama", "no_hrpa").stages
    assert without.fusion.lpips.start == 0.5 and without.fusion.losses.lpips == 0.5
    assert load("obama", "lambda3=0.01").stages.alignment.losses.sync == 0.01
    assert load("obama", "lambda2=0.4").stages.alignment.losses.lpips == 0.4
    assert load("obama", "audio=hubert").data.audio_extractor == "hubert"


def test_unknown_variants_and_settings_are_refused():
    for wrong in ("gpu", "cpu,lambda1=much", "cpu,lambda4=1", "no_fam=1", "audio="):
        with pytest.raises(ValueError, match="no_fad, no_fam, single, no_hrpa"):
            load("obama", wrong)
    with pytest.raises(ValueError, match=r"data\.path is empty"):
        train.check(load("default", None))
    config = load("quickstart", "")
    config.stages.motion.steps = 0
    with pytest.raises(ValueError, match=r"stages\.motion\.steps is 0"):
        train.check(config)
