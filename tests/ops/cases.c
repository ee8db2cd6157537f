#include "tests/ops/cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CAPACITY = 1024 };
static op_case cases[CAPACITY];
static int num_cases, num_large;

int64_t case_input_elements(const case_input *input) {
    int64_t elements = 1;
    for (int i = 0; i < input->rank; i++) {
        elements *= input->shape[i];
    }
    return elements;
}

/* ---- values ---- */

static double normal_at(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t words[4];
    double pair[2];
    lk_philox4x32(seed, stream, index, words);
    lk_normal_pair_from_bits(words[0], words[1], pair);
    return pair[0];
}

static double value_at(const case_input *input, uint64_t seed, uint64_t stream, int64_t i) {
    uint32_t words[4];
    lk_philox4x32(seed, stream, (uint64_t)i, words);
    double uniform = (double)lk_uniform_from_bits(words[2]);
    switch (input->values) {
    case VALUES_NORMAL:
        return (double)(float)normal_at(seed, stream, (uint64_t)i);
    case VALUES_SMALL:
        return (double)(float)(0.1 * normal_at(seed, stream, (uint64_t)i));
    case VALUES_POSITIVE:
        return (double)(float)(0.5 + uniform);
    case VALUES_IDS:
        return floor(uniform * (double)input->bound);
    case VALUES_TARGETS:
        return i % 5 == 4 ? -100.0 : floor(uniform * (double)input->bound);
    case VALUES_POSITIONS:
        return (double)(i % input->bound);
    case VALUES_CU_SEQLENS: {
        int64_t sequences = input->shape[0] - 1;
        if (i == 0 || sequences == 0) {
            return 0.0;
        }
        if (sequences >= 3 && i == 2) {
            return floor((double)input->bound * 1.0 / (double)sequences); /* as the entry before: empty */
        }
        return i == sequences ? (double)input->bound : floor((double)input->bound * (double)i / (double)sequences);
    }
    case VALUES_LENGTHS:
        return 1.0 + floor(uniform * (double)input->bound);
    case VALUES_SLOTS:
        return i == 1 ? -1.0 : (double)((i * 7 + 3) % input->bound);
    case VALUES_RNG:
        return (double)(int32_t)(words[0] >> 4);
    case VALUES_HYPER: {
        static const float hyper[LK_ADAMW_HYPER_COUNT] = {1e-3f, 0.9f, 0.999f, 1e-8f, 0.1f, 0.271f, 0.002997f, 0.7f};
        return (double)hyper[i];
    }
    case VALUES_INFINITE:
        return INFINITY;
    }
    return 0.0;
}

void op_case_fill(const op_case *self, uint64_t seed, double **values) {
    for (int i = 0; i < self->num_inputs; i++) {
        for (int64_t j = 0; self->inputs[i].present && j < case_input_elements(&self->inputs[i]); j++) {
            double value = value_at(&self->inputs[i], seed, (uint64_t)i, j);
            values[i][j] = self->inputs[i].short_values ? (double)lk_bf16_to_f32(lk_f32_to_bf16((float)value)) : value;
        }
    }
    if (self->prepare != NULL) {
        self->prepare(self, values);
    }
}

/* ---- making cases ---- */

static op_case *begin(lk_op op, const char *format, ...) LK_PRINTF(2, 3);
static op_case *begin(lk_op op, const char *format, ...) {
    if (num_cases == CAPACITY) {
        fprintf(stderr, "tests/ops/cases.c: more than %d cases\n", CAPACITY);
        exit(EXIT_FAILURE);
    }
    op_case *self = &cases[num_cases++];
    *self = (op_case){.op = op, .wanted = 15};
    int length = snprintf(self->name, sizeof self->name, "%s", lk_op_name(op));
    va_list arguments;
    va_start(arguments, format);
    if (format[0] != '\0') {
        self->name[length++] = ' ';
        vsnprintf(self->name + length, sizeof self->name - (size_t)length, format, arguments);
    }
    va_end(arguments);
    return self;
}

static case_input *input(op_case *self, case_values values, int64_t bound, int rank, int64_t extent0, int64_t extent1) {
    case_input *made = &self->inputs[self->num_inputs++];
    bool integer = values >= VALUES_IDS && values <= VALUES_RNG;
    *made = (case_input){true,  rank,           {extent0, rank > 1 ? extent1 : 1, 1, 1}, values,
                         bound, LK_ROLE_WEIGHT, integer ? LK_DTYPE_I32 : LK_DTYPE_F32,   false};
    return made;
}

static void absent(op_case *self) {
    self->inputs[self->num_inputs++] = (case_input){0};
}

/* Runs another op's reference on inputs of this case, to make an input that depends on them. */
static void run_reference(lk_op op, const op_case *self, const lk_attributes *attributes, int num_inputs,
                          const int *from, double **values, double *const *outputs) {
    lk_context *context;
    lk_tensor tensors[MAX_CASE_INPUTS];
    lk_tensor made[LK_MAX_OUTPUTS];
    lk_tensor *pointers[MAX_CASE_INPUTS] = {NULL};
    double *inputs[MAX_CASE_INPUTS] = {NULL};
    if (lk_context_create(NULL, &context) != LK_OK) {
        exit(EXIT_FAILURE);
    }
    for (int i = 0; i < num_inputs; i++) {
        if (from[i] >= 0 && self->inputs[from[i]].present) {
            const case_input *source = &self->inputs[from[i]];
            tensors[i] = (lk_tensor){.dtype = LK_DTYPE_F64, .rank = source->rank};
            memcpy(tensors[i].shape, source->shape, sizeof tensors[i].shape);
            tensors[i].dtype = source->dtype == LK_DTYPE_I32 ? LK_DTYPE_I32 : LK_DTYPE_F64;
            pointers[i] = &tensors[i];
            inputs[i] = values[from[i]];
        }
    }
    lk_node node = {.op = op, .num_inputs = num_inputs, .inputs = pointers, .attributes = *attributes, .scope = ""};
    lk_shape shapes[LK_MAX_OUTPUTS];
    lk_status status = lk_op_info_of(op)->infer(context, &node, shapes, &node.num_outputs);
    for (int i = 0; i < node.num_outputs; i++) {
        made[i] = (lk_tensor){.dtype = LK_DTYPE_F64, .rank = shapes[i].rank};
        memcpy(made[i].shape, shapes[i].extent, sizeof made[i].shape);
        node.outputs[i] = &made[i];
    }
    lk_reference_call call = {context, &node, inputs, outputs};
    if (status != LK_OK || lk_op_info_of(op)->reference(&call) != LK_OK) {
        fprintf(stderr, "%s: %s\n", self->name, lk_error_message(context));
        exit(EXIT_FAILURE);
    }
    lk_context_destroy(context);
}

static void round_to_f32(double *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        values[i] = (double)(float)values[i];
    }
}

/* ---- ops, by name ---- */

static void add_embedding(int64_t tokens, int64_t vocab, int64_t width) {
    op_case *self = begin(LK_OP_EMBEDDING, "T=%d V=%d H=%d", (int)tokens, (int)vocab, (int)width);
    input(self, VALUES_IDS, vocab, 1, tokens, 0);
    input(self, VALUES_NORMAL, 0, 2, vocab, width);
    self = begin(LK_OP_EMBEDDING_BACKWARD, "T=%d V=%d H=%d", (int)tokens, (int)vocab, (int)width);
    input(self, VALUES_NORMAL, 0, 2, tokens, width);
    input(self, VALUES_IDS, vocab, 1, tokens, 0);
    self->attributes.embedding.rows = vocab;
}

static void add_matmul(int64_t m, int64_t n, int64_t k, bool ta, bool tb, bool with_c, float alpha) {
    op_case *self = begin(LK_OP_MATMUL, "%c%c M=%d N=%d K=%d%s alpha=%g", ta ? 'T' : 'N', tb ? 'T' : 'N', (int)m,
                          (int)n, (int)k, with_c ? " +c" : "", (double)alpha);
    input(self, VALUES_NORMAL, 0, 2, ta ? k : m, ta ? m : k);
    input(self, VALUES_NORMAL, 0, 2, tb ? n : k, tb ? k : n);
    if (with_c) {
        input(self, VALUES_NORMAL, 0, 2, m, n);
    } else {
        absent(self);
    }
    self->attributes.matmul = (lk_matmul_attributes){ta, tb, alpha};
}

static void add_linear(int64_t tokens, int64_t in, int64_t out, bool bias) {
    op_case *self = begin(LK_OP_LINEAR, "T=%d K=%d N=%d%s", (int)tokens, (int)in, (int)out, bias ? " bias" : "");
    input(self, VALUES_NORMAL, 0, 2, tokens, in);
    input(self, VALUES_SMALL, 0, 2, out, in);
    if (bias) {
        input(self, VALUES_NORMAL, 0, 1, out, 0);
    }
}

static void prepare_lora_backward(const op_case *self, double **values) {
    static const int from[] = {1, 2, -1, 3, 4, 6};
    double *outputs[] = {NULL, values[5]};
    if (self->inputs[1].present && self->inputs[5].present) {
        run_reference(LK_OP_LORA_LINEAR, self, &self->attributes, 6, from, values, outputs);
        round_to_f32(values[5], case_input_elements(&self->inputs[5]));
    }
}

static void add_lora(int64_t tokens, int64_t in, int64_t out, int64_t rank, bool bias, float dropout,
                     lk_lora_order order) {
    lk_attributes attributes = {.lora = {2.0f, dropout, 17, order, false}};
    const char *kind = order == LK_LORA_MERGED ? " merged" : "";
    op_case *self = begin(LK_OP_LORA_LINEAR, "T=%d K=%d N=%d r=%d%s dropout=%g%s", (int)tokens, (int)in, (int)out,
                          (int)rank, bias ? " bias" : "", (double)dropout, kind);
    input(self, VALUES_NORMAL, 0, 2, tokens, in);
    input(self, VALUES_SMALL, 0, 2, out, in);
    if (bias) {
        input(self, VALUES_NORMAL, 0, 1, out, 0);
    } else {
        absent(self);
    }
    input(self, VALUES_SMALL, 0, 2, rank, in);
    input(self, VALUES_SMALL, 0, 2, out, rank);
    if (dropout > 0.0f) {
        input(self, VALUES_RNG, 0, 1, 4, 0);
    }
    self->attributes = attributes;
    for (uint32_t wanted = 1; wanted < 8; wanted++) { /* every combination of dx, dA, dB */
        bool sum = (wanted & 1u) && (wanted & 2u);
        self = begin(LK_OP_LORA_LINEAR_BACKWARD, "T=%d K=%d N=%d r=%d dropout=%g%s wanted=%u%s", (int)tokens, (int)in,
                     (int)out, (int)rank, (double)dropout, kind, wanted, sum ? " +dx_sum" : "");
        input(self, VALUES_NORMAL, 0, 2, tokens, out);
        input(self, VALUES_NORMAL, 0, 2, tokens, in);
        input(self, VALUES_SMALL, 0, 2, out, in);
        input(self, VALUES_SMALL, 0, 2, rank, in);
        input(self, VALUES_SMALL, 0, 2, out, rank);
        input(self, VALUES_NORMAL, 0, 2, tokens, rank);
        if (dropout > 0.0f) {
            input(self, VALUES_RNG, 0, 1, 4, 0);
        } else {
            absent(self);
        }
        if (sum) {
            input(self, VALUES_NORMAL, 0, 2, tokens, in);
        } else {
            absent(self);
        }
        self->wanted = wanted;
        self->attributes = attributes;
        self->prepare = prepare_lora_backward;
    }
}

/* squares are those of some weight, so that no row's norm is imaginary: with A = I, AA' is I and AW'
 * is W'. */
static void prepare_dora_norm(const op_case *self, double **values) {
    int64_t rank = self->inputs[1].shape[0], out = self->inputs[1].shape[1];
    for (int64_t i = 0; i < rank * rank; i++) {
        values[2][i] = i / rank == i % rank ? 1.0 : 0.0;
    }
    for (int64_t n = 0; n < out; n++) {
        for (int64_t r = 0; r < rank; r++) {
            values[0][n] += values[1][r * out + n] * values[1][r * out + n];
        }
    }
    round_to_f32(values[0], out);
}

static void add_dora_norm(int64_t out, int64_t rank) {
    op_case *self = begin(LK_OP_DORA_NORM, "N=%d r=%d", (int)out, (int)rank);
    input(self, VALUES_POSITIVE, 0, 1, out, 0);
    input(self, VALUES_NORMAL, 0, 2, rank, out);
    input(self, VALUES_NORMAL, 0, 2, rank, rank);
    input(self, VALUES_SMALL, 0, 2, out, rank);
    self->attributes.lora.scale = 2.0f;
    self->prepare = prepare_dora_norm;
}

static void prepare_rms_norm_backward(const op_case *self, double **values) {
    static const int from[] = {1, 2};
    double *outputs[] = {NULL, values[3]};
    run_reference(LK_OP_RMS_NORM, self, &self->attributes, 2, from, values, outputs);
    round_to_f32(values[3], case_input_elements(&self->inputs[3]));
}

static void add_rms_norm(int64_t tokens, int64_t columns, int64_t width) {
    op_case *self = begin(LK_OP_RMS_NORM, "T=%d H=%d D=%d", (int)tokens, (int)columns, (int)width);
    input(self, VALUES_NORMAL, 0, 2, tokens, columns);
    input(self, VALUES_POSITIVE, 0, 1, width, 0);
    self->attributes.norm.epsilon = 1e-5f;
    for (uint32_t wanted = 1; wanted < 4; wanted++) {
        self =
            begin(LK_OP_RMS_NORM_BACKWARD, "T=%d H=%d D=%d wanted=%u", (int)tokens, (int)columns, (int)width, wanted);
        input(self, VALUES_NORMAL, 0, 2, tokens, columns);
        input(self, VALUES_NORMAL, 0, 2, tokens, columns);
        input(self, VALUES_POSITIVE, 0, 1, width, 0);
        input(self, VALUES_POSITIVE, 0, 1, tokens * (columns / width), 0);
        if (wanted & 1u) {
            input(self, VALUES_NORMAL, 0, 2, tokens, columns);
        }
        self->wanted = wanted;
        self->attributes.norm.epsilon = 1e-5f;
        self->prepare = prepare_rms_norm_backward;
    }
}

static void prepare_layer_norm_backward(const op_case *self, double **values) {
    static const int from[] = {1, 2, 2}; /* the bias changes neither */
    double *outputs[] = {NULL, values[3], values[4]};
    run_reference(LK_OP_LAYER_NORM, self, &self->attributes, 3, from, values, outputs);
    round_to_f32(values[3], case_input_elements(&self->inputs[3]));
    round_to_f32(values[4], case_input_elements(&self->inputs[4]));
}

static void add_layer_norm(int64_t tokens, int64_t columns) {
    op_case *self = begin(LK_OP_LAYER_NORM, "T=%d H=%d", (int)tokens, (int)columns);
    input(self, VALUES_NORMAL, 0, 2, tokens, columns);
    input(self, VALUES_POSITIVE, 0, 1, columns, 0);
    input(self, VALUES_NORMAL, 0, 1, columns, 0);
    self->attributes.norm.epsilon = 1e-5f;
    for (uint32_t wanted = 1; wanted < 8; wanted++) { /* every combination of dx, dweight, dbias */
        bool sum = (wanted & 1u) && (wanted & 2u);
        self = begin(LK_OP_LAYER_NORM_BACKWARD, "T=%d H=%d wanted=%u%s", (int)tokens, (int)columns, wanted,
                     sum ? " +dx_sum" : "");
        input(self, VALUES_NORMAL, 0, 2, tokens, columns);
        input(self, VALUES_NORMAL, 0, 2, tokens, columns);
        input(self, VALUES_POSITIVE, 0, 1, columns, 0);
        input(self, VALUES_NORMAL, 0, 1, tokens, 0);
        input(self, VALUES_POSITIVE, 0, 1, tokens, 0);
        if (sum) {
            input(self, VALUES_NORMAL, 0, 2, tokens, columns);
        }
        self->wanted = wanted;
        self->attributes.norm.epsilon = 1e-5f;
        self->prepare = prepare_layer_norm_backward;
    }
}

static void add_activations(int64_t rows, int64_t columns) {
    static const lk_op ops[] = {LK_OP_GELU, LK_OP_GELU, LK_OP_TANH, LK_OP_RELU};
    static const lk_op backwards[] = {LK_OP_GELU_BACKWARD, LK_OP_GELU_BACKWARD, LK_OP_TANH_BACKWARD,
                                      LK_OP_RELU_BACKWARD};
    for (size_t i = 0; i < LK_COUNT(ops); i++) {
        bool approximate = i == 1;
        op_case *self = begin(ops[i], "%dx%d%s", (int)rows, (int)columns, approximate ? " tanh approximation" : "");
        input(self, VALUES_NORMAL, 0, 2, rows, columns);
        self->attributes.gelu.tanh_approximation = approximate;
        self = begin(backwards[i], "%dx%d%s", (int)rows, (int)columns, approximate ? " tanh approximation" : "");
        input(self, VALUES_NORMAL, 0, 2, rows, columns);
        input(self, VALUES_NORMAL, 0, 2, rows, columns);
        self->attributes.gelu.tanh_approximation = approximate;
    }
}

/* The slice in the middle, at both ends, and all there is. */
static void add_slice_columns(int64_t rows, int64_t columns) {
    int64_t third = columns / 3;
    const lk_slice_attributes slices[] = {
        {0, third, columns}, {third, third, columns}, {columns - third, third, columns}, {0, columns, columns}};
    for (size_t i = 0; i < LK_COUNT(slices); i++) {
        op_case *self = begin(LK_OP_SLICE_COLUMNS, "%dx%d first=%d count=%d", (int)rows, (int)columns,
                              (int)slices[i].first, (int)slices[i].count);
        input(self, VALUES_NORMAL, 0, 2, rows, columns);
        self->attributes.slice = slices[i];
        for (int sum = 0; sum < 2; sum++) {
            self = begin(LK_OP_SLICE_COLUMNS_BACKWARD, "%dx%d first=%d count=%d%s", (int)rows, (int)columns,
                         (int)slices[i].first, (int)slices[i].count, sum ? " +dx_sum" : "");
            input(self, VALUES_NORMAL, 0, 2, rows, slices[i].count);
            if (sum) {
                input(self, VALUES_NORMAL, 0, 2, rows, columns);
            }
            self->attributes.slice = slices[i];
        }
    }
}

/* Blocks, blocks of vectors, and another shape of the same. */
static void add_transpose(int64_t rows, int64_t m, int64_t n) {
    const lk_transpose_attributes kinds[] = {{rows, m, n, 1, {rows * n, m}},
                                             {1, rows, m, n, {m * rows, n}},
                                             {1, rows, m * n, 1, {m * n, rows}},
                                             {1, 1, 1, rows * m * n, {rows * m, n}}};
    for (size_t i = 0; i < LK_COUNT(kinds); i++) {
        op_case *self = begin(LK_OP_TRANSPOSE, "%dx%dx%d (%d)", (int)rows, (int)m, (int)n, (int)i);
        input(self, VALUES_NORMAL, 0, 2, rows, m * n);
        self->attributes.transpose = kinds[i];
    }
}

static void add_blocks(int64_t tokens, int64_t blocks, int64_t size) {
    for (int transpose = 0; transpose < 2; transpose++) {
        op_case *self = begin(LK_OP_BLOCK_LINEAR, "T=%d G=%d K=%d%s", (int)tokens, (int)blocks, (int)size,
                              transpose ? " transposed" : "");
        input(self, VALUES_NORMAL, 0, 2, tokens, blocks * size);
        input(self, VALUES_NORMAL, 0, 2, blocks * size, size);
        self->attributes.matmul = (lk_matmul_attributes){.transpose_b = transpose == 1, .alpha = 1.0f};
    }
    op_case *self = begin(LK_OP_BLOCK_OUTER, "T=%d G=%d K=%d", (int)tokens, (int)blocks, (int)size);
    input(self, VALUES_NORMAL, 0, 2, tokens, blocks * size);
    input(self, VALUES_NORMAL, 0, 2, tokens, blocks * size);
    self->attributes.block.size = size;
}

static void add_cayley(int64_t blocks, int64_t size) {
    static const int32_t terms[] = {0, 2, 3, 4, 5, 8};
    for (size_t i = 0; i < LK_COUNT(terms); i++) {
        op_case *self = begin(LK_OP_CAYLEY, "G=%d K=%d terms=%d", (int)blocks, (int)size, (int)terms[i]);
        input(self, VALUES_SMALL, 0, 2, blocks, size * (size - 1) / 2);
        self->attributes.cayley = (lk_cayley_attributes){size, terms[i]};
        self = begin(LK_OP_CAYLEY_BACKWARD, "G=%d K=%d terms=%d", (int)blocks, (int)size, (int)terms[i]);
        input(self, VALUES_NORMAL, 0, 2, blocks * size, size);
        input(self, VALUES_SMALL, 0, 2, blocks, size * (size - 1) / 2);
        self->attributes.cayley = (lk_cayley_attributes){size, terms[i]};
    }
}

static void add_orthogonality(int64_t rank) {
    op_case *self = begin(LK_OP_ORTHOGONALITY, "r=%d", (int)rank);
    input(self, VALUES_NORMAL, 0, 2, rank, rank);
    self = begin(LK_OP_ORTHOGONALITY_BACKWARD, "r=%d", (int)rank);
    input(self, VALUES_NORMAL, 0, 1, 1, 0);
    input(self, VALUES_NORMAL, 0, 2, rank, rank);
}

static void add_rope(int64_t tokens, int64_t heads, int32_t head_dim, int64_t half) {
    op_case *self = begin(LK_OP_ROPE_TABLE, "T=%d D/2=%d", (int)tokens, (int)half);
    input(self, VALUES_POSITIONS, 97, 1, tokens, 0);
    input(self, VALUES_POSITIVE, 0, 1, half, 0);
    self->tolerance = 1e-5; /* fp32 sine and cosine of angles up to 145 radians */
    for (int inverse = 0; inverse < 2; inverse++) {
        self = begin(LK_OP_ROPE, "T=%d heads=%d D=%d rotated=%d%s", (int)tokens, (int)heads, head_dim, (int)(2 * half),
                     inverse ? " inverse" : "");
        input(self, VALUES_NORMAL, 0, 2, tokens, heads * head_dim);
        input(self, VALUES_NORMAL, 0, 2, tokens, half);
        input(self, VALUES_NORMAL, 0, 2, tokens, half);
        self->attributes.rope = (lk_rope_attributes){head_dim, inverse != 0};
    }
}

static void prepare_attention_backward(const op_case *self, double **values) {
    static const int from[] = {1, 2, 3, 6};
    double *outputs[] = {values[4], values[5]};
    run_reference(LK_OP_ATTENTION, self, &self->attributes, 4, from, values, outputs);
    round_to_f32(values[4], case_input_elements(&self->inputs[4]));
    round_to_f32(values[5], case_input_elements(&self->inputs[5]));
}

static void add_attention(int64_t tokens, int64_t entries, int32_t heads, int32_t kv_heads, int32_t head_dim,
                          bool causal, int32_t window) {
    lk_attributes attributes = {
        .attention = {heads, kv_heads, head_dim, 1.0f / sqrtf((float)head_dim), causal, window, false}};
    op_case *self = begin(LK_OP_ATTENTION, "T=%d S=%d heads=%d/%d D=%d%s window=%d", (int)tokens, (int)entries - 1,
                          heads, kv_heads, head_dim, causal ? " causal" : "", window);
    input(self, VALUES_NORMAL, 0, 2, tokens, (int64_t)heads * head_dim);
    input(self, VALUES_NORMAL, 0, 2, tokens, (int64_t)kv_heads * head_dim);
    input(self, VALUES_NORMAL, 0, 2, tokens, (int64_t)kv_heads * head_dim);
    input(self, VALUES_CU_SEQLENS, tokens, 1, entries, 0);
    self->attributes = attributes;
    self = begin(LK_OP_ATTENTION_BACKWARD, "T=%d S=%d heads=%d/%d D=%d%s window=%d", (int)tokens, (int)entries - 1,
                 heads, kv_heads, head_dim, causal ? " causal" : "", window);
    input(self, VALUES_NORMAL, 0, 2, tokens, (int64_t)heads * head_dim);
    input(self, VALUES_NORMAL, 0, 2, tokens, (int64_t)heads * head_dim);
    input(self, VALUES_NORMAL, 0, 2, tokens, (int64_t)kv_heads * head_dim);
    input(self, VALUES_NORMAL, 0, 2, tokens, (int64_t)kv_heads * head_dim);
    input(self, VALUES_NORMAL, 0, 2, tokens, (int64_t)heads * head_dim);
    input(self, VALUES_NORMAL, 0, 2, tokens, heads);
    input(self, VALUES_CU_SEQLENS, tokens, 1, entries, 0);
    self->attributes = attributes;
    self->prepare = prepare_attention_backward;
}

/* Keys from a cache: fewer queries than keys, and only the filled part of the cache counts. */
static void add_cached_attention(int64_t queries, int64_t capacity, int64_t sequences) {
    op_case *self =
        begin(LK_OP_ATTENTION, "cache queries=%d capacity=%d S=%d", (int)queries, (int)capacity, (int)sequences);
    input(self, VALUES_NORMAL, 0, 2, queries * sequences, 4 * 16);
    input(self, VALUES_NORMAL, 0, 2, capacity * sequences, 2 * 16);
    input(self, VALUES_NORMAL, 0, 2, capacity * sequences, 2 * 16);
    input(self, VALUES_CU_SEQLENS, queries * sequences, 1, sequences + 1, 0);
    input(self, VALUES_CU_SEQLENS, capacity * sequences, 1, sequences + 1, 0);
    input(self, VALUES_LENGTHS, capacity, 1, sequences, 0);
    self->attributes.attention = (lk_attention_attributes){4, 2, 16, 0.25f, true, 0, false};
    self = begin(LK_OP_KV_CACHE_WRITE, "queries=%d capacity=%d", (int)queries, (int)capacity);
    input(self, VALUES_NORMAL, 0, 2, capacity, 24)->role = LK_ROLE_STATE;
    input(self, VALUES_NORMAL, 0, 2, queries, 24);
    input(self, VALUES_SLOTS, capacity, 1, queries, 0);
}

static void add_swiglu(int64_t tokens, int64_t width) {
    op_case *self = begin(LK_OP_SWIGLU, "T=%d N=%d", (int)tokens, (int)width);
    input(self, VALUES_NORMAL, 0, 2, tokens, width);
    input(self, VALUES_NORMAL, 0, 2, tokens, width);
    self = begin(LK_OP_SWIGLU_BACKWARD, "T=%d N=%d", (int)tokens, (int)width);
    for (int i = 0; i < 3; i++) {
        input(self, VALUES_NORMAL, 0, 2, tokens, width);
    }
}

static void prepare_cross_entropy_backward(const op_case *self, double **values) {
    static const int from[] = {1, 2, 3};
    double *outputs[] = {NULL, values[4]};
    run_reference(LK_OP_CROSS_ENTROPY, self, &self->attributes, 3, from, values, outputs);
    round_to_f32(values[4], case_input_elements(&self->inputs[4]));
}

static void add_cross_entropy(int64_t tokens, int64_t vocab, int64_t width) {
    op_case *self = begin(LK_OP_CROSS_ENTROPY, "T=%d V=%d", (int)tokens, (int)vocab);
    input(self, VALUES_NORMAL, 0, 2, tokens, vocab);
    input(self, VALUES_TARGETS, vocab, 1, tokens, 0);
    input(self, VALUES_POSITIVE, 0, 1, 1, 0);
    self = begin(LK_OP_CROSS_ENTROPY_BACKWARD, "T=%d V=%d", (int)tokens, (int)vocab);
    input(self, VALUES_POSITIVE, 0, 1, 1, 0);
    input(self, VALUES_NORMAL, 0, 2, tokens, vocab);
    input(self, VALUES_TARGETS, vocab, 1, tokens, 0);
    input(self, VALUES_POSITIVE, 0, 1, 1, 0);
    input(self, VALUES_NORMAL, 0, 1, tokens, 0);
    self->prepare = prepare_cross_entropy_backward;
    for (uint32_t wanted = 1; wanted < 4; wanted += 2) {
        self =
            begin(LK_OP_LINEAR_CROSS_ENTROPY, "T=%d V=%d H=%d wanted=%u", (int)tokens, (int)vocab, (int)width, wanted);
        input(self, VALUES_NORMAL, 0, 2, tokens, width);
        input(self, VALUES_SMALL, 0, 2, vocab, width);
        input(self, VALUES_TARGETS, vocab, 1, tokens, 0);
        input(self, VALUES_POSITIVE, 0, 1, 1, 0);
        self->wanted = wanted;
    }
}

static void add_elementwise(int64_t rows, int64_t columns) {
    static const lk_op binary[] = {LK_OP_ADD, LK_OP_MUL};
    for (size_t i = 0; i < LK_COUNT(binary); i++) {
        op_case *self = begin(binary[i], "%dx%d", (int)rows, (int)columns);
        input(self, VALUES_NORMAL, 0, 2, rows, columns);
        input(self, VALUES_NORMAL, 0, 2, rows, columns);
    }
    op_case *self = begin(LK_OP_SCALE, "%dx%d", (int)rows, (int)columns);
    input(self, VALUES_NORMAL, 0, 2, rows, columns);
    self->attributes.scale.value = -1.5f;
    self = begin(LK_OP_MUL_SCALAR, "%dx%d", (int)rows, (int)columns);
    input(self, VALUES_NORMAL, 0, 2, rows, columns);
    input(self, VALUES_NORMAL, 0, 1, 1, 0);
    self = begin(LK_OP_ADD_BIAS, "%dx%d", (int)rows, (int)columns);
    input(self, VALUES_NORMAL, 0, 2, rows, columns);
    input(self, VALUES_NORMAL, 0, 1, columns, 0);
    self = begin(LK_OP_MUL_COLUMNS, "%dx%d", (int)rows, (int)columns);
    input(self, VALUES_NORMAL, 0, 2, rows, columns);
    input(self, VALUES_NORMAL, 0, 1, columns, 0);
    for (uint32_t wanted = 1; wanted < 4; wanted++) {
        self = begin(LK_OP_MUL_COLUMNS_BACKWARD, "%dx%d wanted=%u", (int)rows, (int)columns, wanted);
        input(self, VALUES_NORMAL, 0, 2, rows, columns);
        input(self, VALUES_NORMAL, 0, 2, rows, columns);
        input(self, VALUES_NORMAL, 0, 1, columns, 0);
        self->wanted = wanted;
    }
    self = begin(LK_OP_SUM_ROWS, "%dx%d", (int)rows, (int)columns);
    input(self, VALUES_NORMAL, 0, 2, rows, columns);
    static const lk_dtype dtypes[] = {LK_DTYPE_F32, LK_DTYPE_BF16, LK_DTYPE_F16};
    for (size_t i = 0; i < LK_COUNT(dtypes); i++) {
        self = begin(LK_OP_CAST, "%dx%d to %s", (int)rows, (int)columns, lk_dtype_name(dtypes[i]));
        input(self, VALUES_NORMAL, 0, 2, rows, columns);
        self->attributes.shape.dtype = dtypes[i];
    }
    self = begin(LK_OP_FILL, "%dx%d", (int)rows, (int)columns);
    self->attributes.shape = (lk_shape_attributes){LK_DTYPE_F32, 2, {rows, columns, 1, 1}, 0.75f};
    self = begin(LK_OP_DROPOUT, "%dx%d", (int)rows, (int)columns);
    input(self, VALUES_NORMAL, 0, 2, rows, columns);
    input(self, VALUES_RNG, 0, 1, 4, 0);
    self->attributes.dropout = (lk_dropout_attributes){0.3f, 5};
}

static void add_optimizer(int64_t rows, int64_t columns) {
    op_case *self = begin(LK_OP_ACCUMULATE, "%dx%d", (int)rows, (int)columns);
    input(self, VALUES_NORMAL, 0, 2, rows, columns)->role = LK_ROLE_STATE;
    input(self, VALUES_NORMAL, 0, 2, rows, columns);
    self = begin(LK_OP_CLEAR, "%dx%d", (int)rows, (int)columns);
    input(self, VALUES_NORMAL, 0, 2, rows, columns)->role = LK_ROLE_STATE;
    input(self, VALUES_NORMAL, 0, 1, columns, 0)->role = LK_ROLE_STATE;
    self = begin(LK_OP_GRAD_NORM, "%dx%d", (int)rows, (int)columns);
    input(self, VALUES_NORMAL, 0, 2, rows, columns);
    input(self, VALUES_SMALL, 0, 1, columns, 0);
    for (int clip = 0; clip < 2; clip++) {
        self = begin(LK_OP_IMPORTANCE, "%dx%d%s", (int)rows, (int)columns, clip ? " norm overflowed" : "");
        input(self, VALUES_HYPER, 0, 1, LK_IMPORTANCE_HYPER_COUNT, 0);
        input(self, clip ? VALUES_INFINITE : VALUES_POSITIVE, 0, 1, 1, 0);
        input(self, VALUES_NORMAL, 0, 2, rows, columns);
        input(self, VALUES_NORMAL, 0, 2, rows, columns);
        input(self, VALUES_POSITIVE, 0, 2, rows, columns)->role = LK_ROLE_STATE;
        input(self, VALUES_POSITIVE, 0, 2, rows, columns)->role = LK_ROLE_STATE;
    }
    for (int clip = 0; clip < 3; clip++) {
        static const float rates[] = {1.0f, 16.0f}, decays[] = {1.0f, 0.0f};
        self = begin(LK_OP_ADAMW, "%dx%d%s", (int)rows, (int)columns,
                     clip == 0   ? ""
                     : clip == 1 ? " clipped, scaled"
                                 : " norm overflowed");
        input(self, VALUES_HYPER, 0, 1, LK_ADAMW_HYPER_COUNT, 0);
        if (clip) {
            input(self, clip == 1 ? VALUES_POSITIVE : VALUES_INFINITE, 0, 1, 1, 0);
        } else {
            absent(self);
        }
        for (int g = 0; g < 2; g++) {
            int64_t height = g == 0 ? rows : 1;
            input(self, VALUES_NORMAL, 0, 2, height, columns)->role = LK_ROLE_STATE;
            input(self, VALUES_NORMAL, 0, 2, height, columns);
            input(self, VALUES_SMALL, 0, 2, height, columns)->role = LK_ROLE_STATE;
            input(self, VALUES_POSITIVE, 0, 2, height, columns)->role = LK_ROLE_STATE;
        }
        self->attributes.adamw = (lk_adamw_attributes){2, clip ? rates : NULL, clip ? decays : NULL};
    }
}

/* Sizes beyond one block of a kernel that works in blocks, and not multiples of it: several panels of columns and of k,
 * tiles cut short on every side, sequences longer than a block and many short ones. */
static void add_large_cases(void) {
    for (int t = 0; t < 4; t++) {
        add_matmul(130, 211, 77, t & 1, t & 2, false, 1.0f);
        add_matmul(9, 50, 4200, t & 1, t & 2, true, 0.25f); /* k in three panels, the last narrow */
        add_matmul(67, 97, 2050, t & 1, t & 2, true, 1.0f);
        add_matmul(3, 300, 2100, t & 1, t & 2, true, 3.0f);
        add_matmul(257, 1, 33, t & 1, t & 2, false, 1.0f);
    }
    add_linear(4, 2100, 150, true);
    add_linear(200, 100, 500, true);
    add_lora(200, 130, 260, 8, true, 0.0f, LK_LORA_FACTORED);
    add_lora(150, 2047, 50, 4, false, 0.0f, LK_LORA_FACTORED); /* the second term does not fit beside the first */
    add_lora(150, 2048, 50, 4, false, 0.0f, LK_LORA_FACTORED);
    add_lora(3, 130, 260, 16, true, 0.0f, LK_LORA_FACTORED);
    add_lora(200, 130, 260, 33, true, 0.1f, LK_LORA_FACTORED);
    add_lora(40, 130, 60, 600, false, 0.0f, LK_LORA_MERGED); /* the update in two panels */
    add_lora(40, 130, 2100, 8, false, 0.0f, LK_LORA_MERGED);
    add_lora(20, 9000, 20, 2, false, 0.5f, LK_LORA_FACTORED);
    add_attention(300, 2, 3, 1, 64, true, 0);
    add_attention(300, 2, 2, 2, 33, false, 0);
    add_attention(400, 3, 2, 1, 16, true, 100);
    add_attention(400, 65, 2, 1, 8, true, 0);
    add_attention(70, 2, 1, 1, 130, true, 0);
    add_attention(200, 4, 20, 1, 128, true, 0); /* more heads than a core keeps at a time */
    add_attention(130, 2, 1, 1, 512, true, 0);
    add_attention(300, 2, 1, 1, 256, false, 0); /* several blocks of queries */
    add_attention(90, 3, 4, 2, 520, true, 20);
    add_attention(40, 2, 1, 1, 2048, true, 0);
    add_rms_norm(300, 1100, 1100);
    add_layer_norm(300, 1100);
    add_cross_entropy(150, 3001, 72);
    add_cross_entropy(600, 70, 20); /* several blocks of tokens */
    add_cross_entropy(10, 300, 3000);
    add_elementwise(300, 1001);
    add_optimizer(300, 1001);
}

/* The same case where products may be in bf16: what meets in them is drawn exact; probabilities and gradients of scores
 * are rounded once, to a part in 256 of numbers that sum up to some times the largest result. */
static void add_bf16_attention(const op_case *from) {
    bool backward = from->op == LK_OP_ATTENTION_BACKWARD;
    if ((!backward && from->op != LK_OP_ATTENTION) || from->num_inputs == 6) {
        return;
    }
    op_case *self = begin(from->op, "%s", "");
    *self = *from;
    snprintf(self->name + strlen(self->name), sizeof self->name - strlen(self->name), " bf16");
    self->attributes.attention.allow_bf16 = true;
    for (int i = 0; i < 3 + backward; i++) {
        self->inputs[i].short_values = true;
    }
    self->tolerance = backward ? 1e-2 : 4e-3;
}

/* The same cases, from the given one to before `last`, with weights stored in 16 bits. A kernel may then round what
 * meets a bf16 weight in a product to bf16 too, so that is drawn exact; sums are compared as in fp32. */
static void add_short_weights(lk_dtype dtype, int from, int last) {
    static const struct {
        lk_op op;
        int weight, factor; /* inputs */
        bool in_f16;        /* too */
    } readers[] = {
        {LK_OP_EMBEDDING, 1, 1, true},
        {LK_OP_MATMUL, 1, 0, false},
        {LK_OP_LINEAR, 1, 0, true},
        {LK_OP_LORA_LINEAR, 1, 0, true},
        {LK_OP_LORA_LINEAR_BACKWARD, 2, 0, true},
        {LK_OP_RMS_NORM, 1, 1, false},
        {LK_OP_LAYER_NORM, 1, 1, false},
        {LK_OP_LINEAR_CROSS_ENTROPY, 1, 0, true},
    };
    for (int c = from; c < last; c++) {
        if (dtype == LK_DTYPE_BF16) {
            add_bf16_attention(&cases[c]);
        }
        for (size_t r = 0; r < LK_COUNT(readers); r++) {
            if (cases[c].op != readers[r].op || (dtype == LK_DTYPE_F16 && !readers[r].in_f16)) {
                continue;
            }
            op_case *self = begin(cases[c].op, "%s", "");
            *self = cases[c];
            snprintf(self->name + strlen(self->name), sizeof self->name - strlen(self->name), " %s",
                     lk_dtype_name(dtype));
            self->inputs[readers[r].weight].dtype = dtype;
            self->inputs[readers[r].weight].short_values = true;
            self->inputs[readers[r].factor].short_values = true;
            if (self->op == LK_OP_LINEAR_CROSS_ENTROPY && (self->wanted & 2u)) {
                self->tolerance = 3e-3; /* the gradients of the logits may be rounded to bf16 before they meet W */
            }
        }
    }
}

const op_case *op_cases_large(int *count) {
    op_cases(count);
    static int first;
    if (first == 0) {
        first = num_cases;
        add_large_cases();
        add_short_weights(LK_DTYPE_BF16, first, num_cases);
        num_large = num_cases - first;
        num_cases = first;
    }
    *count = num_large;
    return cases + first;
}

const op_case *op_cases(int *count) {
    if (num_cases == 0) {
        add_embedding(7, 11, 20);
        add_embedding(64, 300, 65);
        for (int t = 0; t < 4; t++) {
            add_matmul(5, 7, 3, t & 1, t & 2, false, 1.0f);
            add_matmul(33, 70, 129, t & 1, t & 2, true, 0.5f);
            add_matmul(1, 16, 64, t & 1, t & 2, false, 1.0f);
            add_matmul(130, 8, 200, t & 1, t & 2, t == 2, 2.0f);
            add_matmul(96, 100, 8, t & 1, t & 2, true, 1.0f);
        }
        add_matmul(9, 20, 1100, false, false, true, 0.5f); /* long enough to be cut along K */
        add_matmul(20, 9, 1100, true, false, false, 1.0f);
        add_linear(9, 12, 10, false);
        add_linear(70, 65, 33, true);
        add_linear(70, 128, 100, true);
        add_lora(9, 12, 10, 1, true, 0.0f, LK_LORA_FACTORED);
        add_lora(70, 65, 48, 8, false, 0.0f, LK_LORA_FACTORED);
        add_lora(70, 65, 48, 3, true, 0.25f, LK_LORA_FACTORED);
        add_lora(130, 40, 72, 16, false, 0.0f, LK_LORA_MERGED);
        add_dora_norm(12, 1);
        add_dora_norm(70, 8);
        add_rms_norm(5, 24, 24);
        add_rms_norm(33, 130, 130);
        add_rms_norm(6, 64, 16);
        add_layer_norm(5, 24);
        add_layer_norm(33, 130);
        add_rope(9, 3, 8, 4);
        add_rope(21, 2, 64, 32);
        add_rope(7, 2, 20, 6);
        add_attention(11, 2, 2, 2, 8, true, 0);
        add_attention(37, 5, 4, 2, 16, true, 0);
        add_attention(37, 4, 6, 2, 20, false, 0);
        add_attention(100, 3, 3, 1, 64, true, 0);
        add_attention(90, 3, 2, 1, 32, true, 9);
        add_attention(150, 2, 2, 1, 64, true, 0);
        add_cached_attention(1, 40, 3);
        add_cached_attention(5, 40, 1);
        add_swiglu(5, 19);
        add_swiglu(33, 130);
        add_activations(5, 19);
        add_activations(33, 130);
        add_slice_columns(7, 15);
        add_slice_columns(33, 195);
        add_transpose(5, 3, 7);
        add_blocks(5, 3, 4);
        add_orthogonality(2);
        add_orthogonality(12);
        add_blocks(70, 2, 19);
        add_cayley(3, 4);
        add_cayley(2, 19);
        add_cayley(2, 45);
        add_transpose(33, 12, 16);
        add_cross_entropy(9, 17, 12);
        add_cross_entropy(45, 515, 36);
        add_elementwise(5, 7);
        add_elementwise(33, 129);
        add_optimizer(3, 5);
        add_optimizer(33, 129);
        int wide = num_cases;
        add_short_weights(LK_DTYPE_BF16, 0, wide);
        add_short_weights(LK_DTYPE_F16, 0, wide);
    }
    *count = num_cases;
    return cases;
}
