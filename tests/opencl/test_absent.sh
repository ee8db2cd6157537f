# Machines without an OpenCL driver: the probe says what to install and succeeds, --device opencl fails with one line.
set -eu
program=$LK_BUILD_DIR/lorikeet
if [ ! -x "$program" ]; then
    echo "SKIP: the program was not built"
    exit 77
fi
if ldd "$program" | grep -i opencl; then
    echo "the program is linked with OpenCL"
    exit 1
fi
OCL_ICD_VENDORS=/nonexistent
export OCL_ICD_VENDORS
output=$("$program" probe 2>&1) || { echo "probe failed: $output"; exit 1; }
case $output in
*pocl-opencl-icd* | *opencl-headers*) ;;
*)
    echo "the probe does not say what to install: $output"
    exit 1
    ;;
esac
status=0
output=$("$program" train --device opencl --model /nonexistent --data /nonexistent --out /nonexistent 2>&1) || status=$?
if [ "$status" -ne 1 ] || [ "$(printf '%s\n' "$output" | wc -l)" -ne 1 ]; then
    echo "status $status: $output"
    exit 1
fi
