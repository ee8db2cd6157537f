# The kernels under oclgrind, which reports races, missing barriers and accesses outside buffers, with the .lk line.
# Sizes are small: it interprets every instruction, unoptimised, because it lacks some of what LLVM's optimiser makes (fshl).
set -eu
program=$LK_BUILD_DIR/test_ops_conformance
driver=
for candidate in /usr/lib/oclgrind /usr/lib/*/oclgrind /usr/local/lib /usr/lib; do
    if [ -e "$candidate/liboclgrind-rt-icd.so" ]; then
        driver=$candidate/liboclgrind-rt-icd.so
        break
    fi
done
if [ -z "$driver" ]; then
    echo "SKIP: oclgrind is not installed (Debian: oclgrind)"
    exit 77
fi
case $CFLAGS in
*-fsanitize*)
    echo "SKIP: oclgrind is not run in a program built with sanitizers"
    exit 77
    ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
status=0
CK_FORK=no LORIKEET_CLBLAST=off LORIKEET_CACHE_DIR=$folder LK_TEST_BACKEND=opencl LK_TEST_MAX_ELEMENTS=${LK_TEST_MAX_ELEMENTS:-150} \
    OCL_ICD_VENDORS=$driver OCLGRIND_DATA_RACES=1 OCLGRIND_BUILD_OPTIONS=-cl-opt-disable OCLGRIND_LOG=$folder/report \
    "$program" >"$folder/log" 2>&1 || status=$?
if grep 'SKIP\|skipped: opencl' "$folder/log"; then
    echo "SKIP: the OpenCL loader does not take oclgrind as a driver"
    exit 77
fi
grep 'kernel runs' "$folder/log" || status=1
if [ "$status" -ne 0 ] || [ -s "$folder/report" ]; then
    head -c 3000 "$folder/log"
    head -c 3000 "$folder/report" 2>/dev/null || true
    exit 1
fi
