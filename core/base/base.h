/* What every other file may use: statuses with messages, memory, strings, files, hashing, random numbers.
 * All of it is reached through an lk_context, so that a host application decides where memory and messages go. */
#ifndef LK_CORE_BASE_H
#define LK_CORE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lorikeet.h"

#if defined(__GNUC__) || defined(__clang__)
#define LK_PRINTF(format_index, first_arg) __attribute__((format(printf, format_index, first_arg)))
#else
#define LK_PRINTF(format_index, first_arg)
#endif

#define LK_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LK_MIN(a, b) ((a) < (b) ? (a) : (b))
#define LK_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Returns from the calling function when `expression` is not LK_OK. */
#define LK_TRY(expression)                      \
    do {                                        \
        lk_status lk_try_status = (expression); \
        if (lk_try_status != LK_OK) {           \
            return lk_try_status;               \
        }                                       \
    } while (0)

/* Jumps to `label`, for functions that release what they hold, after storing the status in the variable `status`. */
#define LK_TRY_GOTO(expression, label) \
    do {                               \
        status = (expression);         \
        if (status != LK_OK) {         \
            goto label;                \
        }                              \
    } while (0)

/* ---- errors and log (error.c) ---- */

/* Records the message that lk_error_message() returns and hands back `status`: `return lk_fail(context, ...)`.
 * A message names the file, tensor, key and value at fault and, where it helps, what to do. */
lk_status lk_fail(lk_context *context, lk_status status, const char *format, ...) LK_PRINTF(3, 4);
/* Puts "prefix: " before the current message, to say where a failure from below happened; returns `status`. */
lk_status lk_fail_within(lk_context *context, lk_status status, const char *format, ...) LK_PRINTF(3, 4);
void lk_log(lk_context *context, lk_log_level level, const char *format, ...) LK_PRINTF(3, 4);

/* ---- memory (memory.c): all through the context's allocator; NULL only where memory is out ---- */

void *lk_alloc(lk_context *context, size_t size);
void *lk_calloc(lk_context *context, size_t count, size_t size); /* zeroed; overflow-checked */
/* Grows or shrinks an array to count elements; on failure the old one stays valid and NULL is returned. */
void *lk_realloc(lk_context *context, void *pointer, size_t count, size_t size);
void lk_free(lk_context *context, void *pointer);
/* 64-byte aligned, for tensor data; released by lk_free_aligned only. */
void *lk_alloc_aligned(lk_context *context, size_t size);
void lk_free_aligned(lk_context *context, void *pointer);
char *lk_strdup(lk_context *context, const char *text);
lk_status lk_out_of_memory(lk_context *context, size_t size, const char *what);
/* Tells the compiler and the static analyzer, which see one file at a time, that these return the status they are
 * given. */
#define lk_fail(context, status, ...) (lk_fail(context, status, __VA_ARGS__), (status))
#define lk_fail_within(context, status, ...) (lk_fail_within(context, status, __VA_ARGS__), (status))
#define lk_out_of_memory(context, size, what) (lk_out_of_memory(context, size, what), LK_STATUS_OUT_OF_MEMORY)

bool lk_mul_size(size_t a, size_t b, size_t *out); /* false on overflow */
bool lk_add_size(size_t a, size_t b, size_t *out);

/* A bump allocator: many small objects that are freed together (a graph, a parsed header). Memory is zeroed. */
typedef struct lk_arena {
    lk_context *context;
    struct lk_arena_block *blocks;
} lk_arena;
void lk_arena_init(lk_arena *arena, lk_context *context);
void *lk_arena_alloc(lk_arena *arena, size_t size); /* 16-byte aligned, zeroed; NULL when out of memory */
char *lk_arena_printf(lk_arena *arena, const char *format, ...) LK_PRINTF(2, 3);
void lk_arena_free(lk_arena *arena);

/* ---- strings (string.c) ---- */

/* A growing text. After a failed append it stays `failed`, and appends do nothing: check once, at the end. */
typedef struct lk_text {
    lk_context *context;
    char *data; /* NUL-terminated once something was appended; NULL before */
    size_t length, capacity;
    bool failed;
} lk_text;
void lk_text_init(lk_text *text, lk_context *context);
void lk_text_append(lk_text *text, const char *bytes, size_t length);
void lk_text_printf(lk_text *text, const char *format, ...) LK_PRINTF(2, 3);
lk_status lk_text_status(lk_text *text); /* LK_OK, or OUT_OF_MEMORY with a message */
void lk_text_free(lk_text *text);

/* ---- files (file_posix.c) ---- */

/* A read-only mapping of a whole file. An empty file has data NULL and size 0. */
typedef struct lk_mapping {
    const uint8_t *data;
    size_t size;
} lk_mapping;
lk_status lk_mapping_open(lk_context *context, const char *path, lk_mapping *out);
void lk_mapping_close(lk_mapping *mapping);
/* Lets go of the memory of a part that has been read; it is read from the file again when it is touched. */
void lk_mapping_forget(const void *data, size_t bytes);

bool lk_path_is_directory(const char *path);
bool lk_path_is_file(const char *path);
bool lk_path_is_same(const char *a, const char *b); /* both exist and are one file or directory, links followed */
char *lk_path_join(lk_context *context, const char *directory, const char *name); /* lk_free it; NULL: out of memory */
lk_status lk_make_directories(lk_context *context, const char *path);
/* Calls visit with the name of each entry of a directory but "." and "..", in no particular order. */
lk_status lk_directory_each(lk_context *context, const char *path, void (*visit)(void *user, const char *name),
                            void *user);

/* Writes beside the target and renames onto it at commit (after fsync), so that a full disk or a crash leaves the
 * earlier file whole. Exactly one of commit and abort ends the object. */
typedef struct lk_atomic_file lk_atomic_file;
lk_status lk_atomic_file_open(lk_context *context, const char *path, lk_atomic_file **out);
lk_status lk_atomic_file_write(lk_atomic_file *file, const void *bytes, size_t size);
lk_status lk_atomic_file_commit(lk_atomic_file *file);
void lk_atomic_file_abort(lk_atomic_file *file);                                                /* NULL is allowed */
lk_status lk_write_file(lk_context *context, const char *path, const void *bytes, size_t size); /* atomic as above */

double lk_seconds(void); /* monotonic clock */

/* ---- hashing and random numbers ---- */

uint64_t lk_hash64(const void *bytes, size_t size, uint64_t seed); /* XXH3; stable across platforms and versions */

/* Philox4x32-10 (Salmon et al., SC 2011): a pure function of (seed, stream, index), so that every device and every
 * order of evaluation draws the same numbers. One call gives four 32-bit words. */
void lk_philox4x32(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]);
/* Uniform in [0, 1) with 24 bits from one word; and a pair of standard normals (Box-Muller) from two words. */
float lk_uniform_from_bits(uint32_t bits);
void lk_normal_pair_from_bits(uint32_t bits0, uint32_t bits1, double out[2]);

/* ---- 16-bit floats (float16.h has them inline for kernels) ---- */
#include "core/base/float16.h"

#endif
