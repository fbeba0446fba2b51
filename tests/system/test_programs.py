"""What was compiled is kept in the user's cache, which stays small and whole."""

import os
import pathlib
import subprocess
import sys
import zlib

import jax
import pytest

from fg3dgs_jax.system import programs

PROGRAM = """
import sys
import jax, jax.numpy as jnp
from fg3dgs_jax.system import programs
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event.rsplit("/")[-1]))
folder = programs.keep()
jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((3, 4)))
print(folder, hits.count("cache_hits"), hits.count("cache_misses"))
"""


def start(cache, **environment):
    """(folder, programs found, programs compiled) of a process of its own, and what it warned."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ
        | {"XDG_CACHE_HOME": str(cache), "JAX_ENABLE_COMPILATION_CACHE": "true"}
        | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    folder, found, compiled = done.stdout.split()
    return folder, int(found), int(compiled), done.stderr


def test_a_second_start_compiles_nothing(tmp_path):
    folder, found, compiled, told = start(tmp_path)
    assert pathlib.Path(folder) == tmp_path / "fg3dgs" / "programs" / programs.machine()
    assert found == 0 and compiled > 0 and told == ""
    # As a process leaves one that is killed while it writes.
    cut = max(pathlib.Path(folder).glob("*-cache"), key=lambda path: path.stat().st_size)
    cut.write_bytes(cut.read_bytes()[:100])
    assert start(tmp_path) == (folder, compiled - 1, 1, "")
    assert start(tmp_path) == (folder, compiled, 0, "")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache folder; settings of JAX are undone."""
    names = ("compilation_cache_dir", "enable_compilation_cache")
    names = (*(f"jax_{name}" for name in names), "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path / "fg3dgs" / "programs"
    for name, value in before.items():
        jax.config.update(name, value)


def test_no_folder_is_used_where_the_user_has_one_or_wants_none(cache):
    jax.config.update("jax_compilation_cache_dir", "another")
    assert programs.keep() is None and jax.config.jax_compilation_cache_dir == "another"
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    assert programs.keep() is None
    assert not cache.exists()


def test_a_disk_that_takes_nothing_is_left_alone(cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(programs, "ROOM", 1 << 80)
        assert programs.keep() is None
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        assert programs.keep() is None
    cache.parent.rename(cache.parent.with_name("away"))
    cache.parent.write_text("a file where a folder should be")
    assert programs.keep() is None and jax.config.jax_compilation_cache_dir is None


def test_the_oldest_give_way(cache, monkeypatch):
    folder = cache / programs.machine()
    folder.mkdir(parents=True)
    (folder / ".checked").touch()  # or they would be read, which makes them new
    for age, name in enumerate(("new", "middle", "old")):
        path = folder / f"{name}-cache"
        path.write_bytes(zlib.compress(os.urandom(1000)))
        os.utime(path, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(programs, "LIMIT", 2500)
    assert programs.keep() == folder
    assert {p.name for p in folder.glob("*-cache")} == {"new-cache", "middle-cache"}
    monkeypatch.setattr(programs, "MOST", 2)  # the time stamp is one
    jax.config.update("jax_compilation_cache_dir", None)
    programs.keep()
    assert [p.name for p in folder.glob("*-cache")] == ["new-cache"]


def test_machines_that_differ_in_what_they_understand_share_nothing(monkeypatch):
    here = programs.machine()
    assert here == programs.machine()
    text = "processor: 0\nvendor_id : X\nflags : sse avx\n\nprocessor: 1\nflags : sse\n"
    for changed in (text, text.replace("avx", "avx512f")):
        monkeypatch.setattr(pathlib.Path, "read_text", lambda _, text=changed: text)
        assert programs.machine() != here
        here = programs.machine()
    monkeypatch.setattr(os, "cpu_count", lambda: 1000)
    assert programs.machine() != here
