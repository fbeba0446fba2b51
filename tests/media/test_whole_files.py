"""A file appears whole or not at all."""

import pytest

from fg3dgs_jax.media.whole_files import whole


@pytest.mark.parametrize("as_text", [True, False])
def test_what_is_written_appears_at_the_end(tmp_path, as_text):
    path = tmp_path / "a.json"
    with whole(str(path) if as_text else path) as part:
        part.write_text("new")
        assert part.suffix == ".json" and not path.exists()
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.npz"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole(path) as part:
        part.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
