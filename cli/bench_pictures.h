/* The sections of the report. Each takes all documents and uses those that have its part. */
#ifndef LK_CLI_BENCH_PICTURES_H
#define LK_CLI_BENCH_PICTURES_H

#include <jansson.h>
#include <stdio.h>

void pictures_train(FILE *file, const json_t *documents);
void pictures_scaling(FILE *file, const json_t *documents);
void pictures_kernels(FILE *file, const json_t *documents);
void pictures_grid(FILE *file, const json_t *documents);
void pictures_compare(FILE *file, const json_t *documents);

/* <figure> with a caption: "text, machine" where there are several machines, or the text alone. */
void figure_begin(FILE *file, const char *text, const char *machine);
void figure_end(FILE *file);
const char *machine_of(const json_t *document); /* its label */

#endif
