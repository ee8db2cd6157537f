#include "dispatch/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LISTED = 16 };

void lk_session_options_init(lk_session_options *options) {
    *options = (lk_session_options){.struct_size = sizeof *options};
}

static lk_status open_device(lk_session *session, const lk_device_caps *caps, int32_t threads) {
    const lk_backend *backend = lk_backend_find(caps->backend);
    lk_device_options options = {sizeof options, threads};
    LK_TRY(backend->open(session->context, caps, &options, &session->devices[session->num_devices]));
    session->num_devices++;
    return LK_OK;
}

static lk_status open_first_of(lk_session *session, const char *name, int32_t threads) {
    const lk_backend *backend = lk_backend_find(name);
    lk_device_caps caps[1];
    int count = 0;
    lk_status status = backend ? backend->probe(session->context, caps, 1, &count) : LK_STATUS_UNAVAILABLE;
    if (status == LK_STATUS_UNAVAILABLE || (status == LK_OK && count == 0)) {
        return LK_OK; /* a fallback that is not there is not missed */
    }
    return status == LK_OK ? open_device(session, &caps[0], threads) : status;
}

/* "cpu", "opencl:1" */
static lk_status find_named(lk_session *session, const char *text, lk_device_caps *out) {
    lk_context *context = session->context;
    char name[32];
    const char *colon = strchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : strlen(text);
    snprintf(name, sizeof name, "%.*s", (int)LK_MIN(length, sizeof name - 1), text);
    const lk_backend *backend = lk_backend_find(name);
    if (backend == NULL) {
        int count;
        const lk_backend *const *backends = lk_backends(&count);
        char known[192] = "auto";
        for (int i = 0; i < count; i++) {
            size_t used = strlen(known);
            snprintf(known + used, sizeof known - used, ", %s", backends[i]->name);
        }
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "there is no device %s; known are %s", text, known);
    }
    char *end = NULL;
    long index = colon ? strtol(colon + 1, &end, 10) : 0;
    if (colon != NULL && (colon[1] == '\0' || *end != '\0' || index < 0)) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "device %s: the index is not a number", text);
    }
    lk_device_caps caps[MAX_LISTED];
    int count = 0;
    LK_TRY(backend->probe(context, caps, MAX_LISTED, &count));
    if (index >= LK_MIN(count, (int)MAX_LISTED)) {
        return lk_fail(context, LK_STATUS_UNAVAILABLE, "there is no device %s: %s has %d", text, name, count);
    }
    *out = caps[index];
    snprintf(session->reason, sizeof session->reason, "asked for by name");
    return LK_OK;
}

/* The fastest by its estimated arithmetic rate; the specification and the null device are never chosen unasked. */
static lk_status find_best(lk_session *session, lk_device_caps *out) {
    int num_backends, found = 0;
    const lk_backend *const *backends = lk_backends(&num_backends);
    for (int i = 0; i < num_backends; i++) {
        lk_device_caps caps[MAX_LISTED];
        int count = 0;
        if (strcmp(backends[i]->name, "reference") == 0 || strcmp(backends[i]->name, "null") == 0) {
            continue;
        }
        lk_status status = backends[i]->probe(session->context, caps, MAX_LISTED, &count);
        if (status == LK_STATUS_OUT_OF_MEMORY) {
            return status;
        }
        count = status == LK_OK ? count : 0; /* a driver that fails is a device that is not there */
        for (int d = 0; d < LK_MIN(count, (int)MAX_LISTED); d++) {
            if (found++ == 0 || caps[d].flops_f32 > out->flops_f32) {
                *out = caps[d];
            }
        }
    }
    if (found == 0) {
        return find_named(session, "reference", out);
    }
    snprintf(session->reason, sizeof session->reason, "the fastest of %d device%s by its estimated rate, %.0f GFLOP/s",
             found, found == 1 ? "" : "s", out->flops_f32 * 1e-9);
    return LK_OK;
}

static lk_status open_all(lk_session *session, const lk_session_options *options) {
    const char *device = options->device ? options->device : getenv("LORIKEET_DEVICE");
    const char *kernels = options->kernels ? options->kernels : getenv("LORIKEET_KERNELS");
    lk_device_caps caps;
    if (device == NULL || device[0] == '\0' || strcmp(device, "auto") == 0) {
        LK_TRY(find_best(session, &caps));
    } else {
        LK_TRY(find_named(session, device, &caps));
    }
    if (kernels != NULL && kernels[0] != '\0') {
        session->kernels = lk_strdup(session->context, kernels);
        if (session->kernels == NULL) {
            return lk_out_of_memory(session->context, strlen(kernels), "the kernels option");
        }
        session->preferences.override = session->kernels;
    }
    if (options->threads < 0 || options->threads > 1024) {
        return lk_fail(session->context, LK_STATUS_INVALID_ARGUMENT, "threads is %d, expected 0 to 1024",
                       options->threads);
    }
    LK_TRY(open_device(session, &caps, options->threads));
    if (strcmp(caps.backend, "cpu") != 0 && strcmp(caps.backend, "reference") != 0) {
        LK_TRY(open_first_of(session, "cpu", options->threads));
    }
    if (strcmp(caps.backend, "reference") != 0) {
        LK_TRY(open_first_of(session, "reference", options->threads));
    }
    const lk_device_caps *open = &session->devices[0]->caps;
    snprintf(session->name, sizeof session->name, "%s:%d %s (%d %s)", open->backend, open->index, open->name,
             open->threads, open->is_cpu ? "threads" : "compute units");
    return LK_OK;
}

lk_status lk_session_create(lk_context *context, const lk_session_options *options, lk_session **out) {
    *out = NULL;
    lk_session_options chosen;
    lk_session_options_init(&chosen);
    if (options != NULL) {
        memcpy(&chosen, options, LK_MIN(options->struct_size, sizeof chosen));
    }
    lk_session *session = lk_calloc(context, 1, sizeof *session);
    if (session == NULL) {
        return lk_out_of_memory(context, sizeof *session, "a session");
    }
    session->context = context;
    lk_status status = open_all(session, &chosen);
    if (status != LK_OK) {
        lk_session_destroy(session);
        return status;
    }
    *out = session;
    return LK_OK;
}

void lk_session_destroy(lk_session *session) {
    if (session != NULL) {
        for (int i = session->num_devices - 1; i >= 0; i--) {
            session->devices[i]->backend->close(session->devices[i]);
        }
        lk_free(session->context, session->kernels);
        lk_free(session->context, session);
    }
}

const char *lk_session_device_name(const lk_session *session) {
    return session->name;
}

const char *lk_session_reason(const lk_session *session) {
    return session->reason;
}

lk_status lk_session_compile(lk_session *session, lk_graph *graph, bool plan_only, lk_program **out) {
    lk_program_options options = {&session->preferences, session->devices, session->num_devices, plan_only};
    return lk_program_compile(session->context, graph, &options, out);
}
