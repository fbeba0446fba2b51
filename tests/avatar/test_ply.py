"""An avatar as .ply: what is written is what is drawn, and viewers find what they look for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import quickstart
from fg3dgs_jax.avatar import draw as draw_lib
from fg3dgs_jax.avatar import ply, store
from fg3dgs_jax.export import main
from fg3dgs_jax.media import video
from fg3dgs_jax.models import gaussians as gaussians_lib
from fg3dgs_jax.rasterizer import render
from fg3dgs_jax.types import REGIONS, Camera, Conditions
from tests import fake_avatar

SIZE = 48


@pytest.fixture(scope="module")
def avatar():
    """An untrained avatar of Gaussians of all sizes, colours and turns."""
    config = quickstart.get_config()
    config.data.audio_extractor, config.data.expression = "mel", ("AU01", "AU45")
    nets = draw_lib.make_nets(config)
    regions, alive = {}, {}
    for i, r in enumerate(REGIONS):
        key, rng = jax.random.key(i), np.random.default_rng(i)
        points, colors = rng.uniform(-0.06, 0.06, (40, 3)), rng.random((40, 3))
        gaussians, alive[r] = gaussians_lib.init_gaussians_from_points(points, colors, 48)
        gaussians = gaussians.replace(
            quats=jnp.asarray(rng.normal(size=(48, 4)), jnp.float32),
            logit_opacities=jnp.asarray(rng.normal(size=48), jnp.float32),
            raw_scales=gaussians.raw_scales + jnp.asarray(rng.normal(size=(48, 3)), jnp.float32),
            sh=gaussians.sh + 0.1 * jnp.asarray(rng.normal(size=(48, 9, 3)), jnp.float32),
        )
        conditions = Conditions(jnp.zeros((8, 16, 80)), jnp.zeros(2))
        regions[r] = draw_lib.Region(gaussians, nets[r].init(key, gaussians.means, conditions))
    return draw_lib.Avatar(config, regions, alive)


def picture(gaussians):
    pose = jnp.eye(4).at[2, 3].set(1.0)
    camera = Camera(pose, *(jnp.float32(x) for x in (3 * SIZE, 3 * SIZE, SIZE / 2, SIZE / 2)))
    out = render(
        *gaussians,
        camera,
        width=SIZE,
        height=SIZE,
        sh_degree=2,
        background=jnp.full(3, 0.5),
    )
    return np.asarray(out.image)


def test_what_is_read_back_draws_the_same(avatar, tmp_path):
    for name, gaussians in avatar.at_rest().items():
        ply.write(tmp_path / f"{name}.ply", gaussians)
        again = ply.read(tmp_path / f"{name}.ply")
        before, after = picture(gaussians), picture(again)
        assert before.std() > 0.02
        assert np.abs(before - after).max() < 1e-3 < 1 / 255


def test_the_layout_is_that_of_3dgs(avatar, tmp_path):
    gaussians = avatar.at_rest()["face"]
    ply.write(tmp_path / "a.ply", gaussians)
    head, data = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    names = [x.split()[-1] for x in head.decode().splitlines() if x.startswith("property float")]
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[:9] == expected and names[33:34] == ["opacity"] and len(names) == 9 + 24 + 8
    table = np.frombuffer(data, "<f4").reshape(48, -1)
    np.testing.assert_array_equal(table[:, 9 + 8], gaussians.sh[:, 1, 1])  # green after all of red
    np.testing.assert_allclose(np.exp(table[:, 34:37]), gaussians.scales, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(table[:, 37:], axis=1), 1, rtol=1e-5)


def test_frames_of_speech_move(avatar, tmp_path, monkeypatch, capsys):
    data = fake_avatar.make_folder(tmp_path / "data", seconds=2)
    avatar.config.data.path = str(data)
    monkeypatch.setattr(store, "load", lambda _: avatar)
    video.write_wav(tmp_path / "a.wav", fake_avatar.speech(1))
    flags = ["--workdir", "run", "--out", str(tmp_path / "out")]
    assert main([*flags, "--audio", str(tmp_path / "a.wav"), "--every", "10"]) == 0
    assert "7 files written" in capsys.readouterr().out
    files = sorted(p.name for p in (tmp_path / "out").rglob("*.ply"))
    numbers = [f"{i:06d}.ply" for i in (0, 10, 20)]
    assert files == [*numbers, "avatar.ply", "eyes.ply", "face.ply", "mouth.ply"]
    rest = ply.read(tmp_path / "out" / "avatar.ply")
    frames = [ply.read(tmp_path / "out" / "frames" / name) for name in numbers]
    assert len(rest.means) == len(frames[0].means) == 3 * 48
    assert np.abs(frames[0].means - rest.means).max() > 1e-5
    assert np.any(frames[0].means != frames[1].means)  # untrained nets move little
    assert main([*flags, "--audio", str(tmp_path / "none.wav")]) == 1
    assert "none.wav" in capsys.readouterr().err
    assert main([*flags, "--every", "0"]) == 1 and "every is 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"no ply at all", "has no header of a .ply"),
        (lambda data: data[:-9], "is cut short"),
        (lambda data: data.replace(b"float opacity", b"float density"), "has no opacity"),
        (lambda data: data.replace(b"float opacity", b"uchar opacity"), "other numbers than"),
        (lambda data: data.replace(b"binary_little", b"binary_bigger"), "is not binary"),
    ],
)
def test_other_files_are_refused_in_one_line(avatar, tmp_path, change, words):
    path = tmp_path / "a.ply"
    ply.write(path, avatar.at_rest()["eyes"])
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ply.PlyError, match=words):
        ply.read(path)
