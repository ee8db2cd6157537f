# tests/gpu/run, the command for machines with a GPU, must work when one is there: rehearsed with the mock driver.
set -eu
if [ ! -e "$LK_BUILD_DIR/tests/cuda/mock/liblorikeet_mock_cuda.so" ]; then
    echo "SKIP: no mock driver in this build"
    exit 77
fi
report=$LK_BUILD_DIR/gpu-rehearsal
rm -rf "$report"
mkdir -p "$report"
# it says so when something fails
if LK_MOCK_CUDA_FAIL=kernel:1:719 "$LK_SOURCE_DIR/tests/gpu/run" --rehearse "$LK_BUILD_DIR" >"$LK_BUILD_DIR/gpu-rehearsal-failed.txt" 2>&1; then
    echo "a failing kernel was not noticed"
    exit 1
fi
grep -q '^FAILED: .*conformance.*timings' "$LK_BUILD_DIR/gpu-rehearsal-failed.txt"

"$LK_SOURCE_DIR/tests/gpu/run" --rehearse "$LK_BUILD_DIR"
for key in '"parts"' '"kernels"' '"cuda_lora_linear_backward"' '"cuda_linear_mma_bf16"' \
    '"cuda_flash_attention_backward"' '"cuda_attention_cudnn"' '"cuda_attention_backward_cudnn"' '"tflops"' '"training"' '"tokens_per_second"' '"rehearsal": true'; do
    grep -q -e "$key" "$report/report.json" || { echo "the report has no $key"; exit 1; }
done
if command -v python3 >/dev/null 2>&1; then
    python3 -m json.tool "$report/report.json" >/dev/null
fi
