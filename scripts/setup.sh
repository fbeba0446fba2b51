# Sourced by the other scripts. `setup EXTRAS [PACKAGE ...]` makes .venv in the repository root (with
# $PYTHON, default python3), installs requirements.txt, the packages and this package with its EXTRAS
# (such as "preprocess,test", or ""), and activates it. What is already done is not done again.

setup() {
  local extras=$1 stamp wanted
  shift
  if [ ! -x .venv/bin/python ]; then
    "${PYTHON:-python3}" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || {
      echo "${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1 || true); expected Python" \
        "3.11 to 3.13: set PYTHON to one" >&2
      return 1
    }
    command -v "${CXX:-c++}" > /dev/null || {
      echo "no C++ compiler (${CXX:-c++}) found; install one, such as g++" >&2
      return 1
    }
    "${PYTHON:-python3}" -m venv .venv
  fi
  # shellcheck disable=SC1091
  . .venv/bin/activate
  stamp=.venv/fg3dgs-setup
  wanted="$extras $* $(pwd) $(_sources | sort | xargs cat | python -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    echo "installing into .venv (some minutes the first time)"
    rm -f "$stamp"
    # .venv is for this machine: the CUDA library, if nvcc is here, is compiled for one chip only.
    if [ -z "${CMAKE_ARGS:-}" ]; then
      export CMAKE_ARGS=-DFG3DGS_CUDA_ARCHS=90-real
      if nvidia-smi -L > /dev/null 2>&1; then CMAKE_ARGS=-DFG3DGS_CUDA_ARCHS=native; fi
    fi
    python -m pip install --quiet --no-input --disable-pip-version-check -r requirements.txt "$@"
    python -m pip install --quiet --no-input --disable-pip-version-check --no-build-isolation \
      -e ".${extras:+[$extras]}"
    echo "$wanted" > "$stamp"
  fi
}

# Everything an installed .venv depends on.
_sources() {
  printf '%s\n' requirements.txt pyproject.toml
  find fg3dgs_jax \( -name '*.cc' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' -o \
    -name '*.cmake' -o -name CMakeLists.txt \)
}
