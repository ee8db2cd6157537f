/* Kernel texts become programs: one per entry and set of constants. Binaries are kept on disk under a hash of all that
 * they depend on; a file that is not exactly what was expected is ignored, and written anew. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/opencl/opencl.h"

typedef struct cache_header {
    char magic[8];
    uint64_t key, check, bytes; /* of the program; hash and size of the binary that follows */
} cache_header;
static const char MAGIC[8] = {'L', 'K', 'C', 'L', 'B', 'I', 'N', '1'};

static void options_of(const lk_launch *launch, lk_text *options) {
    lk_text_printf(options, "-cl-std=CL1.2 -DLK_ENTRY_%s=1", launch->entry);
    for (int32_t i = 0; i < launch->num_constants; i++) {
        lk_text_printf(options, " -DLK_SET_%s=%d", launch->constants[i].name, launch->constants[i].value);
    }
    for (int32_t i = 0; i < launch->num_types; i++) {
        lk_text_printf(options, " -D%s=%s", launch->types[i].name, launch->types[i].type);
    }
}

static lk_status source_of(lk_context *context, const lk_launch *launch, lk_text *source) {
    char file[96];
    snprintf(file, sizeof file, "%s.lk", launch->file);
    const char *const parts[] = {"lk_opencl.h", "lk_common.h", "lk_tile.h", file};
    for (size_t i = 0; i < LK_COUNT(parts); i++) {
        const lk_shader_text *text = lk_shader_text_find(parts[i]);
        if (text == NULL) {
            return lk_fail(context, LK_STATUS_INTERNAL, "there is no kernel text %s", parts[i]);
        }
        lk_text_printf(source, "#line 1 \"%s\"\n", parts[i]);
        lk_text_append(source, text->text, text->size);
    }
    return lk_text_status(source);
}

/* ---- the disk ---- */

char *lk_cl_cache_folder(lk_context *context) {
    const char *own = getenv("LORIKEET_CACHE_DIR"), *general = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own != NULL && own[0] != '\0') {
        return lk_strdup(context, own);
    }
    if (general != NULL && general[0] != '\0') {
        return lk_path_join(context, general, "lorikeet");
    }
    return home != NULL && home[0] != '\0' ? lk_path_join(context, home, ".cache/lorikeet") : NULL;
}

static char *cache_path(lk_context *context, uint64_t key) {
    char name[48];
    snprintf(name, sizeof name, "opencl-%016llx.bin", (unsigned long long)key);
    char *folder = lk_cl_cache_folder(context);
    char *path = folder != NULL ? lk_path_join(context, folder, name) : NULL;
    lk_free(context, folder);
    return path;
}

static bool build(lk_cl_device *self, cl_program program, const char *options) {
    return self->api->clBuildProgram(program, 1, &self->id, options, NULL, NULL) == CL_SUCCESS;
}

static cl_program program_from(lk_cl_device *self, const lk_mapping *file, uint64_t key, const char *options) {
    cache_header header;
    if (file->size < sizeof header) {
        return NULL;
    }
    memcpy(&header, file->data, sizeof header);
    const unsigned char *binary = file->data + sizeof header;
    size_t bytes = file->size - sizeof header;
    if (memcmp(header.magic, MAGIC, sizeof MAGIC) != 0 || header.key != key || header.bytes != bytes ||
        header.check != lk_hash64(binary, bytes, key)) {
        return NULL;
    }
    cl_int error, state;
    cl_program program = self->api->clCreateProgramWithBinary(self->cl, 1, &self->id, &bytes, &binary, &state, &error);
    if (error != CL_SUCCESS) {
        return NULL;
    }
    if (state != CL_SUCCESS || !build(self, program, options)) {
        self->api->clReleaseProgram(program);
        return NULL;
    }
    return program;
}

static cl_program load_program(lk_cl_device *self, uint64_t key, const char *options) {
    lk_context *context = self->device.context;
    char *path = cache_path(context, key);
    cl_program program = NULL;
    lk_mapping file;
    if (path != NULL && lk_path_is_file(path) && lk_mapping_open(context, path, &file) == LK_OK) {
        program = program_from(self, &file, key, options);
        lk_mapping_close(&file);
        if (program == NULL) {
            lk_log(context, LK_LOG_DEBUG, "%s is not the program it should be; compiling it again", path);
        }
    }
    lk_free(context, path);
    return program;
}

static lk_status write_binary(lk_context *context, const char *path, const cache_header *header, const void *binary) {
    lk_atomic_file *file;
    LK_TRY(lk_atomic_file_open(context, path, &file));
    lk_status status = lk_atomic_file_write(file, header, sizeof *header);
    if (status == LK_OK) {
        status = lk_atomic_file_write(file, binary, (size_t)header->bytes);
    }
    if (status != LK_OK) {
        lk_atomic_file_abort(file);
        return status;
    }
    return lk_atomic_file_commit(file);
}

/* A cache that cannot be written costs time at the next start, nothing else. */
static void store_program(lk_cl_device *self, uint64_t key, cl_program program) {
    lk_context *context = self->device.context;
    size_t bytes = 0;
    if (self->api->clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof bytes, &bytes, NULL) != CL_SUCCESS ||
        bytes == 0) {
        return;
    }
    unsigned char *binary = lk_alloc(context, bytes);
    char *folder = lk_cl_cache_folder(context), *path = cache_path(context, key);
    if (binary != NULL && folder != NULL && path != NULL &&
        self->api->clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) == CL_SUCCESS) {
        cache_header header = {.key = key, .check = lk_hash64(binary, bytes, key), .bytes = bytes};
        memcpy(header.magic, MAGIC, sizeof MAGIC);
        if (lk_make_directories(context, folder) != LK_OK || write_binary(context, path, &header, binary) != LK_OK) {
            lk_log(context, LK_LOG_DEBUG, "OpenCL programs are not cached: %s", lk_error_message(context));
        }
    }
    lk_free(context, path);
    lk_free(context, folder);
    lk_free(context, binary);
}

/* ---- compiling ---- */

static lk_status build_failed(lk_cl_device *self, cl_program program, const lk_launch *launch, const char *options) {
    char log[1500] = "";
    size_t used = 0;
    char *whole = NULL;
    self->api->clGetProgramBuildInfo(program, self->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &used);
    whole = lk_calloc(self->device.context, used + 1, 1);
    if (whole != NULL) {
        self->api->clGetProgramBuildInfo(program, self->id, CL_PROGRAM_BUILD_LOG, used, whole, NULL);
        snprintf(log, sizeof log, "%s", whole);
    }
    lk_free(self->device.context, whole);
    return lk_fail(self->device.context, LK_STATUS_DEVICE, "opencl:%d %s cannot compile %s of %s.lk (%s): %s",
                   self->device.caps.index, self->device.caps.name, launch->entry, launch->file, options, log);
}

static lk_status compile_program(lk_cl_device *self, const lk_launch *launch, const char *source, const char *options,
                                 cl_program *out) {
    cl_int error;
    *out = self->api->clCreateProgramWithSource(self->cl, 1, &source, NULL, &error);
    if (error != CL_SUCCESS) {
        return lk_cl_fail(self, error, "clCreateProgramWithSource");
    }
    if (!build(self, *out, options)) {
        lk_status status = build_failed(self, *out, launch, options);
        self->api->clReleaseProgram(*out);
        return status;
    }
    return LK_OK;
}

static lk_status keep(lk_cl_device *self, uint64_t key, cl_program program) {
    lk_cl_program *grown =
        lk_realloc(self->device.context, self->programs, (size_t)self->num_programs + 1, sizeof *grown);
    if (grown == NULL) {
        self->api->clReleaseProgram(program);
        return lk_out_of_memory(self->device.context, sizeof *grown, "a program");
    }
    self->programs = grown;
    self->programs[self->num_programs++] = (lk_cl_program){key, program};
    return LK_OK;
}

static lk_status get_program(lk_cl_device *self, const lk_launch *launch, const lk_text *source, const lk_text *options,
                             cl_program *out) {
    uint64_t key = lk_hash64(source->data, source->length, lk_hash64(options->data, options->length, self->identity));
    for (int32_t i = 0; i < self->num_programs; i++) {
        if (self->programs[i].key == key) {
            *out = self->programs[i].program;
            return LK_OK;
        }
    }
    *out = load_program(self, key, options->data);
    if (*out != NULL) {
        self->from_cache++;
    } else {
        LK_TRY(compile_program(self, launch, source->data, options->data, out));
        store_program(self, key, *out);
        self->compiled++;
    }
    return keep(self, key, *out);
}

lk_status lk_cl_program_get(lk_cl_device *self, const lk_launch *launch, cl_program *out) {
    lk_text source, options;
    lk_text_init(&source, self->device.context);
    lk_text_init(&options, self->device.context);
    options_of(launch, &options);
    lk_status status = source_of(self->device.context, launch, &source);
    if (status == LK_OK) {
        status = lk_text_status(&options);
    }
    if (status == LK_OK) {
        status = get_program(self, launch, &source, &options, out);
    }
    lk_text_free(&source);
    lk_text_free(&options);
    return status;
}
