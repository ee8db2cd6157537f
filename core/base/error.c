#include <stdio.h>
#include <string.h>

#include "core/base/context.h"

#undef lk_fail
#undef lk_fail_within /* base.h has macros of these names */

const char *lk_status_name(lk_status status) {
    switch (status) {
#define LK_STATUS(NAME, value, text) \
    case LK_STATUS_##NAME:           \
        return #NAME;
#include "lorikeet/status.def"
#undef LK_STATUS
    }
    return "UNKNOWN";
}

const char *lk_status_text(lk_status status) {
    switch (status) {
#define LK_STATUS(NAME, value, text) \
    case LK_STATUS_##NAME:           \
        return text;
#include "lorikeet/status.def"
#undef LK_STATUS
    }
    return "unknown status";
}

const char *lk_error_message(const lk_context *context) {
    return context->message;
}

lk_status lk_fail(lk_context *context, lk_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context->message, sizeof context->message, format, arguments);
    va_end(arguments);
    return status;
}

lk_status lk_fail_within(lk_context *context, lk_status status, const char *format, ...) {
    char below[sizeof context->message];
    memcpy(below, context->message, sizeof below);
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(context->message, sizeof context->message, format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length < sizeof context->message) {
        snprintf(context->message + length, sizeof context->message - (size_t)length, ": %s", below);
    }
    return status;
}

void lk_log(lk_context *context, lk_log_level level, const char *format, ...) {
    if (context->log == NULL || level < context->log_level) {
        return;
    }
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    context->log(context->log_user, level, message);
}
