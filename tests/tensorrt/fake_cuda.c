// SPDX-License-Identifier: Apache-2.0
// A CUDA driver for a machine without one: device memory is the host's, a stream does at once what is put on it, or
// records it. The test decides which call fails (fake_cuda_fail) and reads which were made (fake_cuda_log).
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
enum { ILLEGAL = 1, NO_DEVICE = 100, STREAM_CAPTURE = 900 };

// The kernel itself, compiled for the processor: a thread of the grid after the other.
#define __global__
#define __device__
struct dim { unsigned x; };
static __thread struct dim blockIdx, blockDim, threadIdx;
#include "../../src/engine/tensorrt/cuda/picture.cu"

struct kernel { int blocks, threads; uint64_t arguments[3]; };
static void run_picture(void *argument) {
    struct kernel *k = argument;
    blockDim.x = (unsigned)k->threads;
    for (blockIdx.x = 0; blockIdx.x < (unsigned)k->blocks; blockIdx.x++)
        for (threadIdx.x = 0; threadIdx.x < (unsigned)k->threads; threadIdx.x++)
            picture((const unsigned char *)(uintptr_t)k->arguments[0], (float *)(uintptr_t)k->arguments[1], (const int *)(uintptr_t)k->arguments[2]);
}

struct work {
    void (*run)(void *);
    void *argument;
    void *to;
    const void *from;
    size_t len;
};
struct graph { struct work list[64]; int len; };
struct stream { int recording; struct graph graph; };

static int devices = 1, live;
static char failing[64];
static int failing_after, failing_code;
static char calls[1 << 16];

void fake_cuda_fail(const char *symbol, int after, int code) {
    snprintf(failing, sizeof failing, "%s", symbol);
    failing_after = after;
    failing_code = code;
}
void fake_cuda_devices(int count) { devices = count; }
const char *fake_cuda_log(void) { return calls; }
void fake_cuda_forget(void) { calls[0] = 0; }
int fake_cuda_live(void) { return live; }

static CUresult called(const char *symbol) {
    if (strlen(calls) + strlen(symbol) + 2 < sizeof calls) { strcat(calls, symbol); strcat(calls, " "); }
    if (strcmp(symbol, failing) == 0 && failing_after-- <= 0) return failing_code;
    return 0;
}
#define CALLED(symbol) do { CUresult code = called(symbol); if (code) return code; } while (0)

// For the fake TensorRT: work of its own on a stream.
int fake_cuda_work(struct stream *s, void (*run)(void *), void *argument) {
    if (s->recording) {
        if (s->graph.len == 64) return ILLEGAL;
        s->graph.list[s->graph.len++] = (struct work){run, argument, NULL, NULL, 0};
        return 0;
    }
    run(argument);
    return 0;
}
int fake_cuda_recording(struct stream *s) { return s->recording; }

CUresult cuInit(unsigned flags) { CALLED("cuInit"); return flags ? ILLEGAL : devices < 0 ? NO_DEVICE : 0; }
CUresult cuDriverGetVersion(int *version) { CALLED("cuDriverGetVersion"); *version = 12060; return 0; }
CUresult cuDeviceGetCount(int *count) { CALLED("cuDeviceGetCount"); *count = devices; return 0; }
CUresult cuDeviceGet(int *device, int index) { CALLED("cuDeviceGet"); if (index >= devices) return 101; *device = index; return 0; }
CUresult cuDeviceGetName(char *name, int len, int device) { CALLED("cuDeviceGetName"); (void)device; snprintf(name, (size_t)len, "Fake Orin"); return 0; }
CUresult cuDeviceGetAttribute(int *value, int which, int device) {
    CALLED("cuDeviceGetAttribute");
    (void)device;
    *value = which == 75 ? 8 : which == 76 ? 7 : 1;
    return 0;
}
CUresult cuDevicePrimaryCtxRetain(void **context, int device) { CALLED("cuDevicePrimaryCtxRetain"); (void)device; *context = &devices; live++; return 0; }
CUresult cuDevicePrimaryCtxRelease_v2(int device) { (void)device; live--; return called("cuDevicePrimaryCtxRelease_v2"); }
CUresult cuCtxSetCurrent(void *context) { CALLED("cuCtxSetCurrent"); return context ? 0 : ILLEGAL; }
CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) { CALLED("cuCtxGetStreamPriorityRange"); *least = 0; *greatest = -5; return 0; }
CUresult cuStreamCreateWithPriority(struct stream **stream, unsigned flags, int priority) {
    CALLED("cuStreamCreateWithPriority");
    // The default stream, or one that waits for it, is a fault of the caller's; so is a low priority.
    if (flags != 1 || priority != -5) return ILLEGAL;
    *stream = calloc(1, sizeof **stream);
    live++;
    return 0;
}
CUresult cuStreamDestroy_v2(struct stream *stream) { free(stream); live--; return called("cuStreamDestroy_v2"); }
CUresult cuStreamSynchronize(struct stream *stream) { CALLED("cuStreamSynchronize"); return stream->recording ? STREAM_CAPTURE : 0; }
CUresult cuEventCreate(void **event, unsigned flags) { CALLED("cuEventCreate"); if (flags != 3) return ILLEGAL; *event = malloc(1); live++; return 0; }
CUresult cuEventDestroy_v2(void *event) { free(event); live--; return called("cuEventDestroy_v2"); }
CUresult cuEventRecord(void *event, struct stream *stream) { CALLED("cuEventRecord"); return event && stream ? 0 : ILLEGAL; }
CUresult cuEventSynchronize(void *event) { CALLED("cuEventSynchronize"); return event ? 0 : ILLEGAL; }
CUresult cuMemAlloc_v2(uint64_t *address, size_t len) { CALLED("cuMemAlloc_v2"); *address = (uint64_t)(uintptr_t)calloc(1, len); live++; return 0; }
CUresult cuMemFree_v2(uint64_t address) { free((void *)(uintptr_t)address); live--; return called("cuMemFree_v2"); }
CUresult cuMemHostAlloc(void **host, size_t len, unsigned flags) { CALLED("cuMemHostAlloc"); if (flags != 3) return ILLEGAL; *host = malloc(len); live++; return 0; }
CUresult cuMemFreeHost(void *host) { free(host); live--; return called("cuMemFreeHost"); }
CUresult cuMemHostGetDevicePointer_v2(uint64_t *address, void *host, unsigned flags) { CALLED("cuMemHostGetDevicePointer_v2"); (void)flags; *address = (uint64_t)(uintptr_t)host; return 0; }

static CUresult copy(struct stream *s, void *to, const void *from, size_t len) {
    if (s->recording) {
        if (s->graph.len == 64) return ILLEGAL;
        s->graph.list[s->graph.len++] = (struct work){NULL, NULL, to, from, len};
    } else {
        memcpy(to, from, len);
    }
    return 0;
}
CUresult cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t len, struct stream *s) { CALLED("cuMemcpyHtoDAsync_v2"); return copy(s, (void *)(uintptr_t)to, from, len); }
CUresult cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t len, struct stream *s) { CALLED("cuMemcpyDtoHAsync_v2"); return copy(s, to, (const void *)(uintptr_t)from, len); }
CUresult cuStreamBeginCapture_v2(struct stream *s, int mode) {
    CALLED("cuStreamBeginCapture_v2");
    if (mode != 1 || s->recording) return ILLEGAL;
    s->recording = 1;
    s->graph.len = 0;
    return 0;
}
CUresult cuStreamEndCapture(struct stream *s, struct graph **graph) {
    s->recording = 0;
    *graph = NULL;
    CALLED("cuStreamEndCapture");
    *graph = malloc(sizeof **graph);
    **graph = s->graph;
    live++;
    return 0;
}
#ifndef WITHOUT_GRAPHS
CUresult cuGraphInstantiateWithFlags(struct graph **executable, struct graph *graph, unsigned long long flags) {
    CALLED("cuGraphInstantiateWithFlags");
    (void)flags;
    *executable = malloc(sizeof **executable);
    **executable = *graph;
    live++;
    return 0;
}
#endif
CUresult cuGraphUpload(struct graph *g, struct stream *s) { CALLED("cuGraphUpload"); return g && s ? 0 : ILLEGAL; }
CUresult cuGraphLaunch(struct graph *g, struct stream *s) {
    CALLED("cuGraphLaunch");
    if (!s) return ILLEGAL;
    for (int i = 0; i < g->len; i++) {
        struct work *w = &g->list[i];
        if (w->run) w->run(w->argument); else memcpy(w->to, w->from, w->len);
    }
    return 0;
}
CUresult cuGraphExecDestroy(struct graph *g) { free(g); live--; return called("cuGraphExecDestroy"); }
CUresult cuGraphDestroy(struct graph *g) { free(g); live--; return called("cuGraphDestroy"); }
CUresult cuModuleLoadData(void **module, const void *image) { CALLED("cuModuleLoadData"); *module = (void *)image; return 0; }
CUresult cuModuleUnload(void *module) { CALLED("cuModuleUnload"); return module ? 0 : ILLEGAL; }
CUresult cuModuleGetFunction(void **function, void *module, const char *name) {
    CALLED("cuModuleGetFunction");
    *function = module;
    // What a driver would find in the text; that the text is the source's is another test's.
    return name && strstr(module, ".visible .entry picture(") && strcmp(name, "picture") == 0 ? 0 : 500;
}
CUresult cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *s, void **arguments, void **extra) {
    CALLED("cuLaunchKernel");
    (void)extra;
    if (!f || !s || gy != 1 || gz != 1 || by != 1 || bz != 1 || shared) return ILLEGAL;
    // Kept for ever: a recorded launch is run again and again.
    struct kernel *k = malloc(sizeof *k);
    k->blocks = (int)gx;
    k->threads = (int)bx;
    for (int i = 0; i < 3; i++) k->arguments[i] = *(uint64_t *)arguments[i];
    return fake_cuda_work(s, run_picture, k);
}
CUresult cuGetErrorName(CUresult code, const char **name) {
    *name = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : code == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : NULL;
    return *name ? 0 : ILLEGAL;
}
