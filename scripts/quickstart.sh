#!/usr/bin/env bash
# From a fresh clone to a talking video: installs into .venv, makes the embedded subject, trains an
# avatar of it, measures it on held-out frames and lets it speak new sound. About 7 minutes on two
# cores. After an interruption it continues where it was. Needs Python 3.11-3.13 and a C++17 compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/setup.sh
SECONDS=0
data=data/quickstart speech=data/quickstart_speech.wav run=runs/quickstart

setup ""
echo "== 1/4 the embedded subject ($SECONDS s)"
python scripts/make_subject.py --out "$data" --speech "$speech"
echo "== 2/4 train ($SECONDS s)"
python -m fg3dgs_jax.train --config configs/quickstart.py --workdir "$run"
echo "== 3/4 evaluate ($SECONDS s)"
python -m fg3dgs_jax.evaluate --workdir "$run" --out "$run/eval"
cp "$run/eval/contact_sheet.png" "$run/contact_sheet.png"
echo "== 4/4 synthesize ($SECONDS s)"
python -m fg3dgs_jax.synthesize --workdir "$run" --audio "$speech" --out "$run/talk.mp4" --check

cat << END
done in $((SECONDS / 60)) min $((SECONDS % 60)) s
  $run/talk.mp4            new speech, spoken by the avatar
  $run/contact_sheet.png   ground truth and render, side by side
  $run/eval/metrics.json   the figures above; $run/eval/report.html shows them
END
