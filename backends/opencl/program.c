/* Kernel texts become programs: one per entry and set of constants. Binaries are kept on disk under a hash of all that
 * they depend on. */
#include <stdio.h>
#include <string.h>

#include "backends/opencl/opencl.h"
#include "core/base/disk_cache.h"

static void options_of(const lk_launch *launch, lk_text *options) {
    lk_text_printf(options, "-cl-std=CL1.2 -DLK_ENTRY_%s=1", launch->entry);
    for (int32_t i = 0; i < launch->num_constants; i++) {
        lk_text_printf(options, " -DLK_SET_%s=%d", launch->constants[i].name, launch->constants[i].value);
    }
    for (int32_t i = 0; i < launch->num_words; i++) {
        lk_text_printf(options, " -D%s=%s", launch->words[i].name, launch->words[i].word);
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

static bool build(lk_cl_device *self, cl_program program, const char *options) {
    return self->api->clBuildProgram(program, 1, &self->id, options, NULL, NULL) == CL_SUCCESS;
}

static cl_program program_from(lk_cl_device *self, const lk_disk_cache_entry *entry, const char *options) {
    cl_int error, state;
    const unsigned char *binary = entry->data;
    cl_program program =
        self->api->clCreateProgramWithBinary(self->cl, 1, &self->id, &entry->bytes, &binary, &state, &error);
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
    lk_disk_cache_entry entry;
    if (!lk_disk_cache_open(self->device.context, "opencl", key, &entry)) {
        return NULL;
    }
    cl_program program = program_from(self, &entry, options);
    lk_disk_cache_close(&entry);
    return program;
}

static void store_program(lk_cl_device *self, uint64_t key, cl_program program) {
    size_t bytes = 0;
    if (self->api->clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof bytes, &bytes, NULL) != CL_SUCCESS ||
        bytes == 0) {
        return;
    }
    unsigned char *binary = lk_alloc(self->device.context, bytes);
    if (binary != NULL &&
        self->api->clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) == CL_SUCCESS) {
        lk_disk_cache_store(self->device.context, "opencl", key, binary, bytes);
    }
    lk_free(self->device.context, binary);
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
