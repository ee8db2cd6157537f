/* Line pictures as SVG, for a page that is light or dark or printed: lines and letters take the page's colour. */
#include <math.h>
#include <string.h>

#include "bench.h"

enum { WIDTH = 560, HEIGHT = 360, LEFT = 74, RIGHT = 18, TOP = 34, BOTTOM = 52 };

/* Paul Tol's bright scheme: told apart by people who see colours differently. */
static const char *const colours[] = {"#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888"};

const char *bench_colour(int index) {
    return colours[(size_t)index % (sizeof colours / sizeof *colours)];
}

void bench_put_text(FILE *file, const char *text) {
    for (; *text != '\0'; text++) {
        if (strchr("&<>\"'", *text) != NULL) {
            fprintf(file, "&#%d;", *text);
        } else {
            fputc(*text, file);
        }
    }
}

void bench_axis_include(bench_axis *axis, double value) {
    if (axis->logarithmic && value <= 0.0) {
        return;
    }
    bool empty = axis->low == 0.0 && axis->high == 0.0;
    axis->low = empty || value < axis->low ? value : axis->low;
    axis->high = empty || value > axis->high ? value : axis->high;
}

static double place(const bench_axis *axis, double value) {
    double low = axis->low, high = axis->high;
    if (axis->logarithmic) {
        value = log(value > 0.0 ? value : low);
        low = log(low);
        high = log(high);
    }
    return high > low ? (value - low) / (high - low) : 0.5;
}

double bench_plot_x(const bench_plot *plot, double value) {
    return LEFT + place(&plot->x, value) * (WIDTH - LEFT - RIGHT);
}

double bench_plot_y(const bench_plot *plot, double value) {
    return HEIGHT - BOTTOM - place(&plot->y, value) * (HEIGHT - TOP - BOTTOM);
}

/* 1500 -> "1.5k"; ticks of a linear axis all have the unit of its end. */
static void format_tick(const bench_axis *axis, double value, char text[32]) {
    static const char *const decimal[] = {"n", "µ", "m", "", "k", "M", "G", "T", "P"};
    if (axis->bytes) {
        cli_bytes(value, text);
        return;
    }
    int unit = 3;
    double size = fabs(axis->logarithmic ? value : axis->high);
    for (; size >= 9999.5 && unit < 8; unit++) {
        size /= 1000.0;
        value /= 1000.0;
    }
    for (; size > 0.0 && size < 0.5 && unit > 0; unit--) {
        size *= 1000.0;
        value *= 1000.0;
    }
    snprintf(text, 32, "%.4g%s", value, value != 0.0 ? decimal[unit] : "");
}

static void widen(bench_axis *axis) {
    if (axis->logarithmic) {
        axis->low = axis->low > 0.0 ? axis->low : 1.0;
        axis->high = axis->high > axis->low ? axis->high : axis->low * 2.0;
        double margin = pow(axis->high / axis->low, 0.04);
        axis->low /= margin;
        axis->high *= margin;
    } else {
        axis->low = axis->low > 0.0 ? 0.0 : axis->low;
        axis->high = axis->high > axis->low ? axis->high * 1.06 : axis->low + 1.0;
    }
}

/* Ticks at round values: powers of 2 or 10 (and parts of them where few fit), or multiples of 1, 2 or 5. */
static int find_ticks(const bench_axis *axis, double *ticks, int most) {
    int count = 0;
    if (axis->logarithmic) {
        double decades = log10(axis->high / axis->low);
        bool twos = decades < 3.2;
        double base = twos ? 2.0 : 10.0, step = decades > 8 ? 100.0 : twos && decades > 2.2 ? 4.0 : base;
        double tick = pow(base, floor(log(axis->low) / log(base)));
        while (tick < axis->low) {
            tick *= step;
        }
        while (tick <= axis->high && count < most) {
            ticks[count++] = tick;
            tick *= step;
        }
        return count;
    }
    double span = axis->high - axis->low,
           unit = axis->bytes ? pow(2.0, floor(log2(span / 4.0))) : pow(10.0, floor(log10(span / 4.0)));
    double step = axis->bytes ? unit : span / unit > 20.0 ? 5.0 * unit : span / unit > 8.0 ? 2.0 * unit : unit;
    double first = ceil(axis->low / step) * step, tick = first;
    while (tick <= axis->high && count < most) {
        ticks[count++] = fabs(tick) < 1e-9 * span ? 0.0 : tick;
        tick = first + count * step;
    }
    return count;
}

void bench_plot_begin(bench_plot *plot, FILE *file, const char *title) {
    double ticks[24];
    char text[32];
    plot->file = file;
    plot->series = 0;
    widen(&plot->x);
    widen(&plot->y);
    fprintf(file, "<svg viewBox=\"0 0 %d %d\" role=\"img\"><title>", WIDTH, HEIGHT);
    bench_put_text(file, title);
    fprintf(file, "</title>\n");
    int count = find_ticks(&plot->y, ticks, 24);
    for (int i = 0; i < count; i++) {
        double y = bench_plot_y(plot, ticks[i]);
        format_tick(&plot->y, ticks[i], text);
        fprintf(file, "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" class=\"end\">%s</text>\n",
                LEFT, y, WIDTH - RIGHT, LEFT - 6, y + 4.0, text);
    }
    count = find_ticks(&plot->x, ticks, 24);
    for (int i = 0; i < count; i++) {
        double x = bench_plot_x(plot, ticks[i]);
        format_tick(&plot->x, ticks[i], text);
        fprintf(file, "<path class=\"grid\" d=\"M%.1f %dV%d\"/><text x=\"%.1f\" y=\"%d\" class=\"mid\">%s</text>\n", x,
                TOP, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 17, text);
    }
    fprintf(file, "<path class=\"axis\" d=\"M%d %dV%dH%d\"/>\n<text x=\"%d\" y=\"%d\" class=\"mid\">", LEFT, TOP,
            HEIGHT - BOTTOM, WIDTH - RIGHT, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14);
    bench_put_text(file, plot->x.label);
    fprintf(file, "</text>\n<text x=\"%d\" y=\"15\" class=\"name\">", 4);
    bench_put_text(file, plot->y.label);
    fprintf(file, "</text>\n");
}

void bench_plot_legend(bench_plot *plot, const char *name) {
    const char *colour = bench_colour(plot->series);
    int y = TOP + 14 + 17 * plot->series++;
    fprintf(plot->file, "<circle cx=\"%d\" cy=\"%d\" r=\"5\" fill=\"%s\"/><text x=\"%d\" y=\"%d\" class=\"key\">",
            LEFT + 14, y - 4, colour, LEFT + 24, y);
    bench_put_text(plot->file, name);
    fprintf(plot->file, "</text>\n");
}

void bench_plot_line(bench_plot *plot, const char *name, const double *x, const double *y, int count) {
    const char *colour = bench_colour(plot->series);
    fprintf(plot->file, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour);
    for (int i = 0; i < count; i++) {
        fprintf(plot->file, "%.1f,%.1f ", bench_plot_x(plot, x[i]), bench_plot_y(plot, y[i]));
    }
    fprintf(plot->file, "\"/>\n");
    for (int i = 0; i < count && count <= 64; i++) {
        fprintf(plot->file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"><title>%g: %g</title></circle>\n",
                bench_plot_x(plot, x[i]), bench_plot_y(plot, y[i]), colour, x[i], y[i]);
    }
    if (name != NULL) {
        bench_plot_legend(plot, name);
    }
}

void bench_plot_end(bench_plot *plot) {
    fprintf(plot->file, "</svg>\n");
}
