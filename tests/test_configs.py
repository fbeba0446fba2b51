"""Every named setting loads and means what the papers say; bad ones are refused."""

import importlib
import json
import os
import pathlib

import pytest

from fg3dgs_jax import config as config_lib
from fg3dgs_jax.config import Config, methods
from fg3dgs_jax.config.loading import from_dict
from fg3dgs_jax.config.settings import Settings
from fg3dgs_jax.training import loop, losses, masks, objective, rates
from fg3dgs_jax.types import REGIONS

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = ("paper,full", "paper,small", "tuned,full", "tuned,small", "tuned,quick")
NAMES += ("talkinggaussian", "talkinggaussian,small")
ALL = [("quickstart", ""), ("quickstart", "tiny")]
ALL += [("obama", v) for v in ("", *NAMES, "cpu", "static", "quick", *methods.ABLATIONS)]
ALL += [("obama", f"cpu,{v}") for v in (*methods.ABLATIONS, "lambda1=0.3", "audio=hubert")]
STAGES = ["static", "motion", "fusion", "alignment"]


def load(name, variant=""):
    return importlib.import_module(f"configs.{name}").get_config(variant)


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_loads(name, variant):
    config = load(name, variant)
    loop.check(config)
    aligned = config.moves and name != "quickstart"
    aligned &= not any(rival in variant for rival in ("no_hrpa", "talkinggaussian"))
    assert [n for n, _ in loop.stages_in_order(config)] == STAGES[: 3 + aligned]
    assert set(REGIONS) >= set(config.regions) >= {"face"}
    assert config.data.expression[-1] == "AU45"  # tau_e passes the last channel through
    for _, stage in config.stages.items():
        assert stage.losses.l1 == 1.0
        assert stage.losses.d_ssim == (0.3 if "lambda1" in variant else 0.2)  # lambda_1


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_a_config_comes_back_from_the_file_of_a_run(name, variant):
    config = load(name, variant)
    assert from_dict(json.loads(json.dumps(config.to_dict()))) == config


def differences(before, after, path=""):
    """{path: value} of what is other in `after`; None where it is not there."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return {} if before == after else {path: after}
    found = {}
    for name in sorted({*before, *after}):
        found |= differences(before.get(name), after.get(name), f"{path}.{name}".strip("."))
    return found


def test_the_resolved_settings_are_those_on_record():
    """A change on purpose goes with a new record: FG3DGS_WRITE_GOLDEN=1."""
    base = json.loads(json.dumps(load("obama").to_dict()))
    record = {"obama:": base}
    for name, variant in ALL:
        values = json.loads(json.dumps(load(name, variant).to_dict()))
        record[f"{name}:{variant}"] = differences(base, values) if values != base else base
    path = ROOT / "tests" / "golden" / "configs.json"
    if os.environ.get("FG3DGS_WRITE_GOLDEN"):
        path.write_text(json.dumps(record, indent=1) + "\n")
    assert differences(json.loads(path.read_text()), record) == {}


def test_only_the_tuned_method_makes_room_for_the_features_of_a_prior():
    plain, lips = load("obama", "tuned,audio=whisper"), load("obama", "tuned")
    assert (plain.guides.audio_noise, plain.stages.motion.noise.audio) == (2.0, 2.0)
    assert (lips.guides.audio_noise, lips.stages.motion.noise.audio) == (1.0, 0.3)
    paper = differences(load("obama").to_dict(), load("obama", "audio=lips").to_dict())
    assert {k.split(".")[0] for k in paper} <= {"name", "data"}


def test_every_weight_has_its_term_and_every_term_its_weight():
    terms = {*losses.TERMS, *objective.STEP_TERMS}
    assert terms == set(config_lib.Config().stages.motion.losses.to_dict())
    assert not set(losses.TERMS) & set(objective.STEP_TERMS)


def test_no_two_settings_share_a_table():
    def tables(value):
        if isinstance(value, Settings | dict):
            yield id(value)
            inner = value.values() if isinstance(value, dict) else vars(value).values()
            for v in inner:
                yield from tables(v)

    one, other = load("obama", "cpu"), load("obama", "cpu")
    found = list(tables(one))
    assert len(found) == len(set(found))
    assert not set(found) & set(tables(other))


def test_old_names_stay():
    def values(variant):
        return load("obama", variant).to_dict() | {"name": ""}

    assert values("cpu") == values("tuned,small")
    assert values("quick") == values("tuned,quick")
    assert values("static") == values("tuned,small,static")
    assert values("cpu,no_fam") == values("no_fam,small,tuned")
    assert load("obama", "cpu,no_fam").name == "obama_cpu_no_fam"


def test_a_variant_alone_names_the_packaged_settings():
    config = config_lib.load("tuned,small")
    assert config.to_dict() | {"name": ""} == methods.get_config("cpu").to_dict() | {"name": ""}
    assert config_lib.load(ROOT / "configs" / "quickstart.py") == load("quickstart")
    assert config_lib.load(f"{ROOT}/configs/quickstart.py:tiny") == load("quickstart", "tiny")
    assert config_lib.load(config) is config
    with pytest.raises(ValueError, match=r"there is no config file nowhere\.py; expected"):
        config_lib.load("nowhere.py:tuned")


def test_a_misspelt_setting_is_refused_with_a_suggestion():
    config = Config()
    with pytest.raises(AttributeError, match="Stage has no 'step'; did you mean 'steps'"):
        config.stages.motion.step = 3
    with pytest.raises(AttributeError, match="Config has no 'seeds'; did you mean 'seed'"):
        Config.from_dict({"seeds": 1})


def test_a_run_of_version_0_1_still_tells_its_networks():
    """As its `config.json` had them; its stages are not read."""
    encoding = {"levels": 12, "bound": 0.15, "log2_table_size": 17}
    gated = {
        "motion": "gated",
        "gate_from": "spatial",
        "d_model": 64,
        "heads": 2,
        "ffn_width": 128,
        "gate_width": 16,
        "motion_width": 32,
        "last_layer_scale": 0.1,
        "num_outputs": 3,
        "concat_widths": [32, 32],
    }
    high = {"encoding": encoding | {"base_resolution": 64.0, "desired_resolution": 57.6}}
    face = {
        "encoding": encoding | {"base_resolution": 16.0, "desired_resolution": 38.4},
        "motion": "concat",
        "audio_gate_width": 32,
        "expression_gate_width": 16,
        "expression_gate_offset": 0.3,
        "widths": [64, 64],
        "num_outputs": 10,
        "last_layer_scale": 1.0,
    }
    old = {
        "name": "obama",
        "seed": 3,
        "moves": True,
        "lips_in": "face",
        "sh_degree": 2,
        "layers": ["face", "mouth"],
        "key_color": [],
        "stages": {"motion": {"fused": False}},
        "data": {
            "path": "d",
            "max_side": 0,
            "seconds": 0.0,
            "audio_extractor": "mel",
            "expression": ["AU45"],
            "resident": "True",
            "audio_window": [16, 80],
        },
        "model": {
            "audio": {"dim": 32, "widths": [32, 32, 64, 64]},
            "expression": {"hidden": 16},
            "face": face,
            "eyes": gated | high | {"axis_gain": [1.0, 1.0, 1.0]},
            "mouth": gated
            | high
            | {"axis_gain": [0.2, 1.0, 0.2], "follows_lips": True, "num_outputs": 10},
        },
    }
    config = from_dict(old)
    assert config.regions == ("face", "mouth") and config.seed == 3
    assert config.data.max_side is None and config.data.audio_window == (16, 80)
    expected = Config().model
    expected.face.motion = "concat"
    expected.mouth.follows_lips = expected.mouth.turns_and_scales = True
    assert config.model == expected


def rate(stage, name, progress):
    """The rate of a parameter at a share of a stage."""
    return float(rates.at(rates.first_match(stage.rates, name), progress))


def test_rates_and_floors_are_talkinggaussians_iteration_by_iteration():
    """Spec, section 11: rates of means over the scene's extent and of the motion nets, floors
    of opacities and the ends of density control.
    """
    stages = Config().stages
    lengths = {"static": 3000, "motion": 47_000}

    def at(iteration):
        name = "static" if iteration < 3000 else "motion"
        done = (iteration - 3000 * (name == "motion")) / lengths[name]
        return getattr(stages, name), done

    for iteration, expected in [
        (0, 1.6e-4),
        (2999, 1.177e-4),
        (3000, 1.177e-4),
        (10_000, 5.75e-5),
        (20_000, 2.07e-5),
        (30_000, 7.43e-6),
        (45_000, 1.6e-6),
    ]:
        stage, done = at(iteration)
        assert rate(stage, "face/gaussians/means", done) == pytest.approx(0.2 * expected, rel=3e-3)
    for iteration, face, mouth in [
        (3000, 0.9493, 0.9481),
        (10_000, 0.8409, 0.8372),
        (20_000, 0.7071, 0.7009),
        (39_999, 0.5, 0.1526),
        (40_000, 0.1585, 0.1526),
        (45_000, 0.1259, 0.1207),
        (49_999, 0.1, 0.0954),
    ]:
        stage, done = at(iteration)
        for name, start in (
            ("motion/attention/query", 1e-4),
            ("motion/motion/layer_0/kernel", 1e-5),
            ("encoding/tables", 5e-3),
        ):
            for region, share in (("face", face), ("eyes", face), ("mouth", mouth)):
                at_start = 1e-4 if region == "face" and start == 1e-5 else start
                found = rate(stage, f"{region}/motion/params/{name}", done)
                assert found == pytest.approx(share * at_start, rel=4e-4), (iteration, name, region)
    for iteration, face, mouth in [
        (9000, 0.0959, 0.1),
        (25_000, 0.1776, 0.1889),
        (45_000, 0.2796, 0.3),
    ]:
        stage, done = at(iteration)
        for region, expected in (("face", face), ("mouth", mouth)):
            low, high = stage.density[region].min_opacity
            assert low + done * (high - low) == pytest.approx(expected, abs=1e-4)
    stops = {r: 3000 + 47_000 * rule.stop for r, rule in stages.motion.density.items()}
    expected = {"face": 49_000, "eyes": 49_000, "mouth": 45_000}
    assert stops == pytest.approx(expected, abs=3)


def test_the_paper_setting():
    stages = load("obama", "").stages
    assert [getattr(stages, s).steps for s in STAGES] == [3000, 47_000, 5000, 5000]
    assert stages.alignment.losses.lpips == 0.5  # lambda_2
    assert stages.alignment.losses.sync == 0.03  # lambda_3
    ours = [(stage.losses.guides, stage.losses.detail) for _, stage in stages.items()]
    assert ours == 4 * [(0.0, 0.0)]


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
    assert without.fusion.patches.start * without.fusion.steps == 800  # as with it
    total = without.fusion.steps
    for name in ("face/gaussians/means", "eyes/motion/params/encoding/tables"):  # with equal rates
        for stage, first, done in ((with_it.fusion, 0, 800), (with_it.alignment, 3200, 3500)):
            expected = rate(stage, name, (done - first) / stage.steps)
            assert rate(without.fusion, name, done / total) == pytest.approx(expected), name
    without = load("obama", "no_hrpa").stages
    assert without.fusion.patches.start == 0.5 and without.fusion.losses.lpips == 0.5
    assert load("obama", "lambda3=0.01").stages.alignment.losses.sync == 0.01
    assert load("obama", "lambda2=0.4").stages.alignment.losses.lpips == 0.4
    assert load("obama", "audio=hubert").data.audio_extractor == "hubert"


def test_unknown_variants_and_settings_are_refused():
    with pytest.raises(
        ValueError, match="names paper and tuned; expected one of paper, tuned, talkinggaussian"
    ):
        load("obama", "paper,cpu")
    for wrong in ("gpu", "cpu,lambda1=much", "cpu,lambda4=1", "no_fam=1", "audio="):
        with pytest.raises(ValueError, match="no_fad, no_fam, single, no_hrpa"):
            load("obama", wrong)
    with pytest.raises(ValueError, match=r"data\.path is empty"):
        loop.check(Config())
    config = load("quickstart", "")
    config.stages.motion.steps = 0
    with pytest.raises(ValueError, match=r"stages\.motion\.steps is 0"):
        loop.check(config)
