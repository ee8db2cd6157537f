/* The disk cache of OpenCL programs: a hit, files that are cut or altered, a file under the wrong key, and a folder
 * that cannot be written. Where there is no OpenCL it says so and is counted as skipped. */
#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/base.h"
#include "tests/common/runner.h"

#if !defined(__has_include)
#define __has_include(x) 0
#endif
#if __has_include(<CL/cl_icd.h>)
#include "backends/opencl/opencl.h"

static lk_context *context;
static lk_cl_device *device;
static char folder[] = "lk_opencl_cache_XXXXXX";

static lk_launch make_launch(void) {
    lk_launch launch = {.file = "dora_norm", .entry = "dora_norm", .groups = {1, 1}};
    lk_launch_constant(&launch, "GROUP", 64);
    return launch;
}

static void open_device(void) {
    lk_device_caps caps[LK_CL_MAX_DEVICES];
    int count;
    ck_assert_int_eq(lk_backend_opencl.probe(context, caps, LK_CL_MAX_DEVICES, &count), LK_OK);
    lk_device *opened;
    ck_assert_int_eq(lk_backend_opencl.open(context, &caps[0], NULL, &opened), LK_OK);
    device = (lk_cl_device *)opened;
}

/* Gets the program in a device opened anew: from the disk or compiled? */
static void expect(bool from_cache) {
    lk_launch launch = make_launch();
    cl_program program, again;
    open_device();
    ck_assert_int_eq(lk_cl_program_get(device, &launch, &program), LK_OK);
    ck_assert_int_eq(device->from_cache, from_cache ? 1 : 0);
    ck_assert_int_eq(device->compiled, from_cache ? 0 : 1);
    ck_assert_int_eq(lk_cl_program_get(device, &launch, &again), LK_OK);
    ck_assert_ptr_eq(again, program);
    lk_backend_opencl.close(&device->device);
}

static char path[512];

/* The one file of the folder. */
static long find_file(void) {
    path[0] = '\0';
    DIR *listing = opendir(folder);
    ck_assert_ptr_nonnull(listing);
    for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        if (strncmp(entry->d_name, "opencl-", 7) == 0) {
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        }
    }
    closedir(listing);
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    fclose(file);
    return size;
}

static void alter(long at) {
    FILE *file = fopen(path, "r+b");
    fseek(file, at, SEEK_SET);
    int byte = fgetc(file);
    fseek(file, at, SEEK_SET);
    fputc(byte ^ 0x5a, file);
    fclose(file);
}

START_TEST(test_hit_and_damage) {
    expect(false);
    expect(true);
    long size = find_file();
    const long places[] = {0, 9, 17, 25, 40, size - 1}; /* magic, key, check, size, and the binary's ends */
    for (size_t i = 0; i < LK_COUNT(places); i++) {
        find_file();
        alter(places[i]);
        expect(false); /* compiled again, and the file is whole again */
        expect(true);
    }
    ck_assert_int_eq(truncate(path, size / 2), 0);
    expect(false);
    ck_assert_int_eq(truncate(path, 5), 0);
    expect(false);
    ck_assert_int_eq(truncate(path, 0), 0);
    expect(false);
    expect(true);
}
END_TEST

START_TEST(test_other_constants_are_another_program) {
    expect(false);
    open_device();
    lk_launch launch = make_launch();
    launch.constants[0].value = 32;
    cl_program program;
    ck_assert_int_eq(lk_cl_program_get(device, &launch, &program), LK_OK);
    ck_assert_int_eq(device->compiled, 1);
    lk_backend_opencl.close(&device->device);
}
END_TEST

START_TEST(test_folder_that_cannot_be_made) {
    char file[300];
    snprintf(file, sizeof file, "%s/file", folder);
    fclose(fopen(file, "w"));
    snprintf(file, sizeof file, "%s/file/below", folder);
    setenv("LORIKEET_CACHE_DIR", file, 1);
    expect(false);
    expect(false);
}
END_TEST

START_TEST(test_a_text_that_does_not_compile) {
    open_device();
    lk_launch launch = make_launch();
    launch.entry = "no_such_entry"; /* the kernel itself is there, its name is not */
    launch.num_constants = 0;       /* and GROUP is not set */
    cl_program program;
    ck_assert_int_eq(lk_cl_program_get(device, &launch, &program), LK_STATUS_DEVICE);
    ck_assert_msg(strstr(lk_error_message(context), "dora_norm.lk") != NULL, "%s", lk_error_message(context));
    lk_backend_opencl.close(&device->device);
}
END_TEST

/* The number of the first line of a kernel's text that has `part`. */
static int line_of(const char *file, const char *part) {
    const lk_shader_text *text = lk_shader_text_find(file);
    ck_assert_ptr_nonnull(text);
    const char *end = strstr(text->text, part);
    ck_assert_ptr_nonnull(end);
    int line = 1;
    for (const char *c = text->text; c < end; c++) {
        line += *c == '\n';
    }
    return line;
}

/* The word Y_TYPE stands for a type that the dialect does not have: no good where fill.lk stores. (For the other
 * languages: shaders/lines.) */
START_TEST(test_the_line_of_a_mistake) {
    open_device();
    lk_launch launch = {.file = "fill", .entry = "fill", .groups = {1, 1}};
    lk_launch_constant(&launch, "GROUP", 64);
    lk_launch_word(&launch, "Y_TYPE", "nonsense");
    cl_program program;
    char where[32];
    ck_assert_int_eq(lk_cl_program_get(device, &launch, &program), LK_STATUS_DEVICE);
    snprintf(where, sizeof where, "fill.lk:%d:", line_of("fill.lk", "LK_PUT(Y_TYPE"));
    ck_assert_msg(strstr(lk_error_message(context), where) != NULL, "no %s in: %s", where, lk_error_message(context));
    lk_backend_opencl.close(&device->device);
}
END_TEST

static void setup(void) {
    strcpy(folder + sizeof folder - 7, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    setenv("LORIKEET_CACHE_DIR", folder, 1);
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
}

static void remove_folder(void) {
    lk_context_destroy(context);
    DIR *listing = opendir(folder);
    for (struct dirent *entry = listing ? readdir(listing) : NULL; entry != NULL; entry = readdir(listing)) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    if (listing != NULL) {
        closedir(listing);
    }
    rmdir(folder);
}

int main(void) {
    lk_device_caps caps[1];
    int count;
    if (lk_context_create(NULL, &context) != LK_OK) {
        return EXIT_FAILURE;
    }
    if (lk_backend_opencl.probe(context, caps, 1, &count) != LK_OK) {
        printf("SKIP: %s\n", lk_error_message(context));
        lk_context_destroy(context);
        return 77;
    }
    lk_context_destroy(context);
    TCase *tests = tcase_create("cache");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, remove_folder);
    tcase_add_test(tests, test_hit_and_damage);
    tcase_add_test(tests, test_other_constants_are_another_program);
    tcase_add_test(tests, test_folder_that_cannot_be_made);
    tcase_add_test(tests, test_a_text_that_does_not_compile);
    tcase_add_test(tests, test_the_line_of_a_mistake);
    return run_case("opencl cache", tests);
}
#else
int main(void) {
    printf("SKIP: built without the OpenCL headers (Debian: opencl-headers)\n");
    return 77;
}
#endif
