/* Sections of the report on training: ranks, methods, where time and memory go, scaling, comparison. */
#include "bench_pictures.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { MOST = 64 };

void figure_begin(FILE *file, const char *text, const char *machine) {
    fputs("<figure><figcaption>", file);
    bench_put_text(file, text);
    if (machine != NULL) {
        fputs(", ", file);
        bench_put_text(file, machine);
    }
    fputs("</figcaption>\n", file);
}

void figure_end(FILE *file) {
    fputs("</figure>\n", file);
}

const char *machine_of(const json_t *document) {
    return bench_text(json_object_get(document, "machine"), "label");
}

static const char *machine_if_several(const json_t *documents, const json_t *document) {
    return json_array_size(documents) > 1 ? machine_of(document) : NULL;
}

/* ---- lines over the rows of a table, one line for each machine ---- */

typedef struct curve {
    const char *part, *table, *axis; /* axis: only rows whose "axis" is this; NULL: all */
    const char *x, *y;
    bench_axis x_axis, y_axis;
} curve;

static int points_of(const json_t *document, const curve *self, double *x, double *y) {
    size_t i;
    json_t *row;
    int count = 0;
    json_array_foreach(json_object_get(json_object_get(document, self->part), self->table), i, row) {
        bool wanted = self->axis == NULL || strcmp(bench_text(row, "axis"), self->axis) == 0;
        if (wanted && bench_number(row, self->y) > 0.0 && count < MOST) {
            x[count] = bench_number(row, self->x);
            y[count++] = bench_number(row, self->y);
        }
    }
    return count;
}

static void draw_curves(FILE *file, const json_t *documents, const char *caption, const curve *self) {
    double x[MOST], y[MOST];
    size_t i;
    json_t *document;
    bench_plot plot = {.x = self->x_axis, .y = self->y_axis};
    int points = 0;
    json_array_foreach(documents, i, document) {
        int count = points_of(document, self, x, y);
        points = count > points ? count : points;
        for (int p = 0; p < count; p++) {
            bench_axis_include(&plot.x, x[p]);
            bench_axis_include(&plot.y, y[p]);
        }
    }
    if (points < 2) {
        return;
    }
    plot.y.high *= json_array_size(documents) > 1 ? 1.15 + 0.08 * (double)json_array_size(documents) : 1.0; /* legend */
    figure_begin(file, caption, NULL);
    bench_plot_begin(&plot, file, caption);
    json_array_foreach(documents, i, document) {
        int count = points_of(document, self, x, y);
        if (count > 0) {
            bench_plot_line(&plot, machine_if_several(documents, document), x, y, count);
        }
    }
    bench_plot_end(&plot);
    figure_end(file);
}

/* ---- memory over a step: areas on top of one another ---- */

static double live_at(const json_t *live, const char *purpose, size_t command) {
    const json_t *bytes = json_object_get(live, purpose);
    return json_is_array(bytes) ? json_number_value(json_array_get(bytes, command)) : json_number_value(bytes);
}

static void draw_memory(FILE *file, const json_t *documents, const json_t *document) {
    static const struct {
        const char *key, *name;
    } layers[] = {{"weights", "weights"},           {"optimizer", "optimizer and gradient sums"},
                  {"adapter", "adapter"},           {"saved", "kept for the backward pass"},
                  {"forward", "forward only"},      {"backward", "gradients and recomputed"},
                  {"scratch", "scratch of kernels"}};
    enum { LAYERS = sizeof layers / sizeof *layers };
    const json_t *live = json_object_get(json_object_get(document, "train"), "live_bytes");
    size_t commands = json_array_size(json_object_get(live, "saved"));
    if (commands < 2) {
        return;
    }
    bench_plot plot = {.x = {.label = "command of the micro-batch", .high = (double)commands},
                       .y = {.label = "bytes alive", .bytes = true}};
    for (size_t c = 0; c < commands; c++) {
        double sum = 0.0;
        for (int l = 0; l < LAYERS; l++) {
            sum += live_at(live, layers[l].key, c);
        }
        bench_axis_include(&plot.y, sum);
    }
    plot.y.low = 0.0;
    plot.y.high *= 1.75; /* room for the legend */
    figure_begin(file, "Memory over a micro-batch", machine_if_several(documents, document));
    bench_plot_begin(&plot, file, "memory over a micro-batch");
    double *below = calloc(commands, sizeof *below);
    for (int l = 0; l < LAYERS && below != NULL; l++) {
        fprintf(file, "<path fill=\"%s\" d=\"M", bench_colour(l));
        for (size_t c = 0; c < commands; c++) {
            fprintf(file, "%.1f %.1f ", bench_plot_x(&plot, (double)c), bench_plot_y(&plot, below[c]));
        }
        for (size_t c = commands; c-- > 0;) {
            below[c] += live_at(live, layers[l].key, c);
            fprintf(file, "%.1f %.1f ", bench_plot_x(&plot, (double)c), bench_plot_y(&plot, below[c]));
        }
        fprintf(file, "Z\"/>\n");
    }
    free(below);
    double turn = bench_plot_x(&plot, bench_number(live, "loss_command"));
    fprintf(file,
            "<path class=\"axis dash\" d=\"M%.1f %.1fV%.1f\"/><text x=\"%.1f\" y=\"%.1f\" class=\"key\">loss</text>\n",
            turn, bench_plot_y(&plot, 0.0), bench_plot_y(&plot, plot.y.high * 0.97), turn + 4.0,
            bench_plot_y(&plot, plot.y.high * 0.95));
    for (int l = 0; l < LAYERS; l++) {
        bench_plot_legend(&plot, layers[l].name);
    }
    bench_plot_end(&plot);
    figure_end(file);
}

/* ---- horizontal bars ---- */

static void draw_bars(FILE *file, const json_t *rows, const char *name, const char *value, double least,
                      const char *format, double factor) {
    enum { WIDTH = 560, ROW = 22, NAMES = 190, VALUES = 90 };
    size_t i, shown = 0;
    json_t *row;
    double largest = 0.0, sum = 0.0;
    json_array_foreach(rows, i, row) {
        sum += bench_number(row, value);
    }
    json_array_foreach(rows, i, row) {
        largest = fmax(largest, bench_number(row, value));
        shown += bench_number(row, value) >= least * sum;
    }
    fprintf(file, "<svg viewBox=\"0 0 %d %zu\" role=\"img\">\n", WIDTH, shown * ROW + 6);
    size_t at = 0;
    json_array_foreach(rows, i, row) {
        double number = bench_number(row, value);
        if (number < least * sum) {
            continue;
        }
        double width = largest > 0.0 ? number / largest * (WIDTH - NAMES - VALUES) : 0.0;
        fprintf(file, "<text x=\"%d\" y=\"%zu\" class=\"end\">", NAMES - 8, at * ROW + 17);
        bench_put_text(file, bench_text(row, name));
        fprintf(file,
                "</text><rect x=\"%d\" y=\"%zu\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/><text x=\"%.1f\" y=\"%zu\">",
                NAMES, at * ROW + 5, width, ROW - 6, bench_colour(0), NAMES + width + 6.0, at * ROW + 17);
        fprintf(file, format, number * factor);
        fputs("</text>\n", file);
        at++;
    }
    fputs("</svg>\n", file);
}

/* ---- sections ---- */

static void put_settings(FILE *file, const json_t *documents, const char *part) {
    size_t i;
    json_t *document, *value;
    const char *key;
    json_array_foreach(documents, i, document) {
        const json_t *settings = json_object_get(json_object_get(document, part), "settings");
        if (settings == NULL) {
            continue;
        }
        fputs("<p class=\"note\">", file);
        if (json_array_size(documents) > 1) {
            bench_put_text(file, machine_of(document));
            fputs(": ", file);
        }
        const char *separator = "";
        json_object_foreach((json_t *)(uintptr_t)settings, key, value) {
            char text[64] = "";
            if (json_is_string(value)) {
                snprintf(text, sizeof text, "%s", json_string_value(value));
            } else if (json_is_number(value)) {
                snprintf(text, sizeof text, "%g", json_number_value(value));
            } else {
                snprintf(text, sizeof text, "%s", json_is_true(value) ? "yes" : "no");
            }
            if (text[0] != '\0') {
                fprintf(file, "%s%s ", separator, key);
                bench_put_text(file, text);
                separator = ", ";
            }
        }
        fputs("</p>\n", file);
    }
}

static void put_methods(FILE *file, const json_t *document, const char *machine) {
    size_t i;
    json_t *row;
    char bytes[3][32];
    fputs("<div class=\"wide\"><table><thead><tr><th class=\"l\">method", file);
    if (machine != NULL) {
        fputs(" (", file);
        bench_put_text(file, machine);
        fputs(")", file);
    }
    fputs("</th><th>rank</th><th>parameters</th><th>s/step</th><th>tokens/s</th><th>activations</th>"
          "<th>adapter + optimizer</th><th>total</th></tr></thead><tbody>\n",
          file);
    json_array_foreach(json_object_get(json_object_get(document, "train"), "methods"), i, row) {
        fputs("<tr><td class=\"l\">", file);
        bench_put_text(file, bench_text(row, "method"));
        if (json_object_get(row, "failure") != NULL) {
            fputs("</td><td class=\"l\" colspan=\"7\">", file);
            bench_put_text(file, bench_text(row, "failure"));
            fputs("</td></tr>\n", file);
            continue;
        }
        fprintf(file,
                "</td><td>%.0f</td><td>%.0f</td><td>%.3f</td><td>%.1f</td><td>%s</td><td>%s</td><td>%s</td></tr>\n",
                bench_number(row, "rank"), bench_number(row, "parameters"), bench_number(row, "seconds"),
                bench_number(row, "tokens_per_second"), cli_bytes(bench_number(row, "activations_bytes"), bytes[0]),
                cli_bytes(bench_number(row, "adapter_bytes") + bench_number(row, "optimizer_bytes"), bytes[1]),
                cli_bytes(bench_number(row, "total_bytes"), bytes[2]));
    }
    fputs("</tbody></table></div>\n", file);
}

void pictures_train(FILE *file, const json_t *documents) {
    size_t i;
    json_t *document;
    const curve memory = {"train",
                          "ranks",
                          NULL,
                          "rank",
                          "total_bytes",
                          {.label = "rank of LoRA", .logarithmic = true},
                          {.label = "memory of a step", .bytes = true}};
    const curve time = {"train",
                        "ranks",
                        NULL,
                        "rank",
                        "seconds",
                        {.label = "rank of LoRA", .logarithmic = true},
                        {.label = "seconds per step"}};
    put_settings(file, documents, "train");
    fputs("<div class=\"row\">\n", file);
    draw_curves(file, documents, "Rank against memory", &memory);
    draw_curves(file, documents, "Rank against time", &time);
    json_array_foreach(documents, i, document) {
        draw_memory(file, documents, document);
        const json_t *ops = json_object_get(json_object_get(document, "train"), "time");
        if (json_array_size(ops) > 0) {
            figure_begin(file, "Where the time of a micro-batch goes (milliseconds)",
                         machine_if_several(documents, document));
            draw_bars(file, ops, "op", "seconds", 0.003, "%.3g", 1e3);
            figure_end(file);
        }
    }
    fputs("</div>\n", file);
    json_array_foreach(documents, i, document) {
        if (json_array_size(json_object_get(json_object_get(document, "train"), "methods")) > 0) {
            put_methods(file, document, machine_if_several(documents, document));
        }
    }
}

void pictures_scaling(FILE *file, const json_t *documents) {
    static const struct {
        const char *axis, *label, *caption;
    } axes[] = {{"sequence", "tokens in a sequence (batch 1)", "Time per token against length"},
                {"batch", "sequences in a micro-batch", "Time per token against batch"},
                {"rank", "rank of LoRA", "Time per token against rank"},
                {"threads", "threads", "Time per token against threads"}};
    size_t i, j;
    json_t *document, *row;
    put_settings(file, documents, "scaling");
    fputs("<div class=\"row\">\n", file);
    for (size_t a = 0; a < sizeof axes / sizeof *axes; a++) {
        curve self = {"scaling",
                      "runs",
                      axes[a].axis,
                      "value",
                      "seconds_per_token",
                      {.label = axes[a].label, .logarithmic = true},
                      {.label = "seconds per token"}};
        draw_curves(file, documents, axes[a].caption, &self);
    }
    fputs("</div>\n<table><thead><tr><th class=\"l\">machine</th><th class=\"l\">what is changed</th>"
          "<th>exponent of a step's time</th><th>between the last two</th></tr></thead><tbody>\n",
          file);
    json_array_foreach(documents, i, document) {
        json_array_foreach(json_object_get(json_object_get(document, "scaling"), "exponents"), j, row) {
            fputs("<tr><td class=\"l\">", file);
            bench_put_text(file, machine_of(document));
            fprintf(file, "</td><td class=\"l\">%s</td><td>%.2f</td><td>%.2f</td></tr>\n", bench_text(row, "axis"),
                    bench_number(row, "exponent"), bench_number(row, "last_exponent"));
        }
    }
    fputs("</tbody></table>\n<p class=\"note\">1 is linear; a rank or a thread more costs nothing at 0, and twice the "
          "threads halve the time at -1.</p>\n",
          file);
}

void pictures_compare(FILE *file, const json_t *documents) {
    size_t i, j;
    json_t *document, *row;
    char bytes[32];
    put_settings(file, documents, "compare");
    json_array_foreach(documents, i, document) {
        const json_t *rows = json_object_get(json_object_get(document, "compare"), "programs");
        if (json_array_size(rows) == 0) {
            continue;
        }
        fputs("<div class=\"row\">\n", file);
        figure_begin(file, "Tokens per second", machine_if_several(documents, document));
        draw_bars(file, rows, "program", "tokens_per_second", 0.0, "%.1f", 1.0);
        figure_end(file);
        figure_begin(file, "Peak resident memory (MiB)", machine_if_several(documents, document));
        draw_bars(file, rows, "program", "peak_bytes", 0.0, "%.0f", 1.0 / 1048576.0);
        figure_end(file);
        fputs(
            "</div>\n<table><thead><tr><th class=\"l\">program</th><th>tokens/s</th><th>spread</th><th>peak memory</th>"
            "<th>Lorikeet is</th><th>of its memory</th><th>losses differ by</th></tr></thead><tbody>\n",
            file);
        json_array_foreach(rows, j, row) {
            fputs("<tr><td class=\"l\">", file);
            bench_put_text(file, bench_text(row, "program"));
            fprintf(file, "</td><td>%.1f</td><td>%.1f %%</td><td>%s</td>", bench_number(row, "tokens_per_second"),
                    100.0 * bench_number(row, "spread"), cli_bytes(bench_number(row, "peak_bytes"), bytes));
            if (json_object_get(row, "lorikeet_speed") != NULL) {
                fprintf(file, "<td>%.2f x</td><td>%.2f x</td><td>%.1e</td></tr>\n", bench_number(row, "lorikeet_speed"),
                        bench_number(row, "lorikeet_memory"), bench_number(row, "loss_difference"));
            } else {
                fputs("<td></td><td></td><td></td></tr>\n", file);
            }
        }
        fputs("</tbody></table>\n", file);
    }
}
