"""The loader of the compiled libraries."""

import jax
import pytest

from fg3dgs_jax import native


@pytest.mark.skipif(native.library_path("cpu") is None, reason="libfg3dgs_cpu is not built")
def test_a_library_for_a_newer_xla_is_told_in_one_line(monkeypatch):
    def refuse(*_, **__):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: handler's API version (0.4)\nis odd")

    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    line = r"libfg3dgs_cpu\.so does not fit jax [\d.]+ \(.*API version \(0\.4\) is odd\); re"
    with pytest.warns(UserWarning, match=line):
        assert native._register.__wrapped__("cpu") == frozenset()
