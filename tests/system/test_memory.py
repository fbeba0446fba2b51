"""How much memory there is: the least of the machine's and of what control groups leave."""

from fg3dgs_jax.system import memory


def test_a_control_group_limits_what_is_available(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    for name, most in (("", "max"), ("job", 3_000_000), ("job/step", "max")):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text("2000000\n")
        (folder / "memory.stat").write_text("anon 5\ninactive_file 300000\nactive_file 0\n")
    assert memory._left_in(tmp_path / "job", "memory.max", "memory.current") == [1_300_000]
    assert memory._left_in(tmp_path, "memory.max", "memory.current") == []
    assert 1e7 < memory.available() < 1e14


def test_what_does_not_fit_is_foreseen(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 4_000_000_000)
    fits = memory.foresee(3e9, "use less")
    assert fits == "memory: about 3.0 GB at the peak, 4.0 GB are available"
    assert "not expected to fit" in memory.foresee(5e9, "use less")
    assert memory.foresee(5e9, "use less").endswith("or use less")
