/* From the text of a module to instructions. The text is changed in place: names and messages point into it. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/ptx/vm.h"

const char *const ptx_special[NUM_SPECIAL] = {"%tid.x",    "%tid.y",    "%tid.z",   "%ntid.x",  "%ntid.y",
                                              "%ntid.z",   "%ctaid.x",  "%ctaid.y", "%ctaid.z", "%nctaid.x",
                                              "%nctaid.y", "%nctaid.z", "%laneid",  "%warpid",  "(zero)"};
enum { ZERO = NUM_SPECIAL - 1 };

/* Registers `%r<77>` are one declaration; `%p` alone is one of one. */
typedef struct declaration {
    char name[64];
    bool is_range;
    s32 first, count;
} declaration;
enum { MAX_DECLARATIONS = 512, MAX_SYMBOLS = 64, MAX_LABELS = 8192 };

typedef struct parser {
    ptx_module *module;
    ptx_kernel *kernel;
    char *message;
    bool failed;
    s32 line;
    declaration declarations[MAX_DECLARATIONS];
    s32 num_declarations;
    struct {
        char name[256];
        u64 value;
    } symbols[MAX_SYMBOLS]; /* of shared and local memory and data */
    s32 num_symbols;
    struct {
        const char *name;
        s32 at;
    } labels[MAX_LABELS], jumps[MAX_LABELS];
    s32 num_labels, num_jumps;
    char *dynamic_shared; /* its name in the module */
} parser;

static void fail(parser *p, const char *what, const char *text) {
    if (!p->failed) {
        snprintf(p->message, PTX_MESSAGE, "line %d: %s: %.200s", (int)p->line, what, text);
        p->failed = true;
    }
}

static ptx_type type_of(const char *name) {
    static const char *const names[] = {
#define PTX_TYPE(name, bytes, plain) #name,
#include "tests/cuda/ptx/types.def"
#undef PTX_TYPE
    };
    for (int k = 0; k < NUM_TYPES; k++) {
        if (strcmp(names[k], name) == 0) {
            return (ptx_type)k;
        }
    }
    return NUM_TYPES;
}

static void *grown(void *array, s32 count, s32 *capacity, size_t size) {
    if (count < *capacity) {
        return array;
    }
    *capacity = 2 * *capacity + 64;
    return realloc(array, (size_t)*capacity * size);
}

/* ---- operands ---- */

/* Constants get their registers after all others are known: until then theirs are negative. */
static s32 constant(parser *p, u64 value) {
    ptx_kernel *kernel = p->kernel;
    for (s32 k = 0; k < kernel->num_constants; k++) {
        if (kernel->constants[k] == value) {
            return -1 - k;
        }
    }
    kernel->constants = grown(kernel->constants, kernel->num_constants, &kernel->constant_capacity, sizeof(u64));
    kernel->constants[kernel->num_constants] = value;
    return -1 - kernel->num_constants++;
}

enum { SPECIAL = 1 << 28 };

static s32 register_of(parser *p, const char *name) {
    for (s32 k = 0; k < NUM_SPECIAL; k++) {
        if (strcmp(ptx_special[k], name) == 0) {
            return SPECIAL + k;
        }
    }
    for (s32 k = p->num_declarations - 1; k >= 0; k--) { /* the innermost first */
        const declaration *d = &p->declarations[k];
        size_t length = strlen(d->name);
        if (!d->is_range && strcmp(d->name, name) == 0) {
            return d->first;
        }
        if (d->is_range && strncmp(d->name, name, length) == 0 && isdigit((unsigned char)name[length])) {
            s32 number = (s32)strtol(name + length, NULL, 10);
            if (number < d->count) {
                return d->first + number;
            }
        }
    }
    fail(p, "unknown register", name);
    return 0;
}

static bool symbol_of(const parser *p, const char *name, u64 *value) {
    for (s32 k = p->num_symbols - 1; k >= 0; k--) {
        if (strcmp(p->symbols[k].name, name) == 0) {
            *value = p->symbols[k].value;
            return true;
        }
    }
    for (int k = 0; k < p->kernel->num_parameters; k++) {
        if (strcmp(p->kernel->parameters[k].name, name) == 0) {
            *value = p->kernel->parameters[k].offset;
            return true;
        }
    }
    return false;
}

static void add_symbol(parser *p, const char *name, u64 value) {
    if (p->num_symbols == MAX_SYMBOLS || strlen(name) >= sizeof p->symbols[0].name) {
        fail(p, "too many symbols, or too long a name", name);
        return;
    }
    snprintf(p->symbols[p->num_symbols].name, sizeof p->symbols[0].name, "%s", name);
    p->symbols[p->num_symbols++].value = value;
}

static s32 value_of(parser *p, const char *token) {
    u64 value;
    if (token[0] == '%' || token[0] == '_' || isalpha((unsigned char)token[0]) || token[0] == '$') {
        if (strcmp(token, "_") == 0) {
            return SPECIAL + NUM_SPECIAL; /* nobody reads it */
        }
        if (strcmp(token, "WARP_SZ") == 0) {
            return constant(p, LANES);
        }
        return symbol_of(p, token, &value) ? constant(p, value) : register_of(p, token);
    }
    if (token[0] == '0' && (token[1] == 'f' || token[1] == 'F' || token[1] == 'd' || token[1] == 'D')) {
        return constant(p, strtoull(token + 2, NULL, 16));
    }
    if (!isdigit((unsigned char)token[0]) && token[0] != '-') {
        fail(p, "unknown operand", token);
        return 0;
    }
    return constant(p, token[0] == '-' ? 0u - strtoull(token + 1, NULL, 0) : strtoull(token, NULL, 0));
}

static char *word_at(char **at, char buffer[256]) {
    size_t length = 0;
    while (**at != '\0' && strchr(",{}[]|+ \t", **at) == NULL && length < 255) {
        buffer[length++] = *(*at)++;
    }
    buffer[length] = '\0';
    return buffer;
}

/* Lists are flattened; [base + offset] is one operand. */
static void parse_operands(parser *p, instruction *i, char *at) {
    char token[256];
    bool in_address = false;
    while (*at != '\0' && !p->failed) {
        if (*at == '[' || *at == ']') {
            in_address = *at == '[';
        } else if (*at == '{' && i->num_operands == 0) {
            i->unpacks = true;
        } else if (*at == '|') {
            i->pairs = true;
        } else if (*at == '+' && in_address && i->num_operands > 0) {
            at++;
            at += strspn(at, " \t");
            i->operands[i->num_operands - 1].offset = (s32)strtol(word_at(&at, token), NULL, 0);
            continue;
        } else if (strchr(",{} \t", *at) == NULL) {
            bool negate = *at == '!';
            at += negate;
            if (i->num_operands == MAX_OPERANDS) {
                fail(p, "too many operands", i->text);
                return;
            }
            ptx_operand *made = &i->operands[i->num_operands++];
            *made = (ptx_operand){value_of(p, word_at(&at, token)), 0, negate};
            continue;
        }
        at++;
    }
}

/* ---- instructions ---- */

static void split_name(instruction *i, char *name) {
    for (char *part = name; part != NULL && i->num_parts < 10;) {
        char *point = strchr(part, '.');
        i->parts[i->num_parts++] = part;
        if (point != NULL && point[1] == ':') { /* not a point of its own */
            point = strchr(point + 1, '.');
        }
        if (point != NULL) {
            *point++ = '\0';
        }
        part = point;
    }
}

static void set_space(instruction *i) {
    i->space = ptx_has(i, "global") || ptx_has(i, "const") ? GLOBAL
               : ptx_has(i, "shared")                      ? SHARED
               : ptx_has(i, "local")                       ? LOCAL
               : ptx_has(i, "param")                       ? PARAM
                                                           : GENERIC;
}

static void set_types(instruction *i) {
    i->type = i->from = NUM_TYPES;
    for (int k = 1; k < i->num_parts; k++) {
        ptx_type found = type_of(i->parts[k]);
        if (found != NUM_TYPES) {
            i->type = i->type == NUM_TYPES ? found : i->type;
            i->from = found; /* the last */
        }
    }
    if (strcmp(i->parts[0], "cvt") != 0) {
        i->type = i->from;
    }
}

static bool set_comparison(instruction *i) {
    static const struct {
        const char *name;
        ptx_compare compare;
        bool unordered;
    } comparisons[] = {{"eq", EQ, false},   {"ne", NE, false},           {"lt", LT, false}, {"le", LE, false},
                       {"gt", GT, false},   {"ge", GE, false},           {"lo", LT, false}, {"ls", LE, false},
                       {"hi", GT, false},   {"hs", GE, false},           {"equ", EQ, true}, {"neu", NE, true},
                       {"ltu", LT, true},   {"leu", LE, true},           {"gtu", GT, true}, {"geu", GE, true},
                       {"num", NUM, false}, {"nan", NOT_A_NUMBER, false}};
    i->combine = ptx_has(i, "and") ? AND : ptx_has(i, "or") ? OR : ptx_has(i, "xor") ? XOR : ALONE;
    for (size_t k = 0; k < sizeof comparisons / sizeof *comparisons; k++) {
        if (i->num_parts > 1 && strcmp(i->parts[1], comparisons[k].name) == 0) {
            i->compare = comparisons[k].compare;
            i->unordered = comparisons[k].unordered;
            return true;
        }
    }
    return false;
}

static void set_handler(parser *p, instruction *i) {
    const char *family = i->parts[0];
    bool is_group_barrier = (strcmp(family, "bar") == 0 || strcmp(family, "barrier") == 0) && ptx_has(i, "sync") &&
                            !ptx_has(i, "warp") && i->num_operands == 1 && i->operands[0].index < 0;
    if (strcmp(family, "ret") == 0 || strcmp(family, "exit") == 0) {
        i->control = EXIT;
        return;
    }
    if (is_group_barrier) {
        i->control = BARRIER;
        return;
    }
    i->run = ptx_collective(i);
    if (i->run != NULL) {
        i->control = COLLECTIVE;
        return;
    }
    i->run = ptx_memory(i);
    bool is_alu = i->run == NULL && strcmp(family, "ld") != 0 && strcmp(family, "st") != 0 && strcmp(family, "cp") != 0;
    bool has_comparison = strcmp(family, "setp") != 0 || set_comparison(i);
    if (is_alu && has_comparison) {
        i->run = ptx_alu(i);
    }
    if (i->run == NULL) {
        fail(p, "unknown instruction", i->text);
    }
}

static void parse_instruction(parser *p, char *statement) {
    ptx_kernel *kernel = p->kernel;
    kernel->code = grown(kernel->code, kernel->count, &kernel->capacity, sizeof *kernel->code);
    instruction *i = &kernel->code[kernel->count++];
    *i = (instruction){.guard = -1, .line = p->line, .text = strdup(statement)};
    if (*statement == '@') {
        char token[256];
        statement++;
        i->guard_negate = *statement == '!';
        statement += i->guard_negate;
        i->guard = register_of(p, word_at(&statement, token));
        statement += strspn(statement, " \t");
    }
    char *rest = statement + strcspn(statement, " \t");
    if (*rest != '\0') {
        *rest++ = '\0';
        rest += strspn(rest, " \t");
    }
    split_name(i, statement);
    set_space(i);
    set_types(i);
    if (strcmp(i->parts[0], "bra") == 0) {
        i->control = BRANCH;
        if (p->num_jumps == MAX_LABELS) {
            fail(p, "too many branches", i->text);
            return;
        }
        p->jumps[p->num_jumps].name = rest;
        p->jumps[p->num_jumps++].at = kernel->count - 1;
        return;
    }
    parse_operands(p, i, rest);
    if (!p->failed) {
        set_handler(p, i);
    }
}

/* ---- declarations ---- */

static void declare_registers(parser *p, char *at) {
    at += strcspn(at, " \t"); /* the type */
    for (char *name = strtok(at, ", \t"); name != NULL; name = strtok(NULL, ", \t")) {
        if (p->num_declarations == MAX_DECLARATIONS) {
            fail(p, "too many declarations", name);
            return;
        }
        declaration *d = &p->declarations[p->num_declarations++];
        char *range = strchr(name, '<');
        d->is_range = range != NULL;
        d->count = d->is_range ? (s32)strtol(range + 1, NULL, 10) : 1;
        if (range != NULL) {
            *range = '\0';
        }
        snprintf(d->name, sizeof d->name, "%s", name);
        d->first = p->kernel->num_registers;
        p->kernel->num_registers += d->count;
    }
}

/* .align 4 .b8 name[256] = {..}: name, bytes, alignment; the values' start. */
static size_t parse_array(parser *p, char *at, char **name, size_t *align, char **values) {
    size_t element = 1, count = 1;
    *align = 1;
    *values = strchr(at, '{');
    char *equals = strchr(at, '=');
    if (equals != NULL) {
        *equals = '\0';
    }
    *name = NULL;
    for (char *token = strtok(at, " \t"); token != NULL; token = strtok(NULL, " \t")) {
        ptx_type found = token[0] == '.' ? type_of(token + 1) : NUM_TYPES;
        if (strcmp(token, ".align") == 0) {
            token = strtok(NULL, " \t");
            *align = token != NULL ? strtoull(token, NULL, 10) : 1;
        } else if (found != NUM_TYPES) {
            element = ptx_bytes_of(found);
        } else if (token[0] != '.') {
            *name = token;
        }
    }
    if (*name == NULL) {
        fail(p, "a declaration without a name", at);
        return 0;
    }
    char *size = strchr(*name, '[');
    if (size != NULL) {
        count = strtoull(size + 1, NULL, 10);
        *size = '\0';
    }
    *align = element > *align ? element : *align;
    return element * count;
}

static u64 placed(size_t *used, size_t bytes, size_t align) {
    u64 start = (*used + align - 1) / align * align;
    *used = start + bytes;
    return start;
}

static void declare_data(parser *p, char *at) {
    char *name, *values;
    size_t align, bytes = parse_array(p, at, &name, &align, &values);
    if (p->failed) {
        return;
    }
    ptx_module *module = p->module;
    module->data = realloc(module->data, (size_t)(module->num_data + 1) * sizeof *module->data);
    struct data *d = &module->data[module->num_data++];
    *d = (struct data){name, calloc(1, bytes + 16), bytes};
    size_t k = 0;
    for (char *token = values != NULL ? strtok(values, "{}, \t\n") : NULL; token != NULL && k < bytes;
         token = strtok(NULL, "{}, \t\n")) {
        d->bytes[k++] = (unsigned char)strtoul(token, NULL, 0); /* nvcc writes bytes */
    }
    add_symbol(p, name, (u64)(uintptr_t)d->bytes);
}

static void parse_parameters(parser *p, char *list) {
    ptx_kernel *kernel = p->kernel;
    char *end;
    for (char *at = list; at != NULL && *at != '\0' && !p->failed; at = end) {
        end = strchr(at, ',');
        if (end != NULL) {
            *end++ = '\0';
        }
        char *start = strstr(at, ".param"), *name, *values;
        if (start == NULL) {
            continue;
        }
        char copied[512];
        snprintf(copied, sizeof copied, "%s", start + strlen(".param"));
        size_t align, bytes = parse_array(p, copied, &name, &align, &values);
        if (p->failed || kernel->num_parameters == MAX_PARAMETERS) {
            fail(p, "too many parameters", at);
            return;
        }
        parameter *made = &kernel->parameters[kernel->num_parameters++];
        *made = (parameter){strdup(name), placed(&kernel->parameter_bytes, bytes, align), bytes};
        if (kernel->parameter_bytes > sizeof((machine *)0)->parameters) {
            fail(p, "the parameters are too large", at);
        }
    }
}

/* ---- a kernel ---- */

static void parse_statement(parser *p, char *statement) {
    char *name, *values;
    size_t align, bytes;
    if (*statement == '\0') {
        return;
    }
    if (strncmp(statement, ".reg", 4) == 0) {
        declare_registers(p, statement + 4 + strspn(statement + 4, " \t"));
    } else if (strncmp(statement, ".shared", 7) == 0) {
        bytes = parse_array(p, statement + 7, &name, &align, &values);
        add_symbol(p, name, placed(&p->kernel->shared_bytes, bytes, align));
    } else if (strncmp(statement, ".local", 6) == 0) {
        bytes = parse_array(p, statement + 6, &name, &align, &values);
        add_symbol(p, name, placed(&p->kernel->local_bytes, bytes, align));
    } else if (*statement != '.') { /* .pragma, .loc */
        parse_instruction(p, statement);
    }
}

/* Cuts a kernel's body at ; { } and labels; braces of lists belong to statements. */
static void parse_body(parser *p, char *at, char *end) {
    char *start = NULL;
    s32 depth = 0;
    for (; at < end && !p->failed; at++) {
        if (*at == '\n') {
            p->line++;
            *at = ' ';
        }
        if (start == NULL) {
            if (isspace((unsigned char)*at) || *at == '{' || *at == '}' || *at == ';') {
                continue;
            }
            start = at;
        }
        if (*at == ':' && depth == 0 && (at[1] != ':' && at[-1] != ':')) {
            *at = '\0';
            if (p->num_labels == MAX_LABELS) {
                fail(p, "too many labels", start);
                return;
            }
            p->labels[p->num_labels].name = start;
            p->labels[p->num_labels++].at = p->kernel->count;
            start = NULL;
        } else if (*at == ';') {
            *at = '\0';
            parse_statement(p, start);
            start = NULL;
        }
    }
}

static void link_branches(parser *p) {
    ptx_kernel *kernel = p->kernel;
    for (s32 k = 0; k < p->num_jumps; k++) {
        s32 target = -1;
        for (s32 j = 0; j < p->num_labels; j++) {
            if (strcmp(p->labels[j].name, p->jumps[k].name) == 0) {
                target = p->labels[j].at;
            }
        }
        if (target < 0) {
            fail(p, "unknown label", p->jumps[k].name);
        }
        kernel->code[p->jumps[k].at].target = target;
    }
    kernel->first_constant = kernel->num_registers + NUM_SPECIAL + 1;
    for (s32 k = 0; k < kernel->count; k++) {
        for (s32 j = 0; j < kernel->code[k].num_operands; j++) {
            s32 *index = &kernel->code[k].operands[j].index;
            if (*index < 0) {
                *index = kernel->first_constant - 1 - *index;
            } else if (*index >= SPECIAL) {
                *index = kernel->num_registers + *index - SPECIAL;
            }
        }
    }
}

/* text: from behind ".entry"; returns where it ends. */
static char *parse_kernel(parser *p, char *text) {
    ptx_module *module = p->module;
    module->kernels = realloc(module->kernels, (size_t)(module->num_kernels + 1) * sizeof *module->kernels);
    ptx_kernel *kernel = p->kernel = &module->kernels[module->num_kernels++];
    *kernel = (ptx_kernel){.module = module, .max_lanes = MAX_LANES};
    const s32 outer_symbols = p->num_symbols;
    p->num_declarations = p->num_labels = p->num_jumps = 0;
    char *open = strchr(text, '('), *close = open != NULL ? strchr(open, ')') : NULL;
    char *body = close != NULL ? strchr(close, '{') : NULL, *end = body != NULL ? strstr(body, "\n}") : NULL;
    if (end == NULL) {
        fail(p, "a kernel without a body", text);
        return text + strlen(text);
    }
    *close = *open = *body = *end = '\0';
    char *name = strtok(text, " \t\n");
    kernel->name = strdup(name != NULL ? name : "");
    for (char *c = text; c < body; c++) {
        p->line += *c == '\n';
    }
    const char *lanes = strstr(close + 1, ".maxntid");
    if (lanes != NULL) {
        kernel->max_lanes = (int)strtol(lanes + strlen(".maxntid"), NULL, 10);
    }
    for (char *c = open + 1; c < close; c++) {
        p->line += *c == '\n';
        *c = *c == '\n' ? ' ' : *c;
    }
    parse_parameters(p, open + 1);
    for (char *c = close + 1; c < body; c++) {
        p->line += *c == '\n';
    }
    /* dynamic shared memory begins behind the static: the body's declarations stand first */
    if (p->dynamic_shared != NULL) {
        size_t used = 0, align, bytes;
        char copied[512], *array, *values;
        for (char *at = body + 1; (at = strstr(at, ".shared ")) != NULL && at < end; at++) {
            if (at[-1] == '\t' || at[-1] == ' ' || at[-1] == '\n') {
                snprintf(copied, sizeof copied, "%.*s", (int)strcspn(at + 7, ";"), at + 7);
                bytes = parse_array(p, copied, &array, &align, &values);
                placed(&used, bytes, align);
            }
        }
        add_symbol(p, p->dynamic_shared, (used + 15) / 16 * 16);
        kernel->shared_bytes = 0;
    }
    parse_body(p, body + 1, end);
    if (p->dynamic_shared != NULL) {
        kernel->shared_bytes = (kernel->shared_bytes + 15) / 16 * 16;
    }
    if (!p->failed) {
        link_branches(p);
    }
    p->num_symbols = outer_symbols;
    p->line += 2;
    return end + 2;
}

static void remove_comments(char *text) {
    for (char *at = text; *at != '\0'; at++) {
        if (at[0] == '/' && at[1] == '/') {
            while (*at != '\0' && *at != '\n') {
                *at++ = ' ';
            }
            at -= *at == '\0';
        } else if (at[0] == '/' && at[1] == '*') {
            for (; *at != '\0' && !(at[0] == '*' && at[1] == '/'); at++) {
                *at = *at == '\n' ? '\n' : ' ';
            }
            if (*at == '\0') {
                return;
            }
            at[0] = at[1] = ' ';
        }
    }
}

ptx_module *ptx_module_parse(const char *text, char message[PTX_MESSAGE]) {
    ptx_module *module = calloc(1, sizeof *module);
    parser *p = calloc(1, sizeof *p);
    if (module == NULL || p == NULL) {
        free(module);
        free(p);
        snprintf(message, PTX_MESSAGE, "out of memory");
        return NULL;
    }
    message[0] = '\0';
    *p = (parser){.module = module, .message = message, .line = 1};
    module->text = strdup(text);
    remove_comments(module->text);
    char *at = module->text;
    while (*at != '\0' && !p->failed) {
        size_t length = strcspn(at, " \t\n");
        if (length == 0) {
            p->line += *at == '\n';
            at++;
        } else if (strncmp(at, ".entry", length) == 0) {
            at = parse_kernel(p, at + length);
        } else if (strncmp(at, ".func", length) == 0) {
            fail(p, "functions are not known", at);
        } else if (strncmp(at, ".shared", length) == 0 || strncmp(at, ".global", length) == 0 ||
                   strncmp(at, ".const", length) == 0) {
            bool is_shared = strncmp(at, ".shared", length) == 0;
            char *end = strchr(at, ';');
            if (end == NULL) {
                fail(p, "a declaration that does not end", at);
                break;
            }
            *end = '\0';
            if (is_shared) {
                char *name, *values;
                size_t align, bytes = parse_array(p, at + length, &name, &align, &values);
                p->dynamic_shared = name;
                if (bytes != 0) {
                    fail(p, "static shared memory outside of a kernel", name);
                }
            } else {
                declare_data(p, at + length);
            }
            at = end + 1;
        } else {
            at += length; /* .version, .visible, ... */
        }
    }
    for (int k = 0; k < module->num_kernels; k++) {
        module->kernels[k].module = module;
    }
    bool failed = p->failed;
    free(p);
    if (failed) {
        ptx_module_free(module);
        return NULL;
    }
    return module;
}

ptx_module *ptx_module_read(const char *path, char message[PTX_MESSAGE]) {
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    size_t used = 0, read = 0;
    do {
        char *larger = file != NULL ? realloc(text, used + (1 << 20) + 1) : NULL;
        if (larger == NULL) {
            snprintf(message, PTX_MESSAGE, "%s cannot be read", path);
            free(text);
            if (file != NULL) {
                fclose(file);
            }
            return NULL;
        }
        text = larger;
        read = fread(text + used, 1, 1 << 20, file);
        used += read;
        text[used] = '\0';
    } while (read > 0);
    fclose(file);
    ptx_module *module = ptx_module_parse(text, message);
    free(text);
    return module;
}

void ptx_module_free(ptx_module *module) {
    for (int k = 0; module != NULL && k < module->num_kernels; k++) {
        ptx_kernel *kernel = &module->kernels[k];
        for (s32 j = 0; j < kernel->count; j++) {
            free((char *)(uintptr_t)kernel->code[j].text);
        }
        for (int j = 0; j < kernel->num_parameters; j++) {
            free((char *)(uintptr_t)kernel->parameters[j].name);
        }
        free(kernel->code);
        free(kernel->constants);
        free(kernel->name);
    }
    if (module != NULL) {
        for (int k = 0; k < module->num_data; k++) {
            free(module->data[k].bytes);
        }
        free(module->data);
        free(module->kernels);
        free(module->text);
        free(module);
    }
}

const ptx_kernel *ptx_module_find(const ptx_module *module, const char *name) {
    for (int k = 0; k < module->num_kernels; k++) {
        if (strcmp(module->kernels[k].name, name) == 0) {
            return &module->kernels[k];
        }
    }
    return NULL;
}

int ptx_num_parameters(const ptx_kernel *kernel) {
    return kernel->num_parameters;
}

size_t ptx_parameter_bytes(const ptx_kernel *kernel, int index) {
    return kernel->parameters[index].bytes;
}

int ptx_max_lanes(const ptx_kernel *kernel) {
    return kernel->max_lanes;
}
