#include "dispatch/tuned.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/base/disk_cache.h"
#include "dispatch/devices.h"
#include "dispatch/node_case.h"

enum { VERSION = 1, KEY = 17 }; /* of a key's text */

typedef struct record {
    const char *kernel; /* of the arena */
    uint64_t node;
    double seconds;
} record;

struct lk_tuned {
    lk_context *context;
    lk_arena arena;
    const char *folder, *path, *device, *driver;
    uint64_t identity;
    record *records;
    int32_t count;
};

static void key_text(uint64_t key, char text[KEY]) {
    snprintf(text, KEY, "%016llx", (unsigned long long)key);
}

static record *find(const lk_tuned *self, const char *kernel, uint64_t node) {
    for (int32_t i = 0; i < self->count; i++) {
        if (self->records[i].node == node && strcmp(self->records[i].kernel, kernel) == 0) {
            return &self->records[i];
        }
    }
    return NULL;
}

static lk_status set(lk_tuned *self, const char *kernel, uint64_t node, double seconds) {
    record *known = find(self, kernel, node);
    if (known != NULL) {
        known->seconds = seconds;
        return LK_OK;
    }
    const char *name = lk_arena_printf(&self->arena, "%s", kernel);
    record *grown = lk_realloc(self->context, self->records, (size_t)self->count + 1, sizeof *grown);
    if (grown != NULL) {
        self->records = grown;
    }
    if (name == NULL || grown == NULL) {
        return lk_out_of_memory(self->context, sizeof *grown, "measured times");
    }
    self->records[self->count++] = (record){name, node, seconds};
    return LK_OK;
}

/* ---- the file ---- */

static lk_status read_record(lk_tuned *self, const json_t *item) {
    const char *kernel, *node;
    double seconds = -1.0;
    unsigned long long key;
    LK_TRY(lk_json_get_string(self->context, self->path, item, "kernel", true, &kernel));
    LK_TRY(lk_json_get_string(self->context, self->path, item, "node", true, &node));
    LK_TRY(lk_json_get_double(self->context, self->path, item, "seconds", true, &seconds));
    if (strlen(node) != KEY - 1 || sscanf(node, "%16llx", &key) != 1 || !(seconds >= 0.0) || !isfinite(seconds)) {
        return lk_fail(self->context, LK_STATUS_FORMAT, "%s: the record of %s for %s is not one", self->path, kernel,
                       node);
    }
    return set(self, kernel, (uint64_t)key, seconds);
}

static lk_status read_root(lk_tuned *self, const json_t *root) {
    int64_t version;
    const char *device = "", *driver = "", *identity = "";
    char own[KEY];
    json_t *records, *item;
    size_t i;
    LK_TRY(lk_json_get_int(self->context, self->path, root, "format_version", true, VERSION, VERSION, &version));
    LK_TRY(lk_json_get_string(self->context, self->path, root, "device", true, &device));
    LK_TRY(lk_json_get_string(self->context, self->path, root, "driver", true, &driver));
    LK_TRY(lk_json_get_string(self->context, self->path, root, "identity", true, &identity));
    LK_TRY(lk_json_get_array(self->context, self->path, root, "records", true, &records));
    key_text(self->identity, own);
    if (strcmp(device, self->device) != 0 || strcmp(driver, self->driver) != 0 || strcmp(identity, own) != 0) {
        return lk_fail(self->context, LK_STATUS_FORMAT, "%s: it is of %s (%s) or of other kernels", self->path, device,
                       driver);
    }
    json_array_foreach(records, i, item) {
        LK_TRY(read_record(self, item));
    }
    return LK_OK;
}

static lk_status read_file(lk_tuned *self) {
    json_t *root;
    if (self->path[0] == '\0' || !lk_path_is_file(self->path)) {
        return LK_OK;
    }
    lk_status status = lk_json_load(self->context, self->path, &root);
    if (status == LK_OK) {
        status = read_root(self, root);
        json_decref(root);
    }
    if (status != LK_OK && status != LK_STATUS_OUT_OF_MEMORY) {
        lk_log(self->context, LK_LOG_WARNING, "measured times are not used: %s; 'lorikeet tune' makes them anew",
               lk_error_message(self->context));
        self->count = 0;
        return LK_OK;
    }
    return status;
}

static lk_status open_tuned(lk_tuned *self, const lk_device_caps *caps) {
    char name[64], key[KEY];
    key_text(self->identity, key);
    snprintf(name, sizeof name, "tuned-%s-%s.json", caps->backend, key);
    char *folder;
    LK_TRY(lk_disk_cache_folder(self->context, &folder));
    char *path = folder != NULL ? lk_path_join(self->context, folder, name) : NULL;
    self->folder = lk_arena_printf(&self->arena, "%s", folder != NULL ? folder : "");
    bool complete = folder == NULL || path != NULL;
    self->path = lk_arena_printf(&self->arena, "%s", path != NULL ? path : "");
    self->device = lk_arena_printf(&self->arena, "%s", caps->name);
    self->driver = lk_arena_printf(&self->arena, "%s", caps->driver);
    lk_free(self->context, path);
    lk_free(self->context, folder);
    return complete && self->folder && self->path && self->device && self->driver
               ? read_file(self)
               : lk_out_of_memory(self->context, sizeof name, "measured times");
}

lk_status lk_tuned_load(lk_context *context, const lk_device_caps *caps, lk_tuned **out) {
    *out = lk_calloc(context, 1, sizeof **out);
    if (*out == NULL) {
        return lk_out_of_memory(context, sizeof **out, "measured times");
    }
    (*out)->context = context;
    (*out)->identity = lk_device_identity(caps);
    lk_arena_init(&(*out)->arena, context);
    lk_status status = open_tuned(*out, caps);
    if (status != LK_OK) {
        lk_tuned_destroy(*out);
        *out = NULL;
    }
    return status;
}

void lk_tuned_destroy(lk_tuned *self) {
    if (self != NULL) {
        lk_arena_free(&self->arena);
        lk_free(self->context, self->records);
        lk_free(self->context, self);
    }
}

int32_t lk_tuned_count(const lk_tuned *self) {
    return self->count;
}

double lk_tuned_find(const lk_tuned *self, const lk_kernel *kernel, const lk_node *node) {
    const record *known = self->count > 0 ? find(self, kernel->name, lk_node_key(node)) : NULL;
    return known != NULL ? known->seconds : -1.0;
}

lk_status lk_tuned_set(lk_tuned *self, const lk_kernel *kernel, const lk_node *node, double seconds) {
    return set(self, kernel->name, lk_node_key(node), seconds);
}

const char *lk_tuned_path(const lk_tuned *self) {
    return self->path;
}

lk_status lk_tuned_save(const lk_tuned *self) {
    if (self->path[0] == '\0') {
        return lk_fail(self->context, LK_STATUS_IO,
                       "there is no folder for measured times: set LORIKEET_CACHE_DIR, XDG_CACHE_HOME or HOME");
    }
    char key[KEY];
    json_t *records = json_array();
    for (int32_t i = 0; i < self->count; i++) {
        key_text(self->records[i].node, key);
        json_array_append_new(records, json_pack("{s:s, s:s, s:f}", "kernel", self->records[i].kernel, "node", key,
                                                 "seconds", self->records[i].seconds));
    }
    key_text(self->identity, key);
    json_t *root = json_pack("{s:i, s:s, s:s, s:s, s:o}", "format_version", VERSION, "device", self->device, "driver",
                             self->driver, "identity", key, "records", records);
    if (root == NULL) {
        return lk_out_of_memory(self->context, 0, "measured times");
    }
    lk_status status = lk_make_directories(self->context, self->folder);
    if (status == LK_OK) {
        status = lk_json_save(self->context, self->path, root);
    }
    json_decref(root);
    return status;
}

/* ---- measuring ---- */

/* After a run that warms up; of a kernel that is far slower than the best so far, one run is enough. */
static lk_status shortest_of(lk_case_run *run, double best, double *seconds) {
    enum { LEAST = 3, MOST = 20 };
    static const double enough = 0.2, hopeless = 10.0; /* seconds in all; times the best */
    double total = 0.0;
    LK_TRY(lk_case_run_once(run, seconds));
    if (best >= 0.0 && *seconds > hopeless * best) {
        return LK_OK;
    }
    for (int i = 0; i < MOST && (i < LEAST || total < enough); i++) {
        double one;
        LK_TRY(lk_case_run_once(run, &one));
        *seconds = i == 0 ? one : LK_MIN(*seconds, one);
        total += one;
    }
    return LK_OK;
}

static lk_status measure(const lk_node_case *work, lk_device *device, lk_candidate *candidate, double best) {
    lk_case_run run;
    lk_status status = lk_case_run_open(work, device, candidate->kernel, &run);
    if (status == LK_OK) {
        status = shortest_of(&run, best, &candidate->seconds);
        lk_case_run_close(&run);
    }
    candidate->tuned = status == LK_OK;
    return status;
}

lk_status lk_tune_node(lk_device *device, const lk_node *node, lk_candidate *candidates, int count) {
    lk_node_case work;
    double best = -1.0;
    LK_TRY(lk_node_case_make(device->context, node, LK_CASE_WHOLE, &work));
    lk_status status = LK_OK;
    for (int i = 0; i < count && status == LK_OK; i++) {
        if (candidates[i].refused) {
            continue;
        }
        status = measure(&work, device, &candidates[i], best);
        if (status == LK_OK) {
            best = best < 0.0 ? candidates[i].seconds : LK_MIN(best, candidates[i].seconds);
        } else if (status == LK_STATUS_UNSUPPORTED || status == LK_STATUS_OUT_OF_MEMORY) {
            candidates[i].refused = true;
            lk_refuse(&candidates[i].why, lk_error_message(device->context));
            status = LK_OK;
        }
    }
    lk_node_case_free(&work);
    return status;
}
