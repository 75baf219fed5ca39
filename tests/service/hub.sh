#!/bin/sh
# hub.sh BIN - a text encoder by its ORG/NAME: fetched once from a server on this machine, used without it afterwards,
# and a sentence for everything that can be missing. Needs the fetched encoder (MODE_TEST_MODELS) and python3.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
command -v python3 >/dev/null || { echo "hub.sh: python3 is not here: skipped" >&2; exit 77; }

encoder=$MODE_TEST_MODELS/encoder
files=$work/site/org/encoder/resolve/main
mkdir -p "$files/1_Pooling" "$work/site/org/no-weights/resolve/main" "$work/site/org/no-config"
for f in config.json model.safetensors tokenizer.json vocab.txt modules.json 1_Pooling/config.json; do
    ln -s "$encoder/$f" "$files/$f"
done
cp "$encoder/config.json" "$encoder/tokenizer.json" "$work/site/org/no-weights/resolve/main/"
# a free port, said by the server itself
python3 -u -c '
import functools, http.server, sys
h = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), h)
print(s.server_address[1], flush=True)
s.serve_forever()' "$work/site" >"$work/port" 2>"$work/requests" &
server=$!
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
for _ in 1 2 3 4 5 6 7 8 9 10; do [ -s "$work/port" ] && break; sleep 0.3; done
export HF_ENDPOINT="http://127.0.0.1:$(cat "$work/port")/" MODE_CACHE="$work/cache" no_proxy=127.0.0.1
printf 'a cat\nTwo dogs\n' >"$work/texts"
cd "$work"

"$bin/mode" embed --encoder org/encoder --texts texts --out hub.npy 2>log || fail "fetching: $(cat log)"
grep -q "org/encoder: model.safetensors" log || fail "nothing is said of what is fetched"
[ -s cache/models/hub/org/encoder/1_Pooling/config.json ] || fail "1_Pooling/config.json was not fetched"
cmp cache/models/hub/org/encoder/model.safetensors "$encoder/model.safetensors" || fail "other weights"
"$bin/mode" embed --encoder "$encoder" --pooling mean --texts texts --out folder.npy >/dev/null
cmp hub.npy folder.npy || fail "other vectors than from the folder"

refused() { # CODE WORDS ARGUMENT
    code=0
    "$bin/mode" embed --encoder "$3" --texts texts --out x.npy >log 2>&1 || code=$?
    [ $code -eq "$1" ] && grep -q "$2" log || fail "--encoder $3: exit $code: $(cat log); expected $1, \"$2\""
    [ -z "$(find cache -name '*.new-*')" ] || fail "--encoder $3: half a folder is left"
    [ ! -e "cache/models/hub/${3%/*}" ] || [ -n "$(ls "cache/models/hub/${3%/*}")" ] || fail "--encoder $3: an empty folder is left"
}
refused 66 "has no config.json" org/no-config
refused 66 "has no model.safetensors" org/no-weights
refused 66 "has no config.json" org/no-model
refused 66 "has no config.json" nobody/no-model
kill $server
requests=$(wc -l <requests)
"$bin/mode" embed --encoder org/encoder --texts texts --out again.npy >/dev/null 2>&1 || fail "the cache without a network"
cmp hub.npy again.npy
[ "$requests" -eq "$(wc -l <requests)" ] || fail "the hub was asked again"
refused 69 "HINT: without a network" org/other
endpoint=$HF_ENDPOINT HF_ENDPOINT=hub.example
refused 78 'HF_ENDPOINT: "hub.example" is not an address; expected http' org/other
HF_ENDPOINT=$endpoint
# a folder of that name wins
mkdir -p org && ln -s "$encoder" org/other
"$bin/mode" embed --encoder org/other --texts texts --out x.npy >/dev/null 2>&1 || fail "a folder wins over the hub"
echo "hub: ok"
