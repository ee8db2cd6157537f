/* What lives at each command of a program, by purpose. */
#include "core/graph/graph.h"
#include "dispatch/explain.h"

enum { SAVED, FORWARD, BACKWARD, SCRATCH, PURPOSES };
static const char *const purposes[PURPOSES] = {"saved", "forward", "backward", "scratch"};

static int32_t command_that_makes(const lk_program *program, const lk_tensor *tensor) {
    for (int32_t i = 0; i < lk_program_num_commands(program); i++) {
        const lk_node *node = lk_program_placement(program, i).node;
        for (int j = 0; j < node->num_outputs; j++) {
            if (node->outputs[j] == tensor) {
                return i;
            }
        }
    }
    return -1;
}

/* first and last: per tensor, the commands that make it and use it last. */
static void find_lives(const lk_program *program, int32_t *first, int32_t *last) {
    int32_t count = lk_program_num_commands(program);
    for (int32_t i = 0; i < count; i++) {
        const lk_node *node = lk_program_placement(program, i).node;
        for (int j = 0; j < node->num_outputs; j++) {
            if (node->outputs[j] != NULL) {
                first[node->outputs[j]->id] = i;
                last[node->outputs[j]->id] = node->outputs[j]->is_output ? count - 1 : i;
            }
        }
        for (int j = 0; j < node->num_inputs; j++) {
            if (node->inputs[j] != NULL && node->inputs[j]->variable == NULL) {
                last[node->inputs[j]->id] = LK_MAX(last[node->inputs[j]->id], i);
            }
        }
    }
}

static void add_tensors(const lk_program *program, int32_t loss, const int32_t *first, const int32_t *last,
                        int64_t *live) {
    int32_t count = lk_program_num_commands(program);
    for (int32_t i = 0; i < count; i++) {
        lk_placement placement = lk_program_placement(program, i);
        for (int j = 0; j < placement.node->num_outputs; j++) {
            const lk_tensor *tensor = placement.node->outputs[j];
            if (tensor == NULL) {
                continue;
            }
            int purpose = first[tensor->id] > loss ? BACKWARD : last[tensor->id] > loss ? SAVED : FORWARD;
            for (int32_t c = first[tensor->id]; c <= last[tensor->id]; c++) {
                live[purpose * count + c] += (int64_t)lk_tensor_bytes(tensor);
            }
        }
        if (placement.kernel->scratch != NULL) {
            live[SCRATCH * count + i] += (int64_t)placement.kernel->scratch(&placement.device->caps, placement.node);
        }
    }
}

lk_status lk_explain_memory(const lk_program *program, const lk_tensor *loss, json_t **out) {
    lk_context *context = lk_program_context(program);
    int32_t count = lk_program_num_commands(program), tensors = lk_graph_num_tensors(lk_program_graph(program));
    *out = NULL;
    int32_t *first = lk_calloc(context, (size_t)tensors + 1, 2 * sizeof *first), *last = first + tensors;
    int64_t *live = lk_calloc(context, (size_t)count + 1, PURPOSES * sizeof *live);
    if (first != NULL && live != NULL) {
        int32_t turn = command_that_makes(program, loss);
        find_lives(program, first, last);
        add_tensors(program, turn, first, last, live);
        *out = json_pack("{s:i}", "loss_command", (int)turn);
        for (int p = 0; p < PURPOSES; p++) {
            json_t *bytes = json_array();
            for (int32_t i = 0; i < count; i++) {
                json_array_append_new(bytes, json_integer(live[p * count + i]));
            }
            json_object_set_new(*out, purposes[p], bytes);
        }
    }
    lk_free(context, first);
    lk_free(context, live);
    return *out != NULL ? LK_OK : lk_out_of_memory(context, (size_t)count * sizeof *live, "a plan");
}
