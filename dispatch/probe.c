/* lk_probe: what is said of the devices that are here. */
#include "dispatch/devices.h"

static json_t *features_of(const lk_backend *backend, const lk_device_caps *caps) {
    json_t *list = json_array();
    for (int bit = 0; backend->features != NULL && backend->features[bit] != NULL; bit++) {
        if (caps->features >> bit & 1) {
            json_array_append_new(list, json_string(backend->features[bit]));
        }
    }
    return list;
}

/* Features that could be there, with what they lack. */
static json_t *absent_of(const lk_backend *backend, const lk_device_caps *caps) {
    json_t *list = json_array();
    for (int bit = 0; backend->absent != NULL && backend->features[bit] != NULL; bit++) {
        const char *reason = caps->features >> bit & 1 ? NULL : backend->absent(bit);
        if (reason != NULL) {
            json_array_append_new(list, json_pack("{s:s, s:s}", "what", backend->features[bit], "reason", reason));
        }
    }
    return list;
}

/* What the deny list holds against a device: for the whole of it, its features and its kernels. */
static json_t *denied_of(const lk_backend *backend, const lk_device_caps *caps) {
    json_t *list = json_array();
    int num_rows;
    const lk_kernel *rows = backend->kernels(&num_rows);
    const char *reason = lk_denied(caps, "device");
    if (reason != NULL) {
        json_array_append_new(list, json_pack("{s:s, s:s}", "what", "device", "reason", reason));
    }
    for (int bit = 0; backend->features != NULL && backend->features[bit] != NULL; bit++) {
        reason = lk_denied(caps, backend->features[bit]);
        if (reason != NULL) {
            json_array_append_new(list, json_pack("{s:s, s:s}", "what", backend->features[bit], "reason", reason));
        }
    }
    for (int i = 0; i < num_rows; i++) {
        reason = lk_denied(caps, rows[i].name);
        if (reason != NULL) {
            json_array_append_new(list, json_pack("{s:s, s:s}", "what", rows[i].name, "reason", reason));
        }
    }
    return list;
}

static json_t *device_json(const lk_backend *backend, const lk_device_caps *caps) {
    json_t *device = json_pack(
        "{s:i, s:s, s:s, s:b, s:b, s:i, s:I, s:f, s:f, s:f, s:f}", "index", (int)caps->index, "name", caps->name,
        "driver", caps->driver, "is_cpu", caps->is_cpu, "host_memory", caps->host_memory, "threads", (int)caps->threads,
        "memory_bytes", (json_int_t)caps->memory_bytes, "estimated_flops_f32", caps->flops_f32, "estimated_flops_16bit",
        caps->flops_16, "estimated_bandwidth", caps->bandwidth, "estimated_launch_seconds", caps->launch_seconds);
    const struct {
        const char *name;
        size_t value;
    } sizes[] = {
        {"max_buffer_bytes", caps->max_buffer_bytes == SIZE_MAX ? 0 : caps->max_buffer_bytes},
        {"l1_bytes", caps->l1_bytes},
        {"l2_bytes", caps->l2_bytes},
        {"l3_bytes", caps->l3_bytes},
        {"shared_bytes", caps->shared_bytes},
        {"subgroup_size", (size_t)LK_MAX(caps->subgroup_size, 0)},
        {"max_group_size", (size_t)LK_MAX(caps->max_group_size, 0)},
        {"compute_capability", (size_t)LK_MAX(caps->capability, 0)},
    };
    for (size_t i = 0; i < LK_COUNT(sizes) && device != NULL; i++) {
        if (sizes[i].value > 0) { /* 0: unknown, without limit, or not a thing of such devices */
            json_object_set_new(device, sizes[i].name, json_integer((json_int_t)sizes[i].value));
        }
    }
    json_object_set_new(device, "features", features_of(backend, caps));
    json_object_set_new(device, "absent", absent_of(backend, caps));
    json_object_set_new(device, "denied", denied_of(backend, caps));
    return device;
}

static json_t *backend_json(lk_context *context, const lk_backend *backend) {
    lk_device_caps caps[LK_MAX_LISTED];
    int count = 0;
    lk_status status = lk_devices_of(context, backend, caps, LK_MAX_LISTED, &count);
    json_t *devices = json_array();
    for (int i = 0; status == LK_OK && i < LK_MIN(count, (int)LK_MAX_LISTED); i++) {
        json_array_append_new(devices, device_json(backend, &caps[i]));
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:o}", "name", backend->name, "summary", backend->summary, "status",
                     lk_status_name(status), "reason", status == LK_OK ? "" : lk_error_message(context), "devices",
                     devices);
}

static const char *string(const json_t *object, const char *key) {
    const char *value = json_string_value(json_object_get(object, key));
    return value != NULL ? value : "";
}

static double number(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

static void print_size(const json_t *device, const char *key, const char *what, lk_text *text) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double bytes = number(device, key);
    size_t unit = 0;
    for (; bytes >= 1024.0 && unit + 1 < LK_COUNT(units); unit++) {
        bytes /= 1024.0;
    }
    if (bytes > 0.0) {
        lk_text_printf(text, ", %.4g %s %s", bytes, units[unit], what);
    }
}

static void print_count(const json_t *device, const char *key, const char *what, lk_text *text) {
    if (number(device, key) > 1.0) {
        lk_text_printf(text, ", %s of %.0f", what, number(device, key));
    }
}

static void print_device(const char *backend, const json_t *device, lk_text *text) {
    bool is_cpu = json_is_true(json_object_get(device, "is_cpu"));
    size_t i;
    json_t *item;
    lk_text_printf(text, "  %s:%.0f  %s\n", backend, number(device, "index"), string(device, "name"));
    lk_text_printf(text, "      driver    %s\n", string(device, "driver"));
    lk_text_printf(text, "      units     %.0f %s", number(device, "threads"), is_cpu ? "threads" : "compute units");
    print_count(device, "subgroup_size", "subgroups", text);
    print_count(device, "max_group_size", "groups", text);
    print_count(device, "compute_capability", "compute capability 10 *", text);
    lk_text_printf(text, "\n      memory    %s",
                   json_is_true(json_object_get(device, "host_memory")) ? "the host's" : "its own");
    print_size(device, "memory_bytes", "in all", text);
    print_size(device, "max_buffer_bytes", "in one buffer", text);
    print_size(device, "shared_bytes", "shared in a group", text);
    print_size(device, "l1_bytes", "of L1", text);
    print_size(device, "l2_bytes", "of L2", text);
    print_size(device, "l3_bytes", "of L3", text);
    lk_text_printf(text, "\n      features ");
    json_array_foreach(json_object_get(device, "features"), i, item) {
        lk_text_printf(text, " %s", json_string_value(item));
    }
    lk_text_printf(text, "%s\n      estimate  %.4g GFLOP/s (fp32)",
                   json_array_size(json_object_get(device, "features")) == 0 ? " none" : "",
                   number(device, "estimated_flops_f32") * 1e-9);
    if (number(device, "estimated_flops_16bit") > 0.0) {
        lk_text_printf(text, ", %.4g (16 bits)", number(device, "estimated_flops_16bit") * 1e-9);
    }
    lk_text_printf(text, ", %.4g GB/s, %.3g us for a launch\n", number(device, "estimated_bandwidth") * 1e-9,
                   number(device, "estimated_launch_seconds") * 1e6);
    json_array_foreach(json_object_get(device, "absent"), i, item) {
        lk_text_printf(text, "      without   %s: %s\n", string(item, "what"), string(item, "reason"));
    }
    json_array_foreach(json_object_get(device, "denied"), i, item) {
        lk_text_printf(text, "      not used  %s: %s\n", string(item, "what"), string(item, "reason"));
    }
}

static void print_backend(const json_t *backend, lk_text *text) {
    size_t i;
    json_t *device;
    lk_text_printf(text, "%s: %s\n", string(backend, "name"), string(backend, "summary"));
    if (string(backend, "reason")[0] != '\0') {
        lk_text_printf(text, "  not here: %s\n", string(backend, "reason"));
    }
    json_array_foreach(json_object_get(backend, "devices"), i, device) {
        print_device(string(backend, "name"), device, text);
    }
}

lk_status lk_probe(lk_context *context, bool json, char **text) {
    int num_backends;
    const lk_backend *const *backends = lk_backends(&num_backends);
    json_t *list = json_array();
    lk_text out;
    lk_text_init(&out, context);
    *text = NULL;
    for (int b = 0; b < num_backends; b++) {
        json_t *backend = backend_json(context, backends[b]);
        if (backend == NULL || list == NULL) {
            json_decref(backend);
            json_decref(list);
            return lk_out_of_memory(context, 0, "the list of devices");
        }
        if (!json) {
            print_backend(backend, &out);
        }
        json_array_append_new(list, backend);
    }
    json_t *root = json_pack("{s:o}", "backends", list);
    if (json) {
        lk_json_print(&out, root, JSON_INDENT(2));
        lk_text_append(&out, "\n", 1);
    }
    json_decref(root);
    lk_status status = lk_text_status(&out);
    if (status != LK_OK) {
        lk_text_free(&out);
        return status;
    }
    *text = out.data;
    return LK_OK;
}
