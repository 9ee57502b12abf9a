/* SPDX-License-Identifier: Apache-2.0
 * The fake CUDA driver of tests/tensorrt on a GPU that can be lost: when the file that GPU_LOST names is there, it is taken away, and
 * from then on whoever waits for the GPU in this process is told that the context is gone. A process that is started later has its
 * own. */
#include "../tensorrt/fake_cuda.c"
#include <unistd.h>

enum { ILLEGAL_ADDRESS = 700 };

static void *watch(void *file) {
    while (unlink(file)) usleep(500);
    fake_cuda_fail("cuEventSynchronize", 0, ILLEGAL_ADDRESS);
    return NULL;
}

__attribute__((constructor)) static void begin(void) {
    char *file = getenv("GPU_LOST");
    pthread_t thread;
    if (file && !pthread_create(&thread, NULL, watch, file)) pthread_detach(thread);
}
