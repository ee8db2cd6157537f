#include "backends/opencl/clblast.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backends/shaders/rows.h"

/* ---- the library ---- */

enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 }; /* as in its header, which is not needed to build this */
typedef int (*sgemm_function)(int layout, int a_transposed, int b_transposed, size_t m, size_t n, size_t k, float alpha,
                              cl_mem a, size_t a_offset, size_t a_ld, cl_mem b, size_t b_offset, size_t b_ld,
                              float beta, cl_mem c, size_t c_offset, size_t c_ld, cl_command_queue *queue,
                              cl_event *event);

static sgemm_function sgemm;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void) {
    const char *choice = getenv("LORIKEET_CLBLAST");
    if (choice != NULL && strcmp(choice, "off") == 0) {
        return;
    }
    void *library = dlopen("libclblast.so.1", RTLD_LAZY | RTLD_LOCAL); /* never closed: it keeps programs */
    void *symbol = library != NULL ? dlsym(library, "CLBlastSgemm") : NULL;
    memcpy(&sgemm, &symbol, sizeof symbol);
}

bool lk_clblast_is_there(void) {
    pthread_once(&once, load);
    return sgemm != NULL;
}

/* ---- from a node to a call ---- */

typedef struct shape {
    int64_t m, n, k;
    bool a_transposed, b_transposed;
} shape;

static shape shape_of(const lk_node *node) {
    bool linear = node->op == LK_OP_LINEAR; /* y = x weight' */
    const lk_matmul_attributes *matmul = &node->attributes.matmul;
    shape s = {.m = node->outputs[0]->shape[0],
               .n = node->outputs[0]->shape[1],
               .a_transposed = !linear && matmul->transpose_a,
               .b_transposed = linear || matmul->transpose_b};
    s.k = node->inputs[0]->shape[s.a_transposed ? 0 : 1];
    return s;
}

bool lk_supports_clblast(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    LK_REQUIRE(why, (caps->features & LK_CL_CLBLAST) != 0, "CLBlast (libclblast.so.1) is not installed");
    LK_REQUIRE(why, node->op == LK_OP_MATMUL || !lk_has_input(node, 2), "CLBlast adds no bias");
    LK_REQUIRE(why, lk_fits_submission(caps, lk_cost_clblast(caps, node)),
               "a call cannot be cut, and would take longer than a submission may");
    return lk_supports_f32(caps, node, why);
}

/* It copies its operands into whole tiles first and cuts the result out of one, which is what small products cost. */
double lk_cost_clblast(const lk_device_caps *caps, const lk_node *node) {
    enum { TILE = 64, LAUNCHES = 4 };
    shape s = shape_of(node);
    double m = (double)((s.m + TILE - 1) / TILE * TILE), n = (double)((s.n + TILE - 1) / TILE * TILE);
    double k = (double)s.k, copies = 8.0 * (m * k + n * k + m * n);
    double efficiency = caps->is_cpu ? 0.05 : 0.6; /* on PoCL 17 of 190 GFLOP/s; on GPUs as its authors measured */
    return LAUNCHES * caps->launch_seconds + 2.0 * m * n * k / (caps->flops_f32 * efficiency) +
           copies / caps->bandwidth;
}

static const char FILE_NAME[] = "clblast";
enum { M, N, K, A_TRANSPOSED, B_TRANSPOSED, ADDS, ALPHA, NUM_PARAMETERS };

void lk_record_clblast(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    shape s = shape_of(node);
    const lk_binding *y = &command->outputs[0];
    bool adds = node->op == LK_OP_MATMUL && lk_has_input(node, 2);
    if (adds && (command->inputs[2].buffer != y->buffer || command->inputs[2].offset != y->offset)) {
        lk_record_cast_into(recorder, &command->inputs[2], LK_DTYPE_F32, y, LK_DTYPE_F32, s.m * s.n);
    }
    lk_launch *launch = lk_launch_begin(recorder, FILE_NAME, "sgemm", 1);
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->inputs[1]);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, s.m);
    lk_launch_int(launch, s.n);
    lk_launch_int(launch, s.k);
    lk_launch_int(launch, s.a_transposed);
    lk_launch_int(launch, s.b_transposed);
    lk_launch_int(launch, adds);
    lk_launch_float(launch, node->op == LK_OP_MATMUL ? node->attributes.matmul.alpha : 1.0f);
}

bool lk_clblast_takes(const lk_launch *launch) {
    return strcmp(launch->file, FILE_NAME) == 0;
}

cl_int lk_clblast_enqueue(const lk_launch *launch, cl_command_queue queue) {
    const uint32_t *p = launch->parameters;
    size_t offsets[3];
    for (int i = 0; i < 3; i++) {
        offsets[i] = launch->buffers[i].offset / sizeof(float);
    }
    return sgemm(ROW_MAJOR, p[A_TRANSPOSED] ? TRANSPOSED : AS_IT_IS, p[B_TRANSPOSED] ? TRANSPOSED : AS_IT_IS, p[M],
                 p[N], p[K], lk_f32_from_bits(p[ALPHA]), launch->buffers[0].buffer->memory, offsets[0],
                 p[A_TRANSPOSED] ? p[M] : p[K], launch->buffers[1].buffer->memory, offsets[1],
                 p[B_TRANSPOSED] ? p[K] : p[N], p[ADDS] ? 1.0f : 0.0f, launch->buffers[2].buffer->memory, offsets[2],
                 p[N], &queue, NULL);
}
