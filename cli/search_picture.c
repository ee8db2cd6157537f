/* The picture of a search, as SVG: each trial a dot, learning rate (logarithmic) against validation loss. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "search.h"

enum { WIDTH = 760, HEIGHT = 460, LEFT = 70, RIGHT = 150, TOP = 40, BOTTOM = 60 };

static const char *const colours[] = {"#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb"};

typedef struct frame {
    double x0, x1, y0, y1; /* log10 of the learning rate; loss */
} search_frame;

static double x_of(const search_frame *frame, double learning_rate) {
    return LEFT + (log10(learning_rate) - frame->x0) / (frame->x1 - frame->x0) * (WIDTH - LEFT - RIGHT);
}

static double y_of(const search_frame *frame, double loss) {
    return TOP + (frame->y1 - loss) / (frame->y1 - frame->y0) * (HEIGHT - TOP - BOTTOM);
}

static double last_loss(const search_trial *trial) {
    return trial->rungs > 0 ? trial->losses[trial->rungs - 1] : INFINITY;
}

/* Losses far above the rest are drawn at the upper edge: the best half shall fill the picture. */
static search_frame frame_of(const search_command *command, const int64_t *order) {
    search_frame of = {log10(command->lr_min), log10(command->lr_max), INFINITY, -INFINITY};
    int64_t shown = 0;
    for (int64_t i = 0; i < command->num_trials; i++) {
        double loss = last_loss(&command->trials[order[i]]);
        if (isfinite(loss)) {
            of.y0 = fmin(of.y0, loss);
            of.y1 = shown <= (3 * command->num_trials) / 4 ? fmax(of.y1, loss) : of.y1;
            shown++;
        }
    }
    if (shown == 0) {
        of.y0 = 0;
        of.y1 = 1;
    }
    double margin = fmax(0.08 * (of.y1 - of.y0), 1e-3 * fabs(of.y1) + 1e-9);
    of.y0 -= margin;
    of.y1 += margin;
    if (of.x1 - of.x0 < 1e-9) {
        of.x0 -= 0.5;
        of.x1 += 0.5;
    }
    return of;
}

static void draw_axes(FILE *file, const search_command *command, const search_frame *frame) {
    int right = WIDTH - RIGHT, bottom = HEIGHT - BOTTOM;
    fprintf(file, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#888\"/>\n", LEFT, TOP,
            right - LEFT, bottom - TOP);
    for (int i = 0; i <= 4; i++) {
        double loss = frame->y0 + (frame->y1 - frame->y0) * i / 4, y = y_of(frame, loss);
        fprintf(file, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", LEFT, right, y, y);
        fprintf(file, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3f</text>\n", LEFT - 8, y + 4, loss);
        double rate = pow(10, frame->x0 + (frame->x1 - frame->x0) * i / 4), x = x_of(frame, rate);
        fprintf(file, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"#ddd\"/>\n", x, x, TOP, bottom);
        fprintf(file, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.1e</text>\n", x, bottom + 18, rate);
    }
    fprintf(file, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">learning rate</text>\n", (LEFT + right) / 2,
            bottom + 42);
    fprintf(file,
            "<text x=\"%d\" y=\"%d\">validation loss after up to %lld steps (the larger a dot, the more)</text>\n",
            LEFT, TOP - 14, (long long)command->max_steps);
}

static int colour_of(const search_command *command, int32_t rank) {
    int count = (int)(sizeof colours / sizeof colours[0]);
    for (int i = 0; i < command->ranks.count; i++) {
        if (atoi(command->ranks.items[i]) == rank) {
            return i % count;
        }
    }
    return count - 1;
}

/* Text that may stand in XML. */
static void put_text(FILE *file, const char *text) {
    for (; *text != '\0'; text++) {
        if (*text == '&' || *text == '<' || *text == '>' || *text == '"') {
            fprintf(file, "&#%d;", *text);
        } else {
            fputc(*text, file);
        }
    }
}

static void draw_trial(FILE *file, const search_command *command, const search_frame *frame, const search_trial *trial,
                       bool best) {
    double loss = last_loss(trial), y = isfinite(loss) ? y_of(frame, fmin(loss, frame->y1)) : TOP;
    fprintf(file,
            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" fill=\"%s\" fill-opacity=\"0.8\" stroke=\"%s\" "
            "stroke-width=\"%d\"><title>",
            x_of(frame, trial->learning_rate), y, 3 + 2 * trial->rungs, colours[colour_of(command, trial->rank)],
            best ? "#000" : "#fff", best ? 2 : 1);
    fprintf(file, "trial %d: rank %d, alpha %g, dropout %g, lr %.3g, ", trial->number, (int)trial->rank, trial->alpha,
            trial->dropout, trial->learning_rate);
    put_text(file, trial->targets);
    fprintf(file, ": loss %.4f</title></circle>\n", loss);
}

static void draw_all(FILE *file, const search_command *command, const int64_t *order) {
    search_frame frame = frame_of(command, order);
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT);
    draw_axes(file, command, &frame);
    for (int64_t i = command->num_trials; i-- > 0;) { /* the best on top */
        const search_trial *trial = &command->trials[order[i]];
        if (trial->rungs > 0) {
            draw_trial(file, command, &frame, trial, i == 0);
        }
    }
    for (int i = 0; i < command->ranks.count; i++) {
        int y = TOP + 12 + 20 * i, x = WIDTH - RIGHT + 20;
        fprintf(file, "<circle cx=\"%d\" cy=\"%d\" r=\"6\" fill=\"%s\"/>\n", x, y,
                colours[colour_of(command, atoi(command->ranks.items[i]))]);
        fprintf(file, "<text x=\"%d\" y=\"%d\">rank %d</text>\n", x + 12, y + 4, atoi(command->ranks.items[i]));
    }
    fprintf(file, "</svg>\n");
}

int search_draw(const search_command *command) {
    char *path = search_path(command, "search.svg");
    int64_t *order = calloc((size_t)command->num_trials, sizeof *order);
    FILE *file = path != NULL && order != NULL ? fopen(path, "wb") : NULL;
    int result = file != NULL ? CLI_DONE : cli_failed("%s: %s", path ? path : "search.svg", strerror(errno));
    if (file != NULL) {
        search_sort(command, order);
        draw_all(file, command, order);
        bool failed = ferror(file) != 0;
        if ((fclose(file) != 0 || failed) && result == CLI_DONE) {
            result = cli_failed("%s: %s", path, strerror(errno));
        }
    }
    free(order);
    free(path);
    return result;
}
