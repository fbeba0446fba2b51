"""The table of results, from made-up metrics.json files and programs that only pretend."""

import importlib.util
import json
import os
import pathlib
import types

import pytest

PATH = pathlib.Path(__file__).parents[2] / "scripts" / "results.py"
spec = importlib.util.spec_from_file_location("results", PATH)
results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results)


def metrics(**changes):
    """What evaluate writes, as far as the table reads it."""
    made_up = {
        "frames": 46,
        "resolution": [225, 200],
        "psnr": 30.0,
        "ssim": 0.95,
        "lpips": 0.02,
        "lmd": 1.0,
        "lips_psnr": 28.0,
        "eyes_psnr": 29.0,
        "train_seconds": 266.57,
        "fps": 161.7,
        "still_psnr": 22.9,
        "still_ssim": 0.8,
        "still_lpips": 0.22,
        "still_lmd": 2.2,
        "still_lips_psnr": 20.5,
        "still_eyes_psnr": 20.1,
        "own_sync": {"score": 0.5, "truth_score": 0.6041},
        "driven": {"mean": {"opening": 0.66, "width": 0.6, "f1": 0.7}},
        "temporal": {"frame_ratio": 0.9, "lips_ratio": 0.7, "eyes_ratio": 0.8},
        "weights": {"own_sync": "own lip-sync expert (sync.npz); not LSE"},
    }
    return made_up | changes


def write(workdir, found, seconds=266.57):
    (workdir / "eval_test").mkdir(parents=True)
    (workdir / "eval_test" / "metrics.json").write_text(json.dumps(found))
    (workdir / "train.json").write_text(json.dumps({"train_seconds": seconds}))


def rows(text):
    """{first cell: the other cells} of every line of all tables, in a list for each."""
    found = {}
    for line in text.splitlines():
        if line.startswith("|"):
            first, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            found.setdefault(first, []).append(cells)
    return found


def test_a_clip_has_the_still_image_first_and_dashes_for_what_is_unknown():
    runs = {"cpu": metrics(), "no_fad": metrics(lpips=0.031, own_sync=None), "single": None}
    text = "\n".join(results.clip_table("obama", runs))
    assert text.startswith("### obama: 46 test frames of 200 x 225")
    assert "true frames 0.604" in text
    found = rows(text)
    assert list(found)[2:] == ["best still image", "cpu (full method)", "no_fad", "single"]
    assert found["best still image"][0] == (
        ["22.90", "0.8000", "0.2200", "2.200", "20.50", "20.10"] + ["-"] * 9
    )
    full = found["cpu (full method)"][0]
    assert full[6:10] == ["0.500", "0.66", "0.60", "0.70"]
    assert full[10:] == ["0.90", "0.70", "0.80", "267", "162"]
    assert found["no_fad"][0][2] == "0.0310" and found["no_fad"][0][6] == "-"
    assert set(found["single"][0]) == {"-"}
    assert {len(cells[0]) for cells in found.values()} == {len(results.COLUMNS)}


def test_counts_of_clips_know_which_way_is_better():
    flickers = {"frame_ratio": 1.2, "lips_ratio": 1.3, "eyes_ratio": None}
    other = metrics(psnr=29.0, lpips=0.01, lmd=1.0, temporal=flickers)
    clips = {
        "obama": {"cpu": metrics(), "single": other},
        "french": {"cpu": metrics(psnr=28.0), "single": other},
        "lieu256": {"cpu": metrics(), "single": None},
    }
    found = rows("\n".join(results.comparison(clips)))
    assert found["PSNR"] == [["3 of 3", "1 of 2"]]
    assert found["LPIPS"] == [["3 of 3", "0 of 2"]]
    assert found["LMD"] == [["3 of 3", "0 of 2"]]  # equal is not better
    assert found["temporal"] == [["-", "2 of 2"]]  # 0.9 is nearer 1 than 1.2
    assert found["temporal, lips"] == [["-", "0 of 2"]]  # 1.3 nearer than 0.7: quotients
    assert found["temporal, eyes"] == [["-", "-"]]
    assert "training, s" not in found and "frames/s" not in found


def test_table_only_reads_what_is_there(tmp_path, capsys):
    write(tmp_path / "obama_cpu", metrics())
    command = ["--data", "data/obama", "data/french.npz", "--variants", "cpu", "no_fad"]
    assert results.main([*command, "--out", str(tmp_path), "--table_only"]) == 0
    text = (tmp_path / "results.md").read_text()
    assert text in capsys.readouterr().out
    assert "### french\n\nNo run has been measured." in text
    assert rows(text)["PSNR"] == [["1 of 1", "-"]]


@pytest.fixture
def programs(monkeypatch):
    """Commands that the script ran; training of "no_fam" fails, nothing is ever written."""
    commands = []

    def run(command):
        commands.append(command[2:])
        return types.SimpleNamespace(returncode=int(any("no_fam" in c for c in command)))

    monkeypatch.setattr(results.subprocess, "run", run)
    return commands


def test_trains_and_measures_one_after_the_other(tmp_path, programs, capsys):
    command = ["--data", "d/obama", "--variants", "cpu", "no_fam", "single", "--out", str(tmp_path)]
    command += ["--sync_expert", "sync.npz", "--set", "seed=3", "--set", "log.every=100"]
    write(tmp_path / "obama_single", metrics())
    assert results.main(command) == 1
    cpu, measured, failing, single = programs  # nothing to measure where training failed, or again
    assert cpu[:3] == [
        "fg3dgs_jax.train",
        "--config=configs/obama.py:cpu",
        f"--workdir={tmp_path}/obama_cpu",
    ]
    assert cpu[3:] == [
        "--config.data.path=d/obama",
        "--config.name=obama_cpu",
        "--config.seed=3",
        "--config.log.every=100",
    ]
    assert measured == [
        "fg3dgs_jax.evaluate",
        f"--workdir={tmp_path}/obama_cpu",
        "--sync_expert=sync.npz",
    ]
    assert {failing[0], single[0]} == {"fg3dgs_jax.train"}
    assert "failed" in capsys.readouterr().err


def test_measures_again_what_was_trained_or_judged_anew(tmp_path):
    write(tmp_path, metrics())
    assert results.is_measured(tmp_path, None)
    assert results.is_measured(tmp_path, "sync.npz")
    assert not results.is_measured(tmp_path, "other.npz")
    (tmp_path / "train.json").write_text('{"train_seconds": 300.5}')
    assert not results.is_measured(tmp_path, None)
    assert not results.is_measured(tmp_path / "nowhere", None)


def test_two_folders_of_one_name_are_refused(capsys):
    with pytest.raises(SystemExit):
        results.main(["--data", "a/obama", "b/obama", "--variants", "cpu", "--out", "runs"])
    assert "same name twice" in capsys.readouterr().err


def test_an_avatar_speaks_the_videos_again_when_it_or_they_have_changed(tmp_path, programs):
    videos = [pathlib.Path("others/a.mp4"), pathlib.Path("others/b.mp4")]
    run = tmp_path / "obama_cpu"
    write(run, metrics())
    assert not results.is_driven(run, videos)
    (run / "avatar.npz").touch()
    driven = {"videos": [{"name": "a"}], "left_out": {"b": "no face"}, "mean": {"opening": 0.5}}
    (run / "eval_drive").mkdir()
    (run / "eval_drive" / "drive.json").write_text(json.dumps(driven))
    assert results.is_driven(run, videos)
    assert results.metrics_of(run)["driven"]["mean"]["opening"] == 0.5
    assert not results.is_driven(run, videos[:1])
    os.utime(run / "avatar.npz", (2e9, 2e9))  # trained since
    command = ["--data", "d/obama", "--variants", "cpu", "--out", str(tmp_path), "--drive"]
    assert results.main([*command, *map(str, videos)]) == 0
    assert programs[1] == [
        "fg3dgs_jax.evaluate",
        f"--workdir={run}",
        "--drive",
        *map(str, videos),
    ]
