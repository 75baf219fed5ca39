#!/bin/sh
# compose.sh BIN - docker-compose.yml and its overrides are valid, as far as compose can check without an engine: they can be
# combined, .env sets the numbers of workers, and every setting is in docs/OPERATIONS.md.
set -eu
bin=$1
. "$(dirname "$0")/../tools/service-lib.sh"
docker compose version >/dev/null 2>&1 || { echo "SKIPPED: docker compose is not installed" >&2; exit 77; }
top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top"
config() { # .env, overrides and options...
    env -i PATH="$PATH" HOME="$work" docker compose --env-file "$@" config 2>"$work/error"
}
part() { awk -v of="  $1:" '$0 == of { on = 1; next } /^  [a-z]/ || /^[a-z]/ { on = 0 } on'; } # that service's section of stdin
names() { awk '/^[a-z]/ { on = $0 == "services:" } on && /^  [a-z-]+:$/ { gsub(/[ :]/, ""); print }' | sort | paste -sd ' '; }

printf 'MODE_EMBED_WORKERS=3\nMODE_TRAIN_WORKERS=0\nMODE_LOG_LEVEL=debug\n' >"$work/here.env"
config "$work/here.env" --profile '*' >"$work/here" || fail "docker-compose.yml: $(cat "$work/error")"
part embed <"$work/here" | grep -q 'replicas: 3' || fail "MODE_EMBED_WORKERS is not how many there are"
part train <"$work/here" | grep -q 'replicas: 0' || fail "MODE_TRAIN_WORKERS is not how many there are"
part assign <"$work/here" | grep -q 'replicas: 1' || fail "there is not one worker of a kind"
part coordinator <"$work/here" | grep -q 'MODE_LOG_LEVEL: debug' || fail "MODE_LOG_LEVEL does not reach the coordinator"
! part mode <"$work/here" | grep -q 'depends_on' || fail "the command line starts other services"
for service in $(names <"$work/here"); do
    part "$service" <"$work/here" | grep -q 'read_only: true' || fail "$service writes to its root"
    part "$service" <"$work/here" | grep -q 'no-new-privileges:true' || fail "$service may gain privileges"
done
config "$work/here.env" -f docker-compose.yml -f deploy/compose.gpu.yml >"$work/gpu" || fail "compose.gpu.yml: $(cat "$work/error")"
part embed <"$work/gpu" | grep -q 'replicas: 3' || fail "compose.gpu.yml forgets how many workers there are"
part embed <"$work/gpu" | grep -q 'driver: nvidia' || fail "compose.gpu.yml reserves no GPU"

far="-f docker-compose.yml -f deploy/compose.far.yml"
! config "$work/here.env" $far >/dev/null || fail "compose.far.yml does without a coordinator"
grep -q 'required variable MODE_' "$work/error" || fail "compose.far.yml does not say what is missing: $(cat "$work/error")"
cat >"$work/far.env" <<'END'
MODE_COORDINATOR=tcp://10.0.0.1:5600
MODE_KEYS=/etc/mode/gpu-7
MODE_KEY_NAME=gpu-7
MODE_NODE=gpu-7
MODE_WORKSPACE_DIR=/shared/mode
MODE_DATA=/shared/data
END
for gpu in '' '-f deploy/compose.gpu.yml'; do
    config "$work/far.env" $far $gpu >"$work/far" || fail "compose.far.yml $gpu: $(cat "$work/error")"
    [ "$(names <"$work/far")" = 'assign captions cluster embed ensemble evaluate train' ] || fail "elsewhere there are: $(names <"$work/far")"
    ! sed '/^x-/,$d' "$work/far" | grep -q 'depends_on' || fail "compose.far.yml waits for services that are elsewhere"
    part embed <"$work/far" | grep -q 'source: /etc/mode/gpu-7' || fail "the keys of the machine are not mounted"
    part embed <"$work/far" | grep -q 'MODE_KEY_NAME: gpu-7' || fail "the key has another name"
done
team="$far -f deploy/compose.gpu.yml -f deploy/compose.team.yml"
{ cat "$work/far.env"; printf 'MODE_TEAM=tcp://*:5610\nMODE_TEAM_KEYS=/etc/mode/team\nMODE_MACHINES=2\nMODE_TRAIN_WORKERS=4\n'; } >"$work/lead.env"
{ cat "$work/far.env"; printf 'MODE_TEAM=tcp://a:5610\nMODE_TEAM_KEYS=/etc/mode/c\nMODE_JOIN=yes\n'; } >"$work/join.env"
config "$work/lead.env" $team | part train >"$work/lead" || fail "compose.team.yml: $(cat "$work/error")"
config "$work/join.env" $team | part train >"$work/join" || fail "compose.team.yml: $(cat "$work/error")"
for words in 'MODE_MACHINES: "2"' 'network_mode: host' 'replicas: 1' 'source: /etc/mode/team' 'MODE_COORDINATOR: tcp://10.0.0.1:5600'; do
    grep -q "$words" "$work/lead" || fail "a leader has no $words"
done
! grep -q -- '- join' "$work/lead" || fail "a leader joins"
command=$(sed -n '/^    command:/,/^    [a-z]*:$/s/^ *- //p' "$work/join" | paste -sd ' ')
[ "$command" = 'mode-train join --key-name worker' ] || fail "a companion is \"$command\""

for name in $(grep -oh '\${MODE_[A-Z_]*' docker-compose.yml deploy/compose.*.yml | sed 's/..//' | sort -u); do
    case $name in MODE_*_WORKERS) continue ;; esac
    grep -q "$name" docs/OPERATIONS.md || fail "docs/OPERATIONS.md does not have $name"
done
echo "compose.sh: compose files and overrides fit together"
