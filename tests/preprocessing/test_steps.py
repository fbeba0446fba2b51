"""The two lists of steps: consistent in themselves, and each step is done when it has to be."""

import dataclasses
import json
import types

import numpy as np
import pytest

from fg3dgs_jax.experts.audio import audio_features, lip_prior
from fg3dgs_jax.media import video
from fg3dgs_jax.preprocessing import from_folder, from_video, resume, settings
from fg3dgs_jax.preprocessing import run as run_lib
from fg3dgs_jax.preprocessing import steps as steps_lib
from fg3dgs_jax.weights import files

LISTS = {"video": from_video.STEPS, "folder": from_folder.STEPS}
META = {"num_frames": 11, "width": 8, "height": 8, "intrinsics": (9, 9, 4, 4), "source": {}}
every_list = pytest.mark.parametrize("steps", LISTS.values(), ids=LISTS)


@every_list
def test_what_a_step_needs_an_earlier_one_has_made(steps):
    made = set()
    for step in steps:
        assert set(step.needs) <= made, f"{step.name} needs {set(step.needs) - made}"
        assert made.isdisjoint(step.makes), f"{step.name} makes what another has made"
        assert step.makes or step.always, f"{step.name} makes nothing"
        made.update(step.makes)
    assert {f"audio_{name}.npy" for name in audio_features.EXTRACTORS} <= made
    assert steps[-1].makes == ("report.html",)


@every_list
def test_names_are_unique(steps):
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)


def counting(steps, done):
    """The steps with runs that only touch their files, and note their names in `done`."""

    def touch(step, job):
        done.append(step.name)
        for file in step.makes:
            write_nothing(job.folder.path / file)

    kept = {"made_by": lambda job: True, "applies": lambda job: True}
    return [
        dataclasses.replace(step, run=lambda job, step=step: touch(step, job), **kept)
        for step in steps
    ]


def write_nothing(path):
    """A file that can be read."""
    if path.suffix == ".npy":
        np.save(path, np.zeros(1))
    elif path.suffix == ".npz":
        np.savez(path, x=np.zeros(1))
    else:
        path.write_text("{}")


def job_in(path):
    return types.SimpleNamespace(folder=resume.Folder(path, {"source": "x"}), meta=lambda: META)


@every_list
def test_only_a_step_of_another_version_is_done_again(steps, tmp_path):
    done = []
    steps = counting(steps, done)
    always = [step.name for step in steps if step.always]
    resume.run(steps, job_in(tmp_path))
    assert done == [step.name for step in steps]
    assert json.loads((tmp_path / "meta.json").read_text())["T"] == 11
    done.clear()
    resume.run(steps, job_in(tmp_path))
    assert done == always
    raised = [
        dataclasses.replace(step, version=step.version + 1) if step.name == "layers" else step
        for step in steps
    ]
    done.clear()
    resume.run(raised, job_in(tmp_path))
    assert sorted(done) == sorted(["layers", *always])
    done.clear()
    resume.run(raised, job_in(tmp_path))
    assert done == always
    (tmp_path / steps[1].makes[0] if steps[1].makes else tmp_path / "faces.npz").unlink()
    resume.run(raised, job_in(tmp_path))
    assert len(done) == 2 * len(always) + 1  # what is lost is made again


def test_meta_is_taken_away_while_a_step_runs(tmp_path):
    steps = counting(LISTS["video"], [])
    resume.run(steps, job_in(tmp_path))

    def interrupted(job):
        assert not (job.folder.path / "meta.json").exists()
        raise KeyboardInterrupt

    broken = [dataclasses.replace(step, run=interrupted, version=99) for step in steps]
    with pytest.raises(KeyboardInterrupt):
        resume.run(broken, job_in(tmp_path))
    assert not (tmp_path / "meta.json").exists() and (tmp_path / "faces.npz").exists()


def test_records_are_those_of_folders_made_before_steps_had_versions():
    parser = types.SimpleNamespace(made_by={"parser": "landmarks", "weights": {"a": "0"}})
    sound = {"av_offset": 0.1, "gain_db": 2.7}
    origin = {"emotion": "none", "action_units": "blendshapes"}
    job = types.SimpleNamespace(
        offset=0.1,
        parser=parser,
        sound_record=sound,
        expression=types.SimpleNamespace(origin=origin),
        made_by=lambda record: record,
    )
    records = {step.name: step.record(job) for step in LISTS["video"] if not step.always}
    assert records == {
        "framing": True,
        "check": 0.1,
        "read": True,
        "faces": True,
        "scene": True,
        "offset": 0.1,
        "listen": sound,
        "pose": "bundle adjustment, skin alignment 1",
        "expression": origin,
        "layers": {"parser": "landmarks", "weights": {"a": "0"}, "version": 3},
        **dict.fromkeys(audio_features.EXTRACTORS, sound),
        "lips": {"made_by": [sound, files.digest(lip_prior.require())], "version": 2},
    }


def test_a_folder_keeps_the_prior_that_made_its_lips(tmp_path, monkeypatch):
    """New speech has to go through it: it has learnt the person's lips from the train frames."""
    shipped = lip_prior.load(lip_prior.SHIPPED)
    persons = shipped._replace(facts={"adapted_to_frames": 9})
    given = []

    def persons_lips(samples, curves, learnt):
        given.append((len(samples), curves, list(learnt)))
        return persons, np.zeros((len(curves), 1, 3), np.float32)

    monkeypatch.setattr(audio_features, "persons_lips", persons_lips)
    video.write_wav(tmp_path / "audio.wav", np.zeros(11 * 640, np.int16))
    pixels = np.random.default_rng(0).normal(size=(11, 478, 2))
    track = types.SimpleNamespace(
        pixels=pixels,
        depth=np.zeros((11, 478)),
        rotation=np.broadcast_to(np.eye(3), (11, 3, 3)),
        valid=np.arange(11) != 4,
    )
    folder = resume.Folder(tmp_path, {"source": "x"})
    own = np.ones(11, bool)
    job = types.SimpleNamespace(folder=folder, num_frames=11, track=track, own=own)
    steps_lib.extract("lips", job)
    ((samples, curves, learnt),) = given
    assert samples == 11 * 640 and curves.shape == (11, 3)
    assert learnt == [0, 1, 2, 3, 5, 6, 7, 8, 9]  # a face, and not of the test end
    assert lip_prior.load(tmp_path / "lip_prior.npz").facts == persons.facts
    assert np.load(tmp_path / "audio_lips.npy").shape == (11, 1, 3)


@pytest.mark.parametrize(
    "values, words",
    [
        ({"features": ("mel", "nonsense")}, "features is 'mel,nonsense'; expected some of mel"),
        ({"features": ()}, "features is ''"),
        ({"parser": "x"}, "parser is 'x'; expected one of auto"),
        ({"emotion": "x"}, "emotion is 'x'"),
        ({"size": 10}, "size is 10; expected 0 or 64 to 2048"),
        ({"max_seconds": 1}, "max_seconds is 1; expected at least 2"),
        ({"start": -1.0}, r"start is -1.0; expected 0 or more"),
        ({"start": float("nan")}, "start is nan; expected 0 or more"),
        ({"start": 5.0, "end": 6.0}, r"end is 6.0; expected at least 2 s after the start, 7 or"),
        ({"end": float("nan")}, "end is nan; expected at least 2 s after the start, 2 or more"),
        ({"av_offset": float("nan")}, "av_offset is nan; expected auto, or at most 5.0 s"),
        ({"av_offset": "late"}, "av_offset is late; expected auto"),
    ],
)
def test_settings_that_are_not_allowed(values, words):
    with pytest.raises(settings.SettingError, match=words):
        settings.PreprocessSettings(**values)


def test_the_functions_refuse_what_they_cannot_use(tmp_path):
    with pytest.raises(settings.SettingError, match="consent is 'maybe'; expected one of self"):
        run_lib.preprocess("v.mp4", tmp_path / "o", consent="maybe")
    only = settings.PreprocessSettings(size=256, max_seconds=9)
    with pytest.raises(settings.SettingError, match="max_seconds, size is for videos only"):
        run_lib.import_folder(tmp_path, tmp_path / "o", consent="self", settings=only)
    assert not (tmp_path / "o").exists()
    twice = settings.PreprocessSettings(features=["mel", "ave", "mel"])
    assert twice.features == ("mel", "ave")
