#!/bin/sh
# wheels.sh FOLDER [PYTHON-VERSION [TORCH-VERSION]] - the wheels that the peers need on a GPU machine without a package
# index: open_clip, transformers, ftfy and their dependencies, except torch itself and NVIDIA's packages, which are too
# large to carry and are installed there. `python3 -c "import sys, torch; print(sys.version, torch.__version__)"` prints
# there which versions to give; with TORCH-VERSION the matching torchvision is included. There:
#
#     python3 -m pip install --no-index --no-deps --target SITE FOLDER/*.whl && export PYTHONPATH=SITE
set -eu
folder=$1 version=${2:-3.12} torch=${3:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --upgrade pip
platforms=
for n in 17 24 27 28 31 34 35; do platforms="$platforms --platform manylinux_2_${n}_x86_64"; done
target="--python-version $version --implementation cp --only-binary=:all: $platforms --platform manylinux2014_x86_64 --platform manylinux1_x86_64"
"$work/venv/bin/pip" install -q --dry-run --ignore-installed --report "$work/report" --target "$work/none" $target open_clip_torch transformers ftfy 'pillow<13' numpy
"$work/venv/bin/python" - "$work/report" >"$work/list" <<'END'
import json
import re
import sys

for item in json.load(open(sys.argv[1]))["install"]:
    name = item["metadata"]["name"].lower().replace("_", "-")
    if not re.match(r"(torch|torchvision|triton|nvidia-.*|cuda-.*|setuptools|sympy|mpmath|networkx|jinja2|markupsafe)$", name):
        print(f"{name}=={item['metadata']['version']}")
END
if [ -n "$torch" ]; then # 2.9.1 has torchvision 0.24.1
    echo "$torch" | sed 's/+.*//' | awk -F. '{printf "torchvision==0.%d.*\n", $2 + 15}' >>"$work/list"
fi
mkdir -p "$folder"
"$work/venv/bin/pip" download -q --no-deps -d "$folder" $target -r "$work/list"
du -sh "$folder"
