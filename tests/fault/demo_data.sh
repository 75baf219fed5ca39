#!/bin/sh
# demo_data.sh BIN - when the demo's data are rebuilt and when not: it depends on version, packages and options, not on the
# builder's bytes; and a killed build is never taken for complete data. The builder and the packages are stand-ins.
set -eu
work=$(mktemp -d /tmp/mode-test-XXXXXX)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*" >&2
    exit 1
}
mkdir "$work/demo" "$work/bin"
cp "$(dirname "$0")/../../deploy/demo/data.sh" "$work/demo"
echo 'emoji 1.0' >"$work/packages"
echo 'data version 1' >"$work/version"
cat >"$work/demo/packages.sh" <<'END'
mkdir -p "$1" && cp "$(dirname "$0")/../packages" "$1/packages.tsv"
END
builder() { # what it does between the first file and the last
    cat >"$work/bin/mode-demo-data" <<END
#!/bin/sh
if [ "\$1" = --version ]; then exec cat "$work/version"; fi
while [ \$# -gt 0 ]; do
    if [ "\$1" = --out ]; then out=\$2; fi
    shift
done
echo built >>"$work/built"
mkdir -p "\$out/train"
cp "$work/version" "\$out/train/0.tar"
$1
echo sources >"\$out/SOURCES.md"
END
    chmod +x "$work/bin/mode-demo-data" "$work/demo/packages.sh"
}
data() { PATH="$work/bin:$PATH" sh "$work/demo/data.sh" "$work/cache" "$work/data" "${1:-smoke}" >"$work/out" 2>&1; }
n_built() { wc -l <"$work/built"; }
is() { [ "$(n_built)" = "$1" ] || fail "built $(n_built) times instead of $1: $2"; }

builder 'kill -9 $$'
data && fail "a killed build ended well"
[ ! -e "$work/data" ] || fail "a build that was killed left data behind"
builder :
data && is 2 "after a killed build"
[ -s "$work/data/SOURCES.md" ] && [ -s "$work/data/.stamp" ] && [ ! -e "$work/data.new" ] || fail "the data are not whole"
data && is 2 "the same again"
builder ': # linked anew'
data && is 2 "the same builder with other bytes"
echo 'emoji 1.1' >"$work/packages"
data && is 3 "another version of a package"
data full && is 4 "another profile"
echo 'data version 2' >"$work/version"
builder 'kill -9 $$'
data full && fail "a killed build ended well"
is 5 "another version of the data"
grep -q 'version 1' "$work/data/train/0.tar" && [ -s "$work/data/SOURCES.md" ] || fail "a killed build touched the data that were there"
builder :
data full && is 6 "the build that was killed, again"
grep -q 'version 2' "$work/data/train/0.tar" || fail "the new data are not there"
data full && is 6 "the same again"
echo "demo data: ok"
