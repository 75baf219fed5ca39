#!/bin/sh
# hub.sh BIN - a text encoder by its ORG/NAME[@REVISION], a CLIP model by hf-hub:ORG/NAME: downloaded once from a server on
# this machine, used offline afterwards; with a token, which is sent to that server alone; from Hugging Face's cache; and a
# sentence for everything that can be missing. Needs the fetched encoder (MODE_TEST_MODELS) and python3.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
need_models
command -v python3 >/dev/null || { echo "hub.sh: python3 is not installed: skipped" >&2; exit 77; }

encoder=$MODE_TEST_MODELS/encoder
files=$work/site/org/encoder/resolve/main
cd "$work"
mkdir -p "$files/1_Pooling" "$work/site/org/no-weights/resolve/main" "$work/site/org/no-config"
for f in config.json model.safetensors tokenizer.json vocab.txt modules.json 1_Pooling/config.json; do
    ln -s "$encoder/$f" "$files/$f"
done
cp "$encoder/config.json" "$encoder/tokenizer.json" "$work/site/org/no-weights/resolve/main/"
# two servers on free ports: the hub, and the one that it redirects to for the weights of org/gated. Their requests, with
# the tokens, are in requests-0 and requests-1
cat >server.py <<'END'
import functools, http.server, sys, threading

class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        token = self.headers.get("Authorization", "-")
        with open("requests-%d" % self.server.number, "a") as f:
            print(self.path, token, file=f)
        if self.path.startswith("/org/gated/") and self.server.number == 0:
            if token != "Bearer hf_secret":
                return self.send_error(401)
            if self.path.endswith(".safetensors"):
                self.send_response(302)
                self.send_header("Location", "http://localhost:%d%s" % (servers[1].server_address[1], self.path))
                self.send_header("Content-Length", "0")
                return self.end_headers()
            if "tokenizer.json" in self.path: # a renamed model: the same host
                self.send_response(307)
                self.send_header("Location", self.path.replace("gated", "encoder"))
                self.send_header("Content-Length", "0")
                return self.end_headers()
        super().do_GET()

servers = []
for number in 0, 1:
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory="site"))
    s.number = number
    servers.append(s)
    threading.Thread(target=s.serve_forever).start()
print(servers[0].server_address[1], flush=True)
END
ln -s encoder site/org/gated
: >requests-0
: >requests-1
python3 -u server.py >port 2>server.log &
server=$!
trap 'kill $server 2>/dev/null || true; cleanup' EXIT
await test -s port || fail "the server of this test does not begin: $(cat server.log)"
export HF_ENDPOINT="http://127.0.0.1:$(cat "$work/port")/" MODE_CACHE="$work/cache" HF_HOME="$work/hf" no_proxy=127.0.0.1,localhost
unset HF_TOKEN HF_HUB_CACHE HF_HUB_OFFLINE
printf 'a cat\nTwo dogs\n' >texts

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
    [ ! -e "cache/models/hub/${3%%/*}" ] || [ -n "$(ls "cache/models/hub/${3%%/*}")" ] || fail "--encoder $3: an empty folder is left"
}
refused 66 "has no config.json" org/no-config
refused 66 "has no model.safetensors" org/no-weights
refused 66 "has no config.json" org/no-model
refused 66 "has no config.json" nobody/no-model

embed() { # ENCODER WHAT
    "$bin/mode" embed --encoder "$1" --texts texts --out again.npy >log 2>&1 || fail "$2: $(cat log)"
    cmp hub.npy again.npy || fail "$2: other vectors"
}
asked() { wc -l <requests-0; }

# revisions are kept side by side; main is the default
cp -r site/org/encoder/resolve/main site/org/encoder/resolve/v1
mkdir -p site/org/encoder/resolve/refs/pr && cp -r site/org/encoder/resolve/main site/org/encoder/resolve/refs/pr/1
before=$(asked)
embed org/encoder@main "the revision main"
[ "$before" -eq "$(asked)" ] || fail "main was fetched again"
embed org/encoder@v1 "a tag"
embed org/encoder@refs/pr/1 "a revision with slashes"
grep -q '^/org/encoder/resolve/refs%2Fpr%2F1/config.json' requests-0 || fail "slashes of a revision are folders: $(cat requests-0)"
[ -s cache/models/hub/org/encoder@v1/config.json ] && [ -s 'cache/models/hub/org/encoder@refs%2Fpr%2F1/config.json' ] || fail "places of revisions"
refused 66 "has no config.json.*of the revision v2" org/encoder@v2

# a token gives access to a gated repository, is sent to the hub alone, and is never shown
refused 77 "HINT: HF_TOKEN, a token" org/gated
HF_TOKEN=hf_wrong; export HF_TOKEN
refused 77 "HF_TOKEN is set, but" org/gated
HF_TOKEN="hf_sec
X-Other: yes"
refused 78 "HF_TOKEN: character 7 does not occur in a token" org/gated
HF_TOKEN=hf_secret
embed org/gated "a closed model"
grep -q 'hf_' log && fail "the token is shown: $(cat log)"
grep -rq hf_secret cache && fail "the token is kept"
grep -q '^/org/gated/resolve/main/model.safetensors Bearer hf_secret' requests-0 || fail "the hub got no token"
grep -q '^/org/encoder/resolve/main/tokenizer.json Bearer hf_secret' requests-0 || fail "a redirect on the hub lost the token"
grep -q '^/org/gated/resolve/main/model.safetensors -$' requests-1 || fail "the other host got a token: $(cat requests-1)"
unset HF_TOKEN

# Hugging Face's own cache: a complete snapshot needs no network
commit=0123456789abcdef0123456789abcdef01234567
snapshot() { # NAME FILE...
    model=hf/hub/models--org--$1
    shift
    mkdir -p "$model/refs" "$model/snapshots/$commit/1_Pooling" "$model/blobs"
    printf %s $commit >"$model/refs/main"
    for f in "$@"; do
        cp "$encoder/$f" "$model/blobs/$(basename "$f")-of-$(dirname "$f" | tr -d ./)"
        ln -s "$work/$model/blobs/$(basename "$f")-of-$(dirname "$f" | tr -d ./)" "$model/snapshots/$commit/$f"
    done
}
all="config.json model.safetensors tokenizer.json modules.json sentence_bert_config.json 1_Pooling/config.json"
snapshot whole $all
before=$(asked)
export HF_HUB_OFFLINE=1
embed org/whole "a snapshot, offline"
embed org/whole@$commit "a snapshot by its commit"
[ "$before" -eq "$(asked)" ] || fail "the hub was asked for what a snapshot has"
[ ! -L cache/models/hub/org/whole/model.safetensors ] || fail "a link into Hugging Face's cache"
rm -r hf/hub/models--org--whole
embed org/whole "after Hugging Face's cache was emptied"
refused 66 "neither in MoDE's cache.*nor in Hugging Face's.*HF_HUB_OFFLINE" org/nothing
# without modules.json the pooling is unknown
snapshot part config.json model.safetensors tokenizer.json
refused 66 "has no modules.json, and HF_HUB_OFFLINE forbids" org/part
snapshot empty tokenizer.json
refused 66 "has no config.json, and nothing is downloaded" org/empty
# it is known if the snapshot is complete, or if the cache records that the hub lacks these files
snapshot plain config.json model.safetensors tokenizer.json
touch hf/hub/models--org--plain/snapshots/$commit/.gitattributes
"$bin/mode" embed --encoder org/plain --texts texts --out x.npy >log 2>&1 || fail "a whole snapshot: $(cat log)"
snapshot asked config.json model.safetensors tokenizer.json
for f in modules.json sentence_bert_config.json 1_Pooling/config.json; do
    mkdir -p "$(dirname hf/hub/models--org--asked/.no_exist/$commit/$f)" && touch hf/hub/models--org--asked/.no_exist/$commit/$f
done
"$bin/mode" embed --encoder org/asked --texts texts --out x.npy >log 2>&1 || fail "a snapshot whose gaps are known: $(cat log)"
unset HF_HUB_OFFLINE
# with a network the missing files are downloaded, from the same commit; refs/main may be older than the hub's
mkdir -p site/org/part/resolve && cp -r site/org/encoder/resolve/main site/org/part/resolve/$commit
embed org/part "a snapshot with gaps"
grep -q 'org/part: model.safetensors, from the snapshot' log || fail "fetched what was there: $(cat log)"
grep -q "^/org/part/resolve/$commit/modules.json" requests-0 || fail "another commit: $(grep part requests-0)"
grep -q "^/org/part/resolve/$commit/model.safetensors" requests-0 && fail "the weights were fetched again"
snapshot moved $all
HF_HUB_CACHE=$work/hf/hub HF_HOME=/nowhere HF_HUB_OFFLINE=true "$bin/mode" embed --encoder org/moved --texts texts --out x.npy >log 2>&1 ||
    fail "HF_HUB_CACHE: $(cat log)"

# CLIP models: in open_clip's format or in transformers'; only the files of one format are downloaded
corpus "$work/corpus" 40 20 >/dev/null
cat >model.json <<'END'
{"embed_dim": 16, "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
 "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}
END
"$bin/mode" train --config model.json --data corpus/train --batch 8 --steps 1 --out clip >/dev/null 2>&1
"$bin/mode" convert clip clip-hf --to hf >/dev/null
mkdir -p site/org/clip site/org/clip-hf site/org/no-clip/resolve/main
mkdir site/org/clip/resolve site/org/clip-hf/resolve
cp -r clip site/org/clip/resolve/main
cp clip-hf/* site/org/clip/resolve/main/
cp -r clip-hf site/org/clip-hf/resolve/main
echo '{}' >site/org/no-clip/resolve/main/config.json
"$bin/mode" evaluate --model clip --task corpus/eval/* --json --name m >folder.json
for m in clip clip-hf; do
    "$bin/mode" evaluate --model hf-hub:org/$m --task corpus/eval/* --json --name m >hub.json 2>log || fail "hf-hub:org/$m: $(cat log)"
    cmp folder.json hub.json || fail "hf-hub:org/$m: other results than from the folder"
done
[ "$(ls cache/models/hub-clip/org/clip | tr '\n' ' ')" = "open_clip_config.json open_clip_model.safetensors " ] || fail "fetched of clip: $(ls cache/models/hub-clip/org/clip)"
[ "$(ls cache/models/hub-clip/org/clip-hf | tr '\n' ' ')" = "config.json model.safetensors preprocessor_config.json " ] ||
    fail "fetched of clip-hf: $(ls cache/models/hub-clip/org/clip-hf)"
"$bin/mode" convert hf-hub:org/clip-hf back --to open_clip >/dev/null
cmp back/open_clip_model.safetensors clip/open_clip_model.safetensors || fail "converted from the hub: other weights"
echo a cat >words
"$bin/mode" encode --model hf-hub:org/clip --texts words --out features >/dev/null
"$bin/mode" train --init hf-hub:org/clip-hf --data corpus/train --batch 8 --steps 1 --out more >/dev/null 2>log || fail "--init: $(cat log)"
refused_model() { # CODE WORDS MODEL
    code=0
    "$bin/mode" verify "$3" >log 2>&1 || code=$?
    [ $code -eq "$1" ] && grep -q "$2" log || fail "$3: exit $code: $(cat log); expected $1, \"$2\""
}
refused_model 66 "has no model.safetensors (nor the other usual names): not a CLIP model" hf-hub:org/no-clip
refused_model 66 "has no open_clip_config.json (nor the other usual names)" hf-hub:org/nothing
refused_model 2 '"hf-hub:clip" is not a name on the hub; expected hf-hub:ORG/NAME' hf-hub:clip
refused_model 66 "org/clip: " org/clip # a path is a path
before=$(asked)
spec "$work/corpus"
sed -e "s#^  {batch: 32,#  {init: 'hf-hub:org/clip@main', batch: 32,#" -e '/^model:/d' -e '/^  embed_dim:/d' -e '/^  vision_cfg:/d' \
    -e '/^  text_cfg:/d' -e "s#{dir: [^,]*encoder,#{hub: org/encoder,#" corpus/run.yaml >corpus/hub.yaml
sed 's#hf-hub:org/clip@main#hf-hub:org#' corpus/hub.yaml >corpus/bad.yaml
"$bin/mode" up --workspace corpus >/dev/null
"$bin/mode" run corpus/hub.yaml --workspace corpus --dry-run >log 2>&1 || fail "a run: $(cat log)"
grep -q 'are fine' log || fail "a run: $(cat log)"
[ "$before" -eq "$(asked)" ] || fail "fetched again"
code=0
"$bin/mode" run corpus/bad.yaml --workspace corpus --dry-run >log 2>&1 || code=$?
[ $code = 78 ] && grep -q 'train.init is "hf-hub:org", expected a path, hf-hub:ORG/NAME' log || fail "a bad name: $code: $(cat log)"
"$bin/mode" down --workspace corpus >/dev/null
# what is not downloaded yet is no fault of a spec, with the key "model" or without
{ cat corpus/hub.yaml; printf 'model: ViT-B-32\n'; } >corpus/named.yaml
for spec in hub named; do
    (MODE_CACHE=$work/elsewhere "$bin/mode" doctor --workspace corpus --spec corpus/$spec.yaml || true) >log 2>&1
    grep -q '^none *encoder .*org/encoder is not in the cache yet; .mode run. downloads it' log || fail "an encoder to come: $(cat log)"
    grep -q '^none *train.init .*org/clip@main is not in the cache yet; .mode run. downloads it' log || fail "a model to come: $(cat log)"
    grep -q '^ok *inputs .*), the merges and the evaluation tasks' log || fail "$spec.yaml without its models: $(cat log)"
done

kill $server
embed org/encoder "the cache without a network"
refused 69 "HINT: without a network" org/other
endpoint=$HF_ENDPOINT HF_ENDPOINT=hub.example
refused 78 'HF_ENDPOINT: "hub.example" is not an address; expected http' org/other
HF_ENDPOINT=$endpoint
HF_HUB_OFFLINE=offline refused 78 'HF_HUB_OFFLINE: "offline" is unknown; expected 1 or 0' org/other
# a local folder of that name takes precedence
mkdir -p org && ln -s "$encoder" org/other
"$bin/mode" embed --encoder org/other --texts texts --out x.npy >/dev/null 2>&1 || fail "a folder wins over the hub"
echo "hub: ok"
