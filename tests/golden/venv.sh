#!/bin/sh
# venv.sh - make (once) the Python environment with the oracles and peers: PyTorch, open_clip, transformers, Pillow,
# faiss. Tests and benches only; the product needs no Python. Outside the tree: MODE_ORACLE_VENV, default
# ~/.cache/mode/oracle. Prints the path of its python. Some GB: torch brings CUDA wheels along.
set -eu
venv=${MODE_ORACLE_VENV:-${HOME:-/tmp}/.cache/mode/oracle}
if [ ! -e "$venv/.complete" ]; then
    command -v python3 >/dev/null || { echo "venv.sh: python3 is missing: apt-get install python3 python3-venv" >&2; exit 69; }
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install -q torch torchvision open_clip_torch transformers ftfy 'pillow<13' numpy faiss-cpu psutil >&2
    touch "$venv/.complete"
fi
echo "$venv/bin/python"
