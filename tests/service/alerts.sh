#!/bin/sh
# alerts.sh BIN - deploy/prometheus/alerts.yml names only what a coordinator's /metrics has; its rules fire when they should
# (with promtool, where that is installed).
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
rules=$(cd "$(dirname "$0")/../../deploy/prometheus" && pwd)
for needed in redis-server python3; do
    command -v $needed >/dev/null || { echo "SKIPPED: $needed is not installed" >&2; exit 77; }
done
mkdir "$work/w"
"$bin/mode" up --workspace "$work/w" --workers captions=1 --http 127.0.0.1:18096 >/dev/null
no_proxy=127.0.0.1 python3 -c 'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:18096/metrics").read().decode())' >"$work/metrics"
"$bin/mode" down --workspace "$work/w" >/dev/null
for name in $(grep -oE 'mode_[a-z_]+' "$rules/alerts.yml" | sort -u); do
    grep -q "^# TYPE $name " "$work/metrics" || fail "alerts.yml asks for $name, which /metrics does not have"
done
for name in $(sed -n 's/.*- alert: //p' "$rules/alerts.yml" | cut -d' ' -f1); do
    grep -q "\`$name\`" "$rules/../../docs/OPERATIONS.md" || fail "docs/OPERATIONS.md does not say what helps against $name"
done
if command -v promtool >/dev/null; then
    cd "$rules"
    promtool check rules alerts.yml >"$work/out" && promtool test rules alerts_test.yml >>"$work/out" 2>&1 || fail "$(cat "$work/out")"
    echo "alerts: ok"
else
    echo "alerts: names are there; the rules were not tried, promtool is not installed"
fi
