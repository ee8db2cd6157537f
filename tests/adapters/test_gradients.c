/* The gradient of a whole layer, of every method, through lk_graph_backward in double precision against finite
 * differences. A layer of the model is rebuilt on variables in F64: the method's own code builds the graph. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/adapters/setup.h"
#include "tests/common/fixture.h"
#include "tests/common/runner.h"

enum { TOKENS = 7, SAMPLES = 12, A = 0, B = 1 };
static const double STEP = 1e-5, TOLERANCE = 1e-7;

/* The layer with everything it reads in F64. */
typedef struct layer {
    setup *setup;
    fixture fixture;
    lk_model model;
    lk_adapter adapter;
    lk_linear_site linear;
    lk_adapter_site site;
    lk_adapter_tensor tensors[LK_MAX_SITE_TENSORS];
    lk_variable *x, *dy;
    lk_program *program;
    lk_tensor *y, *gradients[LK_MAX_SITE_TENSORS + 1];
    lk_variable *trained[LK_MAX_SITE_TENSORS + 1]; /* x first */
    int num_trained;
} layer;

static lk_variable *widen(layer *self, lk_variable *narrow) {
    if (narrow == NULL) {
        return NULL;
    }
    size_t count = narrow->bytes / sizeof(float);
    float *values = malloc(narrow->bytes);
    double *wide = malloc(count * sizeof *wide);
    SUCCEEDS(self->setup, lk_variable_download(narrow, values));
    for (size_t i = 0; i < count; i++) {
        wide[i] = (double)values[i];
    }
    lk_variable *made = fixture_variable(&self->fixture, LK_ROLE_INPUT, LK_DTYPE_F64, narrow->rank, narrow->shape[0],
                                         narrow->shape[1], wide);
    free(values);
    free(wide);
    return made;
}

static lk_variable *random_variable(layer *self, uint64_t seed, int64_t rows, int64_t columns) {
    double *values = random_values(&seed, rows * columns, 1.0);
    lk_variable *made = fixture_variable(&self->fixture, LK_ROLE_INPUT, LK_DTYPE_F64, 2, rows, columns, values);
    free(values);
    return made;
}

/* The loss is the sum of dy y, as a product of rows and columns that the ops at hand can make. */
static lk_tensor *weighted_sum(lk_graph *graph, lk_tensor *y, lk_tensor *dy) {
    const int64_t row[] = {1, y->shape[0]}, column[] = {y->shape[1], 1};
    lk_tensor *left = lk_build_fill(graph, y->dtype, 2, row, 1.0f);
    lk_tensor *right = lk_build_fill(graph, y->dtype, 2, column, 1.0f);
    lk_tensor *sums = lk_build_matmul(graph, left, false, lk_build_mul(graph, y, dy), false, 1.0f, NULL);
    return lk_build_matmul(graph, sums, false, right, false, 1.0f, NULL);
}

/* Of Delta-LoRA. To the gradients of A and B the movement of W is a constant, which differences would see: they are
 * compared without it, that of x with it. */
static double delta_ratio;

static void layer_open(layer *self, setup *from, const lk_adapter_site *site) {
    *self = (layer){.setup = from, .model = *from->model, .adapter = *from->adapter, .linear = *site->site};
    fixture_open(&self->fixture);
    self->adapter.num_replacements = 0;
    self->adapter.config.delta_ratio = delta_ratio;
    self->site = *site;
    self->site.site = &self->linear;
    self->linear.weight = widen(self, site->site->weight);
    self->linear.bias = widen(self, site->site->bias);
    self->x = random_variable(self, 1, TOKENS, site->site->in);
    self->dy = random_variable(self, 2, TOKENS, site->site->out);
    self->trained[self->num_trained++] = self->x;
    for (int32_t i = 0; i < site->num_tensors; i++) {
        self->tensors[i] = *site->tensors[i];
        self->tensors[i].value = widen(self, site->tensors[i]->value);
        self->site.tensors[i] = &self->tensors[i];
        if (site->tensors[i]->gradient != NULL) {
            self->trained[self->num_trained++] = self->tensors[i].value;
        }
    }
    for (int i = 0; i < LK_MAX_SITE_CONSTANTS; i++) {
        self->site.constants[i] = widen(self, site->constants[i]);
    }
    lk_graph *graph;
    ck_assert_int_eq(lk_graph_create(self->fixture.context, &graph), LK_OK);
    const double words[] = {1.0, 2.0, 3.0, 4.0};
    lk_variable *rng = fixture_variable(&self->fixture, LK_ROLE_INPUT, LK_DTYPE_I32, 1, 4, 1, words);
    lk_forward forward = {
        .model = &self->model, .adapter = &self->adapter, .graph = graph, .rng = lk_graph_variable(graph, rng)};
    self->y = self->adapter.method->apply(&forward, &self->site, lk_graph_variable(graph, self->x));
    ck_assert_msg(self->y != NULL, "%s", lk_error_message(self->fixture.context));
    lk_tensor *targets[LK_MAX_SITE_TENSORS + 1];
    for (int i = 0; i < self->num_trained; i++) {
        targets[i] = lk_graph_variable(graph, self->trained[i]);
    }
    lk_tensor *loss = weighted_sum(graph, self->y, lk_graph_variable(graph, self->dy));
    ck_assert_int_eq(lk_graph_backward(graph, loss, self->num_trained, targets, self->gradients), LK_OK);
    lk_graph_mark_output(graph, self->y);
    for (int i = 0; i < self->num_trained; i++) {
        ck_assert_ptr_nonnull(self->gradients[i]);
        lk_graph_mark_output(graph, self->gradients[i]);
    }
    self->program = fixture_compile(&self->fixture, graph);
}

static void layer_close(layer *self) {
    lk_program_destroy(self->program);
    fixture_close(&self->fixture);
}

static double *values_of(const lk_variable *variable) {
    double *values = malloc(variable->bytes);
    fixture_read(variable, values);
    return values;
}

/* |W + scale B A| per row, by its definition: what DoRA takes for a constant. */
static void row_norms(const layer *self, double *norms) {
    double *w = values_of(self->linear.weight), *a = values_of(self->tensors[A].value);
    double *b = values_of(self->tensors[B].value);
    int64_t in = self->linear.in, out = self->linear.out, rank = self->site.rank;
    for (int64_t n = 0; n < out; n++) {
        double sum = 0.0;
        for (int64_t k = 0; k < in; k++) {
            double value = w[n * in + k];
            for (int64_t r = 0; r < rank; r++) {
                value += (double)self->site.scale * b[n * rank + r] * a[r * in + k];
            }
            sum += value * value;
        }
        norms[n] = sqrt(sum);
    }
    free(w);
    free(a);
    free(b);
}

/* sum of dy y, with y of DoRA as if the norms were still `norms`. Biases and what dropout keeps from the adapter do not
 * scale, so the test of DoRA is without them. */
static double loss_of(const layer *self, const double *norms) {
    fixture_run(self->program);
    double *y = fixture_output(self->program, self->y), *dy = values_of(self->dy), sum = 0.0;
    double *now = malloc((size_t)self->linear.out * sizeof *now);
    if (norms != NULL) {
        row_norms(self, now);
    }
    for (int64_t i = 0; i < TOKENS * self->linear.out; i++) {
        int64_t n = i % self->linear.out;
        sum += dy[i] * y[i] * (norms != NULL ? now[n] / norms[n] : 1.0);
    }
    free(y);
    free(dy);
    free(now);
    return sum;
}

static void check_tensor(layer *self, int index, const double *norms, const char *method) {
    lk_variable *variable = self->trained[index];
    int64_t count = (int64_t)(variable->bytes / sizeof(double));
    fixture_run(self->program);
    double *gradient = fixture_output(self->program, self->gradients[index]), *values = values_of(variable);
    double largest = 0.0;
    for (int64_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs(gradient[i]));
    }
    ck_assert_msg(largest > 0.0, "%s: the gradient of %d is zero", method, index);
    uint64_t state = 3;
    for (int s = 0; s < SAMPLES; s++) {
        int64_t at = random_below(&state, count);
        double kept = values[at];
        values[at] = kept + STEP;
        fixture_write(variable, values);
        double above = loss_of(self, norms);
        values[at] = kept - STEP;
        fixture_write(variable, values);
        double below = loss_of(self, norms), expected = (above - below) / (2.0 * STEP);
        values[at] = kept;
        fixture_write(variable, values);
        ck_assert_msg(fabs(gradient[at] - expected) <= TOLERANCE * fmax(1.0, largest),
                      "%s: tensor %d element %lld: %.12g, expected %.12g (largest %.3g)", method, index, (long long)at,
                      gradient[at], expected, largest);
    }
    free(gradient);
    free(values);
}

static void check_layer(const char *method, const char *path, double dropout) {
    setup made;
    layer self;
    bool dora = strcmp(method, "dora") == 0;
    setup_open(&made, "reference");
    setup_adapt(&made, method, dora ? 0.0 : dropout);
    setup_disturb(&made);
    const lk_linear_site *linear = lk_model_find_site(made.model, path);
    ck_assert_ptr_nonnull(linear);
    layer_open(&self, &made, lk_adapter_site_of(made.adapter, linear));
    double *norms = NULL;
    if (dora) {
        norms = malloc((size_t)self.linear.out * sizeof *norms);
        row_norms(&self, norms);
    }
    for (int i = 0; i < (delta_ratio > 0.0 ? 1 : self.num_trained); i++) {
        check_tensor(&self, i, norms, method);
    }
    free(norms);
    layer_close(&self);
    setup_close(&made);
}

START_TEST(test_a_layer) {
    const char *method = lk_adapter_methods()[_i];
    check_layer(method, "model.layers.1.mlp.down_proj", 0.0);
    if (strcmp(method, "delta-lora") == 0) {
        delta_ratio = 2.0;
        check_layer(method, "model.layers.1.mlp.down_proj", 0.0);
        delta_ratio = 0.0;
    }
    check_layer(method, "model.layers.0.mlp.up_proj", 0.3);
    if (strcmp(method, "dora") != 0) {
        check_layer(method, "model.layers.0.self_attn.q_proj", 0.3); /* has a bias */
    }
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("gradients");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, test_a_layer, 0, setup_num_methods());
    return run_case("gradients", tests);
}
