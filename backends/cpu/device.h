/* The backend's own structs, shared by its device and its command lists. */
#ifndef LK_CPU_DEVICE_H
#define LK_CPU_DEVICE_H

#include "backends/cpu/cpu.h"
#include "backends/host/buffer.h"
#include "dispatch/dispatch.h"

typedef struct lk_cpu_device {
    lk_device device;
    lk_pool *pool;
    char *worker_memory; /* LK_CPU_WORKER_BYTES for each */
} lk_cpu_device;

/* program.c */
lk_status lk_cpu_compile(lk_device *device, const lk_command *commands, int count, lk_commands **out);
void lk_cpu_release(lk_device *device, lk_commands *commands);
lk_status lk_cpu_run_commands(lk_device *device, lk_commands *commands, double *seconds);
lk_status lk_cpu_wait(lk_device *device);

#endif
