#!/bin/sh
# venv.sh [oracle|s3|scikit-learn|tensorboard] - create (once) a Python environment and print the path of its python. Tests
# and benchmarks only; the product needs no Python. Outside the tree: MODE_ORACLE_VENV, default ~/.cache/mode/oracle,
# MODE_S3_VENV, MODE_SCIKIT_LEARN_VENV, MODE_TENSORBOARD_VENV.
#   oracle        the oracles and peers: PyTorch, open_clip, transformers, Pillow, faiss. Some GB: torch pulls in CUDA
#                 wheels
#   s3            boto3, and moto, which mocks Amazon's S3, IAM and STS
#   scikit-learn  scikit-learn alone: logistic regressions
#   tensorboard   TensorBoard alone
set -eu
what=${1:-oracle}
case $what in
oracle)
    venv=${MODE_ORACLE_VENV:-}
    packages="torch torchvision open_clip_torch transformers ftfy pillow<13 numpy faiss-cpu psutil"
    ;;
scikit-learn)
    venv=${MODE_SCIKIT_LEARN_VENV:-}
    packages="scikit-learn safetensors numpy"
    ;;
tensorboard)
    venv=${MODE_TENSORBOARD_VENV:-}
    packages="tensorboard setuptools<81"
    ;;
s3)
    venv=${MODE_S3_VENV:-}
    packages="boto3 moto[server]"
    ;;
*)
    echo "venv.sh: unknown environment \"$what\"; expected oracle, s3, scikit-learn or tensorboard" >&2
    exit 2
    ;;
esac
venv=${venv:-${HOME:-/tmp}/.cache/mode/$what}
if [ ! -e "$venv/.complete" ]; then
    command -v python3 >/dev/null || { echo "venv.sh: python3 is missing: apt-get install python3 python3-venv" >&2; exit 69; }
    python3 -m venv "$venv" >&2
    # shellcheck disable=SC2086 -- a list
    "$venv/bin/pip" install -q $packages >&2
    touch "$venv/.complete"
fi
echo "$venv/bin/python"
