/* Devices that fail: with --device auto a command gives them up, and goes on with the next one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

void cli_watch_devices(cli_workspace *workspace) {
    lk_session_options *options = &workspace->session_options;
    const char *device = options->device != NULL ? options->device : getenv("LORIKEET_DEVICE");
    workspace->is_auto = device == NULL || device[0] == '\0' || strcmp(device, "auto") == 0;
    options->exclude = workspace->lost;
}

/* The device of the session: "vulkan:0"; "" before there is one. */
static void device_label(const cli_workspace *workspace, char *label, size_t size) {
    const char *name = workspace->session != NULL ? lk_session_device_name(workspace->session) : "";
    snprintf(label, size, "%.*s", (int)strcspn(name, " "), name);
}

bool cli_may_lose_device(const cli_workspace *workspace) {
    char label[64];
    device_label(workspace, label, sizeof(label));
    return label[0] != '\0' && strncmp(label, "cpu", 3) != 0 && strncmp(label, "reference", 9) != 0;
}

bool cli_is_device_failure(const cli_workspace *workspace, lk_status status) {
    return (status == LK_STATUS_DEVICE || status == LK_STATUS_OUT_OF_MEMORY) && cli_may_lose_device(workspace);
}

int cli_checked(cli_workspace *workspace, lk_status status) {
    if (cli_is_device_failure(workspace, status)) {
        workspace->failure = status;
        if (workspace->is_auto) { /* cli_give_up_device() says what comes of it */
            cli_message("warning: %s", lk_error_message(workspace->context));
            return CLI_FAILED;
        }
    }
    return status == LK_OK ? CLI_DONE : cli_library_failed(workspace->context, status);
}

bool cli_give_up_device(cli_workspace *workspace, const char *consequence) {
    char label[64];
    device_label(workspace, label, sizeof(label));
    size_t used = strlen(workspace->lost);
    if (!workspace->is_auto || used + strlen(label) + 2 >= sizeof(workspace->lost)) {
        return false;
    }
    snprintf(workspace->lost + used, sizeof(workspace->lost) - used, "%s%s", used > 0 ? "," : "", label);
    cli_message("warning: %s is given up; %s", label, consequence);
    return true;
}
