# A GPU that is lost in the middle of a run, while the state is saved, and while kernels are loaded: with --device auto
# the run goes on with the next device from the state that was kept; by name it ends with status 1 and can be resumed.
# The GPU is the mock's.
set -eu
program=$LK_BUILD_DIR/lorikeet
mock=$LK_BUILD_DIR/tests/cuda/mock/liblorikeet_mock_cuda.so
if [ ! -x "$program" ] || [ ! -f "$mock" ]; then
    echo "SKIP: the program or the mock driver was not built"
    exit 77
fi
fail() {
    echo "$*"
    cat "$folder/err"
    exit 1
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# cuBLASLt itself does not start with the mock driver, and leaks when it does not
LORIKEET_CACHE_DIR=$folder/cache LORIKEET_CUDA_DRIVER=$mock LORIKEET_CUBLASLT=none LORIKEET_CUDNN=none
export LORIKEET_CACHE_DIR LORIKEET_CUDA_DRIVER LORIKEET_CUBLASLT LORIKEET_CUDNN

# train NAME DEVICE [OPTION...]: its exit status is left in $status
train() {
    name=$1 device=$2
    shift 2
    status=0
    "$program" train --model "$LK_SOURCE_DIR/tests/data/models/stories260k" --data "$LK_SOURCE_DIR/data/tinyshakespeare.txt" \
        --out "$folder/$name" --steps 4 --batch 4 --seq 64 --rank 4 --targets q_proj --layers 0 --lr 1e-3 --seed 5 \
        --device "$device" --threads 1 --log "$folder/$name.jsonl" "$@" >"$folder/out" 2>"$folder/err" || status=$?
}
# the loss of the last step is that of the run without a failure
check_loss() {
    for name in whole "$1"; do
        sed -n 's/.*"step": *4,.*"loss": *\([0-9.]*\).*/\1/p' "$folder/$name.jsonl" | tail -n 1
    done | awk -v name="$1" '{ v[NR] = $1 } END { d = v[1] - v[2]; if (NR != 2 || d > 1e-4 || d < -1e-4) {
        print name ": the last loss is " v[2] ", not " v[1]; exit 1 } }' || fail "$1: other losses"
}

train whole cuda
[ "$status" -eq 0 ] || fail "the run without a failure: status $status"
train chosen auto
grep -q '^lorikeet train: cuda:0 ' "$folder/err" || fail "auto does not take the GPU: nothing is tested"
check_loss chosen

for plan in kernel:200:719 cuMemcpyDtoHAsync_v2:40:700 cuMemAlloc_v2:3:2 cuModuleLoadData:1:719; do
    name=$(echo "$plan" | tr ':' '-')
    LK_MOCK_CUDA_FAIL=$plan
    export LK_MOCK_CUDA_FAIL
    train "$name" auto --save-every 1
    unset LK_MOCK_CUDA_FAIL
    [ "$status" -eq 0 ] || fail "$plan: status $status"
    grep -q 'warning: .*cuda:0' "$folder/err" || fail "$plan: no warning"
    check_loss "$name"
    echo "$plan: $(grep -c warning "$folder/err") warnings"
done

LK_MOCK_CUDA_FAIL=kernel:200:719
export LK_MOCK_CUDA_FAIL
train named cuda
unset LK_MOCK_CUDA_FAIL
[ "$status" -eq 1 ] || fail "by name: status $status"
grep -q -- '--resume goes on' "$folder/err" || fail "by name: nothing is said of the state"
train named cpu --resume
[ "$status" -eq 0 ] || fail "resuming on the CPU: status $status"
check_loss named

# A search goes on, too: the trial that was being trained is done again, and all losses are those of a search on the CPU.
search() {
    name=$1 device=$2
    "$program" search --model "$LK_SOURCE_DIR/tests/data/models/stories260k" --data "$folder/train.txt" \
        --val "$folder/held-out.txt" --out "$folder/$name" --device "$device" --threads 1 --batch 1 --seq 32 --trials 2 \
        --steps 2 --min-steps 1 --eta 2 --ranks 2 --alphas 4 --targets q_proj --dropouts 0 --seed 3 >"$folder/$name.table" \
        2>"$folder/err" || fail "the search $name: status $?"
}
head -n 40 "$LK_SOURCE_DIR/data/tinyshakespeare.txt" >"$folder/train.txt"
tail -n 8 "$LK_SOURCE_DIR/data/tinyshakespeare.txt" >"$folder/held-out.txt"
search found-by-cpu cpu
LK_MOCK_CUDA_FAIL=kernel:1500:719
export LK_MOCK_CUDA_FAIL
search found auto
unset LK_MOCK_CUDA_FAIL
grep -q 'warning: cuda:0 is given up; the search goes on' "$folder/err" || fail "the search: no warning"
[ "$(wc -l <"$folder/found/journal.jsonl")" -eq 3 ] || fail "the search: the journal has not three lines"
paste -d ' ' "$folder/found.table" "$folder/found-by-cpu.table" | awk 'NR > 1 { rows++; d = $7 - $15
    if ($1 != $9 || $2 != $10 || d > 2e-4 || d < -2e-4) exit 1 } END { if (rows != 2) exit 1 }' ||
    fail "the search: another table"
