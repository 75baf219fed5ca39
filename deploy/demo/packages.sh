#!/bin/sh
# packages.sh CACHE_DIR full|smoke - fetch the Debian packages that hold the demo's pictures and unpack the files used
# into CACHE_DIR/root. Nothing is installed. Packages in CACHE_DIR are not fetched again, so a complete folder needs no
# network; remove CACHE_DIR to get newer versions. CACHE_DIR/packages.tsv: name, version, bytes, SHA-256.
#
# Exit codes: 0 done, 2 wrong usage, 66 a package cannot be fetched, 69 no apt-get or dpkg-deb, 74 unpacking failed.
set -eu

# package, MB to fetch, and the paths used of it
table='openclipart-svg 25 ./usr/share/openclipart/svg
fonts-noto-color-emoji 10 ./usr/share/fonts/truetype/noto
unicode-cldr-core 17 ./usr/share/unicode/cldr/common/annotations/en.xml ./usr/share/unicode/cldr/common/annotationsDerived/en.xml ./usr/share/unicode/cldr/common/main/en.xml
unicode-data 8 ./usr/share/unicode/emoji
papirus-icon-theme 23 ./usr/share/icons/Papirus/64x64
oxygen-icon-theme 32 ./usr/share/icons/oxygen/base
breeze-icon-theme 3 ./usr/share/icons/breeze
gnome-icon-theme 10 ./usr/share/icons/gnome
tango-icon-theme 1 ./usr/share/icons/Tango/scalable
iso-flags-png-320x240 5 ./usr/share/iso-flags-png-320x240
fonts-dejavu-core 1 ./usr/share/fonts/truetype/dejavu
tuxpaint-stamps-default 161 ./usr/share/tuxpaint/stamps'

# What is lost without a package.
consequence() {
    case $1 in
    openclipart-svg) echo "it holds a third of the training pairs, two evaluation sets of clip art and two of cards" ;;
    fonts-noto-color-emoji | unicode-cldr-core | unicode-data)
        echo "without it there are no emoji with words: a fifth of the training pairs and three evaluation sets" ;;
    papirus-icon-theme) echo "it holds a third of the training pairs and the two sets of coloured folders" ;;
    oxygen-icon-theme | breeze-icon-theme) echo "it holds icons of the training set" ;;
    gnome-icon-theme | tango-icon-theme) echo "it is half of the evaluation set icon_names" ;;
    fonts-dejavu-core) echo "the letters inside drawings would depend on the fonts of this machine" ;;
    iso-flags-png-320x240) echo "it is the evaluation set flags" ;;
    *) echo "it holds three classification sets and one retrieval set; DEMO_PROFILE=smoke does without it" ;;
    esac
}

paths_of() { echo "$table" | sed -n "s/^$1 [0-9]* //p"; }

# packages.sh --unpack CACHE_DIR PACKAGE: one package, called below
if [ "${1:-}" = --unpack ]; then
    deb=$(ls "$2"/debs/"$3"_*.deb)
    done_mark=$2/root/.$(basename "$deb" .deb)
    [ -e "$done_mark" ] && exit 0
    if ! dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$2/root" $(paths_of "$3") "./usr/share/doc/$3/copyright"; then
        echo "packages.sh: $deb cannot be unpacked into $2/root (full disk, or a damaged file: remove it and run this again)" >&2
        exit 74
    fi
    printf '%s\t%s\t%s\t%s\n' "$3" "$(dpkg-deb -f "$deb" Version)" "$(wc -c <"$deb")" "$(sha256sum "$deb" | cut -d' ' -f1)" >"$done_mark"
    exit 0
fi

if [ $# != 2 ] || { [ "$2" != full ] && [ "$2" != smoke ]; }; then
    echo "usage: packages.sh CACHE_DIR full|smoke" >&2
    exit 2
fi
for tool in apt-get dpkg-deb; do
    if ! command -v $tool >/dev/null; then
        echo "packages.sh: there is no $tool here; the demo's pictures come from Debian packages (Debian 12, or a container of it)" >&2
        exit 69
    fi
done
mkdir -p "$1/debs" "$1/root"
cache=$(cd "$1" && pwd)
packages=$(echo "$table" | cut -d' ' -f1)
[ "$2" = full ] || packages=$(echo "$packages" | grep -v tuxpaint)

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# our own package lists: the system's may be missing or out of date, and only root may update them
own_lists="-o Dir::State::Lists=$cache/apt/lists -o Dir::Cache=$cache/apt/cache"
[ "$(id -u)" != 0 ] || own_lists="$own_lists -o APT::Sandbox::User=root"
options=
[ "$(id -u)" != 0 ] || options="-o APT::Sandbox::User=root"
fetch() { (cd "$cache/debs.part" && apt-get -qq $options download "$1") >>"$log" 2>&1; }

for p in $packages; do
    ls "$cache/debs/${p}"_*.deb >/dev/null 2>&1 && continue
    echo "Fetching $p ($(echo "$table" | sed -n "s/^$p \([0-9]*\) .*/\1/p") MB)" >&2
    rm -rf "$cache/debs.part"
    mkdir -p "$cache/debs.part"
    if ! fetch "$p"; then
        if [ "$options" != "$own_lists" ]; then
            options=$own_lists
            mkdir -p "$cache/apt/lists/partial" "$cache/apt/cache/archives/partial"
            apt-get -qq $options update >>"$log" 2>&1 || true
        fi
        if ! fetch "$p"; then
            cat "$log" >&2
            echo "packages.sh: the package $p cannot be fetched with apt-get download: $(consequence "$p")." >&2
            echo "HINT: check network and /etc/apt/sources (Debian 12: main is enough), or put ${p}_VERSION_all.deb into $cache/debs" >&2
            exit 66
        fi
    fi
    mv "$cache"/debs.part/"${p}"_*.deb "$cache/debs/"
done
rm -rf "$cache/debs.part"

echo "$packages" | xargs -n 1 -P 2 "$0" --unpack "$cache" || exit 74

for p in $packages; do
    cat "$cache/root/.$(basename "$(ls "$cache/debs/${p}"_*.deb)" .deb)"
done >"$cache/packages.tsv.part"
mv "$cache/packages.tsv.part" "$cache/packages.tsv"
