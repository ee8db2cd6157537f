#include "dispatch/node_case.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/base/dtype.h"

enum { MAX_NAMES = 16, MAX_NAME = 24, PATTERN = 65521 /* a prime: rows differ */ };

/* ---- the name of an input, from the op's signature ---- */

/* Where the list ends in "...", the last name, or the last group in parentheses, repeats. */
static void input_name(const char *signature, int index, char name[MAX_NAME]) {
    char names[MAX_NAMES][MAX_NAME];
    int count = 0, repeats = -1;
    const char *end = strstr(signature, "->");
    name[0] = '\0';
    for (const char *cursor = signature; cursor < end && count < MAX_NAMES;) {
        cursor += strspn(cursor, " ,");
        if (*cursor == '(') {
            repeats = count;
            cursor++;
        }
        size_t length = strcspn(cursor, "[,) .?-");
        if (length > 0 && length < MAX_NAME) {
            memcpy(names[count], cursor, length);
            names[count++][length] = '\0';
        }
        cursor += length;
        cursor += *cursor == '[' ? strcspn(cursor, "]") : 0;
        cursor += strcspn(cursor, ", ") + 1;
    }
    if (count > 0 && index >= count) {
        repeats = repeats >= 0 ? repeats : count - 1;
        index = repeats + (index - repeats) % (count - repeats);
    }
    if (index < count) {
        strcpy(name, names[index]);
    }
}

/* ---- shapes ---- */

static int64_t small(int64_t extent) {
    return extent < 128 ? extent : 64 + extent % 64;
}

static int64_t fewer(int64_t extent) {
    while (extent > 128 && extent % 2 == 0) {
        extent /= 2;
    }
    return extent;
}

static void resize(lk_tensor *tensor, lk_case_size size, bool *shrunk) {
    for (int d = 0; d < tensor->rank; d++) {
        int64_t before = tensor->shape[d];
        if (size == LK_CASE_SMALL) {
            tensor->shape[d] = small(before);
        } else if (size == LK_CASE_ROWS && d == 0) {
            tensor->shape[d] = fewer(before);
        }
        *shrunk = *shrunk || tensor->shape[d] != before;
    }
}

static lk_tensor *copy_of(lk_node_case *self, const lk_tensor *like, int32_t id) {
    lk_tensor *tensor = lk_arena_alloc(&self->arena, sizeof *tensor);
    if (tensor != NULL) {
        *tensor = *like;
        tensor->id = id;
        tensor->producer = NULL;
        tensor->variable = NULL;
    }
    return tensor;
}

static lk_status make_tensors(lk_node_case *self, const lk_node *like, lk_case_size size) {
    lk_node *node = &self->node;
    node->inputs = lk_arena_alloc(&self->arena, ((size_t)like->num_inputs + 1) * sizeof(lk_tensor *));
    self->inputs = lk_arena_alloc(&self->arena, ((size_t)like->num_inputs + 1) * sizeof(void *));
    if (node->inputs == NULL || self->inputs == NULL) {
        return lk_out_of_memory(self->context, sizeof(lk_tensor *), "a case");
    }
    for (int i = 0; i < like->num_inputs; i++) {
        if (like->inputs[i] == NULL) {
            continue;
        }
        node->inputs[i] = copy_of(self, like->inputs[i], i);
        if (node->inputs[i] == NULL) {
            return lk_out_of_memory(self->context, sizeof(lk_tensor), "a case");
        }
        resize(node->inputs[i], size, &self->shrunk);
    }
    lk_shape shapes[LK_MAX_OUTPUTS];
    int count = 0;
    if (lk_op_info_of(node->op)->infer(self->context, node, shapes, &count) != LK_OK) {
        return LK_STATUS_UNSUPPORTED; /* sizes that belong together were changed differently */
    }
    for (int i = 0; i < like->num_outputs && i < count; i++) {
        if (like->outputs[i] == NULL) {
            continue;
        }
        node->outputs[i] = copy_of(self, like->outputs[i], like->num_inputs + i);
        if (node->outputs[i] == NULL) {
            return lk_out_of_memory(self->context, sizeof(lk_tensor), "a case");
        }
        memcpy(node->outputs[i]->shape, shapes[i].extent, sizeof shapes[i].extent);
    }
    return LK_OK;
}

/* ---- values ---- */

/* Integers that are legal whatever they count: below every extent of the others' matrices. */
static int64_t legal_bound(const lk_node *node, int index) {
    int64_t bound = INT32_MAX;
    for (int i = 0; i < node->num_inputs; i++) {
        for (int d = 0; i != index && node->inputs[i] != NULL && node->inputs[i]->rank > 1 && d < node->inputs[i]->rank;
             d++) {
            bound = LK_MIN(bound, node->inputs[i]->shape[d]);
        }
    }
    return LK_MAX((int64_t)1, bound);
}

/* Where sequence `s` of `entries - 1` begins, of `rows` that half of them share evenly. */
static int64_t boundary(int64_t s, int64_t entries, int64_t rows) {
    int64_t sequences = LK_MAX((int64_t)1, entries / 2);
    return s >= sequences ? rows : rows * s / sequences;
}

static int64_t rows_of(const lk_node *node, int index) {
    return index < node->num_inputs && node->inputs[index] != NULL ? node->inputs[index]->shape[0] : 1;
}

static double integer_at(const lk_node *node, int index, const char *name, int64_t i) {
    int64_t entries = node->inputs[index]->shape[0];
    if (strcmp(name, "cu_seqlens_k") == 0) {
        return (double)boundary(i, entries, rows_of(node, 1));
    }
    if (strncmp(name, "cu_seqlens", 10) == 0) {
        return (double)boundary(i, entries, rows_of(node, 0));
    }
    if (strcmp(name, "seqlens_k") == 0) {
        return (double)(boundary(i + 1, entries + 1, rows_of(node, 1)) - boundary(i, entries + 1, rows_of(node, 1)));
    }
    if (strcmp(name, "slots") == 0) {
        return (double)(i % rows_of(node, 0));
    }
    return strcmp(name, "positions") == 0 ? (double)i : (double)(i * 7919 % legal_bound(node, index));
}

static bool is_positive(const char *name) {
    static const char *const names[] = {"rstd", "lse",   "norm",       "rnorm",   "squares",
                                        "v",    "hyper", "loss_scale", "inv_freq"};
    bool found = false;
    for (size_t i = 0; i < LK_COUNT(names); i++) {
        found = found || strcmp(names[i], name) == 0;
    }
    return found;
}

static lk_status fill_input(lk_node_case *self, int index) {
    const lk_tensor *tensor = self->node.inputs[index];
    int64_t count = lk_tensor_elements(tensor);
    size_t bytes = lk_tensor_bytes(tensor);
    char name[MAX_NAME];
    input_name(lk_op_signature(self->node.op), index, name);
    bool positive = is_positive(name);
    self->inputs[index] = lk_arena_alloc(&self->arena, LK_MAX(bytes, (size_t)1));
    if (self->inputs[index] == NULL) {
        return lk_out_of_memory(self->context, bytes, "a case");
    }
    size_t element = lk_dtype_block_bytes(tensor->dtype);
    uint32_t bits[4] = {0};
    bool repeats = tensor->dtype != LK_DTYPE_I32; /* the first values, for all of a large tensor */
    for (int64_t i = 0; i < (repeats ? LK_MIN(count, (int64_t)PATTERN) : count); i++) {
        double value;
        if (tensor->dtype == LK_DTYPE_I32) {
            value = integer_at(&self->node, index, name, i);
        } else {
            if (i % 4 == 0) {
                lk_philox4x32(1, (uint64_t)index, (uint64_t)i / 4, bits);
            }
            double uniform = (double)lk_uniform_from_bits(bits[i % 4]);
            value = positive ? 0.25 + uniform / 2.0 : 2.0 * uniform - 1.0;
        }
        lk_dtype_from_f64(tensor->dtype, &value, 1, (char *)self->inputs[index] + (size_t)i * element);
    }
    for (int64_t i = PATTERN; repeats && i < count; i += PATTERN) {
        memcpy((char *)self->inputs[index] + (size_t)i * element, self->inputs[index],
               (size_t)LK_MIN(count - i, (int64_t)PATTERN) * element);
    }
    return LK_OK;
}

lk_status lk_node_case_make(lk_context *context, const lk_node *like, lk_case_size size, lk_node_case *out) {
    *out = (lk_node_case){.context = context, .node = *like};
    lk_arena_init(&out->arena, context);
    out->node.scope = "";
    for (int i = 0; i < LK_MAX_OUTPUTS; i++) {
        out->node.outputs[i] = NULL;
    }
    lk_status status = make_tensors(out, like, size);
    for (int i = 0; i < like->num_inputs && status == LK_OK; i++) {
        if (out->node.inputs[i] != NULL) {
            status = fill_input(out, i);
        }
    }
    if (status != LK_OK) {
        lk_node_case_free(out);
    }
    return status;
}

void lk_node_case_free(lk_node_case *self) {
    lk_arena_free(&self->arena);
}

/* ---- on a device ---- */

static lk_status bind(lk_case_run *self, const lk_tensor *tensor, lk_binding *binding) {
    if (tensor == NULL) {
        return LK_OK;
    }
    binding->bytes = lk_tensor_bytes(tensor);
    return self->device->backend->alloc(self->device, binding->bytes, &binding->buffer);
}

static lk_status open_run(lk_case_run *self, const lk_kernel *kernel) {
    const lk_node *node = &self->of->node;
    size_t count = (size_t)(node->num_inputs + node->num_outputs);
    lk_device *device = self->device;
    self->inputs = lk_calloc(device->context, count + 1, sizeof *self->inputs);
    if (self->inputs == NULL) {
        return lk_out_of_memory(device->context, count * sizeof *self->inputs, "a case");
    }
    self->outputs = self->inputs + node->num_inputs;
    for (int i = 0; i < node->num_inputs; i++) {
        LK_TRY(bind(self, node->inputs[i], &self->inputs[i]));
    }
    for (int i = 0; i < node->num_outputs; i++) {
        LK_TRY(bind(self, node->outputs[i], &self->outputs[i]));
    }
    self->command = (lk_command){node, kernel, self->inputs, self->outputs, {NULL, 0, 0}};
    size_t scratch = kernel->scratch != NULL ? kernel->scratch(&device->caps, node) : 0;
    if (scratch > 0) {
        self->command.scratch.bytes = scratch;
        LK_TRY(device->backend->alloc(device, scratch, &self->command.scratch.buffer));
    }
    LK_TRY(device->backend->compile(device, &self->command, 1, &self->commands));
    return lk_case_run_reset(self);
}

lk_status lk_case_run_open(const lk_node_case *of, lk_device *device, const lk_kernel *kernel, lk_case_run *out) {
    *out = (lk_case_run){.of = of, .device = device};
    lk_status status = open_run(out, kernel);
    if (status != LK_OK) {
        lk_case_run_close(out);
    }
    return status;
}

void lk_case_run_close(lk_case_run *self) {
    lk_device *device = self->device;
    if (self->commands != NULL) {
        device->backend->release(device, self->commands);
    }
    int count = self->inputs != NULL ? self->of->node.num_inputs + self->of->node.num_outputs : 0;
    for (int i = 0; i < count; i++) {
        device->backend->free(device, self->inputs[i].buffer);
    }
    device->backend->free(device, self->command.scratch.buffer);
    lk_free(device->context, self->inputs);
    *self = (lk_case_run){.device = device};
}

lk_status lk_case_run_reset(lk_case_run *self) {
    for (int i = 0; i < self->of->node.num_inputs; i++) {
        if (self->inputs[i].buffer != NULL) {
            LK_TRY(self->device->backend->upload(self->device, self->inputs[i].buffer, 0, self->of->inputs[i],
                                                 self->inputs[i].bytes));
        }
    }
    return LK_OK;
}

lk_status lk_case_run_once(lk_case_run *self, double *seconds) {
    double start = lk_seconds(), measured = 0.0;
    LK_TRY(self->device->backend->run(self->device, self->commands, seconds != NULL ? &measured : NULL));
    LK_TRY(self->device->backend->wait(self->device));
    if (seconds != NULL) {
        *seconds = measured > 0.0 ? measured : lk_seconds() - start;
    }
    return LK_OK;
}

/* ---- the specification ---- */

/* A mistake in a kernel is far above this, and the rounding of fp32 sums far below. */
static double tolerance(const lk_node *node) {
    bool attention = node->op == LK_OP_ATTENTION || node->op == LK_OP_ATTENTION_BACKWARD;
    double allowed = attention && node->attributes.attention.allow_bf16 ? 2e-2 : 1e-3;
    for (int i = 0; i < node->num_inputs + node->num_outputs; i++) {
        const lk_tensor *tensor = i < node->num_inputs ? node->inputs[i] : node->outputs[i - node->num_inputs];
        bool narrow = tensor != NULL && lk_dtype_block_bytes(tensor->dtype) == 2;
        allowed = narrow ? 2e-2 : allowed;
    }
    return allowed;
}

static lk_status compare(lk_case_run *self, const lk_tensor *tensor, const lk_binding *binding, const double *expected,
                         const char *what, char *problem, size_t capacity) {
    lk_context *context = self->device->context;
    int64_t count = lk_tensor_elements(tensor);
    char *bytes = lk_alloc(context, binding->bytes + 1);
    double *found = lk_calloc(context, (size_t)count + 1, sizeof *found);
    lk_status status = bytes && found ? LK_OK : lk_out_of_memory(context, binding->bytes, "a case");
    if (status == LK_OK) {
        status = self->device->backend->download(self->device, binding->buffer, 0, bytes, binding->bytes);
    }
    double largest = 0.0, allowed = tolerance(&self->of->node);
    if (status == LK_OK) {
        lk_dtype_to_f64(tensor->dtype, bytes, count, found);
        for (int64_t i = 0; i < count; i++) {
            largest = fmax(largest, fabs(expected[i]));
        }
    }
    for (int64_t i = 0; i < count && status == LK_OK && problem[0] == '\0'; i++) {
        if (!(fabs(found[i] - expected[i]) <= allowed * largest)) {
            snprintf(problem, capacity, "%s: element %lld is %g, the specification says %g", what, (long long)i,
                     found[i], expected[i]);
        }
    }
    lk_free(context, bytes);
    lk_free(context, found);
    return status;
}

static lk_status judge(lk_case_run *self, lk_arena *arena, char *problem, size_t capacity) {
    const lk_node *node = &self->of->node;
    int count = node->num_inputs + node->num_outputs;
    double **values = lk_arena_alloc(arena, ((size_t)count + 1) * sizeof *values);
    for (int i = 0; i < count; i++) {
        const lk_tensor *tensor = i < node->num_inputs ? node->inputs[i] : node->outputs[i - node->num_inputs];
        if (values != NULL && tensor != NULL) {
            values[i] = lk_arena_alloc(arena, ((size_t)lk_tensor_elements(tensor) + 1) * sizeof(double));
        }
        if (values == NULL || (tensor != NULL && values[i] == NULL)) {
            return lk_out_of_memory(self->device->context, sizeof(double), "a case in double precision");
        }
        if (tensor != NULL && i < node->num_inputs) {
            lk_dtype_to_f64(tensor->dtype, self->of->inputs[i], lk_tensor_elements(tensor), values[i]);
        }
    }
    lk_reference_call call = {self->device->context, node, values, values + node->num_inputs};
    LK_TRY(lk_op_info_of(node->op)->reference(&call));
    for (int i = 0; i < node->num_outputs; i++) {
        if (node->outputs[i] != NULL) {
            LK_TRY(compare(self, node->outputs[i], &self->outputs[i], values[node->num_inputs + i], "an output",
                           problem, capacity));
        }
    }
    for (int i = 0; i < node->num_inputs && lk_node_mutates(node); i++) {
        if (node->inputs[i] != NULL && node->inputs[i]->role == LK_ROLE_STATE) {
            LK_TRY(compare(self, node->inputs[i], &self->inputs[i], values[i], "what it writes", problem, capacity));
        }
    }
    return LK_OK;
}

lk_status lk_case_run_judge(lk_case_run *self, char *problem, size_t capacity) {
    lk_arena arena;
    lk_arena_init(&arena, self->device->context);
    problem[0] = '\0';
    lk_status status = judge(self, &arena, problem, capacity);
    lk_arena_free(&arena);
    return status;
}

/* ---- keys ---- */

uint64_t lk_node_key(const lk_node *node) {
    uint64_t key = lk_hash64(&node->op, sizeof node->op, 1);
    for (int i = 0; i < node->num_inputs + node->num_outputs; i++) {
        const lk_tensor *tensor = i < node->num_inputs ? node->inputs[i] : node->outputs[i - node->num_inputs];
        const int64_t about[] = {tensor != NULL,
                                 tensor != NULL ? tensor->dtype : 0,
                                 tensor != NULL ? tensor->rank : 0,
                                 tensor != NULL ? tensor->shape[0] : 0,
                                 tensor != NULL ? tensor->shape[1] : 0,
                                 tensor != NULL ? tensor->shape[2] : 0,
                                 tensor != NULL ? tensor->shape[3] : 0};
        key = lk_hash64(about, sizeof about, key);
    }
    if (node->op == LK_OP_MATMUL) { /* the shapes of square matrices do not tell */
        const bool transposed[] = {node->attributes.matmul.transpose_a, node->attributes.matmul.transpose_b};
        key = lk_hash64(transposed, sizeof transposed, key);
    } else if (node->op == LK_OP_LORA_LINEAR || node->op == LK_OP_LORA_LINEAR_BACKWARD) {
        key = lk_hash64(&node->attributes.lora.order, sizeof node->attributes.lora.order, key);
    } else if (node->op == LK_OP_ATTENTION || node->op == LK_OP_ATTENTION_BACKWARD) {
        const int32_t work[] = {node->attributes.attention.head_dim, node->attributes.attention.causal,
                                node->attributes.attention.window, node->attributes.attention.allow_bf16};
        key = lk_hash64(work, sizeof work, key);
    }
    return key;
}
