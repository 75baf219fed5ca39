#!/bin/sh
# keys.sh BIN - who may connect over TCP: admins to the admin port, nobody without a line in the allow list; a line that is
# removed or added takes effect at SIGHUP, without a restart.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
coordinator=
bye() {
    [ -z "$coordinator" ] || kill "$coordinator" 2>/dev/null || true
    cleanup
}
trap bye EXIT
asks() { # key folder, key name: the exit code of a request to the coordinator
    code=0
    "$bin/mode" status --workspace "$work" --coordinator-admin "$admin" --key-dir "$1" --key-name "$2" >"$work/answer" 2>&1 || code=$?
    echo $code
}

"$bin/mode" keys "$work/keys" --admin anna --out "$work/anna" >/dev/null
"$bin/mode" keys "$work/keys" --admin otto --out "$work/otto" >/dev/null
"$bin/mode" keys "$work/keys" --worker w1 --out "$work/w1" >/dev/null
: >"$work/run.log" # it exists before the coordinator's shell opens it
# without Redis on purpose: authentication does not depend on it
"$bin/mode-coordinator" --workspace "$work" --redis "unix://$work/none.sock" --key-dir "$work/keys" \
    --worker-endpoint 'tcp://127.0.0.1:*' --admin-endpoint 'tcp://127.0.0.1:*' 2>"$work/run.log" &
coordinator=$!
is_ready() {
    kill -0 $coordinator 2>/dev/null || fail "the coordinator ended"
    admin=$(sed -n 's/.* admin=\(tcp:[^ ]*\).*/\1/p' "$work/run.log")
    [ -n "$admin" ]
}
await is_ready || fail "the coordinator is not ready"

[ "$(asks "$work/anna" anna)" = 0 ] || fail "anna is not let in: $(cat "$work/answer")"
[ "$(asks "$work/otto" otto)" = 0 ] || fail "otto is not let in: $(cat "$work/answer")"
[ "$(asks "$work/w1" w1)" = 77 ] || fail "a worker's key at the admin port: $(cat "$work/answer")"

is_read() { [ "$(grep -c ' coordinator allow_list ' "$work/run.log" || true)" -gt "$before" ]; }
again() { # the coordinator reloads the list and logs that
    before=$(grep -c ' coordinator allow_list ' "$work/run.log" || true)
    kill -HUP $coordinator
    await is_read || fail "SIGHUP is not answered"
}
cp "$work/keys/allow" "$work/allow"
sed '/ anna /d' "$work/allow" >"$work/keys/allow"
again
[ "$(asks "$work/anna" anna)" = 77 ] || fail "anna's key was taken back, but she is let in"
[ "$(asks "$work/otto" otto)" = 0 ] || fail "otto's key was not taken back: $(cat "$work/answer")"
echo "nonsense" >"$work/keys/allow"
again
[ "$(asks "$work/otto" otto)" = 0 ] || fail "a list that cannot be read must leave the old one in force"
cp "$work/allow" "$work/keys/allow"
again
[ "$(asks "$work/anna" anna)" = 0 ] || fail "anna is in the list again, but not let in: $(cat "$work/answer")"
kill -TERM $coordinator
code=0
wait $coordinator || code=$?
coordinator=
[ $code = 0 ] || fail "the coordinator ended with $code"
echo "keys: ok"
