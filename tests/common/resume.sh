# resume.sh DEVICE: a checkpoint written on the CPU resumes on the device and the other way round, and the losses are
# those of one run; two runs on the device are equal to the last bit.
set -eu
other=$1
program=$LK_BUILD_DIR/lorikeet
if ! "$program" probe | grep -q "^  $other:0"; then
    echo "SKIP: $("$program" probe | grep -A 1 "^$other:" | tail -n 1)"
    exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export LORIKEET_CACHE_DIR="$folder/cache"

# train DEVICE NAME STEPS [OPTION...]
train() {
    device=$1
    name=$2
    steps=$3
    shift 3
    "$program" train --model "$LK_SOURCE_DIR/tests/data/models/stories260k" --data "$LK_SOURCE_DIR/data/tinyshakespeare.txt" \
        --out "$folder/$name" --steps "$steps" --batch 2 --seq 16 --rank 4 --lr 1e-3 --seed 5 --dropout 0.1 \
        --device "$device" --save-every 2 --log "$folder/$name.jsonl" --quiet "$@" >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
}

# losses NAME: one a line
losses() {
    sed -n 's/.*"loss": *\([0-9.]*\).*/\1/p' "$folder/$1.jsonl"
}

train cpu whole 4
train "$other" again 4
train "$other" "$other" 4
cmp "$folder/$other/adapter_model.safetensors" "$folder/again/adapter_model.safetensors"
for pair in "cpu $other" "$other cpu"; do
    first=${pair% *}
    second=${pair#* }
    train "$first" "$first-first" 2
    train "$second" "$first-first" 4 --resume
done
for name in "$other" cpu-first "$other-first"; do
    losses "$name" | tail -n 2 >"$folder/found"
    losses whole | tail -n 2 >"$folder/expected"
    paste "$folder/found" "$folder/expected" | awk -v name="$name" '
        { n++; d = $1 - $2; if (d < 0) d = -d; if (d > 1e-4) { print name ": " $1 " instead of " $2; bad = 1 } }
        END { if (n != 2) { print name ": " n + 0 " losses"; bad = 1 } exit bad }'
done
