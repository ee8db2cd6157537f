#include "dispatch/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lk_session_options_init(lk_session_options *options) {
    *options = (lk_session_options){.struct_size = sizeof *options};
}

lk_session_options lk_session_options_chosen(const lk_session_options *options) {
    lk_session_options chosen;
    lk_session_options_init(&chosen);
    if (options != NULL) {
        memcpy(&chosen, options, LK_MIN(options->struct_size, sizeof chosen));
    }
    chosen.device = chosen.device != NULL ? chosen.device : getenv("LORIKEET_DEVICE");
    chosen.kernels = chosen.kernels != NULL ? chosen.kernels : getenv("LORIKEET_KERNELS");
    return chosen;
}

bool lk_session_wants_auto(const lk_session_options *chosen) {
    return chosen->device == NULL || chosen->device[0] == '\0' || strcmp(chosen->device, "auto") == 0;
}

/* ---- devices ---- */

/* A description in a device's place. */
static lk_status describe_device(lk_session *session, const lk_device_caps *caps, int32_t threads, lk_device **out) {
    lk_device *device = lk_calloc(session->context, 1, sizeof *device);
    if (device == NULL) {
        return lk_out_of_memory(session->context, sizeof *device, "a device");
    }
    *device = (lk_device){lk_backend_find(caps->backend), session->context, *caps};
    if (threads > 0 && strcmp(caps->backend, "cpu") == 0) { /* as its open() does */
        device->caps.flops_f32 *= (double)threads / LK_MAX(caps->threads, 1);
        device->caps.flops_16 *= (double)threads / LK_MAX(caps->threads, 1);
        device->caps.threads = threads;
    }
    *out = device;
    return LK_OK;
}

static lk_status add_device(lk_session *session, const lk_device_caps *caps, int32_t threads) {
    const lk_backend *backend = lk_backend_find(caps->backend);
    lk_device_options options = {sizeof options, threads};
    lk_device **place = &session->devices[session->num_devices];
    LK_TRY(session->planned_only ? describe_device(session, caps, threads, place)
                                 : backend->open(session->context, caps, &options, place));
    int index = session->num_devices++;
    LK_TRY(lk_tuned_load(session->context, &(*place)->caps, &session->tuned[index]));
    return backend->by_drivers ? lk_self_check_create(session->context, caps, &session->checks[index]) : LK_OK;
}

static void remove_devices(lk_session *session) {
    while (session->num_devices > 0) {
        lk_device *device = session->devices[--session->num_devices];
        lk_self_check_destroy(session->checks[session->num_devices]);
        lk_tuned_destroy(session->tuned[session->num_devices]);
        session->checks[session->num_devices] = NULL;
        session->tuned[session->num_devices] = NULL;
        if (session->planned_only) {
            lk_free(session->context, device);
        } else {
            device->backend->close(device);
        }
    }
}

static lk_status add_first_of(lk_session *session, const char *name, int32_t threads) {
    const lk_backend *backend = lk_backend_find(name);
    lk_device_caps caps[1];
    int count = 0;
    lk_status status = backend ? lk_devices_of(session->context, backend, caps, 1, &count) : LK_STATUS_UNAVAILABLE;
    if (status == LK_STATUS_UNAVAILABLE || (status == LK_OK && count == 0)) {
        return LK_OK; /* a fallback that is not there is not missed */
    }
    return status == LK_OK ? add_device(session, &caps[0], threads) : status;
}

/* The main device and those behind it. */
static lk_status add_devices(lk_session *session, const lk_device_caps *caps, int32_t threads) {
    LK_TRY(add_device(session, caps, threads));
    if (strcmp(caps->backend, "cpu") != 0 && strcmp(caps->backend, "reference") != 0) {
        LK_TRY(add_first_of(session, "cpu", threads));
    }
    if (strcmp(caps->backend, "reference") != 0) {
        LK_TRY(add_first_of(session, "reference", threads));
    }
    const lk_device_caps *main = &session->devices[0]->caps;
    snprintf(session->name, sizeof session->name, "%s:%d %s (%d %s)", main->backend, main->index, main->name,
             main->threads, main->is_cpu ? "threads" : "compute units");
    return LK_OK;
}

/* ---- sessions ---- */

/* Which of the session's devices this is; -1: none. */
static int index_of(const lk_session *session, const lk_device_caps *caps) {
    for (int i = 0; i < session->num_devices; i++) {
        const lk_device_caps *own = &session->devices[i]->caps;
        if (own->index == caps->index && strcmp(own->backend, caps->backend) == 0) {
            return i;
        }
    }
    return -1;
}

static double tuned(void *user, const lk_device_caps *caps, const lk_kernel *kernel, const lk_node *node) {
    const lk_session *session = user;
    int device = index_of(session, caps);
    return device >= 0 && session->tuned[device] != NULL ? lk_tuned_find(session->tuned[device], kernel, node) : -1.0;
}

static bool is_allowed(void *user, const lk_device_caps *caps, const lk_kernel *kernel, lk_refusal *why) {
    const lk_session *session = user;
    const char *denied = lk_denied(caps, kernel->name);
    int device = index_of(session, caps);
    return denied != NULL ? lk_refuse(why, denied)
                          : device < 0 || session->checks[device] == NULL ||
                                lk_self_check_allows(session->checks[device], kernel, why);
}

static lk_status check(void *user, lk_device *device, const lk_kernel *kernel, const lk_node *node, bool *sound) {
    lk_session *session = user;
    int index = index_of(session, &device->caps);
    *sound = true;
    return index >= 0 && session->checks[index] != NULL
               ? lk_self_check_kernel(session->checks[index], device, kernel, node, sound)
               : LK_OK;
}

static lk_status make(lk_context *context, const lk_session_options *chosen, bool planned_only, lk_session **out) {
    *out = NULL;
    if (chosen->threads < 0 || chosen->threads > 1024) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "threads is %d, expected 0 to 1024", chosen->threads);
    }
    lk_session *session = lk_calloc(context, 1, sizeof *session);
    if (session == NULL) {
        return lk_out_of_memory(context, sizeof *session, "a session");
    }
    session->context = context;
    session->planned_only = planned_only;
    session->preferences.allows = is_allowed;
    session->preferences.check = check;
    session->preferences.tuned = tuned;
    session->preferences.user = session;
    if (chosen->kernels != NULL && chosen->kernels[0] != '\0') {
        session->kernels = lk_strdup(context, chosen->kernels);
        if (session->kernels == NULL) {
            lk_free(context, session);
            return lk_out_of_memory(context, strlen(chosen->kernels), "the kernels option");
        }
        session->preferences.override = session->kernels;
    }
    *out = session;
    return LK_OK;
}

lk_status lk_session_create_on(lk_context *context, const lk_session_options *chosen, const lk_device_caps *caps,
                               int count, const char *reason, lk_session **out) {
    lk_session *session;
    *out = NULL;
    LK_TRY(make(context, chosen, false, &session));
    snprintf(session->reason, sizeof session->reason, "%s", reason);
    lk_status status = lk_fail(context, LK_STATUS_UNAVAILABLE, "there is no device");
    for (int i = 0; i < count && status != LK_OK; i++) {
        status = add_devices(session, &caps[i], chosen->threads);
        if (status != LK_OK) {
            remove_devices(session);
            if (i + 1 < count) {
                lk_log(context, LK_LOG_WARNING, "%s; the next device is taken", lk_error_message(context));
            }
        }
    }
    if (status != LK_OK) {
        lk_session_destroy(session);
        return status;
    }
    *out = session;
    return LK_OK;
}

lk_status lk_session_create_planned(lk_context *context, const lk_session_options *chosen, const lk_device_caps *caps,
                                    lk_session **out) {
    LK_TRY(make(context, chosen, true, out));
    lk_status status = lk_session_plan_on(*out, chosen, caps);
    if (status != LK_OK) {
        lk_session_destroy(*out);
        *out = NULL;
    }
    return status;
}

lk_status lk_session_plan_on(lk_session *session, const lk_session_options *chosen, const lk_device_caps *caps) {
    remove_devices(session);
    return add_devices(session, caps, chosen->threads);
}

/* "cpu", "opencl:1" */
static lk_status find_named(lk_context *context, const char *text, lk_device_caps *out) {
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
    lk_device_caps caps[LK_MAX_LISTED];
    int count = 0;
    LK_TRY(lk_devices_of(context, backend, caps, LK_MAX_LISTED, &count));
    if (index >= LK_MIN(count, (int)LK_MAX_LISTED)) {
        return lk_fail(context, LK_STATUS_UNAVAILABLE, "there is no device %s: %s has %d", text, name, count);
    }
    *out = caps[index];
    const char *denied = lk_denied(out, "device");
    if (denied != NULL) {
        lk_log(context, LK_LOG_WARNING, "device %s (%s) is known not to work: %s", text, out->name, denied);
    }
    return LK_OK;
}

static int by_rate(const void *a, const void *b) {
    const lk_device_caps *x = a, *y = b;
    return (x->flops_f32 < y->flops_f32) - (x->flops_f32 > y->flops_f32);
}

/* Without a graph to estimate: the device with the highest rate. */
static lk_status create_fastest(lk_context *context, const lk_session_options *chosen, lk_session **out) {
    lk_device_caps caps[LK_MAX_LISTED];
    int count;
    lk_text reason;
    lk_text_init(&reason, context);
    lk_text passed_over;
    lk_text_init(&passed_over, context);
    lk_status status = lk_devices_for_auto(context, chosen->exclude, &passed_over, caps, &count);
    if (status == LK_OK && count == 0) {
        count = 1;
        status = find_named(context, "reference", &caps[0]);
        lk_text_printf(&reason, "there is no other device");
    } else if (status == LK_OK) {
        qsort(caps, (size_t)count, sizeof *caps, by_rate);
        lk_text_printf(&reason, "the fastest of %d device%s by its estimated rate, %.0f GFLOP/s", count,
                       count == 1 ? "" : "s", caps[0].flops_f32 * 1e-9);
    }
    lk_text_append(&reason, passed_over.data ? passed_over.data : "", passed_over.length);
    status = status == LK_OK ? lk_text_status(&reason) : status;
    if (status == LK_OK) {
        status = lk_session_create_on(context, chosen, caps, count, reason.data, out);
    }
    lk_text_free(&passed_over);
    lk_text_free(&reason);
    return status;
}

lk_status lk_session_create(lk_context *context, const lk_session_options *options, lk_session **out) {
    lk_session_options chosen = lk_session_options_chosen(options);
    *out = NULL;
    if (lk_session_wants_auto(&chosen)) {
        return create_fastest(context, &chosen, out);
    }
    lk_device_caps caps;
    LK_TRY(find_named(context, chosen.device, &caps));
    return lk_session_create_on(context, &chosen, &caps, 1, "asked for by name", out);
}

void lk_session_destroy(lk_session *session) {
    if (session != NULL) {
        remove_devices(session);
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
