/* The inside of lk_session: the open devices of a run, in order of preference. */
#ifndef LK_DISPATCH_SESSION_H
#define LK_DISPATCH_SESSION_H

#include "dispatch/devices.h"
#include "dispatch/program.h"
#include "dispatch/self_check.h"
#include "dispatch/tuned.h"

struct lk_session {
    lk_context *context;
    lk_device *devices[LK_MAX_DEVICES]; /* the main one, then fallbacks, the reference last */
    lk_tuned *tuned[LK_MAX_DEVICES];
    lk_self_check *checks[LK_MAX_DEVICES]; /* NULL: the kernels are our compiler's */
    int num_devices;
    bool planned_only; /* the devices are described, not open */
    char *kernels;     /* the override list, or NULL */
    lk_preferences preferences;
    char name[256], reason[768];
};

/* The caller's options with those that are not given taken from the environment and the defaults. */
lk_session_options lk_session_options_chosen(const lk_session_options *options);
bool lk_session_wants_auto(const lk_session_options *chosen);
/* On the first of these devices that can be opened; the others cost a warning. The reason is copied. */
lk_status lk_session_create_on(lk_context *context, const lk_session_options *chosen, const lk_device_caps *caps,
                               int count, const char *reason, lk_session **out);
/* One that only plans: its devices are described, not open. lk_session_plan_on gives it another main device, for the
 * programs that are compiled from then on. */
lk_status lk_session_create_planned(lk_context *context, const lk_session_options *chosen, const lk_device_caps *caps,
                                    lk_session **out);
lk_status lk_session_plan_on(lk_session *session, const lk_session_options *chosen, const lk_device_caps *caps);

/* Compiles for the session's devices; takes over the graph. */
lk_status lk_session_compile(lk_session *session, lk_graph *graph, bool plan_only, lk_program **out);
static inline lk_device *lk_session_main_device(const lk_session *session) {
    return session->devices[0];
}

#endif
