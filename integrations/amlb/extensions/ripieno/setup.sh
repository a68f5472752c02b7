#!/usr/bin/env bash
# Install ripieno into an environment of its own beside this script: setup.sh VERSION [SOURCE].
#   stable   the newest release of PyPI
#   1.2.3    that release
#   local    the folder SOURCE, or what else pip takes; by default the checkout that this script lies in
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
VERSION=${1:-local}
CHECKOUT="$HERE/../../../.."
SOURCE=${2:-$CHECKOUT}
EXTRAS="[tables,serve,parquet]"
CONSTRAINT=()
# The benchmark takes the end of the pipes for the end of this script, and fails when it is a moment early: a child keeps
# them open.
trap 'sleep 3 &' EXIT

set +u  # the benchmark's script reads variables that may be unset
. "$HERE/.setup/setup_env"  # written by the benchmark
. "$AMLB_ROOT/frameworks/shared/setup.sh" "$HERE" true
set -u

case "$VERSION" in
  stable) WANTED=("ripieno$EXTRAS") ;;
  [0-9]*) WANTED=("ripieno$EXTRAS==$VERSION") ;;
  local)
    WANTED=("$SOURCE$EXTRAS")
    # the versions that the checkout is tested with
    if [[ -f "$SOURCE/constraints.txt" ]]; then CONSTRAINT=(--constraint "$SOURCE/constraints.txt"); fi
    ;;
  *)
    echo "version $VERSION is unknown: it must be stable, a number or local" >&2
    exit 1
    ;;
esac
# without a GPU, PyTorch's build for CPUs: it is ten times smaller
if ! command -v nvidia-smi > /dev/null; then
  PIP install torch --no-deps "${CONSTRAINT[@]}" --index-url "${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" ||
    echo "PyTorch's build for CPUs could not be installed: taking that of PyPI"
fi
# the benchmark's script has installed older releases of the last three than ripieno needs
PIP install "${WANTED[@]}" "${CONSTRAINT[@]}" pandas numpy psutil pyarrow --upgrade

PY -c "import ripieno; print(ripieno.__version__)" >> "$HERE/.setup/installed"
