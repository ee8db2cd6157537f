#include <stdio.h>
#include <string.h>

#include "dispatch/dispatch.h"

bool lk_refuse(lk_refusal *why, const char *reason) {
    if (why != NULL) {
        snprintf(why->reason, sizeof why->reason, "%s", reason);
    }
    return false;
}

static bool is_supported(const lk_kernel *kernel, const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    if ((kernel->required_features & ~caps->features) != 0) {
        return lk_refuse(why, "the device lacks a required feature");
    }
    return kernel->supports == NULL || kernel->supports(caps, node, why);
}

/* The position of a name in a comma-separated list, or -1. */
static int position_in(const char *list, const char *name) {
    size_t length = strlen(name);
    int position = 0;
    for (const char *cursor = list; cursor != NULL && *cursor != '\0'; position++) {
        size_t item = strcspn(cursor, ",");
        if (item == length && memcmp(cursor, name, length) == 0) {
            return position;
        }
        cursor += item + (cursor[item] == ',');
    }
    return -1;
}

/* Override, then a measured time, then the lowest estimate, then the order of the rows. A measured time is preferred to
 * any estimate, because estimates of different kernels share no scale that could be trusted against a clock. */
static bool is_better(const lk_candidate *a, int a_override, const lk_candidate *b, int b_override) {
    if (a_override != b_override) {
        return a_override >= 0 && (b_override < 0 || a_override < b_override);
    }
    if (a->tuned != b->tuned) {
        return a->tuned;
    }
    return a->seconds < b->seconds;
}

lk_selection lk_select(const lk_kernel *rows, int num_rows, const lk_device_caps *caps, const lk_node *node,
                       const lk_preferences *preferences, lk_candidate *candidates, int *num_candidates) {
    lk_candidate best = {0};
    int best_override = -1, count = 0;
    for (int i = 0; i < num_rows; i++) {
        if (rows[i].op != node->op) {
            continue;
        }
        lk_candidate candidate = {.kernel = &rows[i]};
        candidate.refused = !is_supported(&rows[i], caps, node, &candidate.why) ||
                            (preferences != NULL && preferences->allows != NULL &&
                             !preferences->allows(preferences->user, caps, &rows[i], &candidate.why));
        if (!candidate.refused) {
            double tuned = preferences != NULL && preferences->tuned != NULL
                               ? preferences->tuned(preferences->user, caps, &rows[i], node)
                               : -1.0;
            candidate.tuned = tuned >= 0.0;
            candidate.seconds = candidate.tuned ? tuned : rows[i].cost(caps, node);
            int override = preferences != NULL ? position_in(preferences->override, rows[i].name) : -1;
            if (best.kernel == NULL || is_better(&candidate, override, &best, best_override)) {
                best = candidate;
                best_override = override;
            }
        }
        if (candidates != NULL && count < LK_MAX_CANDIDATES) {
            candidates[count] = candidate;
        }
        count++;
    }
    if (num_candidates != NULL) {
        *num_candidates = LK_MIN(count, (int)LK_MAX_CANDIDATES);
    }
    const char *rule = best_override >= 0 ? "override" : best.tuned ? "tuned" : "cost";
    return (lk_selection){best.kernel, best.seconds, rule, best.tuned};
}
