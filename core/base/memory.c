#include <stdio.h>
#include <string.h>

#include "core/base/context.h"

#undef lk_out_of_memory /* base.h has macros of these names */

bool lk_mul_size(size_t a, size_t b, size_t *out) {
    if (a != 0 && b > SIZE_MAX / a) {
        *out = 0;
        return false;
    }
    *out = a * b;
    return true;
}

bool lk_add_size(size_t a, size_t b, size_t *out) {
    if (b > SIZE_MAX - a) {
        *out = 0;
        return false;
    }
    *out = a + b;
    return true;
}

void *lk_alloc(lk_context *context, size_t size) {
    return context->allocator.allocate(context->allocator.user, size ? size : 1);
}

void *lk_calloc(lk_context *context, size_t count, size_t size) {
    size_t bytes;
    if (!lk_mul_size(count, size, &bytes)) {
        return NULL;
    }
    void *pointer = lk_alloc(context, bytes);
    if (pointer != NULL) {
        memset(pointer, 0, bytes);
    }
    return pointer;
}

void *lk_realloc(lk_context *context, void *pointer, size_t count, size_t size) {
    size_t bytes;
    if (!lk_mul_size(count, size, &bytes)) {
        return NULL;
    }
    return context->allocator.reallocate(context->allocator.user, pointer, bytes ? bytes : 1);
}

void lk_free(lk_context *context, void *pointer) {
    if (pointer != NULL) {
        context->allocator.release(context->allocator.user, pointer);
    }
}

/* The original pointer stands just before the aligned block. */
void *lk_alloc_aligned(lk_context *context, size_t size) {
    size_t bytes;
    if (!lk_add_size(size, 64 + sizeof(void *), &bytes)) {
        return NULL;
    }
    char *raw = lk_alloc(context, bytes);
    if (raw == NULL) {
        return NULL;
    }
    uintptr_t start = (uintptr_t)(raw + sizeof(void *));
    char *aligned = raw + sizeof(void *) + (64 - start % 64) % 64;
    memcpy(aligned - sizeof(void *), &raw, sizeof raw);
    return aligned;
}

void lk_free_aligned(lk_context *context, void *pointer) {
    if (pointer != NULL) {
        void *raw;
        memcpy(&raw, (char *)pointer - sizeof(void *), sizeof raw);
        lk_free(context, raw);
    }
}

char *lk_strdup(lk_context *context, const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = lk_alloc(context, size);
    if (copy != NULL) {
        memcpy(copy, text, size);
    }
    return copy;
}

lk_status lk_out_of_memory(lk_context *context, size_t size, const char *what) {
    return lk_fail(context, LK_STATUS_OUT_OF_MEMORY, "out of memory: %zu bytes for %s", size, what);
}

struct lk_arena_block {
    struct lk_arena_block *next;
    size_t used, size;
    /* the bytes follow, at the next multiple of 16 */
};
enum { ARENA_HEADER = (sizeof(struct lk_arena_block) + 15) / 16 * 16, ARENA_BLOCK = 16384 };

void lk_arena_init(lk_arena *arena, lk_context *context) {
    *arena = (lk_arena){.context = context};
}

void *lk_arena_alloc(lk_arena *arena, size_t size) {
    if (size > SIZE_MAX / 2) {
        return NULL;
    }
    size = (size + 15) / 16 * 16;
    struct lk_arena_block *block = arena->blocks;
    if (block == NULL || block->size - block->used < size) {
        size_t capacity = LK_MAX(size, (size_t)ARENA_BLOCK);
        block = lk_alloc(arena->context, ARENA_HEADER + capacity);
        if (block == NULL) {
            return NULL;
        }
        *block = (struct lk_arena_block){.next = arena->blocks, .size = capacity};
        arena->blocks = block;
    }
    void *pointer = (char *)block + ARENA_HEADER + block->used;
    block->used += size;
    memset(pointer, 0, size);
    return pointer;
}

char *lk_arena_printf(lk_arena *arena, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = length < 0 ? NULL : lk_arena_alloc(arena, (size_t)length + 1);
    if (text != NULL) {
        vsnprintf(text, (size_t)length + 1, format, again);
    }
    va_end(again);
    return text;
}

void lk_arena_free(lk_arena *arena) {
    while (arena->blocks != NULL) {
        struct lk_arena_block *next = arena->blocks->next;
        lk_free(arena->context, arena->blocks);
        arena->blocks = next;
    }
}
