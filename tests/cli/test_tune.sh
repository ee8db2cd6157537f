#!/bin/sh
# `lorikeet tune` on real devices: the times decide from then on, a damaged file is a warning, and `auto` compares
# measured times once every device has them.
set -eu
program=$LK_BUILD_DIR/lorikeet
model=$LK_SOURCE_DIR/tests/data/models/stories260k
if [ ! -x "$program" ]; then
    echo "SKIP: the program was not built"
    exit 77
fi
fail() {
    echo "$*"
    exit 1
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
LORIKEET_CACHE_DIR=$folder/cache
export LORIKEET_CACHE_DIR

# run COMMAND DEVICE [OPTION...]
run() {
    command=$1 device=$2
    shift 2
    "$program" "$command" --model "$model" --batch 1 --seq 16 --rank 4 --layers 0 --device "$device" --threads 1 "$@"
}
devices=$(run plan auto | sed -n '1s/.*time of a step: //p' | tr ',' '\n' | sed 's/^ *\([a-z]*:[0-9]*\) .*/\1/')
[ -n "$devices" ] || devices=cpu
echo "devices:" $devices
for device in $devices; do
    run tune "$device" >"$folder/text" 2>/dev/null || fail "tune --device $device failed"
    grep -q "^kept in $folder/cache/tuned-${device%:*}-" "$folder/text" || fail "$device: $(cat "$folder/text")"
    run plan "$device" >"$folder/text"
    grep -q 'chosen by tuned' "$folder/text" || fail "$device: nothing is chosen by what was measured"
    run plan "$device" --batch 2 >"$folder/text"
    grep -q 'chosen by cost\|not .*estimated\|^ .*[0-9]$' "$folder/text" || fail "$device: other shapes"
done
case $devices in
*:*:*) run plan auto | sed -n 1p | grep -q 'lowest measured time of a step' || fail "auto does not compare measured times" ;;
esac

run tune cpu --json >"$folder/json" 2>/dev/null || fail "tune --json failed"
grep -q '"seconds_before"' "$folder/json" || fail "tune --json: $(cat "$folder/json")"
for file in "$folder"/cache/tuned-cpu-*.json; do
    head -c 100 "$file" >"$folder/cut"
    cp "$folder/cut" "$file"
done
run plan cpu >"$folder/text" 2>"$folder/err" || fail "a damaged file stops the plan"
grep -q 'warning: measured times are not used' "$folder/err" || fail "no warning: $(cat "$folder/err")"
! grep -q 'chosen by tuned' "$folder/text" || fail "a damaged file is used"
! grep -q 'lorikeet tune' "$folder/text" || fail "messages belong to stderr"
