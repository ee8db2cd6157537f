/* Products by CLBlast (Nugteren, IWOCL 2018), where the library is found at run time: rows beside those of shaders/. */
#ifndef LK_BACKENDS_OPENCL_CLBLAST_H
#define LK_BACKENDS_OPENCL_CLBLAST_H

#include "backends/opencl/opencl.h"

/* LORIKEET_CLBLAST=off: as if it were not installed. */
bool lk_clblast_is_there(void);
/* Whether a launch is a call of CLBlast and no kernel of shaders/. */
bool lk_clblast_takes(const lk_launch *launch);
/* Enqueues it. CLBlast compiles its kernels at the first call, for seconds, and keeps no copy on disk. */
cl_int lk_clblast_enqueue(const lk_launch *launch, cl_command_queue queue);

/* LK_OPENCL_KERNEL(name, OP, supports, cost, scratch, in_place, record): the rows of kernels.def */
#define LK_OPENCL_KERNEL(name, OP, supports_function, cost_function, scratch_function, in_place, record) \
    bool supports_function(const lk_device_caps *caps, const lk_node *node, lk_refusal *why);            \
    double cost_function(const lk_device_caps *caps, const lk_node *node);                               \
    size_t scratch_function(const lk_device_caps *caps, const lk_node *node);                            \
    void record(lk_recorder *recorder, const lk_command *command);
#include "backends/opencl/kernels.def"
#undef LK_OPENCL_KERNEL

#endif
