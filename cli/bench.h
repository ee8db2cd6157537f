/* lorikeet bench: its parts (bench.def), what they share, and the report that their results go to. */
#ifndef LK_CLI_BENCH_H
#define LK_CLI_BENCH_H

#include <stdio.h>

#include "cli.h"
#include "lorikeet_bench.h"

#define LK_BENCH(name, title, summary) int bench_##name(int argc, const char **argv);
#include "bench.def"
#undef LK_BENCH

/* ---- results (bench_results.c) ----
 *
 * A document: {"lorikeet": version, "date", "machine": {...}, "kernels": {...}, ...}, with one member for each part
 * that was run. A part is an object of "settings" (flat) and tables: arrays of flat objects, which become CSV rows. */

typedef struct bench_results {
    const char *json_path, *csv_path, *html_path, *label;
    double load_before;
} bench_results;

void bench_results_options(bench_results *results, cli_options *options);
/* Writes what the options ask for; takes over `part` (NULL: out of memory). Returns the exit status. */
int bench_results_write(const bench_results *results, const cli_workspace *workspace, const char *name, json_t *part);
/* Into a file beside the target first. */
int bench_write_file(const char *path, int (*write)(FILE *file, void *user), void *user);

double bench_number(const json_t *object, const char *key); /* 0 where it is absent */
const char *bench_text(const json_t *object, const char *key);
/* "1,2,8" into values; how many, or 0 after a message. */
int bench_parse_list(const char *option, const char *text, int64_t *values, int most);

/* ---- models to train (bench_model.c) ---- */

typedef struct bench_model {
    cli_workspace *workspace;
    const char *path, *size; /* a model's files, or the name of sizes that get random weights */
    int64_t layers;          /* of those sizes; 0: all */
    int dtype;               /* index into cli_dtype_names */
    int recompute;
    lk_data_options data;
    int64_t steps; /* timed */
    char folder[512];
    const char *name;
} bench_model;

typedef struct bench_run {
    const char *method;
    int32_t rank;
    int64_t batch, seq;
} bench_run;

void bench_model_init(bench_model *model, cli_workspace *workspace);
void bench_model_options(bench_model *model, cli_options *options);
/* Opens session and model; threads 0: as the option says. Close one before opening another. */
int bench_model_open(bench_model *model, int32_t threads);
void bench_model_close(bench_model *model);
void bench_model_remove(bench_model *model); /* the files with random weights */
/* Trains and returns a row: the settings, seconds, tokens per second, memory by purpose; with "failure" where it did
 * not work. profile, if not NULL, receives lk_trainer_profile's object. NULL: out of memory. */
json_t *bench_model_train(bench_model *model, const bench_run *run, json_t **profile);
json_t *bench_model_settings(const bench_model *model);

/* ---- the report (bench_html.c) ---- */

/* documents: an array. Returns the exit status. */
int bench_html_write(const char *path, const json_t *documents);

/* ---- pictures as SVG (bench_svg.c) ---- */

typedef struct bench_axis {
    const char *label; /* with the unit */
    double low, high;
    bool logarithmic, bytes; /* bytes: ticks in powers of two */
} bench_axis;

typedef struct bench_plot {
    FILE *file;
    bench_axis x, y;
    int series; /* named so far */
} bench_plot;

const char *bench_colour(int index);
void bench_put_text(FILE *file, const char *text); /* safe in HTML */
void bench_plot_begin(bench_plot *plot, FILE *file, const char *title);
/* Widens the axis so that it holds the value. */
void bench_axis_include(bench_axis *axis, double value);
double bench_plot_x(const bench_plot *plot, double value);
double bench_plot_y(const bench_plot *plot, double value);
/* Points joined by lines, in the next colour; adds the name to the legend unless it is NULL. */
void bench_plot_line(bench_plot *plot, const char *name, const double *x, const double *y, int count);
void bench_plot_legend(bench_plot *plot, const char *name);
void bench_plot_end(bench_plot *plot);

#endif
