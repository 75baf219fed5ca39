#!/bin/sh
# remote.sh BIN - shards behind http:// and in an S3 store: the same results as from local ones, each downloaded once,
# whatever the server does; a sentence for what cannot be fetched; secrets leak nowhere; a shard cache that is too small;
# processes that are killed. Needs python3, for a server on this machine.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
MODE_TEST_MODELS=${MODE_TEST_MODELS:-/nowhere}
command -v python3 >/dev/null || { echo "remote.sh: python3 is not installed: skipped" >&2; exit 77; }
server_py=$(cd "$(dirname "$0")/../tools" && pwd)/shard_server.py

cd "$work"
corpus "$work/c" 160 40
mkdir -p site/d site/bucket site/public
for f in c/train/*/*.tar; do cp "$f" "site/d/0000$(basename "$f")"; done
shards=$(ls site/d | wc -l)
last=$(printf %05d $((shards - 1)))
cp site/d/00000.tar "site/bucket/key with +.tar"
cp site/d/00001.tar site/public/b.tar
: >requests
: >faults
MODE_TEST_LATE_MS=60 python3 -u "$server_py" site >port 2>server.log &
server=$!
trap 'kill $server 2>/dev/null || true; cleanup' EXIT
await test -s port || fail "the server of this test does not begin: $(cat server.log)"
at=http://127.0.0.1:$(cat port)
export MODE_CACHE="$work/cache" HOME="$work" no_proxy=127.0.0.1,localhost
unset MODE_SHARD_CACHE MODE_SHARD_CACHE_BYTES HF_TOKEN HF_ENDPOINT AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN \
    AWS_REGION AWS_DEFAULT_REGION AWS_PROFILE AWS_ENDPOINT_URL_S3 AWS_ENDPOINT_URL AWS_ENDPOINT_URL_STS AWS_ROLE_ARN \
    AWS_WEB_IDENTITY_TOKEN_FILE AWS_CONTAINER_CREDENTIALS_RELATIVE_URI AWS_CONTAINER_CREDENTIALS_FULL_URI
export AWS_EC2_METADATA_DISABLED=true # this machine may have a role

captions() { # OUT SOURCE...
    out=$1
    shift
    "$bin/mode" captions "$@" --text-keys 'json:texts[]' --out "$out" >log 2>&1
}
asked() { grep -c "^GET $1" requests || true; }
forget() {
    rm -rf cache out
    : >requests
}
same() { # WHAT: out/ equals the results from local shards
    for f in local/*.captions.bin; do cmp "$f" "out/${f#local/}" || fail "$1: other captions"; done
    cmp local/captions.json out/captions.json || fail "$1: other counts"
}
refused() { # CODE WORDS SOURCE
    code=0
    captions out "$3" || code=$?
    [ $code -eq "$1" ] && grep -q "$2" log || fail "$3: exit $code: $(cat log); expected $1, \"$2\""
    grep -Eq ':SECRET|=SECRET|wrongsecret|secret/of|AKIDTEST|Signature=|issued/|ASIA' log && fail "$3: a secret is shown: $(cat log)"
    rm -rf out
}

# the same bytes; each shard is downloaded once, and never again
captions local site/d || fail "local: $(cat log)"
captions out "$at/plain/d/{00000..$last}.tar" || fail "http: $(cat log)"
same http
[ "$(asked /plain/)" = "$shards" ] || fail "$(asked /plain/) requests for $shards shards: $(cat requests)"
rm -r out
captions out "$at/plain/d/{00000..$last}.tar" --idx || fail "http again: $(cat log)"
same "http again"
[ "$(asked /plain/)" = "$shards" ] || fail "what was fetched was fetched again"
[ -z "$(find cache/shards -name '*.part')" ] || fail "a part is left"

"$bin/mode" inspect "$at/plain/d/00000.tar" --text-keys 'json:texts[]' | sed 1d >far.txt || fail "inspect"
"$bin/mode" inspect site/d/00000.tar --text-keys 'json:texts[]' | sed 1d | cmp - far.txt || fail "inspect says other things"
# of remote shards `mode init` reads the first only
forget
"$bin/mode" init --data "$at/plain/d/{00000..$last}.tar" >spec.yaml 2>log || fail "init: $(cat log)"
grep -q "# $shards shards, about 160 pairs" spec.yaml || fail "init: $(cat spec.yaml)"
[ "$(asked /plain/)" = 1 ] || fail "mode init made $(asked /plain/) requests: $(cat requests)"

# server faults: temporary errors, cut connections, no HEAD, no ranges, weak ETags, redirects, slow responses
printf '%s\n' '503 3 /d/00000' 'cut 4 /d/00001' 'nohead /d/00002' 'weak /d/00003' 'cut 1 /d/00003' >faults
forget
captions out "$at/plain/d/{00000..$last}.tar" || fail "faults that pass: $(cat log)"
same "faults that pass"
grep -q '^GET /plain/d/00001.tar 206 bytes=[1-9]' requests || fail "a cut connection was not gone on with: $(cat requests)"
printf '%s\n' 'norange /d/00000' 'cut 2 /d/00000' 'slow /d/00001' 'nohead /d/00000' >faults
forget
captions out "$at/plain/d/{00000..$last}.tar" || fail "a server without ranges: $(cat log)"
same "a server without ranges"
printf '%s\n' 'noetag /d/00000' 'cut 1 /d/00000' 'bare /d/00001' 'cut 1 /d/00001' 'md5 /d/00002' 'wrong 1 /d/00002' >faults
forget
captions out "$at/plain/d/{00000..$last}.tar" || fail "other ways to tell versions: $(cat log)"
same "other ways to tell versions"
# a token is sent to the host that it is for, and not to where that redirects
echo 'away /away/' >faults
forget
HF_ENDPOINT=$at HF_TOKEN=hf_token captions out "$at/away/d/{00000..$last}.tar" || fail "redirects: $(cat log)"
same redirects
[ "$(grep -c '/away/.* Bearer_hf_token$' requests)" -ge "$shards" ] || fail "the hub got no token: $(cat requests)"
grep -q '/plain/.*hf_token' requests && fail "another host got the token: $(cat requests)"
forget
HF_ENDPOINT=${at}0 HF_TOKEN=hf_token captions out "$at/plain/d/{00000..$last}.tar" || fail "no hub: $(cat log)"
grep -q hf_token requests && fail "a host that is no hub got the token: $(cat requests)"
HF_TOKEN="hf x" refused 78 "HF_TOKEN: character 3" "$at/plain/d/00000.tar"

# what cannot be fetched
: >faults
forget
refused 66 "/plain/d/none.tar: HTTP 404.*: there is no such shard" "$at/plain/d/none.tar"
echo '403 /d/00000' >faults
refused 77 "/plain/d/00000.tar: HTTP 403: it may not be read" "$at/plain/d/00000.tar"
echo '503 /d/00000' >faults
(refused 69 "connect" http://127.0.0.1:1/x.tar) &
nobody=$!
"$bin/mode" captions "$at/plain/d/00000.tar" --out busy >busy.log 2>&1 && fail "a server that is always busy"
grep -q "HTTP 503, 6 times in a row" busy.log || fail "a server that is always busy: $(cat busy.log)"
wait $nobody || fail "a server that is not there"
: >faults
refused 2 "user name or a password" "http://me:SECRET@127.0.0.1:1/x.tar"
refused 2 "what is after" "$at/plain/d/00000.tar?signature=SECRET"

# presigned URLs: only in a list; stored readable by their owner only
echo 'sign /d/' >faults
i=0
while [ $i -lt "$shards" ]; do
    printf '%s/plain/d/%05d.tar?signature=right\n' "$at" $i
    i=$((i + 1))
done >signed.txt
captions out @signed.txt || fail "presigned: $(cat log)"
same presigned
for f in cache/queries/*; do [ "$(stat -c %a "$f")" = 600 ] || fail "$f: others may read it"; done
grep -rq signature= out cache/shards && fail "a query is kept where it is seen"
rm -rf out cache/shards
sed 's/right/SECRET/' signed.txt >old.txt
refused 77 "presigned address may be too old" @old.txt
: >faults

# S3: the server verifies the signature; a key from the files; anonymous; wrong keys and none
forget
export AWS_ENDPOINT_URL="$at/s3" AWS_REGION=eu-test-1
refused 77 "HTTP 403; the store says AccessDenied: it may not be read without a key" "s3://bucket/key with +.tar"
captions out s3://public/b.tar || fail "anonymous: $(cat log)"
captions s3-local site/public/b.tar
cmp s3-local/00000.captions.bin out/00000.captions.bin || fail "anonymous: other captions"
rm -rf out s3-local
mkdir .aws
printf '[lab]\naws_access_key_id = AKIDTEST\naws_secret_access_key = secret/of+the=test\naws_session_token = token+of/test==\n' >.aws/credentials
AWS_PROFILE=lab captions out "s3://bucket/key with +.tar" || fail "S3: $(cat log)"
captions s3-local "site/bucket/key with +.tar"
cmp s3-local/00000.captions.bin out/00000.captions.bin || fail "S3: other captions"
rm -rf out s3-local
AWS_ACCESS_KEY_ID=AKIDTEST AWS_SECRET_ACCESS_KEY=wrongsecret refused 77 "SignatureDoesNotMatch: it may not be read with this key" "s3://bucket/key with +.tar"
AWS_PROFILE=lab refused 66 "NoSuchKey: there is no such shard" s3://bucket/none.tar
AWS_PROFILE=nobody refused 78 'no profile "nobody"' s3://bucket/none.tar

# a role of each kind; one whose key expires early is assumed once more
role() { # WHAT VARIABLE=VALUE...
    what=$1
    shift
    rm -rf cache out
    (export "$@" && captions out "s3://bucket/key with +.tar") || fail "$what: $(cat log)"
    cmp s3-role/00000.captions.bin out/00000.captions.bin || fail "$what: other captions"
}
captions s3-role "site/bucket/key with +.tar"
printf right.web/token== >web.token
web="AWS_WEB_IDENTITY_TOKEN_FILE=$work/web.token"
container="AWS_CONTAINER_CREDENTIALS_FULL_URI=$at/container"
role "a web identity" "$web" AWS_ROLE_ARN=arn:aws:iam::1:role/web "AWS_ENDPOINT_URL_STS=$at/sts"
role "a container's role" "$container" "AWS_CONTAINER_AUTHORIZATION_TOKEN=container token=="
role "a machine's role" AWS_EC2_METADATA_DISABLED=false "AWS_EC2_METADATA_SERVICE_ENDPOINT=$at" AWS_REGION=
echo 'over 1 /s3/bucket/' >faults # HEAD, whose response has no body to say so
role "a HEAD that is over" "$container" "AWS_CONTAINER_AUTHORIZATION_TOKEN=container token=="
echo 'over 2 /s3/bucket/' >faults
: >requests
role "a key that is over" "$container" "AWS_CONTAINER_AUTHORIZATION_TOKEN=container token=="
[ "$(asked /container)" = 2 ] || fail "a key that is over: $(asked /container) were fetched, expected 2: $(cat requests)"
rm -rf out cache
echo 'over /s3/bucket/' >faults
(
    export "$container" "AWS_CONTAINER_AUTHORIZATION_TOKEN=container token=="
    refused 77 "ExpiredToken: it may not be read with this key (the container's role (AWS_CONTAINER_CREDENTIALS_FULL_URI))" s3://bucket/none.tar
)
: >faults
(
    export "$container" AWS_CONTAINER_AUTHORIZATION_TOKEN=wrong
    refused 77 "keys for S3: the container's role .*: HTTP 403; it says AccessDeniedException" s3://bucket/none.tar
)
(
    export "$web"
    refused 78 "AWS_WEB_IDENTITY_TOKEN_FILE .*is set and AWS_ROLE_ARN .*is not" s3://bucket/none.tar
)

# which source the key comes from, before a run
spec "$work"
sed -i 's|^data: .*|data: {train: "s3://bucket/{0..1}.tar"}|' run.yaml
doctor() { # WORDS VARIABLE=VALUE...
    words=$1
    shift
    (export "$@" && "$bin/mode" doctor --workspace "$work/none" --spec run.yaml >log 2>&1) || true
    grep -Eq "$words" log || fail "doctor: no line \"$words\": $(cat log)"
    if grep -q 'ASIA\|AKID\|secret/\|token+' log; then fail "doctor shows a secret: $(cat log)"; fi
}
doctor "^ok +s3 +the key of the profile \"lab\"; region eu-test-1 at $at/s3" AWS_PROFILE=lab
doctor '^ok +s3 +the key of the container.s role .*, until 20[0-9-]* [0-9:]*Z; region' "$container" "AWS_CONTAINER_AUTHORIZATION_TOKEN=container token=="
doctor '^none +s3 +no key, so requests are not signed .AWS_EC2_METADATA_DISABLED is true.; region' AWS_PROFILE=
doctor '^BAD +s3 +keys for S3: the container.s role .*HTTP 403' "$container" AWS_CONTAINER_AUTHORIZATION_TOKEN=wrong

# one byte that does not match the store's checksum: downloaded again, then given up
echo 'wrong 2 /s3/public/' >faults # HEAD, then the first GET
forget
captions out s3://public/b.tar || fail "a damaged download: $(cat log)"
[ "$(asked /s3/public/)" = 2 ] || fail "$(asked /s3/public/) downloads, one was damaged: $(cat requests)"
rm -rf out cache
echo 'wrong /s3/public/' >faults
refused 69 "the bytes received are not those the server names" s3://public/b.tar
: >faults

# killed midway, repeatedly: the next one resumes there
forget
echo 'slow /d/' >faults
part_bytes() { find cache/shards -name '*.part' -printf '%s\n' 2>/dev/null | awk '{n += $1} END {print n + 0}'; }
grows() { [ "$(part_bytes)" -gt "$before" ]; }
for _ in 1 2 3; do
    before=$(part_bytes)
    "$bin/mode" captions "$at/plain/d/00000.tar" --out out >/dev/null 2>&1 &
    await grows || fail "nothing is fetched: $(cat requests)"
    kill -KILL $!
    wait $! || true
    rm -rf out
done
grep -q '^GET /plain/d/00000.tar 206 bytes=[1-9]' requests || fail "nothing was gone on with: $(cat requests)"
captions out "$at/plain/d/{00000..$last}.tar" || fail "after kills: $(cat log)"
same "after kills"

# several processes that need one shard: one downloads it
forget
for i in 1 2 3; do "$bin/mode" captions "$at/plain/d/00000.tar" --text-keys 'json:texts[]' --out "$work/o$i" >"$work/log$i" 2>&1 & done
await test -s o1/captions.json -a -s o2/captions.json -a -s o3/captions.json || fail "together: $(cat "$work"/log?)"
cmp o1/00000.captions.bin o2/00000.captions.bin && cmp o2/00000.captions.bin o3/00000.captions.bin || fail "together: other bytes"
[ "$(asked /plain/)" = 1 ] || fail "$(asked /plain/) fetched one shard: $(cat requests)"
: >faults

# a shard cache that holds two: the oldest is evicted; one that holds none
forget
size=$(stat -c %s site/d/00000.tar)
MODE_SHARD_CACHE="$work/small" MODE_SHARD_CACHE_BYTES=$((size * 5 / 2)) captions out "$at/plain/d/{00000..$last}.tar" || fail "a small folder: $(cat log)"
same "a small folder"
[ "$(find small -type f ! -name lock | wc -l)" -le 2 ] || fail "too much is kept: $(ls -l small)"
# a shard in use stays, though it is the oldest
rm -rf out
oldest=$(ls -tr small/[0-9a-f]* | head -n 1)
python3 -c 'import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_SH); print(flush=True); time.sleep(600)' "$oldest" >held &
holder=$!
await test -s held || fail "nobody holds a shard"
MODE_SHARD_CACHE="$work/small" MODE_SHARD_CACHE_BYTES=$((size * 5 / 2)) captions out "$at/plain/d/{00000..$last}.tar" || fail "beside a shard that is held: $(cat log)"
kill $holder
[ -e "$oldest" ] || fail "a shard went away under its reader"
same "beside a shard that is held"
rm -rf out small
captions out "$at/plain/d/00000.tar" || fail "$(cat log)"
rm -rf out
MODE_SHARD_CACHE_BYTES=1000 refused 78 "MODE_SHARD_CACHE_BYTES" "$at/plain/d/00001.tar"
[ "$(find cache/shards -type f ! -name lock | wc -l)" = 1 ] || fail "what was there went for a shard that has no room anyway: $(ls cache/shards)"
rm -r cache
MODE_SHARD_CACHE_BYTES=1000 refused 78 "MODE_SHARD_CACHE_BYTES" "$at/plain/d/00000.tar"
HF_ENDPOINT=hub.example refused 78 'HF_ENDPOINT: "hub.example" is not an address' "$at/plain/d/00000.tar"
MODE_SHARD_CACHE_BYTES=lots refused 78 'MODE_SHARD_CACHE_BYTES: "lots" is not a size' "$at/plain/d/00000.tar"

# training reads them at random, also through a cache that holds two
train() { # DATA OUT [STEPS [OPTION]]
    "$bin/mode" train --config "$work/model.json" --clip-merges "$MODE_CLIP_MERGES" --data "$1" --out "$2" --text-keys 'json:texts[]' \
        --batch 16 --steps "${3:-4}" --backend cpu ${4:-} >log 2>&1
}
cat >model.json <<'END'
{"embed_dim": 16, "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "head_width": 16},
 "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}}
END
if [ -e "${MODE_CLIP_MERGES:-/nonexistent}" ]; then
    train site/d m-local || fail "train: $(cat log)"
    forget
    train "$at/plain/d/{00000..$last}.tar" m-http || fail "train over http: $(cat log)"
    cmp m-local/open_clip_model.safetensors m-http/open_clip_model.safetensors || fail "another model over http"
    [ "$(asked /plain/)" = "$shards" ] || fail "training fetched shards more than once"
    forget
    MODE_SHARD_CACHE_BYTES=$((size * 5 / 2)) train "$at/plain/d/{00000..$last}.tar" m-small || fail "train with a small folder: $(cat log)"
    cmp m-local/open_clip_model.safetensors m-small/open_clip_model.safetensors || fail "another model with a small folder"
    # captions downloaded every shard once; training requested pictures, one by one
    whole=$(asked /plain/)
    ranges=$(grep -cE 'GET /plain/[^ ]* 206 bytes=[0-9]+-[0-9]+ ' requests || true)
    [ "$ranges" -ge 16 ] && [ "$ranges" -le 64 ] || fail "of 64 pictures in 4 steps $ranges were asked for by themselves ($whole requests in all)"

    # stopped while a step waits for a shard that does not arrive: the finished steps are kept, and training continues from
    # them
    train site/d m-long 20 || fail "train: $(cat log)"
    forget
    export MODE_SHARD_CACHE_BYTES=$((size * 5 / 2))
    echo 'late /d/' >faults # 60 ms a picture on two threads: ten seconds for all steps, so it does not end before it is stopped
    "$bin/mode" train --config model.json --clip-merges "$MODE_CLIP_MERGES" --data "$at/plain/d/{00000..$last}.tar" --out m-stopped \
        --text-keys 'json:texts[]' --batch 16 --steps 20 --backend cpu --threads 2 >stopped.log 2>&1 &
    trainer=$!
    await says '^step ' stopped.log || fail "a training makes no step: $(cat stopped.log)"
    echo 'stall /d/' >faults
    sleep 1.5
    kill -TERM $trainer
    code=0
    wait $trainer || code=$?
    [ $code = 143 ] || fail "a training that waits was stopped: exit $code: $(cat stopped.log)"
    [ -n "$(ls m-stopped/checkpoints)" ] || fail "a training that waits left no checkpoint: $(cat stopped.log)"
    : >faults
    train "$at/plain/d/{00000..$last}.tar" m-stopped 20 --resume || fail "train --resume: $(cat log)"
    cmp m-long/open_clip_model.safetensors m-stopped/open_clip_model.safetensors || fail "another model after a stop"

    # by windows: a cache that holds two of them, two epochs of ten steps; every shard is downloaded as a whole, once for its
    # captions and once per epoch, and nothing else is requested
    windows() { # DATA OUT [OPTION...]
        data=$1 out=$2
        shift 2
        "$bin/mode" train --config "$work/model.json" --clip-merges "$MODE_CLIP_MERGES" --data "$data" --out "$out" \
            --text-keys 'json:texts[]' --batch 16 --steps 20 --backend cpu --order windows --window-shards 2 --checkpoint-steps 3 \
            "$@" >log 2>&1
    }
    corpus "$work/w" 160 20
    mkdir site/w
    for f in w/train/*/*.tar; do cp "$f" "site/w/0000$(basename "$f")"; done
    [ "$(ls site/w | wc -l)" = 8 ] || fail "the corpus has not 8 shards: $(ls site/w)"
    far="$at/plain/w/{00000..00007}.tar"
    export MODE_SHARD_CACHE_BYTES=$(($(stat -c %s site/w/*.tar | sort -n | tail -n 1) * 9 / 2))
    windows site/w m-near || fail "by windows: $(cat log)"
    forget
    windows "$far" m-windows || fail "by windows over http: $(cat log)"
    grep -q "two windows" log && fail "a folder that holds two windows is complained about: $(cat log)"
    cmp m-near/open_clip_model.safetensors m-windows/open_clip_model.safetensors || fail "by windows: another model over http"
    cmp m-near/train.json m-windows/train.json || fail "by windows: other counts over http"
    cmp m-long/open_clip_model.safetensors m-windows/open_clip_model.safetensors >/dev/null && fail "both orders give one model"
    grep -q ' 206 ' requests && fail "by windows: parts of shards were asked for: $(cat requests)"
    for i in 0 1 2 3 4 5 6 7; do
        n=$(asked "/plain/w/0000$i.tar ")
        [ "$n" -ge 1 ] && [ "$n" -le 3 ] || fail "by windows: shard $i was fetched $n times, for its captions and two epochs"
    done
    [ "$(asked /plain/w/)" -ge 16 ] || fail "a folder of four shards of eight had all: $(cat requests)"
    [ "$(find cache/shards -type f ! -name lock | wc -l)" -le 4 ] || fail "more is kept than may be: $(ls -l cache/shards)"

    # killed repeatedly, at any point
    forget
    echo 'slow /w/' >faults
    windows "$far" m-killed &
    trainer=$!
    for kill in 1 2 3; do
        for _ in $(seq 300); do
            [ "$(cat m-killed/checkpoints/latest 2>/dev/null)" != "${was:-}" ] && break
            sleep 0.1
        done
        was=$(cat m-killed/checkpoints/latest 2>/dev/null || true)
        kill -9 "$(pgrep -P $trainer mode || echo $trainer)" 2>/dev/null || true
        wait $trainer || true
        [ $kill = 3 ] && break
        windows "$far" m-killed --resume &
        trainer=$!
    done
    : >faults
    windows "$far" m-killed --resume || fail "by windows, killed: $(cat log)"
    cmp m-near/open_clip_model.safetensors m-killed/open_clip_model.safetensors || fail "by windows: another model after kills"
    cmp m-near/steps.jsonl m-killed/steps.jsonl || fail "by windows: other steps after kills"
    last=$(($(stat -c %s site/w/00000.tar) - 1))
    grep -E ' 206 bytes=[0-9]+-[0-9]+ ' requests | grep -vqE -- "-($(stat -c %s site/w/*.tar | while read -r s; do printf '%s|' $((s - 1)); done)$last) " &&
        fail "by windows, killed: pictures were asked for by themselves: $(cat requests)"

    # a cache that holds less than a window: reported, and the rest is read picture by picture
    forget
    export MODE_SHARD_CACHE_BYTES=$(($(stat -c %s site/w/00000.tar) * 3 / 2))
    windows "$far" m-narrow || fail "less than a window: $(cat log)"
    grep -q "two windows of 2 shards may have .* HINT: MODE_SHARD_CACHE_BYTES" log || fail "nothing is said of a folder that is too small: $(cat log)"
    cmp m-near/open_clip_model.safetensors m-narrow/open_clip_model.safetensors || fail "less than a window: another model"
    grep -q ' 206 ' requests || fail "less than a window: no picture was asked for"
    unset MODE_SHARD_CACHE_BYTES

    # both orders: wrong values
    for words in "--order sorted" "--window-shards 2" "--order windows --window-shards 0"; do
        code=0
        "$bin/mode" train --config model.json --clip-merges "$MODE_CLIP_MERGES" --data site/w --out m-none --steps 1 $words >log 2>&1 || code=$?
        [ $code = 2 ] && [ "$(wc -l <log)" = 1 ] || fail "$words: exit $code: $(cat log)"
    done
fi
echo "remote: ok"
