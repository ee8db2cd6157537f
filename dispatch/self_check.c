#include "dispatch/self_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/disk_cache.h"
#include "dispatch/devices.h"
#include "dispatch/node_case.h"

/* The reference must not take longer than a moment; 128 tokens through the backward of an 8B model's attention do. */
static const double MAX_FLOPS = 4e8;
enum { MAX_ELEMENTS = 1 << 22 };

typedef enum verdict_kind {
    SOUND = 1,
    WRONG = 2,
    NOT_COMPILED = 3 /* not kept on disk: it may have been bad luck */
} verdict_kind;

typedef struct verdict {
    uint64_t kernel, of; /* hash of its name; the key of the case */
    uint64_t kind;
} verdict;

struct lk_self_check {
    lk_context *context;
    uint64_t identity;
    verdict *verdicts;
    size_t count;
    int made;
    bool is_new, never, always;
};

static uint64_t hash_of(const lk_kernel *kernel) {
    return lk_hash64(kernel->name, strlen(kernel->name), 1);
}

static lk_status add(lk_self_check *self, verdict added) {
    verdict *grown = lk_realloc(self->context, self->verdicts, self->count + 1, sizeof *grown);
    if (grown == NULL) {
        return lk_out_of_memory(self->context, (self->count + 1) * sizeof *grown, "checks of kernels");
    }
    self->verdicts = grown;
    self->verdicts[self->count++] = added;
    return LK_OK;
}

static lk_status read_known(lk_self_check *self) {
    lk_disk_cache_entry entry;
    lk_status status = LK_OK;
    if (self->always || !lk_disk_cache_open(self->context, "checks", self->identity, &entry)) {
        return LK_OK;
    }
    for (size_t i = 0; i + sizeof(verdict) <= entry.bytes && status == LK_OK; i += sizeof(verdict)) {
        verdict known;
        memcpy(&known, entry.data + i, sizeof known);
        status = add(self, known);
    }
    lk_disk_cache_close(&entry);
    return status;
}

lk_status lk_self_check_create(lk_context *context, const lk_device_caps *caps, lk_self_check **out) {
    const char *setting = getenv("LORIKEET_SELF_CHECK");
    *out = lk_calloc(context, 1, sizeof **out);
    if (*out == NULL) {
        return lk_out_of_memory(context, sizeof **out, "checks of kernels");
    }
    (*out)->context = context;
    (*out)->identity = lk_device_identity(caps);
    (*out)->never = setting != NULL && strcmp(setting, "0") == 0;
    (*out)->always = setting != NULL && strcmp(setting, "always") == 0;
    lk_status status = (*out)->never ? LK_OK : read_known(*out);
    if (status != LK_OK) {
        lk_self_check_destroy(*out);
        *out = NULL;
    }
    return status;
}

static void keep(lk_self_check *self) {
    size_t kept = 0;
    for (size_t i = 0; i < self->count; i++) {
        if (self->verdicts[i].kind != NOT_COMPILED) {
            self->verdicts[kept++] = self->verdicts[i];
        }
    }
    lk_disk_cache_store(self->context, "checks", self->identity, self->verdicts, kept * sizeof *self->verdicts);
}

void lk_self_check_destroy(lk_self_check *self) {
    if (self != NULL) {
        if (self->is_new) {
            keep(self);
        }
        lk_free(self->context, self->verdicts);
        lk_free(self->context, self);
    }
}

bool lk_self_check_allows(const lk_self_check *self, const lk_kernel *kernel, lk_refusal *why) {
    uint64_t hash = hash_of(kernel);
    for (size_t i = 0; i < self->count; i++) {
        if (self->verdicts[i].kernel == hash && self->verdicts[i].kind != SOUND) {
            return lk_refuse(why, self->verdicts[i].kind == WRONG
                                      ? "its check on this device gave wrong results"
                                      : "it could not be compiled for its check on this device");
        }
    }
    return true;
}

int lk_self_check_made(const lk_self_check *self) {
    return self->made;
}

static bool is_affordable(const lk_node *node) {
    for (int i = 0; i < node->num_inputs + node->num_outputs; i++) {
        const lk_tensor *tensor = i < node->num_inputs ? node->inputs[i] : node->outputs[i - node->num_inputs];
        if (tensor != NULL && lk_tensor_elements(tensor) > MAX_ELEMENTS) {
            return false;
        }
    }
    return lk_node_flops(node) <= MAX_FLOPS;
}

/* The smallest case that the kernel takes; UNSUPPORTED: none is small enough. */
static lk_status make_case(lk_self_check *self, const lk_device_caps *caps, const lk_kernel *kernel,
                           const lk_node *node, lk_node_case *out) {
    for (int size = LK_CASE_SMALL; size <= LK_CASE_WHOLE; size++) {
        if (size == LK_CASE_WHOLE && !is_affordable(node)) {
            break;
        }
        lk_status status = lk_node_case_make(self->context, node, (lk_case_size)size, out);
        if (status == LK_OK && is_affordable(&out->node) &&
            (kernel->supports == NULL || kernel->supports(caps, &out->node, NULL))) {
            return LK_OK;
        }
        if (status == LK_OK) {
            lk_node_case_free(out);
        } else if (status != LK_STATUS_UNSUPPORTED) {
            return status;
        }
    }
    return LK_STATUS_UNSUPPORTED;
}

static lk_status run_case(lk_self_check *self, lk_device *device, const lk_kernel *kernel, const lk_node_case *work,
                          verdict_kind *kind) {
    char problem[160] = "";
    lk_case_run run;
    lk_status status = lk_case_run_open(work, device, kernel, &run);
    if (status != LK_OK) {
        if (status == LK_STATUS_OUT_OF_MEMORY) {
            return status;
        }
        lk_log(self->context, LK_LOG_WARNING, "%s cannot be used on %s:%d: %s", kernel->name, device->caps.backend,
               (int)device->caps.index, lk_error_message(self->context));
        *kind = NOT_COMPILED;
        return LK_OK;
    }
    status = lk_case_run_once(&run, NULL);
    if (status == LK_OK) {
        status = lk_case_run_judge(&run, problem, sizeof problem);
    }
    lk_case_run_close(&run);
    if (status != LK_OK) {
        return lk_fail_within(self->context, status, "checking %s", kernel->name);
    }
    *kind = problem[0] == '\0' ? SOUND : WRONG;
    if (*kind == WRONG) {
        lk_log(self->context, LK_LOG_WARNING,
               "%s computes wrong results on %s:%d %s (%s) and is not used; please report it (%s)", kernel->name,
               device->caps.backend, (int)device->caps.index, device->caps.name, device->caps.driver, problem);
    }
    return LK_OK;
}

static const verdict *find(const lk_self_check *self, uint64_t kernel, uint64_t of) {
    for (size_t i = 0; i < self->count; i++) {
        if (self->verdicts[i].kernel == kernel && self->verdicts[i].of == of) {
            return &self->verdicts[i];
        }
    }
    return NULL;
}

lk_status lk_self_check_kernel(lk_self_check *self, lk_device *device, const lk_kernel *kernel, const lk_node *node,
                               bool *sound) {
    *sound = true;
    if (self->never) {
        return LK_OK;
    }
    /* nodes that differ only in what a small case does not have share a check; the first look is by the node itself */
    verdict named = {hash_of(kernel), lk_node_key(node) ^ 1, SOUND};
    const verdict *known = find(self, named.kernel, named.of);
    if (known != NULL) {
        *sound = known->kind == SOUND;
        return LK_OK;
    }
    lk_node_case work;
    lk_status status = make_case(self, &device->caps, kernel, node, &work);
    if (status == LK_STATUS_UNSUPPORTED) {
        lk_log(self->context, LK_LOG_DEBUG, "%s is not checked: no case of it is small enough", kernel->name);
    } else if (status != LK_OK) {
        return status;
    } else {
        verdict made = {named.kernel, lk_node_key(&work.node), SOUND};
        known = find(self, made.kernel, made.of);
        if (known == NULL) {
            verdict_kind kind = SOUND;
            status = run_case(self, device, kernel, &work, &kind);
            made.kind = (uint64_t)kind;
            self->made++;
        } else {
            made.kind = known->kind;
        }
        lk_node_case_free(&work);
        LK_TRY(status);
        named.kind = made.kind;
        *sound = made.kind == SOUND;
        if (known == NULL) {
            LK_TRY(add(self, made));
        }
    }
    self->is_new = true;
    return add(self, named);
}
