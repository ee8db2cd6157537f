/* gpu_report FOLDER [small]: times operations and training on --device cuda, and writes FOLDER/timings.json and a table
 * on stdout. Exit status 1 when a part failed; what was measured before is written all the same. */
#include "tests/gpu/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double number(const json_t *row, const char *key) {
    return json_number_value(json_object_get(row, key));
}

static const char *text(const json_t *row, const char *key) {
    const char *value = json_string_value(json_object_get(row, key));
    return value != NULL ? value : "";
}

static int print(const report *self) {
    size_t i;
    json_t *row;
    int failures = 0;
    printf("%s\n\n%-44s %-32s %12s %10s\n", text(self->root, "device"), "operation", "kernel", "ms", "TFLOP/s");
    json_array_foreach(json_object_get(self->root, "kernels"), i, row) {
        printf("%-44s %-32s %12.4f %10.3f %s\n", text(row, "operation"), text(row, "kernel"),
               number(row, "seconds") * 1e3, number(row, "tflops"), text(row, "failure"));
        failures += json_object_get(row, "failure") != NULL;
    }
    printf("\n%-16s %6s %6s %12s %12s %10s\n", "training", "batch", "seq", "s/step", "tokens/s", "GiB");
    json_array_foreach(json_object_get(self->root, "training"), i, row) {
        printf("%-16s %6.0f %6.0f %12.4f %12.1f %10.2f %s\n", text(row, "model"), number(row, "batch"),
               number(row, "seq"), number(row, "step_seconds"), number(row, "tokens_per_second"),
               number(row, "memory_bytes") / 1073741824.0, text(row, "failure"));
        bool is_size = strstr(text(row, "failure"), "memory") != NULL; /* a shorter sequence follows */
        failures += json_object_get(row, "failure") != NULL && !is_size;
    }
    return failures;
}

static lk_status measure(report *self) {
    const lk_device_caps *caps = &lk_session_main_device(self->session)->caps;
    self->root =
        json_pack("{s:s, s:s, s:s, s:i, s:i, s:I, s:b}", "device", lk_session_device_name(self->session), "driver",
                  caps->driver, "version", lk_version(), "capability", (int)caps->capability, "units",
                  (int)caps->threads, "memory_bytes", (json_int_t)caps->memory_bytes, "rehearsal", (int)self->small);
    if (self->root == NULL) {
        return lk_out_of_memory(self->context, 0, "a report");
    }
    lk_status status = report_kernels(self);
    return status == LK_OK ? report_training(self) : status;
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3 || (argc == 3 && strcmp(argv[2], "small") != 0)) {
        fprintf(stderr, "usage: gpu_report FOLDER [small]\n");
        return 2;
    }
    report self = {.folder = argv[1], .small = argc == 3};
    lk_session_options options;
    if (lk_context_create(NULL, &self.context) != LK_OK) {
        return 1;
    }
    lk_session_options_init(&options);
    options.device = "cuda";
    lk_status status = lk_session_create(self.context, &options, &self.session);
    if (status == LK_OK) {
        status = measure(&self);
    }
    int failures = 0;
    if (status != LK_OK) {
        fprintf(stderr, "%s\n", lk_error_message(self.context));
    }
    if (self.root != NULL) {
        char path[1024];
        snprintf(path, sizeof path, "%s/timings.json", self.folder);
        failures = print(&self);
        failures += json_dump_file(self.root, path, JSON_INDENT(1)) != 0;
    }
    json_decref(self.root);
    lk_session_destroy(self.session);
    lk_context_destroy(self.context);
    return status != LK_OK || failures > 0;
}
