# Machines without an NVIDIA driver: the probe says what is missing and succeeds, --device cuda fails with one line.
set -eu
program=$LK_BUILD_DIR/lorikeet
if [ ! -x "$program" ]; then
    echo "SKIP: the program was not built"
    exit 77
fi
if ldd "$program" | grep -i -e libcuda -e cudart; then
    echo "the program is linked with CUDA"
    exit 1
fi
# check DRIVER REASON: with this in the driver's place
check() {
    LORIKEET_CUDA_DRIVER=$1
    export LORIKEET_CUDA_DRIVER
    output=$("$program" probe 2>&1) || { echo "probe failed: $output"; exit 1; }
    case $output in
    *"$2"* | *'built without CUDA kernels'*) ;;
    *)
        echo "with $1 the probe does not say '$2': $output"
        exit 1
        ;;
    esac
    status=0
    output=$("$program" train --device cuda --model /nonexistent --data /nonexistent --out /nonexistent 2>&1) ||
        status=$?
    if [ "$status" -ne 1 ] || [ "$(printf '%s\n' "$output" | wc -l)" -ne 1 ]; then
        echo "with $1: status $status: $output"
        exit 1
    fi
}
check /nonexistent/libcuda.so.1 'there is no NVIDIA driver'
check libm.so.6 'the NVIDIA driver is too old, it has no cuInit'
