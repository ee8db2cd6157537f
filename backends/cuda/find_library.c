#include "backends/cuda/find_library.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_in_folder(const char *folder, size_t length, const char *name) {
    char path[1024];
    int used = snprintf(path, sizeof path, "%.*s/%s", (int)length, folder, name);
    return used > 0 && used < (int)sizeof path && access(path, R_OK) == 0;
}

static bool is_in_folders(const char *list, const char *name) {
    for (const char *folder = list; folder != NULL && *folder != '\0';) {
        size_t length = strcspn(folder, ":;");
        if (length > 0 && is_in_folder(folder, length, name)) {
            return true;
        }
        folder += length + (folder[length] != '\0');
    }
    return false;
}

/* The cache holds the paths of all libraries as strings, whatever its version. */
static bool is_in_cache(const char *name) {
    char path[1024];
    size_t used = 0, wanted = strlen(name);
    bool found = false;
    FILE *cache = fopen("/etc/ld.so.cache", "rb");
    for (int c; cache != NULL && !found && (c = getc(cache)) != EOF;) {
        if (c != '\0') {
            used = used == 0 && c != '/' ? 0 : used + 1; /* a path begins with a slash */
            if (used > 0 && used < sizeof path) {
                path[used - 1] = (char)c;
            }
            continue;
        }
        if (used > wanted + 1 && used < sizeof path) {
            path[used] = '\0';
            found =
                path[used - wanted - 1] == '/' && strcmp(path + used - wanted, name) == 0 && access(path, R_OK) == 0;
        }
        used = 0;
    }
    if (cache != NULL) {
        fclose(cache);
    }
    return found;
}

bool lk_library_is_found(const char *name) {
    if (strchr(name, '/') != NULL) {
        return access(name, R_OK) == 0;
    }
    return is_in_folders(getenv("LD_LIBRARY_PATH"), name) || is_in_cache(name);
}
