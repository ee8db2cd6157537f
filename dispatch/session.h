/* The inside of lk_session: the open devices of a run, in order of preference. */
#ifndef LK_DISPATCH_SESSION_H
#define LK_DISPATCH_SESSION_H

#include "dispatch/program.h"

struct lk_session {
    lk_context *context;
    lk_device *devices[LK_MAX_DEVICES]; /* the main one, then fallbacks, the reference last */
    int num_devices;
    char *kernels; /* the override list, or NULL */
    lk_preferences preferences;
    char name[256], reason[256];
};

/* Compiles for the session's devices; takes over the graph. */
lk_status lk_session_compile(lk_session *session, lk_graph *graph, bool plan_only, lk_program **out);
static inline lk_device *lk_session_main_device(const lk_session *session) {
    return session->devices[0];
}

#endif
