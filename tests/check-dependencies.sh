#!/bin/sh
# check-dependencies.sh - checks the #include lines against the table of docs/ARCHITECTURE.md; that files, headings and
# anchors named in comments and pages exist; that docs/OPERATIONS.md lists every environment variable; that
# deploy/cudnn.txt names an accepted cuDNN version. Exit 1 and a line per offence.
set -eu
cd "$(dirname "$0")/.."

# "| `common/a`, `b` | holds | base, c; b also d |" -> "a base c", "b base c d"
rules=$(awk -F' *[|] *' '
    /^\| `common\// {
        names = $2; gsub(/`|common\/|,/, "", names)
        n = split(names, name, " ")
        split($4, part, "; ")
        for (i = 1; i <= n; i++) {
            may = part[1] == "all of the above" ? above : part[1] == "–" ? "" : part[1]
            if (part[2] ~ "^" name[i] " also ") may = may " " substr(part[2], length(name[i] " also "))
            gsub(/,/, "", may)
            print name[i], may
        }
        for (i = 1; i <= n; i++) above = above " " name[i]
    }' docs/ARCHITECTURE.md)
allowed() { # folder -> folders of common/ it may include from (besides itself)
    echo "$rules" | awk -v folder="$1" '$1 == folder { $1 = ""; print; found = 1 } END { if (!found) print "unknown-folder" }'
}

bad=0
offence() { echo "$1"; bad=1; }

for dir in common/*/; do
    folder=$(basename "$dir")
    ok=" $folder $(allowed "$folder") "
    for f in $(find "$dir" -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh'); do
        for inc in $(sed -n 's/^#include "\([a-z_]*\)\/.*/\1/p' "$f"); do
            case $ok in
            *" $inc "*) ;;
            *) offence "$f includes $inc/...: common/$folder may include only:$ok" ;;
            esac
        done
    done
done
for f in $(find services -name '*.[ch]'); do
    word=$(echo "$f" | cut -d/ -f2)
    for o in captions embed cluster assign train evaluate ensemble coordinator mode; do
        [ "$o" = "$word" ] && continue
        if grep -q "^#include \".*\(services/\|\.\./\)$o/" "$f"; then offence "$f includes services/$o: services meet only in proto/"; fi
    done
    if [ "$word" != coordinator ] && grep -q 'hiredis' "$f"; then offence "$f: only the coordinator talks to Redis"; fi
done
for f in $(find common -name '*.[ch]'); do
    if grep -q 'hiredis' "$f"; then offence "$f: only services/coordinator talks to Redis"; fi
    case $f in
    common/nn/cuda/* | common/nn/backend.c) ;;
    *) if grep -Eq '#include <(cuda|cublas|cudnn)|#ifdef MODE_CUDA' "$f"; then offence "$f: CUDA lives in common/nn/cuda only"; fi ;;
    esac
done
# protobuf-c's unpacker has no depth limit: no message may contain itself, directly or through others
for f in proto/*.proto; do
    awk -v file="$f" '
        /^message /{m=$2; order[++n]=m; seen[m]=n}
        /^  (required|optional|repeated) [A-Z]/{if (m != "" && ($2 in seen) && seen[$2] >= seen[m]) {print file ": " m " contains " $2 " which is not defined before it: recursion is not allowed"; bad=1}}
        END{exit bad}' "$f" || bad=1
done
# files that are named must exist; capitals are placeholders, as in bench_SUBJECT.py
sources=$(find common services tests bench deploy docs proto -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.sh' \
    -o -name '*.py' -o -name '*.md' -o -name '*.proto' -o -name '*.yml' -o -name '*.cmake' -o -name CMakeLists.txt \))
named=$(grep -noE '(^|[^A-Za-z0-9_./-])((docs|tests|bench|deploy|proto|services|common)/[a-z0-9_./-]+\.(cuh|cu|cpp|c|h|sh|py|proto|yml|cmake)|docs/[A-Za-z0-9_./-]+\.md|docs/decisions/[0-9]{4})([^A-Za-z0-9_]|$)' \
    $sources README.md Makefile CMakeLists.txt docker-compose.yml | grep -v 'pb-c\.h' | sed -E 's/^([^:]*:[0-9]+):[^a-z]?([A-Za-z0-9_./-]*[A-Za-z0-9]).*/\1 \2/' | sort -u)
while read -r where path; do
    [ -e "$path" ] || [ -e "${where%/*}/$path" ] || ls -d "$path"-*.md >/dev/null 2>&1 || offence "$where names $path, which is not there"
done <<END
$named
END
# links between pages, anchors as GitHub makes them of headings; and headings that messages and comments quote
broken=$(awk '
    function slug(text) {
        text = tolower(text)
        gsub(/[^a-z0-9 _-]/, "", text)
        gsub(/ /, "-", text)
        return text
    }
    FNR == 1 { pages[FILENAME] = 1; in_code = 0; folder = FILENAME; if (!sub(/[^\/]*$/, "", folder)) folder = "" }
    /^```/ { in_code = !in_code }
    in_code { next }
    /^#+ / { text = $0; sub(/^#+ +/, "", text); anchors[FILENAME "#" slug(text)] = 1 }
    { for (rest = $0; match(rest, /\]\([^) ]+\)/); rest = substr(rest, RSTART + RLENGTH)) {
        link = substr(rest, RSTART + 2, RLENGTH - 3)
        if (link ~ /^[a-z]+:/) continue
        n_links++
        where[n_links] = FILENAME ":" FNR
        path = link ~ /^#/ ? FILENAME link : folder link
        while (sub(/[^\/]+\/\.\.\//, "", path)) {}
        to[n_links] = path
    } }
    END { for (i = 1; i <= n_links; i++) {
        page = to[i]
        sub(/#.*/, "", page)
        if (to[i] ~ /#/ ? !(to[i] in anchors) : !(page in pages) && system("test -e \"" page "\"") != 0) print where[i] " links to " to[i] ", which is not there"
    } }' README.md $(find docs common services deploy tests bench -name '*.md'))
[ -z "$broken" ] || offence "$broken"
quoted=$(grep -rnoE 'docs/[A-Z_]+\.md, \\?"[^"\]+' common services deploy tests --include='*.[ch]' --include='*.yml' --include='*.sh' | sed -E 's/^([^:]*:[0-9]+):([^,]*), \\?"(.*)/\1 \2 \3/')
while read -r where page heading; do
    grep -qixE "#+ $heading" "$page" || offence "$where names \"$heading\" of $page, which has no such heading"
done <<END
$quoted
END
for v in $(grep -rhoE 'getenv\("[A-Z_]+"\)' common services | sed 's/.*"\(.*\)".*/\1/' | sort -u); do
    grep -q "^|.*\`$v\`" docs/OPERATIONS.md || offence "the environment in docs/OPERATIONS.md lacks $v"
done
# as deploy/Dockerfile reads them
oldest=$(sed -n 's/^enum { OLDEST = \([0-9]*\).*/\1/p' common/nn/cuda/cudnn.c)
pinned=$(awk -F'==|[. ]' '/^nvidia-cudnn-cu13==/ { print 10000 * $2 + 100 * $3 + $4 }' deploy/cudnn.txt)
[ "${oldest:-0}" -gt 0 ] || offence "common/nn/cuda/cudnn.c has no line 'enum { OLDEST = ' for deploy/Dockerfile"
[ "${pinned:-0}" -ge "${oldest:-0}" ] || offence "deploy/cudnn.txt: cuDNN ${pinned:-?}; expected $oldest or newer"
# flags that only one architecture's compiler accepts are chosen by the architecture
! grep -E -e '-fcf-protection|-mbranch-protection|-march=|-mavx' deploy/Dockerfile | grep -qv 'uname -m' ||
    offence "deploy/Dockerfile has a flag of one processor for all of them; expected it behind \`uname -m\`"
[ $bad = 0 ] && echo "dependency rule: kept"
exit $bad
