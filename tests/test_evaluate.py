"""`evaluate` on a painted clip with an avatar that paints the same face."""

import csv
import json

import cv2
import numpy as np
import pytest

from fg3dgs_jax.avatar import play, store
from fg3dgs_jax.evaluate import main
from fg3dgs_jax.evaluation import measure, perception, pretrained
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.media import video
from tests import fake_avatar

CONTRACT = (
    "split frames psnr ssim lpips fid lmd lse_c lse_d train_seconds fps weights per_frame "
    "lips_psnr still_psnr still_lips_psnr opening_correlation opening_correlation_kind "
    "envelope_correlation envelope_correlation_shifted lse_offset lse_truth lmd_fan lmd_fan_frames "
    "eyes_psnr still_ssim still_lpips still_lmd still_eyes_psnr temporal"
).split()
WRITTEN = ("comparison.mp4", "contact_sheet.png", "moments.png", "opening.png", "per_frame.csv")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One run of the program, without any pretrained weights: (folder, metrics, avatar)."""
    root = tmp_path_factory.mktemp("evaluate")
    data, workdir = fake_avatar.make_folder(root / "data", seconds=22), root / "run"
    workdir.mkdir()
    (workdir / "metrics.jsonl").write_text(
        '{"step": 1, "train_seconds": 3.5}\n{"step": 2, "psnr": 20}\n'
    )
    avatar = fake_avatar.Avatar(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "load", lambda _: avatar)
        patch.setattr(pretrained.store, "find", lambda _: None)
        assert main(["--workdir", str(workdir), "--on_mp4"]) == 0
    out = workdir / "eval_test"
    return out, json.loads((out / "metrics.json").read_text()), avatar


def test_metrics_json_has_the_contract(done):
    _, result, _ = done
    assert set(CONTRACT) <= set(result)
    assert result["split"] == "test" and result["frames"] == 50
    assert result["train_seconds"] == 3.5
    assert result["fps"] > 0
    for name in ("lpips", "fid", "lmd", "lse_c", "lse_d", "lse_truth", "lmd_fan"):
        assert result[name] is None and result["weights"][name]


def test_the_figures_are_those_of_the_painted_error(done):
    _, result, _ = done
    assert result["psnr"] == pytest.approx(
        -20 * np.log10(0.02), abs=0.05
    )  # every pixel is off by 0.02
    assert result["lips_psnr"] == pytest.approx(result["psnr"], abs=0.05)
    assert result["eyes_psnr"] == pytest.approx(result["psnr"], abs=0.05)
    assert result["still_lips_psnr"] < result["lips_psnr"]
    assert result["still_ssim"] < result["ssim"] and result["still_eyes_psnr"] > 90  # they are flat
    assert result["opening_correlation"] > 0.99 and result["opening_correlation_kind"] == "pixels"
    assert result["envelope_correlation"] > result["envelope_correlation_shifted"]["max"]
    assert (
        result["still_opening_correlation"] is None
        or abs(result["still_opening_correlation"]) < 0.2
    )
    temporal = result["temporal"]  # the offset does not change, and around the eyes nothing does
    assert temporal["lips_ratio"] == pytest.approx(1.0, abs=0.02)
    assert temporal["frame_excess"] < 0.02 and temporal["eyes_ratio"] is None


def test_measured_after_h264_too(done):
    out, result, _ = done
    assert 25 < result["on_mp4"]["psnr"] < 60 and result["on_mp4"]["lpips"] is None
    assert (out / "truth.mp4").exists() and (out / "render.mp4").exists()


def test_all_batches_have_one_size_and_speed_is_measured_one_by_one(done):
    _, _, avatar = done
    assert set(avatar.batches) == {play.BATCH, 1}
    assert avatar.batches.count(1) == measure.WARM_UP + 50


def test_the_comparison_video_has_pictures_and_sound(done):
    out, _, _ = done
    assert [(s.type, s.codec) for s in video.probe_streams(out / "comparison.mp4")] == [
        ("video", "h264"),
        ("audio", "aac"),
    ]
    assert video.read_video(out / "comparison.mp4").num_frames == 50


def test_report_files_fit_together(done):
    out, result, _ = done
    with open(out / result["per_frame"]) as file:
        rows = list(csv.DictReader(file))
    assert [int(r["frame"]) for r in rows] == list(range(500, 550))
    assert np.mean([float(r["psnr"]) for r in rows]) == pytest.approx(result["psnr"])
    page = (out / "report.html").read_text()
    for name in WRITTEN:
        assert name in page and (out / name).exists()
    assert cv2.imread(str(out / "contact_sheet.png")).shape[0] > 6 * fake_avatar.SIZE
    assert not list(out.glob(".*"))


def test_fid_and_lpips_vgg_where_their_networks_are(tmp_path, monkeypatch):
    data, workdir = fake_avatar.make_folder(tmp_path / "data", seconds=10), tmp_path / "run"
    workdir.mkdir()
    monkeypatch.setattr(store, "load", lambda _: fake_avatar.Avatar(data))
    monkeypatch.setattr(pretrained.store, "find", lambda _: None)
    fid = OptionalNetwork(lambda pictures: pictures[:, ::16, ::16].reshape(2, -1) / 255, "a grid")
    vgg = OptionalNetwork(lambda a, b: float(np.abs(a - b).mean()), "a difference")
    monkeypatch.setattr(perception, "load_fid", lambda: perception.FrechetDistance(fid))
    monkeypatch.setattr(perception, "load_lpips_vgg", lambda: perception.MeanDistance(vgg))
    assert main(["--workdir", str(workdir), "--lpips_vgg"]) == 0
    result = json.loads((workdir / "eval_test" / "metrics.json").read_text())
    assert 0 < result["fid"] < 0.1 and result["lpips_vgg"] == pytest.approx(0.02, rel=1e-2)
    assert result["weights"]["fid"].startswith(f"a grid; {result['frames']} frames")
    assert result["weights"]["lpips_vgg"] == "a difference"


def test_bad_input_is_one_line(tmp_path, capsys, monkeypatch):
    avatar = fake_avatar.Avatar(tmp_path / "nowhere")
    monkeypatch.setattr(store, "load", lambda _: avatar)
    assert main(["--workdir", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err.strip()
    assert "nowhere" in message and len(message.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_whose_sound_is_described_otherwise_is_one_line(tmp_path, capsys, monkeypatch):
    data = fake_avatar.make_folder(tmp_path / "data", seconds=2)
    avatar = fake_avatar.Avatar(data)
    monkeypatch.setattr(store, "load", lambda _: avatar)
    np.save(data / "audio_mel.npy", np.zeros((50, 16, 29), np.float32))
    assert main(["--workdir", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err.strip()
    assert "[16, 29]" in message and "[16, 80]" in message and len(message.splitlines()) == 1
    avatar.config.data.audio_extractor = "ave"
    assert main(["--workdir", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err.strip()
    assert "no features 'ave'; it has ['mel']" in message and len(message.splitlines()) == 1
