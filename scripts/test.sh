#!/usr/bin/env bash
# Installs what the tests use into .venv, checks style and types and runs the tests in two processes. Arguments
# go to pytest (-n 0: in one process). FG3DGS_TEST_ORACLES=0 leaves out the checks of types and of
# C++ style, and torch, transformers and gsplat: the tests that compare with them then skip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/setup.sh
if [ "${FG3DGS_TEST_ORACLES:-1}" = 0 ]; then
  setup preprocess pytest pytest-xdist beartype ruff
else
  setup preprocess,test
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
