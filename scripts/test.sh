#!/usr/bin/env bash
# Installs what the tests use into .venv, checks style and types and runs the tests in two processes. Arguments
# go to pytest (-n 0: in one process). FG3DGS_TEST_ORACLES=0 leaves out the checks of types and of
# C++ style, and torch, transformers and gsplat: the tests that compare with them then skip.
#
# `scripts/test.sh aot` runs the tests that compile for a GPU which is not there, and nothing else. It fetches
# JAX's CUDA plugin for them (FG3DGS_TEST_AOT=1: so does the whole run, as CI's). They skip without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/setup.sh
if [ "${FG3DGS_TEST_ORACLES:-1}" = 0 ]; then
  setup preprocess pytest pytest-xdist beartype ruff
else
  setup preprocess,test
fi

# The extra test_cuda, beside the other packages: among them, JAX would miss CUDA's libraries at each start.
fetch_plugin() {
  local version folder=.venv/test_cuda
  version=$(python -c 'import jaxlib; print(jaxlib.__version__)')
  [ -d "$folder/jax_cuda13_plugin-$version.dist-info" ] && return
  rm -rf "$folder"
  python -m pip install --quiet --no-input --disable-pip-version-check --no-deps --target "$folder" \
    "jax-cuda13-plugin==$version" "jax-cuda13-pjrt==$version"
}
if [ "${1:-}" = aot ]; then
  fetch_plugin
  exec python -m pytest -q -n 0 -m aot tests/aot
elif [ "${FG3DGS_TEST_AOT:-0}" != 0 ]; then
  fetch_plugin || echo "JAX's CUDA plugin could not be fetched: the tests in tests/aot skip" >&2
fi

ruff check .
ruff format --check .
if [ "${FG3DGS_TEST_ORACLES:-1}" != 0 ]; then
  find fg3dgs_jax/native \( -name '*.cc' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' \) \
    -exec clang-format --dry-run --Werror {} +
  pyright
  pyright -p pyright_strict.json
fi
if [ -z "${FG3DGS_WEIGHTS:-}" ] && [ -d ../shared/models ]; then
  FG3DGS_WEIGHTS=$(cd ../shared/models && pwd)
  export FG3DGS_WEIGHTS
fi
# A whole file goes to one process, so that its tests share what they prepare. Files keep their order,
# because the longest ones have few tests.
python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder "$@"
