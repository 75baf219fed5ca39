#!/bin/sh
# filesystems.sh BIN - workspaces on filesystems that lack something: locks (Lustre without `flock`), hard links (SMB,
# FUSE), RENAME_EXCHANGE (NFS). What requires it says so, and what to do about it; the rest works. The calls are refused by
# LD_PRELOAD libraries, which this script compiles. A shard whose copy was cut short is in the report.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
if nm "$bin/mode" 2>/dev/null | grep -Eq '__(asan|tsan)_init'; then
    echo "filesystems.sh: a sanitizer has to be loaded first: skipped" >&2
    exit 77
fi
refuse() { # name, error number, declarations of functions
    {
        printf '#include <errno.h>\n'
        e=$2
        shift 2
        for f; do printf 'int %s { errno = %s; return -1; }\n' "$f" "$e"; done
    } >"$work/$name.c"
    cc -w -shared -fPIC -o "$work/$name.so" "$work/$name.c"
}
name=locks; refuse locks ENOSYS 'flock(int fd, int how)'
name=links; refuse links EOPNOTSUPP 'linkat(int a, const char *b, int c, const char *d, int e)' 'link(const char *a, const char *b)'
name=exchange; refuse exchange EINVAL 'renameat2(int a, const char *b, int c, const char *d, unsigned e)'
refused() { # library, exit code, sentence, command and arguments
    lib=$1 want=$2 said=$3 rc=0
    shift 3
    LD_PRELOAD=$work/$lib.so "$bin/mode" "$@" >"$work/out" 2>&1 || rc=$?
    [ "$rc" = "$want" ] || fail "mode $*, without $lib: exit code $rc, expected $want: $(cat "$work/out")"
    grep -Eq "$said" "$work/out" || fail "mode $*, without $lib: $(cat "$work/out")"
}
no_locks='cannot be locked \(Function not implemented\), .*HINT: .*flock'
no_links='cannot create a file atomically by a hard link.*HINT: '
refused locks 78 "$no_locks" up --workspace "$work/a" --workers captions=1
refused locks 78 "$no_locks" down --workspace "$work/a"
refused locks 78 "^BAD +workspace +$work/new: $no_locks" doctor --workspace "$work/new" --coordinator-admin ''
refused links 78 "$no_links" up --workspace "$work/b" --workers captions=1
refused links 78 "^BAD +workspace +.*$no_links" doctor --workspace "$work/new" --coordinator-admin ''
[ ! -e "$work/new" ] || fail "mode doctor leaves something behind"

# a workspace from another filesystem: without locks nothing is freed, but what would be is reported
"$bin/mode" up --workspace "$work/c" --workers captions=1 >/dev/null
"$bin/mode" down --workspace "$work/c" >/dev/null
refused locks 0 'would free 0 files' gc --workspace "$work/c"
refused locks 78 "$no_locks" gc --yes --workspace "$work/c"

# without RENAME_EXCHANGE the second run's report still replaces the first one's
need_models
corpus "$work/d" 60 60
SEED_STEPS=4 TOTAL_STEPS=8 spec "$work/d"
sed -i "s/batch: 32/batch: 8/" "$work/d/run.yaml"
LD_PRELOAD=$work/exchange.so "$bin/mode" up --workspace "$work/d" >/dev/null
for n in 4 5; do
    sed -i "s/seed_steps: [0-9]*/seed_steps: $n/" "$work/d/run.yaml"
    "$bin/mode" run "$work/d/run.yaml" --workspace "$work/d" >"$work/d.log" 2>&1 || fail "mode run: $(cat "$work/d.log")"
    cp -r "$work/d/experts" "$work/experts-$n"
    cp -r "$work/d/report" "$work/report-$n"
    truncate -s -5000 "$(find "$work/d/train" -name '*.tar' | sort | tail -1)" # a copy that was cut short, for the second
done
grep -q 'shards cut short' "$work/report-4/report.html" && fail "a whole shard is cut short"
grep -q '"cut_shards": 0' "$work/report-4/summary.json" || fail "the summary does not count cut shards"
grep -q 'shards cut short.*: 1 of 1<' "$work/report-5/report.html" || fail "the report does not say that the shard is cut short"
grep -q '"cut_shards": 1' "$work/report-5/summary.json" || fail "the summary does not count the cut shard"
cmp -s "$work/experts-4/index.json" "$work/experts-5/index.json" && fail "the first run's experts are left"
ls -A "$work/d" | grep -E '^\.|tmp-' && fail "something is left beside the report"
"$bin/mode" down --workspace "$work/d" >/dev/null
