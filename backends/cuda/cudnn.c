/* cuDNN's plugin found at run time: its plans and their runs. */
#define _GNU_SOURCE /* dladdr */
#include "backends/cuda/cudnn.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLUGIN "liblorikeet_cudnn.so"

typedef struct plugin {
#define LK_CUDNN(name, result, parameters) result(*name) parameters;
#include "backends/cuda/plugin/cudnn_plugin.def"
#undef LK_CUDNN
} plugin;

static plugin dnn;
static int64_t version;
static char missing[LK_CUDNN_PROBLEM + 64];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool find_symbol(void *from, const char *name, void *function, size_t size) {
    void *symbol = dlsym(from, name);
    if (symbol != NULL) {
        memcpy(function, &symbol, size);
    }
    return symbol != NULL;
}

/* In the folder of the file that this function is part of: the program's or the library's. */
static void *open_beside(void) {
    static const char here;
    char path[1024];
    Dl_info self;
    if (dladdr(&here, &self) == 0 || self.dli_fname == NULL) {
        return NULL;
    }
    const char *name = strrchr(self.dli_fname, '/');
    int folder = name != NULL ? (int)(name - self.dli_fname) : 0;
    int length = folder > 0 ? snprintf(path, sizeof path, "%.*s/" PLUGIN, folder, self.dli_fname) : (int)sizeof path;
    return length < (int)sizeof path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

static void *open_plugin(void) {
    const char *own = getenv("LORIKEET_CUDNN");
    bool has_own = own != NULL && own[0] != '\0';
    if (has_own && strcmp(own, "none") == 0) {
        snprintf(missing, sizeof missing, "LORIKEET_CUDNN is none");
        return NULL;
    }
    void *found = has_own ? dlopen(own, RTLD_NOW | RTLD_LOCAL) : open_beside();
    if (found == NULL && !has_own) {
        found = dlopen(LK_CUDA_PLUGINS "/" PLUGIN, RTLD_NOW | RTLD_LOCAL);
        found = found != NULL ? found : dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
    }
    if (found == NULL) {
        snprintf(missing, sizeof missing, "the plugin %.200s cannot be loaded", has_own ? own : PLUGIN);
    }
    return found;
}

static void load(void) {
    void *found = open_plugin(); /* never closed: cuDNN keeps threads */
    if (found == NULL) {
        return;
    }
#define LK_CUDNN(name, result, parameters)                                      \
    if (!find_symbol(found, #name, (void *)&dnn.name, sizeof dnn.name)) {       \
        snprintf(missing, sizeof missing, "the plugin has no function " #name); \
        return;                                                                 \
    }
#include "backends/cuda/plugin/cudnn_plugin.def"
#undef LK_CUDNN
    uint32_t abi = dnn.lk_cudnn_abi_version();
    if (abi != LK_CUDNN_ABI_VERSION) {
        snprintf(missing, sizeof missing, "the plugin has interface version %u, expected %d", (unsigned)abi,
                 LK_CUDNN_ABI_VERSION);
        return;
    }
    char problem[LK_CUDNN_PROBLEM] = "";
    if (dnn.lk_cudnn_load(&version, problem) != LK_CUDNN_SUCCESS) {
        version = 0;
        snprintf(missing, sizeof missing, "%s", problem);
    }
}

const char *lk_cuda_dnn_absent(void) {
    pthread_once(&once, load);
    return version > 0 ? NULL : missing;
}

int64_t lk_cuda_dnn_version(void) {
    return lk_cuda_dnn_absent() == NULL ? version : 0;
}

/* ---- one device ---- */

typedef struct planned {
    lk_cudnn_attention attention;
    lk_cudnn_plan *plan;
    size_t workspace_bytes;
} planned;

struct lk_cuda_dnn {
    lk_cudnn *handle;
    planned *plans; /* of all shapes so far */
    int32_t count, capacity;
};

typedef struct attention_call {
    lk_cudnn_plan *plan;
    void *tensors[LK_CUDNN_TENSORS], *workspace;
} attention_call;

static lk_status fail(lk_cuda_device *device, int result, const char *problem) {
    lk_status status = result == LK_CUDNN_OUT_OF_MEMORY ? LK_STATUS_OUT_OF_MEMORY
                       : result == LK_CUDNN_UNSUPPORTED ? LK_STATUS_UNSUPPORTED
                                                        : LK_STATUS_DEVICE;
    return lk_fail(device->device.context, status, "cuda:%d %s: cuDNN: %s; LORIKEET_CUDNN=none does without it",
                   device->device.caps.index, device->device.caps.name, problem);
}

/* Started when it is first used: that takes time and memory. */
static lk_status open_device(lk_cuda_device *device) {
    char problem[LK_CUDNN_PROBLEM] = "";
    if (device->dnn != NULL) {
        return LK_OK;
    }
    lk_cuda_dnn *made = lk_calloc(device->device.context, 1, sizeof *made);
    if (made == NULL) {
        return lk_out_of_memory(device->device.context, sizeof *made, "cuDNN");
    }
    int result = dnn.lk_cudnn_open(NULL, &made->handle, problem);
    if (result != LK_CUDNN_SUCCESS) {
        lk_free(device->device.context, made);
        return fail(device, result, problem);
    }
    device->dnn = made;
    return LK_OK;
}

void lk_cuda_dnn_close(lk_cuda_device *device, lk_cuda_dnn *self) {
    if (self != NULL) {
        for (int32_t i = 0; i < self->count; i++) {
            dnn.lk_cudnn_plan_destroy(self->plans[i].plan);
        }
        dnn.lk_cudnn_close(self->handle);
        lk_free(device->device.context, self->plans);
        lk_free(device->device.context, self);
    }
}

static lk_status plan_for(lk_cuda_device *device, const lk_cudnn_attention *wanted, const planned **out) {
    lk_cuda_dnn *self = device->dnn;
    char problem[LK_CUDNN_PROBLEM] = "";
    for (int32_t i = 0; i < self->count; i++) {
        if (memcmp(&self->plans[i].attention, wanted, sizeof *wanted) == 0) {
            *out = &self->plans[i];
            return LK_OK;
        }
    }
    if (self->count == self->capacity) {
        int32_t capacity = 2 * self->capacity + 4;
        planned *grown = lk_realloc(device->device.context, self->plans, (size_t)capacity, sizeof *grown);
        if (grown == NULL) {
            return lk_out_of_memory(device->device.context, (size_t)capacity * sizeof *grown, "cuDNN's plans");
        }
        self->plans = grown;
        self->capacity = capacity;
    }
    planned *made = &self->plans[self->count];
    *made = (planned){.attention = *wanted};
    int result = dnn.lk_cudnn_plan_create(self->handle, wanted, &made->plan, &made->workspace_bytes, problem);
    if (result != LK_CUDNN_SUCCESS) {
        return fail(device, result, problem);
    }
    self->count++;
    *out = made;
    return LK_OK;
}

static lk_status place(lk_cuda_device *device, const lk_launch *launch, attention_call *call) {
    const uint32_t *p = launch->parameters;
    lk_cudnn_attention wanted;
    memset(&wanted, 0, sizeof wanted);
    wanted.tokens = p[DNN_TOKENS];
    wanted.sequences = (int32_t)p[DNN_SEQUENCES];
    wanted.num_attention_heads = (int32_t)p[DNN_HEADS];
    wanted.num_key_value_heads = (int32_t)p[DNN_KV_HEADS];
    wanted.head_dim = (int32_t)p[DNN_HEAD_DIM];
    wanted.causal = (int32_t)p[DNN_CAUSAL];
    wanted.backward = (int32_t)p[DNN_BACKWARD];
    wanted.wants_lse = (int32_t)p[DNN_WANTS_LSE];
    memcpy(&wanted.scale, &p[DNN_SCALE], sizeof wanted.scale);
    const planned *plan = NULL;
    LK_TRY(open_device(device));
    LK_TRY(plan_for(device, &wanted, &plan));
    const size_t pitch = (size_t)p[DNN_PITCH] * sizeof(int32_t);
    const size_t borders = (LK_CUDNN_TENSORS - LK_CUDNN_LENGTHS) * pitch, space = launch->buffers[DNN_SPACE].bytes;
    if (space < borders || plan->workspace_bytes > space - borders) {
        char problem[LK_CUDNN_PROBLEM];
        snprintf(problem, sizeof problem, "it wants %zu bytes of workspace, %zu are planned", plan->workspace_bytes,
                 space - borders);
        return fail(device, LK_CUDNN_UNSUPPORTED, problem);
    }
    for (int i = 0; i < LK_CUDNN_TENSORS; i++) {
        const lk_binding *binding = &launch->buffers[LK_MIN(i, (int)DNN_SPACE)];
        bool is_used =
            wanted.backward || i <= LK_CUDNN_O || i >= LK_CUDNN_LENGTHS || (i == LK_CUDNN_LSE && wanted.wants_lse);
        CUdeviceptr at = binding->buffer->memory + binding->offset;
        at += i >= LK_CUDNN_LENGTHS ? (CUdeviceptr)(i - LK_CUDNN_LENGTHS) * pitch : 0;
        call->tensors[i] = is_used ? (void *)(uintptr_t)at : NULL;
    }
    call->workspace = (char *)call->tensors[LK_CUDNN_LENGTHS] + borders;
    call->plan = plan->plan;
    return LK_OK;
}

static lk_status prepare(lk_cuda_device *device, const lk_launch *launch, void **out) {
    attention_call *call = lk_calloc(device->device.context, 1, sizeof *call);
    *out = call;
    return call != NULL ? place(device, launch, call)
                        : lk_out_of_memory(device->device.context, sizeof *call, "an attention");
}

static lk_status start(lk_cuda_device *device, void *prepared) {
    const attention_call *call = prepared;
    char problem[LK_CUDNN_PROBLEM] = "";
    int result = dnn.lk_cudnn_plan_run(call->plan, call->tensors, call->workspace, device->stream, problem);
    return result == LK_CUDNN_SUCCESS ? LK_OK : fail(device, result, problem);
}

static void release(lk_cuda_device *device, void *prepared) {
    lk_free(device->device.context, prepared);
}

const lk_cuda_library lk_cuda_cudnn = {LK_CUDA_DNN_FILE, prepare, start, release};
