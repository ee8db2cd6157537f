/* The mock driver's planned failures, and what tests may ask it. */
#include "tests/cuda/mock/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

CUresult mock_lost;
bool mock_initialised;
void *mock_current;
mock_counts_of mock_counts;

CUresult mock_planned(const char *what) {
    static char counted[96];
    static long calls;
    const char *plan = getenv("LK_MOCK_CUDA_FAIL");
    if (plan == NULL) {
        counted[0] = '\0';
        return CUDA_SUCCESS;
    }
    if (strcmp(plan, counted) != 0) {
        snprintf(counted, sizeof counted, "%s", plan);
        calls = 0;
    }
    size_t length = strcspn(plan, ":");
    long nth = 1;
    int code = CUDA_ERROR_UNKNOWN;
    if (strlen(what) != length || memcmp(plan, what, length) != 0 ||
        sscanf(plan + length, ":%ld:%d", &nth, &code) < 1 || ++calls != nth) {
        return CUDA_SUCCESS;
    }
    mock_counts.failures++;
    if (code >= CUDA_ERROR_ILLEGAL_ADDRESS || code == CUDA_ERROR_ECC_UNCORRECTABLE) {
        mock_lost = code;
    }
    return code;
}

CUresult mock_enter_before_init(const char *name) {
    CUresult error = mock_planned(name);
    return error != CUDA_SUCCESS ? error : mock_lost;
}
CUresult mock_enter(const char *name) {
    CUresult error = mock_enter_before_init(name);
    return error != CUDA_SUCCESS ? error : mock_initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

EXPORT void lk_mock_cuda_counts(mock_counts_of *counts);
void lk_mock_cuda_counts(mock_counts_of *counts) {
    *counts = mock_counts;
}
