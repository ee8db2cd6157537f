/* The interpreter's own types. Every operand is a register of the warp: constants and special registers are registers
 * that are written once. */
#ifndef LK_TESTS_CUDA_PTX_VM_H
#define LK_TESTS_CUDA_PTX_VM_H

#include "tests/cuda/ptx/ptx.h"

typedef uint8_t u8;
typedef int8_t s8;
typedef uint16_t u16;
typedef int16_t s16;
typedef uint32_t u32, pred;
typedef int32_t s32;
typedef uint64_t u64;
typedef int64_t s64;
typedef float f32;
typedef double f64;

typedef union word {
    u8 u8;
    s8 s8;
    u16 u16;
    s16 s16;
    u32 u32;
    s32 s32;
    f32 f32;
    u64 u64;
    s64 s64;
    f64 f64;
    pred pred;
} word;

enum { LANES = 32, MAX_OPERANDS = 16, MAX_LANES = 1024 };
typedef word reg[LANES];

/* What a name's last parts say: name, bytes, the field of `word` that instructions without a sign use. */
typedef enum ptx_type {
#define PTX_TYPE(name, bytes, plain) T_##name,
#include "tests/cuda/ptx/types.def"
#undef PTX_TYPE
    NUM_TYPES
} ptx_type;

typedef enum ptx_space { GENERIC, GLOBAL, SHARED, LOCAL, PARAM } ptx_space;
/* Generic addresses of shared and local memory lie above these. */
#define SHARED_WINDOW ((u64)1 << 60)
#define LOCAL_WINDOW ((u64)2 << 60)

typedef enum ptx_control { STRAIGHT, BRANCH, EXIT, BARRIER, COLLECTIVE } ptx_control;
typedef enum ptx_compare { EQ, NE, LT, LE, GT, GE, NUM, NOT_A_NUMBER } ptx_compare;
typedef enum ptx_combine { ALONE, AND, OR, XOR } ptx_combine;

typedef struct ptx_operand {
    s32 index;   /* of a register */
    s32 offset;  /* of an address */
    bool negate; /* of a predicate */
} ptx_operand;

typedef struct warp warp;
typedef struct instruction instruction;
typedef void (*handler)(warp *w, const instruction *i);

struct instruction {
    handler run;
    ptx_operand operands[MAX_OPERANDS];
    s32 num_operands;
    s32 guard; /* register; -1: always */
    bool guard_negate;
    ptx_control control;
    s32 target; /* of a branch */
    ptx_type type, from;
    ptx_space space;
    ptx_compare compare;
    bool unordered; /* true if one is not a number */
    ptx_combine combine;
    bool unpacks;          /* the first operand is a list */
    bool pairs;            /* the first two are results: d|p */
    const char *parts[10]; /* of the name, split at the points */
    s32 num_parts, line;
    const char *text; /* for messages */
};

typedef struct parameter {
    const char *name;
    size_t offset, bytes;
} parameter;
enum { MAX_PARAMETERS = 64 };

enum { NUM_SPECIAL = 15 };
extern const char *const ptx_special[NUM_SPECIAL];

struct ptx_kernel {
    char *name;
    struct ptx_module *module;
    parameter parameters[MAX_PARAMETERS];
    int num_parameters, max_lanes;
    size_t parameter_bytes, shared_bytes, local_bytes; /* static */
    instruction *code;
    s32 count, capacity;
    s32 num_registers; /* then the special ones, then the constants */
    s32 first_constant;
    u64 *constants;
    s32 num_constants, constant_capacity;
};

struct ptx_module {
    char *text;
    ptx_kernel *kernels;
    int num_kernels;
    struct data {
        const char *name;
        unsigned char *bytes;
        size_t size;
    } * data; /* of .global and .const */
    int num_data;
};

/* ---- execution ---- */

/* Who touched two bytes of shared memory last. */
typedef struct stamp {
    u32 block_epoch, warp_epoch; /* barriers of the group and of the warp so far */
    s32 lane;                    /* of the group; SEVERAL_WARPS; -2 - w: several lanes of warp w */
} stamp;
enum { NOBODY = -1, SEVERAL_WARPS = -1000 };
typedef struct shadow {
    stamp writer, reader;
} shadow;

typedef struct copy { /* asynchronous */
    u64 to, from;
    u32 bytes, given; /* the rest becomes zeros */
    s32 lane, group;
    s32 at; /* instruction */
} copy;

typedef struct machine {
    const ptx_kernel *kernel;
    const ptx_launch *launch;
    unsigned char *shared;
    size_t shared_bytes;
    shadow *shadows;
    unsigned char parameters[MAX_PARAMETERS * 8 + 256];
    u32 block_epoch;
    ptx_counts counts;
    bool failed;
    char *message;
} machine;

struct warp {
    machine *m;
    reg *registers;
    s32 number;
    s32 pc[LANES];
    u32 active;  /* lanes that the running instruction is for */
    u32 live;    /* have not ended */
    u32 waiting; /* at a barrier */
    u32 held;    /* at a collective, for the others */
    u32 warp_epoch;
    unsigned char *local;
    copy *copies;
    s32 num_copies, copy_capacity;
    s32 groups[LANES]; /* committed */
};

#define EACH_ACTIVE(w, l)           \
    for (int l = 0; l < LANES; l++) \
        if (((w)->active >> l & 1u) != 0u)

static inline word *ptx_reg(warp *w, const instruction *i, int operand) {
    return w->registers[i->operands[operand].index];
}
void ptx_fault(warp *w, const instruction *i, int lane, const char *format, ...);
bool ptx_has(const instruction *i, const char *part); /* of its name */
size_t ptx_bytes_of(ptx_type type);

/* (alu.c) The handler of an instruction without memory or other lanes; NULL: not known. */
handler ptx_alu(const instruction *i);
/* (memory.c) */
handler ptx_memory(const instruction *i);
unsigned char *ptx_address(warp *w, const instruction *i, int lane, ptx_space space, u64 address, size_t bytes,
                           bool writes);
void ptx_check_copies(warp *w, const instruction *i); /* at the end of lanes: all must have been waited for */
/* (collective.c) */
handler ptx_collective(const instruction *i);
float ptx_from_half(u32 bits);
u32 ptx_to_half(float x);
u32 ptx_to_bfloat(float x);

#endif
