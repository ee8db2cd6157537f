/* Makes a compiled kernel known to the emulator: its parameters are read off its type. */
#ifndef LK_TESTS_CUDA_EMULATOR_REGISTER_H
#define LK_TESTS_CUDA_EMULATOR_REGISTER_H
#ifdef __cplusplus

#include <utility>

#include "tests/cuda/emulator/emulator.h"

template <typename Function> struct emulator_caller;
template <typename... Parameters> struct emulator_caller<void (*)(Parameters...)> {
    static constexpr int count = sizeof...(Parameters);
    static constexpr unsigned char sizes[] = {(unsigned char)sizeof(Parameters)...};
    template <std::size_t... i>
    static void apply(void (*kernel)(Parameters...), void *const *arguments, std::index_sequence<i...>) {
        kernel(*static_cast<Parameters *>(arguments[i])...);
    }
    template <void (*kernel)(Parameters...)> static void call(void *const *arguments) {
        apply(kernel, arguments, std::index_sequence_for<Parameters...>());
    }
};

#define LK_REGISTER(space, kernel)                                                                                    \
    static struct kernel##_entry {                                                                                    \
        emulator_kernel self;                                                                                         \
        kernel##_entry() {                                                                                            \
            typedef emulator_caller<decltype(&space::kernel)> caller;                                                 \
            self = emulator_kernel{                                                                                   \
                #kernel, LK_SET_GROUP, caller::count, caller::sizes, caller::template call<&space::kernel>, nullptr}; \
            emulator_register(&self);                                                                                 \
        }                                                                                                             \
    } kernel##_registered;

#endif
#endif
