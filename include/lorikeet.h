/* Lorikeet: fine-tuning of transformer models with the LoRA family on whatever hardware is there. Licence: Apache-2.0. */
#ifndef LORIKEET_H
#define LORIKEET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(LK_STATIC)
#define LK_API
#elif defined(_WIN32)
#ifdef LK_BUILDING
#define LK_API __declspec(dllexport)
#else
#define LK_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define LK_API __attribute__((visibility("default")))
#else
#define LK_API
#endif

#define LK_VERSION_MAJOR 0
#define LK_VERSION_MINOR 1
#define LK_VERSION_PATCH 0

/* ================================================================================================================
 * Status, messages, memory
 *
 * Functions return an lk_status; results come back through the last parameters, which are set to NULL (or zero) on
 * failure. The library never prints, aborts or exits. Config structs start with `size_t struct_size` and are set up by
 * their *_init function, so that a program compiled against an older header keeps working with a newer library.
 * ================================================================================================================ */

typedef enum lk_status {
#define LK_STATUS(NAME, value, text) LK_STATUS_##NAME = value,
#include "lorikeet/status.def"
#undef LK_STATUS
} lk_status;
#define LK_OK LK_STATUS_OK

/* "INVALID_ARGUMENT" and so on; never NULL. */
LK_API const char *lk_status_name(lk_status status);
/* A one-line explanation of the status as such; never NULL. */
LK_API const char *lk_status_text(lk_status status);
/* "0.1.0" */
LK_API const char *lk_version(void);

typedef enum lk_log_level { LK_LOG_DEBUG, LK_LOG_INFO, LK_LOG_WARNING, LK_LOG_ERROR } lk_log_level;

/* Called on the thread that made the library call; `message` has no newline and is valid during the call only. */
typedef void (*lk_log_function)(void *user, lk_log_level level, const char *message);

/* Where memory comes from; all three or none. Each behaves as its namesake of the C library and may be called from
 * the thread that made the library call only. */
typedef struct lk_allocator {
    void *(*allocate)(void *user, size_t size);
    void *(*reallocate)(void *user, void *pointer, size_t size);
    void (*release)(void *user, void *pointer);
    void *user;
} lk_allocator;

typedef struct lk_context_options {
    size_t struct_size;
    lk_log_function log; /* NULL: messages are dropped */
    void *log_user;
    lk_log_level log_level;        /* messages below it are not formatted; default LK_LOG_INFO */
    const lk_allocator *allocator; /* copied; NULL: malloc, realloc, free */
} lk_context_options;
LK_API void lk_context_options_init(lk_context_options *options);

/* Everything else is made from a context and must be destroyed before it. One context is used by one thread at a time;
 * different contexts are independent. */
typedef struct lk_context lk_context;
/* options may be NULL. */
LK_API lk_status lk_context_create(const lk_context_options *options, lk_context **out);
LK_API void lk_context_destroy(lk_context *context);
/* What went wrong in the last call that failed on this context, one line that names file, field and value; "" when
 * nothing has failed. Valid until the next failure or the context's end. */
LK_API const char *lk_error_message(const lk_context *context);

/* ================================================================================================================
 * Data types
 * ================================================================================================================ */

typedef enum lk_dtype {
#define LK_DTYPE(NAME, name, safetensors_name, block_size, block_bytes) LK_DTYPE_##NAME,
#include "lorikeet/dtypes.def"
#undef LK_DTYPE
    LK_DTYPE_COUNT
} lk_dtype;

/* "f32", "bf16", "q4_0", ... */
LK_API const char *lk_dtype_name(lk_dtype dtype);
/* Elements per block and bytes per block; 1 and the element's size for plain types. */
LK_API int64_t lk_dtype_block_size(lk_dtype dtype);
LK_API size_t lk_dtype_block_bytes(lk_dtype dtype);

#ifdef __cplusplus
}
#endif

#endif
