#!/usr/bin/env bash
# A gate in a CI job: measure, cut, verify; any step that fails ends the job with the exit code of its kind.
#
#   examples/gate.sh [FOLDER]         the bundled model; for yours set MODEL, DATA, CALIBRATION, METHOD, REFIT
#
# Exit codes: 1 a gate or a verification failed, 2 wrong usage, 3 bad input, 4 model not supported, 5 not written.
set -euo pipefail
folder=${1:-build/gate}
model=${MODEL:-bundled} data=${DATA:-bundled:test} calibration=${CALIBRATION:-bundled:calibration}
method=${METHOD:-obs} refit=${REFIT:-sequential}
mkdir -p "$folder"

# the model may lose two points at 60% of its states, and must stay above 95%
last sweep "$model" --data "$data" --calibration "$calibration" --method "$method" --refit "$refit" --ratios 0.6 \
  --fail-over "${FAIL_OVER:-0.02}" --fail-under "${FAIL_UNDER:-0.95}" \
  --junit "$folder/gates.xml" --summary "$folder/summary.md" --quiet

last prune "$model" --calibration "$calibration" --method "$method" --refit "$refit" --ratio 0.6 \
  --out "$folder/small.safetensors" --force --quiet > "$folder/prune.txt"
last verify "$model" "$folder/small.safetensors" --junit "$folder/verify.xml" --quiet > "$folder/verify.txt"
echo "passed: $folder/small.safetensors"
