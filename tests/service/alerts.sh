#!/bin/sh
# alerts.sh BIN - deploy/prometheus/alerts.yml uses only metrics that a coordinator's /metrics has; its rules fire when they
# should (with promtool, if it is installed).
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
rules=$(cd "$(dirname "$0")/../../deploy/prometheus" && pwd)
for needed in redis-server python3; do
    command -v $needed >/dev/null || { echo "SKIPPED: $needed is not installed" >&2; exit 77; }
done
mkdir "$work/w"
http=127.0.0.1:$(free_port)
"$bin/mode" up --workspace "$work/w" --workers captions=1 --http "$http" >/dev/null
no_proxy=127.0.0.1 python3 -c "import urllib.request; print(urllib.request.urlopen('http://$http/metrics').read().decode())" >"$work/metrics"
cat >"$work/stranger.py" <<'END'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
s.connect(sys.argv[1])
s.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 1 + 31)) # ZMTP: a greeting; the reply comes in pieces
def read(n): # a socket with a timeout ignores MSG_WAITALL
    got = b""
    while len(got) < n:
        more = s.recv(n - len(got))
        if not more: sys.exit("the connection was closed")
        got += more
    return got
read(64)
s.sendall(b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER")
read(read(2)[1])
s.sendall(b"\x00\x05hello" * 3)
s.recv(1) # until the connection is closed
END
python3 "$work/stranger.py" "$work/w/run/admin.sock" &
await_said 'warn coordinator bad_message port=admin key= all=1 ' "$work/w/logs/coordinator.log"
"$bin/mode" down --workspace "$work/w" >/dev/null
[ "$(grep -c ' bad_message ' "$work/w/logs/coordinator.log")" = 1 ] || fail "every bad message is a line of the log"
for name in $(grep -oE 'mode_[a-z_]+' "$rules/alerts.yml" | sort -u); do
    grep -q "^# TYPE $name " "$work/metrics" || fail "alerts.yml uses $name, which /metrics does not have"
done
for name in $(sed -n 's/.*- alert: //p' "$rules/alerts.yml" | cut -d' ' -f1); do
    grep -q "\`$name\`" "$rules/../../docs/OPERATIONS.md" || fail "docs/OPERATIONS.md does not say what helps against $name"
done
if command -v promtool >/dev/null; then
    cd "$rules"
    promtool check rules alerts.yml >"$work/out" && promtool test rules alerts_test.yml >>"$work/out" 2>&1 || fail "$(cat "$work/out")"
    echo "alerts: ok"
else
    echo "alerts: the metrics exist; the rules were not tested, promtool is not installed"
fi
