/* Differentiation of whole graphs: only what is on the way from the loss to a trained tensor is built, gradients of
 * shared tensors are summed, and the result is the derivative. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/fixture.h"
#include "tests/common/runner.h"
#include "tests/common/toy_model.h"

enum { ALL_LINEARS = (1 << TOY_LINEARS) - 1 };

static toy_model build(fixture *self, const toy_options *options) {
    toy_model model;
    lk_status status = toy_build(self->context, self->variables, options, &model);
    ck_assert_msg(status == LK_OK, "%s", lk_error_message(self->context));
    status = toy_backward(&model);
    ck_assert_msg(status == LK_OK, "%s", lk_error_message(self->context));
    return model;
}

static int count_backward(const toy_model *model, lk_op op) {
    int count = 0;
    for (int32_t i = model->num_forward_nodes; i < lk_graph_num_nodes(model->graph); i++) {
        count += lk_graph_node(model->graph, i)->op == op;
    }
    return count;
}

/* LoRA on q and v of the last layer: nothing below that layer, and within it no gradient for k, for any weight, or for
 * the layer's own input. */
START_TEST(test_only_the_way_to_a_target) {
    fixture self;
    fixture_open(&self);
    toy_model model =
        build(&self,
              &(toy_options){.dtype = LK_DTYPE_F64, .adapted = {0, 0, 1u << TOY_Q | 1u << TOY_V}, .seed = test_seed()});
    ck_assert_int_eq(model.num_trained, 4);
    for (int32_t i = model.num_forward_nodes; i < lk_graph_num_nodes(model.graph); i++) {
        const lk_node *node = lk_graph_node(model.graph, i);
        ck_assert_msg(strcmp(node->scope, "layers.0") != 0 && strcmp(node->scope, "layers.1") != 0,
                      "%s was built for %s", lk_op_name(node->op), node->scope);
        if (node->op == LK_OP_RMS_NORM_BACKWARD) {
            ck_assert_ptr_null(node->outputs[1]);
        }
        if (node->op == LK_OP_ATTENTION_BACKWARD) {
            ck_assert_ptr_nonnull(node->outputs[0]);
            ck_assert_ptr_null(node->outputs[1]);
            ck_assert_ptr_nonnull(node->outputs[2]);
        }
        if (node->op == LK_OP_LORA_LINEAR_BACKWARD) {
            ck_assert_ptr_null(node->outputs[0]);
        }
    }
    ck_assert_int_eq(count_backward(&model, LK_OP_MATMUL), 4); /* dx of down, gate, up, o */
    ck_assert_int_eq(count_backward(&model, LK_OP_SWIGLU_BACKWARD), 1);
    ck_assert_int_eq(count_backward(&model, LK_OP_ADD), 2); /* gate and up share x; the residual */
    ck_assert_int_eq(count_backward(&model, LK_OP_RMS_NORM_BACKWARD), 2);
    ck_assert_int_eq(count_backward(&model, LK_OP_ATTENTION_BACKWARD), 1);
    ck_assert_int_eq(count_backward(&model, LK_OP_ROPE), 1);
    ck_assert_int_eq(count_backward(&model, LK_OP_LORA_LINEAR_BACKWARD), 2);
    ck_assert_int_eq(count_backward(&model, LK_OP_FILL), 1);
    ck_assert_int_eq(lk_graph_num_nodes(model.graph) - model.num_forward_nodes, 14);
    ck_assert_int_eq(lk_graph_optimize(model.graph), LK_OK);
    /* the two sums of gradients went into the ops that make them; the residuals of the forward pass are left */
    ck_assert_int_eq(count_nodes(model.graph, LK_OP_ADD), 2 * TOY_LAYERS);
    lk_graph_destroy(model.graph);
    fixture_close(&self);
}
END_TEST

/* The lowest adapter decides how far down gradients go. */
START_TEST(test_depth_follows_the_lowest_adapter) {
    for (int lowest = 0; lowest < TOY_LAYERS; lowest++) {
        fixture self;
        fixture_open(&self);
        toy_options options = {.dtype = LK_DTYPE_F64, .seed = test_seed()};
        options.adapted[lowest] = 1u << TOY_V;
        toy_model model = build(&self, &options);
        int layers = TOY_LAYERS - lowest;
        ck_assert_int_eq(count_backward(&model, LK_OP_ATTENTION_BACKWARD), layers);
        ck_assert_int_eq(count_backward(&model, LK_OP_RMS_NORM_BACKWARD), 1 + layers + (layers - 1));
        ck_assert_int_eq(count_backward(&model, LK_OP_EMBEDDING_BACKWARD), 0);
        lk_graph_destroy(model.graph);
        fixture_close(&self);
    }
}
END_TEST

START_TEST(test_loss_that_depends_on_no_target) {
    fixture self;
    fixture_open(&self);
    toy_model model;
    toy_options options = {.dtype = LK_DTYPE_F64, .seed = test_seed()};
    ck_assert_int_eq(toy_build(self.context, self.variables, &options, &model), LK_OK);
    lk_tensor *stranger =
        lk_graph_variable(model.graph, fixture_variable(&self, LK_ROLE_STATE, LK_DTYPE_F64, 1, 3, 0, NULL));
    lk_tensor *gradient = stranger;
    ck_assert_int_eq(lk_graph_backward(model.graph, model.loss, 1, &stranger, &gradient), LK_OK);
    ck_assert_ptr_null(gradient);
    ck_assert_int_eq(lk_graph_num_nodes(model.graph), model.num_forward_nodes);
    lk_graph_destroy(model.graph);
    fixture_close(&self);
}
END_TEST

static lk_graph *new_graph(fixture *self) {
    lk_graph *graph;
    ck_assert_int_eq(lk_graph_create(self->context, &graph), LK_OK);
    return graph;
}

START_TEST(test_refusals) {
    fixture self;
    fixture_open(&self);
    lk_variable *x = fixture_variable(&self, LK_ROLE_STATE, LK_DTYPE_F64, 2, 2, 3, NULL);
    lk_variable *ones = fixture_variable(&self, LK_ROLE_STATE, LK_DTYPE_F64, 1, 3, 0, NULL);
    lk_tensor *target, *gradient;
    lk_graph *graph = new_graph(&self); /* a loss of more than one element */
    target = gradient = lk_graph_variable(graph, x);
    lk_tensor *y = lk_build_scale(graph, target, 2.0f);
    ck_assert_int_eq(lk_graph_backward(graph, y, 1, &target, &gradient), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_null(gradient);
    ck_assert_int_eq(lk_graph_status(graph), LK_STATUS_INVALID_ARGUMENT);
    lk_graph_destroy(graph);

    graph = new_graph(&self); /* an op that has no gradient */
    target = gradient = lk_graph_variable(graph, x);
    lk_tensor *norm = lk_build_grad_norm(graph, 1, &target);
    ck_assert_int_eq(lk_graph_backward(graph, norm, 1, &target, &gradient), LK_STATUS_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "grad_norm"));
    ck_assert_ptr_null(gradient);
    lk_graph_destroy(graph);

    graph = new_graph(&self); /* a second output that is used besides the first: its part would be lost in silence */
    target = gradient = lk_graph_variable(graph, x);
    const lk_attributes epsilon = {.norm = {1e-5f}};
    lk_tensor *inputs[] = {target, lk_graph_variable(graph, ones)}, *outputs[2];
    lk_graph_add(graph, LK_OP_RMS_NORM, 2, inputs, &epsilon, 3, 2, outputs);
    lk_tensor *left = lk_build_fill(graph, LK_DTYPE_F64, 2, (const int64_t[]){1, 2}, 1.0f);
    lk_tensor *right = lk_build_fill(graph, LK_DTYPE_F64, 2, (const int64_t[]){3, 1}, 1.0f);
    lk_tensor *row = lk_build_matmul(graph, left, false, outputs[0], false, 1.0f, NULL);
    row = lk_build_matmul(graph, row, false, right, false, 1.0f, NULL);
    lk_tensor *with_rstd = lk_build_add_bias(
        graph,
        lk_build_matmul(graph, row, false, lk_build_fill(graph, LK_DTYPE_F64, 2, (const int64_t[]){1, 2}, 1.0f), false,
                        1.0f, NULL),
        outputs[1]);
    lk_tensor *loss =
        lk_build_matmul(graph, with_rstd, false, lk_build_fill(graph, LK_DTYPE_F64, 2, (const int64_t[]){2, 1}, 1.0f),
                        false, 1.0f, NULL);
    ck_assert_msg(loss != NULL, "%s", lk_error_message(self.context));
    ck_assert_int_eq(lk_graph_backward(graph, loss, 1, &target, &gradient), LK_STATUS_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "rms_norm"));
    lk_graph_destroy(graph);
    fixture_close(&self);
}
END_TEST

/* x used three times: loss = sum(x x + 2 x) has the gradient 2 x + 2. */
START_TEST(test_shared_tensors_are_summed) {
    fixture self;
    fixture_open(&self);
    uint64_t state = test_seed();
    double *values = random_values(&state, 6, 1.0);
    lk_graph *graph = new_graph(&self);
    lk_tensor *x = lk_graph_variable(graph, fixture_variable(&self, LK_ROLE_STATE, LK_DTYPE_F64, 2, 2, 3, values));
    lk_tensor *y = lk_build_add(graph, lk_build_mul(graph, x, x), lk_build_scale(graph, x, 2.0f)), *gradient;
    lk_tensor *left = lk_build_fill(graph, LK_DTYPE_F64, 2, (const int64_t[]){1, 2}, 1.0f);
    lk_tensor *right = lk_build_fill(graph, LK_DTYPE_F64, 2, (const int64_t[]){3, 1}, 1.0f);
    lk_tensor *loss = lk_build_matmul(graph, lk_build_matmul(graph, left, false, y, false, 1.0f, NULL), false, right,
                                      false, 1.0f, NULL);
    ck_assert_int_eq(lk_graph_backward(graph, loss, 1, &x, &gradient), LK_OK);
    lk_graph_mark_output(graph, gradient);
    lk_program *program = fixture_compile(&self, graph);
    fixture_run(program);
    double *found = fixture_output(program, gradient);
    for (int i = 0; i < 6; i++) {
        ck_assert_double_eq_tol(found[i], 2.0 * values[i] + 2.0, 1e-14);
    }
    free(found);
    free(values);
    lk_program_destroy(program);
    fixture_close(&self);
}
END_TEST

/* ---- the chain through the whole model ---- */

static double loss_of(lk_program *program, const lk_tensor *loss) {
    double value;
    require_msg(lk_program_run(program) == LK_OK && lk_program_read(program, loss, &value, sizeof value) == LK_OK,
                "the loss");
    return value;
}

/* Four points: with h = 1e-4 the error is h^4 f''''' / 30 = 3e-18 f''''' and eps f / h = 5e-12. */
static double derivative(lk_program *program, const lk_tensor *loss, double *at) {
    static const double step = 1e-4, weights[] = {8.0, -8.0, -1.0, 1.0}, distances[] = {1.0, -1.0, 2.0, -2.0};
    double kept = *at, sum = 0.0;
    for (int i = 0; i < 4; i++) {
        *at = kept + distances[i] * step;
        sum += weights[i] * loss_of(program, loss);
    }
    *at = kept;
    return sum / (12.0 * step);
}

static const toy_options chains[] = {
    {.dtype = LK_DTYPE_F64, .adapted = {ALL_LINEARS, ALL_LINEARS, ALL_LINEARS}},
    {.dtype = LK_DTYPE_F64, .adapted = {ALL_LINEARS, 1u << TOY_K, ALL_LINEARS}, .dropout = 0.25f},
    {.dtype = LK_DTYPE_F64,
     .adapted = {1u << TOY_Q, 0, 1u << TOY_DOWN},
     .train_norms = true,
     .train_biases = true,
     .train_table = true,
     .tied = true},
};

START_TEST(test_chain) {
    fixture self;
    fixture_open(&self);
    toy_options options = chains[_i];
    options.seed = test_seed();
    toy_model model = build(&self, &options), forward;
    lk_program *program = fixture_compile(&self, model.graph);
    ck_assert_int_eq(toy_build(self.context, self.variables, &options, &forward), LK_OK);
    lk_graph_mark_output(forward.graph, forward.loss);
    lk_program *loss = fixture_compile(&self, forward.graph);
    fixture_run(program);
    double value;
    ck_assert_int_eq(lk_program_read(program, model.loss, &value, sizeof value), LK_OK);
    ck_assert(value == loss_of(loss, forward.loss));
    for (int i = 0; i < model.num_trained; i++) {
        lk_variable *variable = model.trained[i]->variable;
        ck_assert_msg(model.gradients[i] != NULL, "%s has no gradient", variable->name);
        int64_t count = lk_tensor_elements(model.trained[i]);
        double *gradient = fixture_output(program, model.gradients[i]), *at = lk_variable_map(variable), largest = 0.0;
        for (int64_t j = 0; j < count; j++) {
            largest = fmax(largest, fabs(gradient[j]));
        }
        ck_assert_msg(largest > 0.0, "the gradient of %s is zero", variable->name);
        for (int64_t j = 0; j < count; j++) {
            double expected = derivative(loss, forward.loss, at + j);
            require_msg(fabs(gradient[j] - expected) <= 1e-7 * largest + 2e-11,
                        "%s[%lld]: %.12g, expected %.12g (seed %llu)", variable->name, (long long)j, gradient[j],
                        expected, (unsigned long long)test_seed());
        }
        free(gradient);
    }
    lk_program_destroy(program);
    lk_program_destroy(loss);
    fixture_close(&self);
}
END_TEST

int main(void) {
    test_seed();
    TCase *tests = tcase_create("autodiff");
    tcase_set_timeout(tests, 600);
    tcase_add_test(tests, test_only_the_way_to_a_target);
    tcase_add_test(tests, test_depth_follows_the_lowest_adapter);
    tcase_add_test(tests, test_loss_that_depends_on_no_target);
    tcase_add_test(tests, test_refusals);
    tcase_add_test(tests, test_shared_tensors_are_summed);
    tcase_add_loop_test(tests, test_chain, 0, (int)LK_COUNT(chains));
    return run_case("autodiff", tests);
}
