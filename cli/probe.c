/* lorikeet probe: every backend of this build, its devices or why there are none, and what `auto` takes. */
#include <stdio.h>

#include "cli.h"

static const char description[] =
    "Lists the backends of this build with the devices that each one finds and what matters of them, or what it\n"
    "lacks and how to get it, and the device that a run would use, with the reason. 'lorikeet plan' chooses and\n"
    "explains for one model.\n\n"
    "Environment: LORIKEET_DEVICE and LORIKEET_KERNELS stand for --device and --kernels; LORIKEET_DENY_LIST=0 uses\n"
    "what is known to break on a device, too.";

static int run(cli_workspace *workspace, bool as_json) {
    int result = cli_open_context(workspace);
    if (result != CLI_DONE) {
        return result;
    }
    char *text;
    lk_status status = lk_probe(workspace->context, as_json, &text);
    if (status != LK_OK) {
        return cli_library_failed(workspace->context, status);
    }
    json_t *found = as_json ? json_loads(text, 0, NULL) : NULL;
    if (!as_json) {
        fputs(text, stdout);
    }
    lk_release(workspace->context, text);
    status = lk_session_create(workspace->context, &workspace->session_options, &workspace->session);
    if (status != LK_OK) {
        json_decref(found);
        return cli_library_failed(workspace->context, status);
    }
    const char *name = lk_session_device_name(workspace->session);
    const char *reason = lk_session_reason(workspace->session);
    if (as_json) {
        json_object_set_new(found, "chosen", json_pack("{s:s,s:s}", "device", name, "reason", reason));
        return cli_print_json(found);
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
