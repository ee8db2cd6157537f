#define _DEFAULT_SOURCE
#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli.h"

static const double bar_interval = 0.1;
static const double line_interval = 10.0;
enum { LINES = 20 }; /* at most about so many lines for a job, unless it takes longer than their interval */

static const cli_progress *drawn; /* the bar on the screen */

/* "1:05" or "2:03:20"; "" when it is not known. */
static void remaining_time(const cli_progress *progress, double now, char *text, size_t size) {
    int64_t done = progress->done - progress->first;
    text[0] = '\0';
    if (done <= 0 || progress->done >= progress->total) {
        return;
    }
    double seconds = (now - progress->started) / (double)done * (double)(progress->total - progress->done);
    if (seconds >= 360000) {
        snprintf(text, size, "%.0f days", seconds / 86400);
        return;
    }
    int whole = (int)(seconds + 0.5);
    if (whole >= 3600) {
        snprintf(text, size, "%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
    } else {
        snprintf(text, size, "%d:%02d", whole / 60, whole % 60);
    }
}

void cli_progress_line(const cli_progress *progress, double now, char *text, size_t size) {
    char left[32];
    remaining_time(progress, now, left, sizeof(left));
    snprintf(text, size, "%s %" PRId64 "/%" PRId64 "%s%s%s%s%s", progress->label, progress->done, progress->total,
             progress->details[0] != '\0' ? ", " : "", progress->details, left[0] != '\0' ? ", " : "", left,
             left[0] != '\0' ? " left" : "");
}

void cli_progress_bar(const cli_progress *progress, double now, int width, char *text, size_t size) {
    enum { SMALLEST = 5, LARGEST = 40 };
    char after[256];
    char left[32];
    remaining_time(progress, now, left, sizeof(left));
    snprintf(after, sizeof(after), " %" PRId64 "/%" PRId64 "  %s%s%s%s", progress->done, progress->total,
             progress->details, left[0] != '\0' ? ", " : "", left, left[0] != '\0' ? " left" : "");
    size_t limit = (size_t)(width > 0 ? width : 0) + 1;
    limit = limit < size ? limit : size;
    int room = width - (int)strlen(progress->label) - (int)strlen(after) - 3;
    if (room < SMALLEST) { /* no bar: the figures, cut to what fits */
        snprintf(text, limit, "%s%s", progress->label, after);
        return;
    }
    int cells = room < LARGEST ? room : LARGEST;
    double share = progress->total > 0 ? (double)progress->done / (double)progress->total : 0;
    int filled = (int)(share * cells);
    filled = filled < 0 ? 0 : filled > cells ? cells : filled;
    char bar[LARGEST + 1];
    memset(bar, '.', (size_t)cells);
    memset(bar, '#', (size_t)filled);
    bar[cells] = '\0';
    snprintf(text, limit, "%s [%s]%s", progress->label, bar, after);
}

static int terminal_width(void) {
    struct winsize window;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0) {
        return window.ws_col;
    }
    return 80;
}

static void show(cli_progress *progress, double now) {
    char text[512];
    if (progress->terminal) {
        /* one column stays free: some terminals wrap when the last one is written */
        cli_progress_bar(progress, now, terminal_width() - 1, text, sizeof(text));
        fprintf(stderr, "\r%s\033[K", text);
        fflush(stderr);
        drawn = progress;
    } else {
        cli_progress_line(progress, now, text, sizeof(text));
        fprintf(stderr, "%s\n", text);
    }
    progress->shown = now;
    progress->shown_done = progress->done;
}

void cli_progress_start(cli_progress *progress, const char *label, int64_t first, int64_t total, bool quiet) {
    const char *terminal = getenv("TERM");
    *progress = (cli_progress){.label = label, .first = first, .done = first, .total = total, .quiet = quiet};
    progress->terminal = isatty(STDERR_FILENO) == 1 && terminal != NULL && strcmp(terminal, "dumb") != 0;
    progress->started = cli_seconds();
    progress->shown_done = -1;
}

void cli_progress_update(cli_progress *progress, int64_t done, const char *details) {
    progress->done = done;
    snprintf(progress->details, sizeof(progress->details), "%s", details);
    if (progress->quiet) {
        return;
    }
    double now = cli_seconds();
    double waited = now - progress->shown;
    bool due = progress->shown <= 0 || done >= progress->total;
    if (progress->terminal) {
        due = due || waited >= bar_interval;
    } else {
        due = due || waited >= line_interval || (done - progress->shown_done) * LINES >= progress->total;
    }
    if (due) {
        show(progress, now);
    }
}

void cli_progress_finish(cli_progress *progress) {
    if (progress->quiet) {
        return;
    }
    if (progress->shown_done != progress->done && progress->shown > 0) {
        show(progress, cli_seconds());
    }
    if (drawn == progress) {
        fputc('\n', stderr);
        drawn = NULL;
    }
}

void cli_progress_interrupt(void) {
    if (drawn != NULL) {
        fputs("\r\033[K", stderr);
        drawn = NULL;
    }
}
