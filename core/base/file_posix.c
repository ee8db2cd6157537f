/* The only file of core/ that uses POSIX: mapping, directories, and writes that are atomic and durable. */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE /* madvise */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/base.h"

static lk_status fail_errno(lk_context *context, const char *verb, const char *path) {
    int error = errno;
    lk_status status = error == ENOENT ? LK_STATUS_NOT_FOUND : LK_STATUS_IO;
    return lk_fail(context, status, "cannot %s %s: %s", verb, path, strerror(error));
}

lk_status lk_mapping_open(lk_context *context, const char *path, lk_mapping *out) {
    *out = (lk_mapping){0};
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        return fail_errno(context, "open", path);
    }
    lk_status status = LK_OK;
    struct stat info;
    if (fstat(descriptor, &info) != 0) {
        status = fail_errno(context, "read", path);
    } else if (!S_ISREG(info.st_mode)) {
        status = lk_fail(context, LK_STATUS_IO, "cannot read %s: not a regular file", path);
    } else if (info.st_size > 0) {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (data == MAP_FAILED) {
            status = fail_errno(context, "map", path);
        } else {
            *out = (lk_mapping){data, (size_t)info.st_size};
        }
    }
    close(descriptor);
    return status;
}

void lk_mapping_close(lk_mapping *mapping) {
    if (mapping->data != NULL) {
        munmap((void *)(uintptr_t)mapping->data, mapping->size);
    }
    *mapping = (lk_mapping){0};
}

void lk_mapping_forget(const void *data, size_t bytes) {
#if defined(__linux__) && defined(MADV_DONTNEED) /* posix_madvise does nothing there */
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)data;
    uintptr_t first = (at + page - 1) / page * page, end = (at + bytes) / page * page;
    if (first < end) {
        madvise((void *)first, end - first, MADV_DONTNEED);
    }
#else
    (void)data;
    (void)bytes;
#endif
}

bool lk_path_is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool lk_path_is_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

bool lk_path_is_same(const char *a, const char *b) {
    struct stat left, right;
    return stat(a, &left) == 0 && stat(b, &right) == 0 && left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

char *lk_path_join(lk_context *context, const char *directory, const char *name) {
    size_t length = strlen(directory);
    bool slash = length > 0 && directory[length - 1] != '/';
    char *path = lk_alloc(context, length + strlen(name) + 2);
    if (path != NULL) {
        memcpy(path, directory, length);
        if (slash) {
            path[length++] = '/';
        }
        memcpy(path + length, name, strlen(name) + 1);
    }
    return path;
}

lk_status lk_make_directories(lk_context *context, const char *path) {
    char *partial = lk_strdup(context, path);
    if (partial == NULL) {
        return lk_out_of_memory(context, strlen(path), "a path");
    }
    lk_status status = LK_OK;
    for (char *cursor = partial + 1; status == LK_OK; cursor++) {
        if (*cursor == '/' || *cursor == '\0') {
            char kept = *cursor;
            *cursor = '\0';
            if (mkdir(partial, 0777) != 0 && (errno != EEXIST || !lk_path_is_directory(partial))) {
                status = fail_errno(context, "create directory", partial);
            }
            *cursor = kept;
            if (kept == '\0') {
                break;
            }
        }
    }
    lk_free(context, partial);
    return status;
}

lk_status lk_directory_each(lk_context *context, const char *path, void (*visit)(void *user, const char *name),
                            void *user) {
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return fail_errno(context, "list", path);
    }
    lk_status status = LK_OK;
    struct dirent *entry;
    while (errno = 0, (entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            visit(user, entry->d_name);
        }
    }
    if (errno != 0) {
        status = fail_errno(context, "list", path);
    }
    closedir(directory);
    return status;
}

struct lk_atomic_file {
    lk_context *context;
    FILE *stream;
    char *path, *temporary;
    char *directory; /* a copy of path that dirname() may cut */
};

static void atomic_file_free(lk_atomic_file *file) {
    lk_free(file->context, file->path);
    lk_free(file->context, file->temporary);
    lk_free(file->context, file->directory);
    lk_free(file->context, file);
}

lk_status lk_atomic_file_open(lk_context *context, const char *path, lk_atomic_file **out) {
    *out = NULL;
    lk_atomic_file *file = lk_calloc(context, 1, sizeof *file);
    if (file == NULL) {
        return lk_out_of_memory(context, sizeof *file, "a file");
    }
    file->context = context;
    file->path = lk_strdup(context, path);
    file->directory = lk_strdup(context, path);
    size_t size = strlen(path) + 32;
    file->temporary = lk_alloc(context, size);
    if (file->path == NULL || file->temporary == NULL || file->directory == NULL) {
        atomic_file_free(file);
        return lk_out_of_memory(context, size, "a path");
    }
    snprintf(file->temporary, size, "%s.%ld.partial", path, (long)getpid());
    file->stream = fopen(file->temporary, "wb");
    if (file->stream == NULL) {
        lk_status status = fail_errno(context, "write", path);
        atomic_file_free(file);
        return status;
    }
    *out = file;
    return LK_OK;
}

lk_status lk_atomic_file_write(lk_atomic_file *file, const void *bytes, size_t size) {
    if (size > 0 && fwrite(bytes, 1, size, file->stream) != size) {
        return fail_errno(file->context, "write", file->path);
    }
    return LK_OK;
}

/* The rename itself must survive a crash too: the directory is synced, best effort (some file systems refuse). */
static void sync_directory_of(char *path) {
    int descriptor = open(dirname(path), O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0) {
        (void)fsync(descriptor);
        close(descriptor);
    }
}

lk_status lk_atomic_file_commit(lk_atomic_file *file) {
    lk_context *context = file->context;
    lk_status status = LK_OK;
    if (fflush(file->stream) != 0 || fsync(fileno(file->stream)) != 0) {
        status = fail_errno(context, "write", file->path);
    }
    if (fclose(file->stream) != 0 && status == LK_OK) {
        status = fail_errno(context, "write", file->path);
    }
    if (status == LK_OK && rename(file->temporary, file->path) != 0) {
        status = fail_errno(context, "write", file->path);
    }
    if (status == LK_OK) {
        sync_directory_of(file->directory);
    } else {
        (void)unlink(file->temporary);
    }
    atomic_file_free(file);
    return status;
}

void lk_atomic_file_abort(lk_atomic_file *file) {
    if (file != NULL) {
        fclose(file->stream);
        (void)unlink(file->temporary);
        atomic_file_free(file);
    }
}

lk_status lk_write_file(lk_context *context, const char *path, const void *bytes, size_t size) {
    lk_atomic_file *file;
    LK_TRY(lk_atomic_file_open(context, path, &file));
    lk_status status = lk_atomic_file_write(file, bytes, size);
    if (status != LK_OK) {
        lk_atomic_file_abort(file);
        return status;
    }
    return lk_atomic_file_commit(file);
}

double lk_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
