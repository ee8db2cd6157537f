/* Sections of the report on kernels (roofline) and on the attention grid (heat maps). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_pictures.h"

enum { MOST = 16 };

/* ---- kernels ---- */

static const json_t *rates_of(const json_t *document) {
    return json_array_get(json_object_get(json_object_get(document, "kernels"), "rates"), 0);
}

static void draw_roof(bench_plot *plot, double rate, double bandwidth, const char *name, bool dashed) {
    double knee = rate / bandwidth, low = plot->x.low, high = plot->x.high;
    if (rate <= 0.0 || bandwidth <= 0.0 || knee > high) {
        return;
    }
    fprintf(plot->file, "<polyline class=\"roof%s\" points=\"", dashed ? " dash" : "");
    if (!dashed) {
        fprintf(plot->file, "%.1f,%.1f ", bench_plot_x(plot, low), bench_plot_y(plot, low * bandwidth));
    }
    fprintf(plot->file, "%.1f,%.1f %.1f,%.1f\"/>\n<text x=\"%.1f\" y=\"%.1f\" class=\"end key\">%s %.0f</text>\n",
            bench_plot_x(plot, knee > low ? knee : low), bench_plot_y(plot, rate * 1e-9 * 1e9),
            bench_plot_x(plot, high), bench_plot_y(plot, rate), bench_plot_x(plot, high) - 4.0,
            bench_plot_y(plot, rate) + (dashed ? -5.0 : 14.0), name, rate * 1e-9);
}

static int colour_of(const char *op) {
    return strstr(op, "attention") != NULL                             ? 1
           : strstr(op, "lora") != NULL                                ? 2
           : strstr(op, "linear") != NULL || strcmp(op, "matmul") == 0 ? 0
           : strstr(op, "norm") != NULL                                ? 3
                                                                       : 4;
}

static void draw_roofline(FILE *file, const json_t *documents, const json_t *document) {
    static const char *const kinds[] = {"linear", "attention", "LoRA linear", "norm", "element by element"};
    const json_t *rates = rates_of(document), *rows = json_object_get(json_object_get(document, "kernels"), "kernels");
    double bandwidth = bench_number(rates, "bandwidth"), registers = bench_number(rates, "flops_registers");
    size_t i;
    json_t *row;
    bench_plot plot = {.x = {.label = "operations per byte of memory traffic", .logarithmic = true},
                       .y = {.label = "operations per second", .logarithmic = true}};
    json_array_foreach(rows, i, row) {
        if (json_is_true(json_object_get(row, "chosen")) && bench_number(row, "seconds") > 0.0) {
            bench_axis_include(&plot.x, bench_number(row, "flops") / bench_number(row, "bytes"));
            bench_axis_include(&plot.y, bench_number(row, "flops") / bench_number(row, "seconds"));
        }
    }
    bench_axis_include(&plot.x, 2.0 * bench_number(rates, "flops_f32") / bandwidth);
    bench_axis_include(
        &plot.y, 1.3 * fmax(fmax(bench_number(rates, "flops_bf16"), bench_number(rates, "flops_f32")), registers));
    bench_axis_include(&plot.y, plot.x.low * bandwidth);
    figure_begin(file, "Roofline: the kernels that a run takes",
                 json_array_size(documents) > 1 ? machine_of(document) : NULL);
    bench_plot_begin(&plot, file, "roofline");
    double best = bench_number(rates, "flops_f32"), best_bf16 = bench_number(rates, "flops_bf16");
    draw_roof(&plot, registers > best ? registers : best, bandwidth,
              registers > best ? "registers, GFLOP/s:" : "best product, GFLOP/s:", false);
    if (registers > best) {
        draw_roof(&plot, best, bandwidth, "best fp32 product:", true);
    }
    if (best_bf16 > 1.1 * best) {
        draw_roof(&plot, best_bf16, bandwidth, "best bf16 product:", true);
    }
    json_array_foreach(rows, i, row) {
        double seconds = bench_number(row, "seconds");
        if (!json_is_true(json_object_get(row, "chosen")) || seconds <= 0.0) {
            continue;
        }
        fprintf(file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\" fill=\"%s\" fill-opacity=\"0.85\"><title>",
                bench_plot_x(&plot, bench_number(row, "flops") / bench_number(row, "bytes")),
                bench_plot_y(&plot, bench_number(row, "flops") / seconds),
                bench_colour(colour_of(bench_text(row, "op"))));
        bench_put_text(file, bench_text(row, "kernel"));
        fprintf(file, " %s: %.1f GFLOP/s</title></circle>\n", bench_text(row, "shape"),
                1e-9 * bench_number(row, "flops") / seconds);
    }
    for (int k = 0; k < 5; k++) {
        bench_plot_legend(&plot, kinds[k]);
    }
    bench_plot_end(&plot);
    figure_end(file);
}

static void put_kernels(FILE *file, const json_t *document) {
    size_t i;
    json_t *row;
    const json_t *rates = rates_of(document);
    double bandwidth = bench_number(rates, "bandwidth");
    double peak = fmax(bench_number(rates, "flops_registers"),
                       fmax(bench_number(rates, "flops_f32"), bench_number(rates, "flops_bf16")));
    fputs("<div class=\"wide\"><table><thead><tr><th class=\"l\">operation</th><th class=\"l\">shape</th>"
          "<th class=\"l\">kernel</th><th>ms</th><th>GFLOP/s</th><th>GB/s</th><th>of the roof</th><th>error</th>"
          "</tr></thead><tbody>\n",
          file);
    json_array_foreach(json_object_get(json_object_get(document, "kernels"), "kernels"), i, row) {
        double seconds = bench_number(row, "seconds"), flops = bench_number(row, "flops");
        double bytes = bench_number(row, "bytes"), error = bench_number(row, "error");
        const char *best = json_is_true(json_object_get(row, "chosen")) ? " best" : "";
        fprintf(file, "<tr><td class=\"l\">%s</td><td class=\"l\">%s</td><td class=\"l%s\">%s</td>",
                bench_text(row, "op"), bench_text(row, "shape"), best, bench_text(row, "kernel"));
        if (seconds <= 0.0) {
            fputs("<td class=\"l\" colspan=\"5\">", file);
            bench_put_text(file, bench_text(row, "failure"));
            fputs("</td></tr>\n", file);
            continue;
        }
        double roof = fmin(peak, flops / bytes * bandwidth);
        fprintf(file, "<td>%.3f</td><td>%.1f</td><td>%.1f</td><td>%.0f %%</td><td>", 1e3 * seconds,
                1e-9 * flops / seconds, 1e-9 * bytes / seconds, roof > 0.0 ? 100.0 * flops / seconds / roof : 0.0);
        fprintf(file, error < 0.0 ? "</td></tr>\n" : "%.1e%s</td></tr>\n", error,
                json_is_true(json_object_get(row, "wrong")) ? " WRONG" : "");
    }
    fputs("</tbody></table></div>\n", file);
}

void pictures_kernels(FILE *file, const json_t *documents) {
    size_t i;
    json_t *document;
    fputs("<div class=\"row\">\n", file);
    json_array_foreach(documents, i, document) {
        if (rates_of(document) != NULL) {
            draw_roofline(file, documents, document);
        }
    }
    fputs("</div>\n<p class=\"note\">The roof is the smaller of the highest rate and intensity times bandwidth; what "
          "lies "
          "in the caches can be above it. Error: largest deviation from the reference in double precision over the "
          "largest magnitude. Bold: what a run takes.</p>\n",
          file);
    json_array_foreach(documents, i, document) {
        const json_t *rates = rates_of(document);
        if (rates == NULL) {
            continue;
        }
        fputs("<p>", file);
        bench_put_text(file, machine_of(document));
        fprintf(file, ": best product %.1f GFLOP/s in fp32, %.1f with bf16 weights; memory %.1f GB/s",
                1e-9 * bench_number(rates, "flops_f32"), 1e-9 * bench_number(rates, "flops_bf16"),
                1e-9 * bench_number(rates, "bandwidth"));
        if (bench_number(rates, "flops_registers") > 0.0) {
            fprintf(file, "; in registers %.1f GFLOP/s fp32", 1e-9 * bench_number(rates, "flops_registers"));
        }
        if (bench_number(rates, "flops_registers_bf16") > 0.0) {
            fprintf(file, ", %.1f bf16", 1e-9 * bench_number(rates, "flops_registers_bf16"));
        }
        fputs("</p>\n", file);
        put_kernels(file, document);
    }
}

/* ---- the attention grid: e down, h across, one map for each b and r ---- */

static int distinct(const json_t *points, const char *key, double *values) {
    int count = 0;
    size_t i;
    json_t *row;
    json_array_foreach(points, i, row) {
        double value = bench_number(row, key);
        int at = 0;
        while (at < count && values[at] < value) {
            at++;
        }
        if (count < MOST && (at == count || values[at] != value)) {
            memmove(values + at + 1, values + at, (size_t)(count - at) * sizeof *values);
            values[at] = value;
            count++;
        }
    }
    return count;
}

static double ratio_at(const json_t *points, double b, double e, double h, double r, const char *above,
                       const char *below) {
    size_t i;
    json_t *row;
    json_array_foreach(points, i, row) {
        if (bench_number(row, "b") == b && bench_number(row, "e") == e && bench_number(row, "h") == h &&
            bench_number(row, "r") == r && bench_number(row, below) > 0.0) {
            return bench_number(row, above) / bench_number(row, below);
        }
    }
    return 0.0;
}

/* Below 1 orange, above 1 blue, white between; 1/4 and 4 are full. Black letters are legible on all of them. */
static void cell_colour(double ratio, char text[24]) {
    double t = fmax(-1.0, fmin(1.0, log2(ratio) / 2.0));
    int full[3] = {t > 0.0 ? 100 : 245, t > 0.0 ? 160 : 150, t > 0.0 ? 225 : 60}, rgb[3];
    for (int i = 0; i < 3; i++) {
        rgb[i] = (int)(255.0 + fabs(t) * (full[i] - 255.0));
    }
    snprintf(text, 24, "#%02x%02x%02x", (unsigned)rgb[0], (unsigned)rgb[1], (unsigned)rgb[2]);
}

static void draw_grid(FILE *file, const json_t *points, const char *above, const char *below) {
    enum { CELL = 33, ROW = 22, GAP = 14, LEFT = 66, TOP = 36 };
    double b[MOST], e[MOST], h[MOST], r[MOST];
    int nb = distinct(points, "b", b), ne = distinct(points, "e", e), nh = distinct(points, "h", h);
    int nr = distinct(points, "r", r), block_width = nh * CELL + GAP, block_height = ne * ROW + GAP;
    int width = LEFT + nr * block_width;
    fprintf(file, "<svg viewBox=\"0 0 %d %d\" role=\"img\">\n", width > 520 ? width : 520, TOP + nb * block_height + 4);
    for (int j = 0; j < nr; j++) {
        fprintf(file, "<text x=\"%d\" y=\"13\" class=\"mid\">r = %.0f%s</text>\n",
                LEFT + j * block_width + nh * CELL / 2, r[j], j == 0 ? ", h across, e down" : "");
        for (int x = 0; x < nh; x++) {
            fprintf(file, "<text x=\"%d\" y=\"29\" class=\"mid\" style=\"font-size:9.5px\">%.0f</text>\n",
                    LEFT + j * block_width + x * CELL + CELL / 2, h[x]);
        }
    }
    for (int i = 0; i < nb; i++) {
        fprintf(file, "<text x=\"2\" y=\"%d\">b=%.0f</text>\n", TOP + i * block_height + 11, b[i]);
        for (int y = 0; y < ne; y++) {
            fprintf(file, "<text x=\"%d\" y=\"%d\" class=\"end\" style=\"font-size:9.5px\">%.0f</text>\n", LEFT - 4,
                    TOP + i * block_height + y * ROW + 15, e[y]);
            for (int j = 0; j < nr; j++) {
                for (int x = 0; x < nh; x++) {
                    double ratio = ratio_at(points, b[i], e[y], h[x], r[j], above, below);
                    int left = LEFT + j * block_width + x * CELL, top = TOP + i * block_height + y * ROW;
                    char colour[24] = "none";
                    if (ratio > 0.0) {
                        cell_colour(ratio, colour);
                        fprintf(file,
                                "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/>"
                                "<text x=\"%d\" y=\"%d\" class=\"mid cell\">%.2f</text>\n",
                                left, top, CELL - 1, ROW - 1, colour, left + CELL / 2, top + 15, ratio);
                    }
                }
            }
        }
    }
    fputs("</svg>\n", file);
}

static void put_summary(FILE *file, const json_t *points, const char *above, const char *below, const char *text) {
    size_t i;
    json_t *row;
    int count = 0, faster = 0;
    double sum = 0.0, least = INFINITY;
    json_array_foreach(points, i, row) {
        double ratio = bench_number(row, below) > 0.0 ? bench_number(row, above) / bench_number(row, below) : 0.0;
        if (ratio > 0.0) {
            count++;
            faster += ratio > 1.0;
            sum += log(ratio);
            least = fmin(least, ratio);
        }
    }
    if (count > 0) {
        fprintf(file, "<p>%s on <b>%d of %d</b> points; geometric mean %.2f, least %.2f.</p>\n", text, faster, count,
                exp(sum / count), least);
    }
}

void pictures_grid(FILE *file, const json_t *documents) {
    size_t i;
    json_t *document;
    json_array_foreach(documents, i, document) {
        const json_t *part = json_object_get(document, "attention_grid"), *points = json_object_get(part, "points");
        const char *machine = json_array_size(documents) > 1 ? machine_of(document) : NULL;
        if (json_array_size(points) == 0) {
            continue;
        }
        bool jax = bench_number(json_array_get(points, 0), "jax_full_seconds") > 0.0;
        put_summary(file, points, "full_seconds", "lora_seconds", "LoRA is faster than full fine-tuning");
        put_summary(file, points, "jax_full_seconds", "jax_lora_seconds",
                    "In JAX, LoRA is faster than full fine-tuning");
        put_summary(file, points, "jax_full_seconds", "full_seconds", "Full fine-tuning is faster than JAX's");
        put_summary(file, points, "jax_lora_seconds", "lora_seconds", "LoRA is faster than JAX's");
        fputs("<div class=\"row\">\n", file);
        figure_begin(file, "Time of full fine-tuning over that of LoRA", machine);
        draw_grid(file, points, "full_seconds", "lora_seconds");
        figure_end(file);
        if (jax) {
            figure_begin(file, "The same in JAX", machine);
            draw_grid(file, points, "jax_full_seconds", "jax_lora_seconds");
            figure_end(file);
            figure_begin(file, "Full fine-tuning: JAX's time over Lorikeet's", machine);
            draw_grid(file, points, "jax_full_seconds", "full_seconds");
            figure_end(file);
            figure_begin(file, "LoRA: JAX's time over Lorikeet's", machine);
            draw_grid(file, points, "jax_lora_seconds", "lora_seconds");
            figure_end(file);
        }
        fputs("</div>\n", file);
    }
    fputs("<p class=\"note\">Above 1 (blue) the second is faster, below 1 (orange) the first.</p>\n", file);
}
