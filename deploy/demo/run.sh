#!/bin/sh
# run.sh BUILD DEMO_DIR full|smoke - the whole pipeline on real data on this machine: data, models, services, run,
# report. `make demo` calls this after the build. Running it again redoes only what is missing.
set -eu
build=$1 dir=$2 profile=$3
here=$(cd "$(dirname "$0")" && pwd)
mode=$build/bin/mode

case $profile in full | smoke) ;; *) echo "demo: DEMO_PROFILE is full or smoke, not \"$profile\"" >&2; exit 2 ;; esac

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
"$here/prepare.sh" "$dir" "$profile" "$build/bin"

# the services stop with the demo; run again after an interruption, it reuses its finished work
trap '"$mode" down --workspace "$dir" >/dev/null 2>&1 || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$mode" up --workspace "$dir"
"$mode" run "$dir/run.yaml" --workspace "$dir"
"$mode" reconcile --workspace "$dir"
