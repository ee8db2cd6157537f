/* The mock driver's memory: inaccessible while no device work is done, and followed by a page that always is. */
#include "tests/cuda/mock/state.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct block {
    char *pages; /* then one page that is never open */
    size_t page_bytes;
    char *start;
    size_t bytes;
    struct block *next;
} block;
static block *blocks;
static size_t memory_used;

void mock_protect(bool open) {
    const int flags = open ? PROT_READ | PROT_WRITE : PROT_NONE;
    for (block *b = blocks; b != NULL; b = b->next) {
        mprotect(b->pages, b->page_bytes, flags);
    }
}

bool mock_is_device(CUdeviceptr memory, size_t bytes) {
    for (const block *b = blocks; b != NULL; b = b->next) {
        uintptr_t start = (uintptr_t)b->start;
        if (memory >= start && memory - start <= b->bytes && bytes <= b->bytes - (memory - start)) {
            return true;
        }
    }
    return false;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *memory, size_t bytes) {
    ENTER_CONTEXT(cuMemAlloc_v2);
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (bytes == 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    size_t rounded = (bytes + 255) / 256 * 256, pages = (rounded + page - 1) / page * page;
    if (rounded < bytes || memory_used + pages > (size_t)mock_cards[0]->memory_gib << 30) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    char *start = mmap(NULL, pages + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    block *made = malloc(sizeof *made);
    if (start == MAP_FAILED || made == NULL) {
        abort();
    }
    *made = (block){start, pages, start + pages - rounded, bytes, blocks};
    blocks = made;
    memory_used += pages;
    mock_counts.live++;
    mprotect(start, pages, PROT_READ | PROT_WRITE);
    memset(made->start, 0xff, bytes);
    mprotect(start, pages, PROT_NONE);
    emulator_allow(made->start, bytes);
    *memory = (CUdeviceptr)(uintptr_t)made->start;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr memory) {
    mock_drain_all();
    for (block **b = &blocks; *b != NULL; b = &(*b)->next) {
        block *found = *b;
        if ((uintptr_t)found->start == memory) {
            *b = found->next;
            emulator_forbid(found->start);
            memory_used -= found->page_bytes;
            munmap(found->pages, found->page_bytes + (size_t)sysconf(_SC_PAGESIZE));
            free(found);
            mock_counts.live--;
            return mock_lost;
        }
    }
    return CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuMemAllocHost_v2(void **memory, size_t bytes) {
    ENTER_CONTEXT(cuMemAllocHost_v2);
    *memory = malloc(bytes);
    mock_counts.live++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFreeHost(void *memory) {
    mock_drain_all();
    free(memory);
    mock_counts.live--;
    return mock_lost;
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    ENTER_CONTEXT(cuMemcpyHtoDAsync_v2);
    if (!mock_is_device(to, bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    operation *op = mock_push(mock_target_of(stream), TO_DEVICE);
    op->to = (void *)(uintptr_t)to;
    op->from = from;
    op->bytes = bytes;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ENTER_CONTEXT(cuMemcpyDtoHAsync_v2);
    if (!mock_is_device(from, bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    operation *op = mock_push(mock_target_of(stream), TO_HOST);
    op->to = to;
    op->from = (const void *)(uintptr_t)from;
    op->bytes = bytes;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
    ENTER_CONTEXT(cuMemsetD8Async);
    if (!mock_is_device(to, bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    operation *op = mock_push(mock_target_of(stream), SET);
    op->to = (void *)(uintptr_t)to;
    op->value = value;
    op->bytes = bytes;
    return CUDA_SUCCESS;
}
