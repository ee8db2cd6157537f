/* Vulkan found at run time, so that one binary starts on machines without it. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "backends/vulkan/vulkan.h"

static lk_vk_instance instance; /* kept for the process's life: making one loads every driver */
static bool loaded;
static char missing[192];
static pthread_once_t once = PTHREAD_ONCE_INIT;

typedef PFN_vkVoidFunction (*find_function)(VkInstance, const char *);

static const char INSTALL[] = "install libvulkan1 and a driver, e.g. mesa-vulkan-drivers";

static find_function open_library(void) {
    static const char *const names[] = {
#if defined(__APPLE__)
        "libvulkan.1.dylib",
        "libvulkan.dylib",
        "libMoltenVK.dylib",
#else
        "libvulkan.so.1",
        "libvulkan.so",
#endif
    };
    void *library = NULL; /* never closed: drivers keep threads */
    for (size_t i = 0; i < LK_COUNT(names) && library == NULL; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    }
    if (library == NULL) {
        snprintf(missing, sizeof missing, "no Vulkan loader: %s", INSTALL);
        return NULL;
    }
    void *symbol = dlsym(library, "vkGetInstanceProcAddr");
    find_function find = NULL;
    if (symbol == NULL) {
        snprintf(missing, sizeof missing, "the Vulkan loader has no vkGetInstanceProcAddr: %s", INSTALL);
        return NULL;
    }
    memcpy(&find, &symbol, sizeof find);
    return find;
}

static bool make_instance(find_function find) {
    PFN_vkEnumerateInstanceVersion enumerate_version =
        (PFN_vkEnumerateInstanceVersion)find(NULL, "vkEnumerateInstanceVersion");
    PFN_vkCreateInstance create = (PFN_vkCreateInstance)find(NULL, "vkCreateInstance");
    uint32_t version = VK_API_VERSION_1_0;
    if (enumerate_version != NULL) {
        enumerate_version(&version);
    }
    if (create == NULL || version < VK_API_VERSION_1_1) {
        snprintf(missing, sizeof missing, "the Vulkan loader is older than version 1.1");
        return false;
    }
    VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                     .pApplicationName = "lorikeet",
                                     .pEngineName = "lorikeet",
                                     .apiVersion = VK_API_VERSION_1_1};
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &application};
    VkResult error = create(&info, NULL, &instance.instance);
    if (error != VK_SUCCESS) {
        snprintf(missing, sizeof missing, "the Vulkan loader finds no driver (%s): install one, e.g. %s",
                 lk_vk_error_name(error), "mesa-vulkan-drivers");
        return false;
    }
    return true;
}

static void load(void) {
    find_function find = open_library();
    if (find == NULL || !make_instance(find)) {
        return;
    }
#define LK_VK_INSTANCE(function)                                                                  \
    instance.function = (PFN_##function)find(instance.instance, #function);                       \
    if (instance.function == NULL) {                                                              \
        snprintf(missing, sizeof missing, "the Vulkan loader has no %s: %s", #function, INSTALL); \
        return;                                                                                   \
    }
#define LK_VK_INSTANCE_OPTIONAL(function) instance.function = (PFN_##function)find(instance.instance, #function);
#define LK_VK_DEVICE(function)
#define LK_VK_DEVICE_OPTIONAL(function)
#include "backends/vulkan/symbols.def"
#undef LK_VK_INSTANCE
#undef LK_VK_INSTANCE_OPTIONAL
#undef LK_VK_DEVICE
#undef LK_VK_DEVICE_OPTIONAL
    loaded = true;
}

lk_status lk_vk_load(lk_context *context, const lk_vk_instance **out) {
    pthread_once(&once, load);
    *out = loaded ? &instance : NULL;
    return loaded ? LK_OK : lk_fail(context, LK_STATUS_UNAVAILABLE, "%s", missing);
}

lk_status lk_vk_load_device(lk_context *context, const lk_vk_instance *from, VkDevice device, lk_vk_api *api) {
#define LK_VK_INSTANCE(function)
#define LK_VK_INSTANCE_OPTIONAL(function)
#define LK_VK_DEVICE_OPTIONAL(function) api->function = (PFN_##function)from->vkGetDeviceProcAddr(device, #function);
#define LK_VK_DEVICE(function)                                                                        \
    LK_VK_DEVICE_OPTIONAL(function)                                                                   \
    if (api->function == NULL) {                                                                      \
        return lk_fail(context, LK_STATUS_DEVICE, "the Vulkan driver has no function %s", #function); \
    }
#include "backends/vulkan/symbols.def"
#undef LK_VK_INSTANCE
#undef LK_VK_INSTANCE_OPTIONAL
#undef LK_VK_DEVICE
#undef LK_VK_DEVICE_OPTIONAL
    return LK_OK;
}

const char *lk_vk_error_name(VkResult error) {
    static const struct {
        VkResult error;
        const char *name;
    } names[] = {
        {VK_NOT_READY, "VK_NOT_READY"},
        {VK_TIMEOUT, "VK_TIMEOUT"},
        {VK_INCOMPLETE, "VK_INCOMPLETE"},
        {VK_ERROR_OUT_OF_HOST_MEMORY, "VK_ERROR_OUT_OF_HOST_MEMORY"},
        {VK_ERROR_OUT_OF_DEVICE_MEMORY, "VK_ERROR_OUT_OF_DEVICE_MEMORY"},
        {VK_ERROR_INITIALIZATION_FAILED, "VK_ERROR_INITIALIZATION_FAILED"},
        {VK_ERROR_DEVICE_LOST, "VK_ERROR_DEVICE_LOST"},
        {VK_ERROR_MEMORY_MAP_FAILED, "VK_ERROR_MEMORY_MAP_FAILED"},
        {VK_ERROR_LAYER_NOT_PRESENT, "VK_ERROR_LAYER_NOT_PRESENT"},
        {VK_ERROR_EXTENSION_NOT_PRESENT, "VK_ERROR_EXTENSION_NOT_PRESENT"},
        {VK_ERROR_FEATURE_NOT_PRESENT, "VK_ERROR_FEATURE_NOT_PRESENT"},
        {VK_ERROR_INCOMPATIBLE_DRIVER, "VK_ERROR_INCOMPATIBLE_DRIVER"},
        {VK_ERROR_TOO_MANY_OBJECTS, "VK_ERROR_TOO_MANY_OBJECTS"},
        {VK_ERROR_FRAGMENTED_POOL, "VK_ERROR_FRAGMENTED_POOL"},
        {VK_ERROR_UNKNOWN, "VK_ERROR_UNKNOWN"},
        {VK_ERROR_OUT_OF_POOL_MEMORY, "VK_ERROR_OUT_OF_POOL_MEMORY"},
    };
    for (size_t i = 0; i < LK_COUNT(names); i++) {
        if (names[i].error == error) {
            return names[i].name;
        }
    }
    return "a Vulkan error";
}
