#include "adapters.h"

#include <stdlib.h>
#include <string.h>

/* -1: the base; -2 after a message. */
static int32_t find(const cli_adapters *adapters, const char *name) {
    const char *known[CLI_MAX_TEXTS + 2] = {"none"};
    for (int i = 0; i < adapters->count; i++) {
        if (strcmp(adapters->names[i], name) == 0) {
            return i;
        }
        known[i + 1] = adapters->names[i];
    }
    if (strcmp(name, "none") == 0) {
        return -1;
    }
    const char *closest = cli_closest(name, known);
    cli_failed("there is no adapter '%s'%s%s%s", name, closest != NULL ? "; did you mean '" : "",
               closest != NULL ? closest : "", closest != NULL ? "'?" : "");
    return -2;
}

static int open_one(cli_adapters *adapters, cli_workspace *workspace, const char *text) {
    const char *equals = strchr(text, '='), *folder = equals != NULL ? equals + 1 : text;
    size_t length = equals != NULL ? (size_t)(equals - text) : strlen(text);
    char *name = calloc(length + 1, 1);
    if (name == NULL) {
        return cli_failed("out of memory");
    }
    memcpy(name, text, length);
    adapters->names[adapters->count] = name;
    for (int i = 0; i < adapters->count; i++) {
        if (strcmp(adapters->names[i], name) == 0) {
            int result = cli_failed("--adapter %s: the name %s is taken", text, name);
            free(name);
            return result;
        }
    }
    lk_status status = lk_adapter_load(workspace->model, folder, &adapters->items[adapters->count++]);
    return status == LK_OK ? CLI_DONE : cli_library_failed(workspace->context, status);
}

int cli_adapters_open(cli_adapters *adapters, cli_workspace *workspace, const cli_texts *texts) {
    int result = CLI_DONE;
    for (int i = 0; i < texts->count && result == CLI_DONE; i++) {
        result = open_one(adapters, workspace, texts->items[i]);
    }
    if (result != CLI_DONE) {
        return result;
    }
    lk_status status = lk_adapter_mix(adapters->items, (size_t)adapters->count, &workspace->adapter);
    return status == LK_OK ? CLI_DONE : cli_library_failed(workspace->context, status);
}

int cli_adapters_choose(const cli_adapters *adapters, const cli_prompts *prompts, const char *use, int32_t *choices) {
    for (size_t i = 0; i < prompts->count; i++) {
        const char *name = json_string_value(json_object_get(prompts->rows[i], "adapter"));
        name = name != NULL ? name : use;
        choices[i] = name != NULL ? find(adapters, name) : 0;
        if (choices[i] < -1) {
            return CLI_FAILED;
        }
    }
    return CLI_DONE;
}

void cli_adapters_close(cli_adapters *adapters) {
    for (int i = 0; i < adapters->count; i++) {
        lk_adapter_destroy(adapters->items[i]);
        free(adapters->names[i]);
    }
}
