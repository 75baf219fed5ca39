#!/bin/sh
# defaults.sh BIN - verbs and run specs have the same defaults: that of an option in `mode VERB --help` is that of the key of
# the same name in docs/RUN.md; and the keys and options that docs/FROM_OPEN_CLIP.md names for open_clip's exist.
set -eu
export COLUMNS=1000 # one line per option in --help
bin=$1
run=$(dirname "$0")/../../docs/RUN.md
bad=0
same() { # verb, option, key
    of_verb=$("$bin/mode" "$1" --help | sed -n "s/^  --$2 .*(default \(.*\)) \[MODE_.*/\1/p")
    of_run=$(sed -n "s/^| \`$3\` | \([^|]*\) |.*/\1/p" "$run" | sed 's/["`]//g; s/^\[//; s/\]$//; s/, /;/g')
    [ -n "$of_verb" ] && [ "$of_verb" = "$of_run" ] && return
    echo "mode $1 --$2: default \"$of_verb\", of $3: \"$of_run\""
    bad=1
}
for verb in captions train inspect; do same $verb text-keys captions.text_keys; done
same captions max-image-pixels captions.max_image_pixels
for key in fine coarse metric sample_per_centre fine_iterations coarse_iterations; do
    same cluster "$(echo $key | tr _ -)" cluster.$key
done
for key in batch lr beta1 beta2 eps weight_decay grad_clip_norm accumulate checkpoint_steps scale_min scale_max evaluate_steps order schedule; do
    same train "$(echo $key | tr _ -)" train.$key
done
same evaluate batch evaluate.batch
same ensemble router ensemble.router
for verb in captions cluster train ensemble; do same $verb seed seed; done
# the keys and options that docs/FROM_OPEN_CLIP.md names for open_clip's exist
page=$(dirname "$run")/FROM_OPEN_CLIP.md
cells() { sed -n 's/^| .*`--.*/&/p' "$page" | cut -d '|' -f "$1" | grep -oE "$2"; }
for key in $(cells 3 '[a-z]+\.[a-z_0-9]+' | sort -u); do
    grep -q "^| \`$key\` |" "$run" || { echo "$page: no key $key in $run"; bad=1; }
done
for option in $(cells 4 '\-\-[a-z0-9-]+' | sort -u); do
    "$bin/mode" train --help | grep -q -e "^  $option " || { echo "$page: no option $option of mode train"; bad=1; }
done
exit $bad
