/* Typed reads of GGUF metadata. The values were checked to lie in the file when it was opened. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/formats/gguf_file.h"

static const char *const type_names[LK_GGUF_TYPE_COUNT] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                           "bool", "string", "array", "u64", "i64", "f64"};

static int compare_strings(lk_gguf_string a, lk_gguf_string b) {
    int order = memcmp(a.data, b.data, LK_MIN(a.length, b.length));
    return order != 0 ? order : (a.length > b.length) - (a.length < b.length);
}

static int compare_entries(const void *left, const void *right) {
    return compare_strings(((const lk_gguf_entry *)left)->key, ((const lk_gguf_entry *)right)->key);
}

lk_status lk_gguf_sort_entries(lk_gguf *gguf) {
    lk_gguf_entry *entries = gguf->entries;
    for (size_t i = 0; i < gguf->entry_count; i++) {
        entries[i].position = i;
    }
    if (gguf->entry_count > 0) {
        qsort(entries, gguf->entry_count, sizeof *entries, compare_entries);
    }
    for (size_t i = 1; i < gguf->entry_count; i++) {
        if (compare_entries(&entries[i - 1], &entries[i]) == 0) {
            return lk_fail(gguf->context, LK_STATUS_FORMAT, "%s: metadata key %.*s is there twice", gguf->path,
                           (int)LK_MIN(entries[i].key.length, (size_t)200), entries[i].key.data);
        }
    }
    return LK_OK;
}

size_t lk_gguf_key_count(const lk_gguf *gguf) {
    return gguf->entry_count;
}

lk_gguf_string lk_gguf_key_at(const lk_gguf *gguf, size_t index, lk_gguf_type *type) {
    for (size_t i = 0; i < gguf->entry_count; i++) {
        if (gguf->entries[i].position == index) {
            *type = gguf->entries[i].type;
            return gguf->entries[i].key;
        }
    }
    *type = LK_GGUF_TYPE_COUNT;
    return (lk_gguf_string){"", 0};
}

const void *lk_gguf_raw_value(const lk_gguf *gguf, size_t index, size_t *size) {
    for (size_t i = 0; i < gguf->entry_count; i++) {
        if (gguf->entries[i].position == index) {
            *size = gguf->entries[i].size;
            return gguf->entries[i].value;
        }
    }
    *size = 0;
    return NULL;
}

static const lk_gguf_entry *lookup(const lk_gguf *gguf, const char *key) {
    lk_gguf_entry wanted = {.key = {key, strlen(key)}};
    return gguf->entry_count == 0 ? NULL
                                  : bsearch(&wanted, gguf->entries, gguf->entry_count, sizeof wanted, compare_entries);
}

bool lk_gguf_has(const lk_gguf *gguf, const char *key) {
    return lookup(gguf, key) != NULL;
}

static lk_status find(const lk_gguf *gguf, const char *key, bool required, const lk_gguf_entry **found) {
    *found = lookup(gguf, key);
    if (*found == NULL && required) {
        return lk_fail(gguf->context, LK_STATUS_FORMAT, "%s: metadata %s is missing", gguf->path, key);
    }
    return LK_OK;
}

static lk_status wrong_type(const lk_gguf *gguf, const char *key, const lk_gguf_entry *entry, const char *expected) {
    bool array = entry->type == LK_GGUF_ARRAY;
    lk_gguf_type type = entry->type;
    if (array) {
        uint32_t element;
        memcpy(&element, entry->value, sizeof element);
        type = (lk_gguf_type)element;
    }
    return lk_fail(gguf->context, LK_STATUS_FORMAT, "%s: metadata %s is %s%s, expected %s", gguf->path, key,
                   array ? "an array of " : "of type ", type_names[type], expected);
}

/* ---- single values ---- */

static bool is_int(lk_gguf_type type) {
    return type <= LK_GGUF_I32 || type == LK_GGUF_U64 || type == LK_GGUF_I64;
}

static bool is_number(lk_gguf_type type) {
    return is_int(type) || type == LK_GGUF_F32 || type == LK_GGUF_F64;
}

#define READ_AS(ctype)                      \
    do {                                    \
        ctype number;                       \
        memcpy(&number, at, sizeof number); \
        *at_next = at + sizeof number;      \
        return number;                      \
    } while (0)

static int64_t read_int(lk_gguf_type type, const uint8_t *at, const uint8_t **at_next) {
    switch (type) {
    case LK_GGUF_U8:
        READ_AS(uint8_t);
    case LK_GGUF_I8:
        READ_AS(int8_t);
    case LK_GGUF_U16:
        READ_AS(uint16_t);
    case LK_GGUF_I16:
        READ_AS(int16_t);
    case LK_GGUF_U32:
        READ_AS(uint32_t);
    case LK_GGUF_I32:
        READ_AS(int32_t);
    case LK_GGUF_U64: {
        uint64_t number;
        memcpy(&number, at, sizeof number);
        *at_next = at + sizeof number;
        return number > INT64_MAX ? INT64_MAX : (int64_t)number;
    }
    default:
        READ_AS(int64_t);
    }
}

static double read_float(lk_gguf_type type, const uint8_t *at, const uint8_t **at_next) {
    switch (type) {
    case LK_GGUF_F32:
        READ_AS(float);
    case LK_GGUF_F64:
        READ_AS(double);
    default:
        return (double)read_int(type, at, at_next);
    }
}

lk_status lk_gguf_get_int(const lk_gguf *gguf, const char *key, bool required, int64_t minimum, int64_t maximum,
                          int64_t *value) {
    const lk_gguf_entry *entry;
    const uint8_t *end;
    LK_TRY(find(gguf, key, required, &entry));
    if (entry == NULL) {
        return LK_OK;
    }
    if (!is_int(entry->type)) {
        return wrong_type(gguf, key, entry, "an integer");
    }
    int64_t number = read_int(entry->type, entry->value, &end);
    if (number < minimum || number > maximum) {
        return lk_fail(gguf->context, LK_STATUS_FORMAT,
                       "%s: metadata %s is %" PRId64 ", expected %" PRId64 " to %" PRId64, gguf->path, key, number,
                       minimum, maximum);
    }
    *value = number;
    return LK_OK;
}

lk_status lk_gguf_get_double(const lk_gguf *gguf, const char *key, bool required, double *value) {
    const lk_gguf_entry *entry;
    const uint8_t *end;
    LK_TRY(find(gguf, key, required, &entry));
    if (entry == NULL) {
        return LK_OK;
    }
    if (!is_number(entry->type)) {
        return wrong_type(gguf, key, entry, "a number");
    }
    *value = read_float(entry->type, entry->value, &end);
    return LK_OK;
}

lk_status lk_gguf_get_bool(const lk_gguf *gguf, const char *key, bool required, bool *value) {
    const lk_gguf_entry *entry;
    LK_TRY(find(gguf, key, required, &entry));
    if (entry == NULL) {
        return LK_OK;
    }
    if (entry->type != LK_GGUF_BOOL) {
        return wrong_type(gguf, key, entry, "a bool");
    }
    *value = entry->value[0] != 0;
    return LK_OK;
}

static lk_gguf_string read_string(const uint8_t *at) {
    uint64_t length;
    memcpy(&length, at, sizeof length);
    return (lk_gguf_string){(const char *)at + sizeof length, (size_t)length};
}

lk_status lk_gguf_get_string(const lk_gguf *gguf, const char *key, bool required, lk_gguf_string *value) {
    const lk_gguf_entry *entry;
    LK_TRY(find(gguf, key, required, &entry));
    if (entry == NULL) {
        return LK_OK;
    }
    if (entry->type != LK_GGUF_STRING) {
        return wrong_type(gguf, key, entry, "a string");
    }
    *value = read_string(entry->value);
    return LK_OK;
}

bool lk_gguf_string_equals(lk_gguf_string string, const char *text) {
    return string.length == strlen(text) && memcmp(string.data, text, string.length) == 0;
}

/* ---- arrays ---- */

static bool is_string(lk_gguf_type type) {
    return type == LK_GGUF_STRING;
}

static lk_status get_array(const lk_gguf *gguf, const char *key, bool required, bool (*accepts)(lk_gguf_type),
                           const char *expected, lk_gguf_array *value) {
    const lk_gguf_entry *entry;
    LK_TRY(find(gguf, key, required, &entry));
    if (entry == NULL) {
        return LK_OK;
    }
    uint32_t type = LK_GGUF_ARRAY;
    if (entry->type == LK_GGUF_ARRAY) {
        memcpy(&type, entry->value, sizeof type);
    }
    if (!accepts((lk_gguf_type)type)) {
        return wrong_type(gguf, key, entry, expected);
    }
    uint64_t count;
    memcpy(&count, entry->value + sizeof type, sizeof count);
    *value = (lk_gguf_array){(lk_gguf_type)type, (size_t)count, entry->value + sizeof type + sizeof count};
    return LK_OK;
}

lk_status lk_gguf_get_strings(const lk_gguf *gguf, const char *key, bool required, lk_gguf_array *value) {
    return get_array(gguf, key, required, is_string, "an array of strings", value);
}

lk_status lk_gguf_get_ints(const lk_gguf *gguf, const char *key, bool required, lk_gguf_array *value) {
    return get_array(gguf, key, required, is_int, "an array of integers", value);
}

lk_status lk_gguf_get_doubles(const lk_gguf *gguf, const char *key, bool required, lk_gguf_array *value) {
    return get_array(gguf, key, required, is_number, "an array of numbers", value);
}

bool lk_gguf_next_string(lk_gguf_array *array, lk_gguf_string *value) {
    if (array->count == 0) {
        return false;
    }
    *value = read_string(array->next);
    array->next += sizeof(uint64_t) + value->length;
    array->count--;
    return true;
}

bool lk_gguf_next_int(lk_gguf_array *array, int64_t *value) {
    if (array->count == 0) {
        return false;
    }
    *value = read_int(array->type, array->next, &array->next);
    array->count--;
    return true;
}

bool lk_gguf_next_double(lk_gguf_array *array, double *value) {
    if (array->count == 0) {
        return false;
    }
    *value = read_float(array->type, array->next, &array->next);
    array->count--;
    return true;
}
