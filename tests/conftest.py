"""Settings that must stand before JAX starts: tests run each program once, so that compiling it
well costs more than it saves."""

import os

_CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{_CHEAP} {os.environ.get('XLA_FLAGS', '')}".strip()
