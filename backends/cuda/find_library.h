/* Libraries that are large are looked for before they are loaded. */
#ifndef LK_BACKENDS_CUDA_FIND_LIBRARY_H
#define LK_BACKENDS_CUDA_FIND_LIBRARY_H

#include <stdbool.h>

/* Whether the loader has a file of this name: in LD_LIBRARY_PATH or in its cache, as glibc and others look; a name with
 * a slash is a path. False does not mean that dlopen() would fail: it knows more folders. */
bool lk_library_is_found(const char *name);

#endif
