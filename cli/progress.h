/* How far a long job is, on stderr: a bar on a terminal, now and then a plain line elsewhere. */
#ifndef LK_CLI_PROGRESS_H
#define LK_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cli_progress {
    const char *label; /* "train"; borrowed */
    int64_t total, done;
    int64_t first; /* what was done before this run, which says nothing about its speed */
    bool quiet, terminal;
    double started; /* seconds, monotonic */
    double shown;   /* when it was last drawn or printed; 0: never */
    int64_t shown_done;
    char details[128];
} cli_progress;

void cli_progress_start(cli_progress *progress, const char *label, int64_t first, int64_t total, bool quiet);
/* details: "loss 2.3145, 210 tokens/s"; copied. Called as often as one likes; draws a few times a second. */
void cli_progress_update(cli_progress *progress, int64_t done, const char *details);
/* Leaves the last state on the screen. */
void cli_progress_finish(cli_progress *progress);
/* Takes a bar off the screen, so that a message can be printed; the next update draws it again. */
void cli_progress_interrupt(void);

/* The bar as text of at most `width` columns at the time `now`. */
void cli_progress_bar(const cli_progress *progress, double now, int width, char *text, size_t size);
/* The same as a line for a log file. */
void cli_progress_line(const cli_progress *progress, double now, char *text, size_t size);

#endif
