/* The smallest program: which library is this, and can it make a context? */
#include <lorikeet.h>
#include <stdio.h>

static void print_message(void *user, lk_log_level level, const char *message) {
    (void)user;
    fprintf(stderr, "%s%s\n", level >= LK_LOG_WARNING ? "warning: " : "", message);
}

int main(void) {
    lk_context_options options;
    lk_context_options_init(&options);
    options.log = print_message;
    lk_context *context;
    lk_status status = lk_context_create(&options, &context);
    if (status != LK_OK) {
        fprintf(stderr, "%s\n", lk_status_text(status));
        return 1;
    }
    printf("lorikeet %s\n", lk_version());
    lk_context_destroy(context);
    return 0;
}
