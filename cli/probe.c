/* lorikeet probe: every backend of this build, its devices or why there are none, and what `auto` takes. */
#include <inttypes.h>
#include <stdio.h>

#include "cli.h"
#include "lorikeet_backend.h"

enum { MAX_DEVICES = 16 };

static const char description[] =
    "Lists the backends of this build with the devices that each one finds, or what it lacks, and the device\n"
    "that a run would use, with the reason.";

static json_t *device_json(const lk_device_caps *caps) {
    return json_pack("{s:I,s:s,s:s,s:I,s:I,s:f,s:f,s:f}", "index", (json_int_t)caps->index, "name", caps->name,
                     "driver", caps->driver, "threads", (json_int_t)caps->threads, "memory_bytes",
                     (json_int_t)caps->memory_bytes, "estimated_flops_f32", caps->flops_f32, "estimated_flops_16bit",
                     caps->flops_16, "estimated_bandwidth", caps->bandwidth);
}

static void print_device(const lk_device_caps *caps) {
    char memory[32];
    printf("  %s:%" PRId32 "  %s\n      %s%s%" PRId32 " %s, %s of memory; estimated %.0f GFLOP/s (fp32), %.0f GB/s\n",
           caps->backend, caps->index, caps->name, caps->driver, caps->driver[0] != '\0' ? "; " : "", caps->threads,
           caps->is_cpu ? "threads" : "compute units", cli_bytes((double)caps->memory_bytes, memory),
           caps->flops_f32 / 1e9, caps->bandwidth / 1e9);
}

/* One backend as JSON, or printed where json is NULL. */
static void probe_backend(lk_context *context, const lk_backend *backend, json_t *json) {
    lk_device_caps caps[MAX_DEVICES];
    int count = 0;
    lk_status status = backend->probe(context, caps, MAX_DEVICES, &count);
    count = count < MAX_DEVICES ? count : MAX_DEVICES;
    const char *reason = status == LK_OK ? "" : lk_error_message(context);
    if (json == NULL) {
        printf("%s: %s\n", backend->name, backend->summary);
        if (status != LK_OK) {
            printf("  not here: %s\n", reason);
        }
        for (int i = 0; status == LK_OK && i < count; i++) {
            print_device(&caps[i]);
        }
        return;
    }
    json_t *devices = json_array();
    for (int i = 0; status == LK_OK && i < count; i++) {
        json_array_append_new(devices, device_json(&caps[i]));
    }
    json_array_append_new(json, json_pack("{s:s,s:s,s:s,s:s,s:o}", "name", backend->name, "summary", backend->summary,
                                          "status", lk_status_name(status), "reason", reason, "devices", devices));
}

static int run(cli_workspace *workspace, bool as_json) {
    int result = cli_open_context(workspace);
    if (result != CLI_DONE) {
        return result;
    }
    json_t *backends_json = as_json ? json_array() : NULL;
    int count;
    const lk_backend *const *backends = lk_backends(&count);
    for (int i = 0; i < count; i++) {
        probe_backend(workspace->context, backends[i], backends_json);
    }
    lk_status status = lk_session_create(workspace->context, &workspace->session_options, &workspace->session);
    if (status != LK_OK) {
        json_decref(backends_json);
        return cli_library_failed(workspace->context, status);
    }
    const char *name = lk_session_device_name(workspace->session);
    const char *reason = lk_session_reason(workspace->session);
    if (as_json) {
        return cli_print_json(
            json_pack("{s:o,s:{s:s,s:s}}", "backends", backends_json, "chosen", "device", name, "reason", reason));
    }
    printf("\nwould be used: %s\n  because %s\n", name, reason);
    return CLI_DONE;
}

int cli_command_probe(int argc, const char **argv) {
    bool json = false;
    cli_workspace workspace;
    cli_options options = {.usage = "[OPTION...]", .description = description};
    options.examples = "  lorikeet probe\n  lorikeet probe --device vulkan";
    cli_workspace_init(&workspace);
    cli_group(&options, "Output:");
    cli_flag(&options, "json", 0, &json, true, "print it as JSON");
    cli_workspace_options(&workspace, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        result = run(&workspace, json);
    }
    cli_workspace_close(&workspace);
    cli_options_free(&options);
    return result;
}
