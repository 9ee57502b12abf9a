// SPDX-License-Identifier: Apache-2.0
// A CUDA driver for a machine without one. A stream does what is put on it when somebody waits for it and not before, so a
// missing wait is seen; memory of the device is a place of its own, full of NaN until it is written, so a missing copy is
// seen; an address of the wrong kind is refused; memory that is freed while a stream still has work ends the process. The test
// decides which call fails (fake_cuda_fail), reads which were made (fake_cuda_log) and how much was moved (fake_cuda_moved).
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "fake_image.h"

typedef int CUresult;
enum { ILLEGAL = 1, NO_DEVICE = 100, STREAM_CAPTURE = 900 };

// EGL images that the driver knows, and textures of their planes.
struct resource { struct fake_image *image; struct resource *next; };
struct texture { struct fake_plane *plane; struct texture *next; };
static struct resource *resources;
static struct texture *textures;
static void gone(const char *what) {
    fprintf(stderr, "fake CUDA: %s\n", what);
    abort();
}
static void texel(unsigned long long texture, int x, int y, unsigned channels[4]) {
    const struct texture *t = textures;
    while (t && (uintptr_t)t != texture) t = t->next;
    if (!t) gone("a texture is read that is gone");
    const struct fake_plane *p = t->plane;
    x = x < 0 ? 0 : x >= p->width ? p->width - 1 : x;
    y = y < 0 ? 0 : y >= p->height ? p->height - 1 : y;
    for (int c = 0; c < 4; c++) channels[c] = c < p->channels ? p->bytes[y * p->pitch + x * p->channels + c] : 0;
}

// The kernels themselves, compiled for the processor: a thread of the grid after the other. The C library has a "step" too.
#define __global__ static
#define __device__
struct dim { unsigned x; };
static __thread struct dim blockIdx, blockDim, threadIdx;
#include "../../src/cuda/picture.cu"
#include "../../src/cuda/step.cu"
#include "../../src/cuda/surface.cu"

static int reaches(const void *address);
static void touch_all(const void *address);
enum { PICTURE, STEP, SURFACE };
struct kernel { int which, blocks, threads; uint64_t arguments[4]; };
static void see_surface(const struct kernel *k) {
    const int *table = (const int *)(uintptr_t)k->arguments[3];
    // By the table, how many rows are read; the planes' lengths are the surface's own business.
    for (int plane = 0; plane < 2 && !table[SURFACE_TEXTURES]; plane++)
        if (table[SURFACE_PITCH + plane] && !reaches((const void *)(uintptr_t)k->arguments[1 + plane])) gone("a surface is read that is out of reach");
}
static void run_kernel(void *argument) {
    struct kernel *k = argument;
    blockDim.x = (unsigned)k->threads;
    if (k->which == SURFACE) see_surface(k);
    for (int i = 0; k->which == PICTURE && i < 2; i++) touch_all((const void *)(uintptr_t)k->arguments[i]);
    for (blockIdx.x = 0; blockIdx.x < (unsigned)k->blocks; blockIdx.x++)
        for (threadIdx.x = 0; threadIdx.x < (unsigned)k->threads; threadIdx.x++)
            if (k->which == STEP) step((float *)(uintptr_t)k->arguments[0], (const float *)(uintptr_t)k->arguments[1], (const int *)(uintptr_t)k->arguments[2]);
            else if (k->which == SURFACE) surface((unsigned char *)(uintptr_t)k->arguments[0], k->arguments[1], k->arguments[2], (const int *)(uintptr_t)k->arguments[3]);
            else picture((const unsigned char *)(uintptr_t)k->arguments[0], (float *)(uintptr_t)k->arguments[1], (const int *)(uintptr_t)k->arguments[2]);
}

enum { IN, OUT, WITHIN, LAUNCHES, KERNELS };
struct work {
    void (*run)(void *);
    void *argument;
    void *to;
    const void *from;
    size_t len;
    int kind;
};
struct list { struct work *work; size_t len, room; };
struct graph { struct list list; };
struct stream { int recording; struct list recorded, queue; size_t done; };
struct event { struct stream *stream; size_t upto; };

static void add(struct list *l, struct work w) {
    if (l->len == l->room) {
        l->room = l->room ? 2 * l->room : 64;
        l->work = realloc(l->work, l->room * sizeof w);
    }
    l->work[l->len++] = w;
}
static struct graph *copy_of(const struct list *l) {
    struct graph *g = calloc(1, sizeof *g);
    for (size_t i = 0; i < l->len; i++) add(&g->list, l->work[i]);
    return g;
}
static void drop_graph(struct graph *g) {
    if (g) free(g->list.work);
    free(g);
}

// How long a copy between host and device takes, and how long the device takes to touch the host's memory where it is: a tensor of it,
// and each KiB of that. FAKE_CUDA_SLOW=COPY,TOUCH,KIB says the same to a program.
static int copy_us, touch_us, touch_kib_us;
void fake_cuda_slow(int copy, int touch, int kib) { copy_us = copy; touch_us = touch; touch_kib_us = kib; }
static void spend(int us) {
    struct timespec now, end;
    if (us <= 0) return;
    clock_gettime(CLOCK_MONOTONIC, &end);
    long long until = end.tv_sec * 1000000000LL + end.tv_nsec + us * 1000LL;
    do clock_gettime(CLOCK_MONOTONIC, &now); while (now.tv_sec * 1000000000LL + now.tv_nsec < until);
}

// What was moved since it was asked last: bytes in, out and within the device, launches of graphs, kernels of ours.
static uint64_t moved[5];
static size_t pending;
static void work_up_to(struct stream *s, size_t upto, int well) {
    for (; s->done < upto && s->done < s->queue.len; s->done++, pending--) {
        struct work *w = &s->queue.work[s->done];
        if (!well) continue;
        if (w->run) w->run(w->argument); else { memcpy(w->to, w->from, w->len); moved[w->kind] += w->len; if (w->kind != WITHIN) spend(copy_us); }
        moved[KERNELS] += w->kind == KERNELS;
    }
    if (s->done == s->queue.len) s->done = s->queue.len = 0;
}
static int put(struct stream *s, struct work w) {
    add(s->recording ? &s->recorded : &s->queue, w);
    pending += !s->recording;
    return 0;
}

// Which memory is whose.
enum { DEVICE = 1, HOST = 2 };
struct memory { char *begin; size_t len; int kind; struct memory *next; };
static struct memory *memories;
static char *allocate(size_t len, int kind) {
    struct memory *m = malloc(sizeof *m);
    *m = (struct memory){malloc(len), len, kind, memories};
    memset(m->begin, 0xFF, len);
    memories = m;
    return m->begin;
}
static void release(void *begin) {
    if (pending) {
        fprintf(stderr, "fake CUDA: memory is freed while a stream still has work\n");
        abort();
    }
    for (struct memory **m = &memories; *m; m = &(*m)->next)
        if ((*m)->begin == begin) {
            struct memory *gone = *m;
            *m = gone->next;
            free(gone->begin);
            free(gone);
            return;
        }
    abort();
}
static int is_in(const void *address, size_t len, int kinds) {
    for (struct memory *m = memories; m; m = m->next)
        if ((m->kind & kinds) && m->begin <= (const char *)address && (const char *)address + len <= m->begin + m->len) return 1;
    return 0;
}
static int reaches(const void *address) {
    for (struct resource *r = resources; r; r = r->next)
        for (int plane = 0; plane < r->image->planes; plane++)
            if (r->image->plane[plane].bytes == address) return 1;
    return is_in(address, 1, DEVICE | HOST);
}
// For the fake TensorRT: whether the device can reach it. All host memory is mapped.
int fake_cuda_reaches(const void *address, size_t len) { return is_in(address, len, DEVICE | HOST); }

// For the fake TensorRT: memory of the host, touched where it is; time of its own.
int fake_cuda_is_host(const void *address) { return is_in(address, 1, HOST); }
void fake_cuda_touch(const void *address, size_t len) { if (fake_cuda_is_host(address)) spend(touch_us + (int)(len * (size_t)touch_kib_us / 1024)); }
static void touch_all(const void *address) {
    for (struct memory *m = memories; m; m = m->next)
        if (m->kind == HOST && m->begin <= (const char *)address && (const char *)address < m->begin + m->len) fake_cuda_touch(address, (size_t)(m->begin + m->len - (const char *)address));
}
void fake_cuda_spend(int us) { spend(us); }

static int devices = 1, live, integrated = 1, compute[2] = {8, 7};
static char failing[64];
static int failing_after, failing_code;
// What every call says once the context is lost.
static int lost;
static char calls[1 << 16];

void fake_cuda_fail(const char *symbol, int after, int code) {
    snprintf(failing, sizeof failing, "%s", symbol);
    failing_after = after;
    failing_code = code;
    lost = 0;
}
void fake_cuda_devices(int count) { devices = count; }
void fake_cuda_shares(int shares) { integrated = shares; }
void fake_cuda_compute(int major, int minor) { compute[0] = major; compute[1] = minor; }
const char *fake_cuda_log(void) { return calls; }
void fake_cuda_forget(void) { calls[0] = 0; }
int fake_cuda_live(void) { return live; }
void fake_cuda_moved(uint64_t *into) {
    memcpy(into, moved, sizeof moved);
    memset(moved, 0, sizeof moved);
}

static CUresult called(const char *symbol) {
    if (strlen(calls) + strlen(symbol) + 2 < sizeof calls) { strcat(calls, symbol); strcat(calls, " "); }
    if (lost) return lost;
    if (strcmp(symbol, failing) == 0 && failing_after-- <= 0) return failing_code;
    return 0;
}
// For the fake TensorRT: whether a method of its own is to be refused, as fake_cuda_fail has it. With a code of a context that is lost
// the context is, for the driver too.
int fake_cuda_refuses(const char *method) {
    if (strcmp(method, failing) != 0 || failing_after-- > 0) return 0;
    if (failing_code >= 700) lost = failing_code;
    return failing_code;
}
#define CALLED(symbol) do { CUresult code = called(symbol); if (code) return code; } while (0)

// For the fake TensorRT: work of its own on a stream.
int fake_cuda_work(struct stream *s, void (*run)(void *), void *argument) { return put(s, (struct work){run, argument, NULL, NULL, 0, LAUNCHES}); }
int fake_cuda_recording(struct stream *s) { return s->recording; }

CUresult cuInit(unsigned flags) {
    const char *times = getenv("FAKE_CUDA_SLOW");
    if (times) sscanf(times, "%d,%d,%d", &copy_us, &touch_us, &touch_kib_us);
    // FAKE_CUDA_INITS=FILE has a line for each time that somebody begins with the driver.
    const char *inits = getenv("FAKE_CUDA_INITS");
    FILE *file = inits ? fopen(inits, "a") : NULL;
    if (file) { fputs("cuInit\n", file); fclose(file); }
    CALLED("cuInit");
    return flags ? ILLEGAL : devices < 0 ? NO_DEVICE : 0;
}
CUresult cuDriverGetVersion(int *version) { CALLED("cuDriverGetVersion"); *version = 12060; return 0; }
CUresult cuDeviceGetCount(int *count) { CALLED("cuDeviceGetCount"); *count = devices; return 0; }
CUresult cuDeviceGet(int *device, int index) { CALLED("cuDeviceGet"); if (index >= devices) return 101; *device = index; return 0; }
CUresult cuDeviceGetName(char *name, int len, int device) { CALLED("cuDeviceGetName"); (void)device; snprintf(name, (size_t)len, "Fake Orin"); return 0; }
CUresult cuDeviceGetAttribute(int *value, int which, int device) {
    CALLED("cuDeviceGetAttribute");
    (void)device;
    // 16: multiprocessors, 18: integrated, 19: maps the host's memory, 75 and 76: compute capability.
    *value = which == 75 ? compute[0] : which == 76 ? compute[1] : which == 16 ? 8 : which == 18 ? integrated : 1;
    return 0;
}
CUresult cuDeviceTotalMem_v2(size_t *bytes, int device) { CALLED("cuDeviceTotalMem_v2"); (void)device; *bytes = ((size_t)16 << 30) - ((size_t)700 << 20); return 0; }
CUresult cuDevicePrimaryCtxRetain(void **context, int device) { CALLED("cuDevicePrimaryCtxRetain"); (void)device; *context = &devices; live++; return 0; }
CUresult cuDevicePrimaryCtxRelease_v2(int device) { (void)device; live--; return called("cuDevicePrimaryCtxRelease_v2"); }
CUresult cuCtxSetCurrent(void *context) { CALLED("cuCtxSetCurrent"); return context ? 0 : ILLEGAL; }
// A thread has none but what is pushed.
static __thread int pushed;
CUresult cuCtxPushCurrent_v2(void *context) { CALLED("cuCtxPushCurrent_v2"); pushed += context != NULL; return context ? 0 : ILLEGAL; }
CUresult cuCtxPopCurrent_v2(void **context) { CALLED("cuCtxPopCurrent_v2"); *context = &devices; return pushed-- > 0 ? 0 : ILLEGAL; }
CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) { CALLED("cuCtxGetStreamPriorityRange"); *least = 0; *greatest = -5; return 0; }
CUresult cuStreamCreateWithPriority(struct stream **stream, unsigned flags, int priority) {
    CALLED("cuStreamCreateWithPriority");
    // The default stream, or one that waits for it, is a fault of the caller's; so is a low priority.
    if (flags != 1 || priority != -5) return ILLEGAL;
    *stream = calloc(1, sizeof **stream);
    live++;
    return 0;
}
CUresult cuStreamDestroy_v2(struct stream *stream) {
    work_up_to(stream, (size_t)-1, 1);
    free(stream->recorded.work);
    free(stream->queue.work);
    free(stream);
    live--;
    return called("cuStreamDestroy_v2");
}
// What fails here was not done, and is told now.
CUresult cuStreamSynchronize(struct stream *stream) {
    CUresult code = called("cuStreamSynchronize");
    if (stream->recording) return STREAM_CAPTURE;
    work_up_to(stream, (size_t)-1, !code);
    return code;
}
CUresult cuEventCreate(struct event **event, unsigned flags) { CALLED("cuEventCreate"); if (flags != 3) return ILLEGAL; *event = calloc(1, sizeof **event); live++; return 0; }
CUresult cuEventDestroy_v2(struct event *event) { free(event); live--; return called("cuEventDestroy_v2"); }
CUresult cuEventRecord(struct event *event, struct stream *stream) {
    CALLED("cuEventRecord");
    if (!event || !stream) return ILLEGAL;
    if (stream->recording) return STREAM_CAPTURE;
    *event = (struct event){stream, stream->queue.len};
    return 0;
}
CUresult cuEventSynchronize(struct event *event) {
    CUresult code = called("cuEventSynchronize");
    if (event && event->stream) work_up_to(event->stream, event->upto, !code);
    return event ? code : ILLEGAL;
}
CUresult cuMemAlloc_v2(uint64_t *address, size_t len) { CALLED("cuMemAlloc_v2"); *address = (uint64_t)(uintptr_t)allocate(len, DEVICE); live++; return 0; }
CUresult cuMemFree_v2(uint64_t address) { release((void *)(uintptr_t)address); live--; return called("cuMemFree_v2"); }
CUresult cuMemHostAlloc(void **host, size_t len, unsigned flags) { CALLED("cuMemHostAlloc"); if (flags != 3) return ILLEGAL; *host = allocate(len, HOST); live++; return 0; }
CUresult cuMemFreeHost(void *host) { release(host); live--; return called("cuMemFreeHost"); }
CUresult cuMemHostGetDevicePointer_v2(uint64_t *address, void *host, unsigned flags) { CALLED("cuMemHostGetDevicePointer_v2"); (void)flags; *address = (uint64_t)(uintptr_t)host; return 0; }

static CUresult copy(struct stream *s, void *to, int to_kind, const void *from, int from_kind, size_t len, int kind) {
    if (!is_in(to, len, to_kind) || !is_in(from, len, from_kind)) return ILLEGAL;
    return put(s, (struct work){NULL, NULL, to, from, len, kind});
}
CUresult cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t len, struct stream *s) { CALLED("cuMemcpyHtoDAsync_v2"); return copy(s, (void *)(uintptr_t)to, DEVICE, from, HOST, len, IN); }
CUresult cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t len, struct stream *s) { CALLED("cuMemcpyDtoHAsync_v2"); return copy(s, to, HOST, (const void *)(uintptr_t)from, DEVICE, len, OUT); }
CUresult cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t len, struct stream *s) { CALLED("cuMemcpyDtoDAsync_v2"); return copy(s, (void *)(uintptr_t)to, DEVICE, (const void *)(uintptr_t)from, DEVICE, len, WITHIN); }
CUresult cuStreamBeginCapture_v2(struct stream *s, int mode) {
    CALLED("cuStreamBeginCapture_v2");
    if (mode != 1 || s->recording) return ILLEGAL;
    s->recording = 1;
    s->recorded.len = 0;
    return 0;
}
CUresult cuStreamEndCapture(struct stream *s, struct graph **graph) {
    s->recording = 0;
    *graph = NULL;
    CALLED("cuStreamEndCapture");
    *graph = copy_of(&s->recorded);
    live++;
    return 0;
}
#ifndef WITHOUT_GRAPHS
CUresult cuGraphInstantiateWithFlags(struct graph **executable, struct graph *graph, unsigned long long flags) {
    CALLED("cuGraphInstantiateWithFlags");
    (void)flags;
    *executable = copy_of(&graph->list);
    live++;
    return 0;
}
#endif
CUresult cuGraphCreate(struct graph **graph, unsigned flags) { CALLED("cuGraphCreate"); if (flags) return ILLEGAL; *graph = calloc(1, sizeof **graph); live++; return 0; }
// A node is known by how many pieces of work lie up to its end: who comes after it must come after all of it.
CUresult cuGraphAddChildGraphNode(size_t *node, struct graph *graph, const size_t *after, size_t count, const struct graph *child) {
    CALLED("cuGraphAddChildGraphNode");
    if (count > 1 || (count ? *after : 0) != graph->list.len) return ILLEGAL;
    for (size_t i = 0; i < child->list.len; i++) add(&graph->list, child->list.work[i]);
    *node = graph->list.len;
    return 0;
}
CUresult cuGraphUpload(struct graph *g, struct stream *s) { CALLED("cuGraphUpload"); return g && s ? 0 : ILLEGAL; }
CUresult cuGraphLaunch(struct graph *g, struct stream *s) {
    CALLED("cuGraphLaunch");
    if (!s || s->recording) return ILLEGAL;
    for (size_t i = 0; i < g->list.len; i++) put(s, g->list.work[i]);
    moved[LAUNCHES]++;
    return 0;
}
CUresult cuGraphExecDestroy(struct graph *g) { drop_graph(g); live--; return called("cuGraphExecDestroy"); }
CUresult cuGraphDestroy(struct graph *g) { drop_graph(g); live--; return called("cuGraphDestroy"); }
static const char kernel_names[3];
CUresult cuModuleLoadData(void **module, const void *image) { CALLED("cuModuleLoadData"); *module = (void *)image; return 0; }
CUresult cuModuleUnload(void *module) { CALLED("cuModuleUnload"); return module ? 0 : ILLEGAL; }
CUresult cuModuleGetFunction(void **function, void *module, const char *name) {
    CALLED("cuModuleGetFunction");
    // What a driver would find in the text; that the text is the source's is another test's.
    char entry[64];
    snprintf(entry, sizeof entry, ".visible .entry %s(", name ? name : "");
    *function = (char *)kernel_names + (!name ? 0 : strcmp(name, "step") == 0 ? STEP : strcmp(name, "surface") == 0 ? SURFACE : PICTURE);
    return name && strstr(module, entry) ? 0 : 500;
}
CUresult cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *s, void **arguments, void **extra) {
    CALLED("cuLaunchKernel");
    (void)extra;
    if (!f || !s || gy != 1 || gz != 1 || by != 1 || bz != 1 || shared) return ILLEGAL;
    // Kept for ever: a recorded launch is run again and again.
    struct kernel *k = malloc(sizeof *k);
    k->which = (int)((char *)f - kernel_names);
    k->blocks = (int)gx;
    k->threads = (int)bx;
    for (int i = 0; i < (k->which == SURFACE ? 4 : 3); i++) k->arguments[i] = *(uint64_t *)arguments[i];
    return put(s, (struct work){run_kernel, k, NULL, NULL, 0, KERNELS});
}
// Sizes and places as in cudaEGL.h and cuda.h.
struct egl_frame { void *plane[3]; uint32_t width, height, depth, pitch, planes, channels, type, colours, format; };
CUresult cuGraphicsEGLRegisterImage(struct resource **resource, struct fake_image *image, unsigned flags) {
    CALLED("cuGraphicsEGLRegisterImage");
    if (!image || image->magic != FAKE_IMAGE || flags != 1) return ILLEGAL;
    struct resource *r = malloc(sizeof *r);
    *r = (struct resource){image, resources};
    resources = *resource = r;
    image->registered++;
    live++;
    return 0;
}
CUresult cuGraphicsResourceGetMappedEglFrame(struct egl_frame *frame, struct resource *r, unsigned index, unsigned level) {
    CALLED("cuGraphicsResourceGetMappedEglFrame");
    if (index || level) return ILLEGAL;
    struct fake_plane *p = r->image->plane;
    *frame = (struct egl_frame){{NULL}, (uint32_t)p->width, (uint32_t)p->height, 0, (uint32_t)p->pitch, (uint32_t)r->image->planes, (uint32_t)p->channels, !r->image->tiled, 0, 1};
    for (int plane = 0; plane < r->image->planes; plane++) frame->plane[plane] = r->image->tiled ? (void *)&p[plane] : p[plane].bytes;
    if (r->image->tiled) frame->pitch = 0;
    return 0;
}
CUresult cuGraphicsUnregisterResource(struct resource *resource) {
    for (struct resource **r = &resources; *r; r = &(*r)->next)
        if (*r == resource) {
            for (struct texture *t = textures; t; t = t->next)
                for (int plane = 0; plane < resource->image->planes; plane++)
                    if (t->plane == &resource->image->plane[plane]) gone("an image goes that has a texture");
            if (pending) gone("an image goes while a stream still has work");
            *r = resource->next;
            resource->image->registered--;
            free(resource);
            live--;
            return called("cuGraphicsUnregisterResource");
        }
    gone("an image is given back twice");
    return ILLEGAL;
}
struct resource_desc { uint32_t type; struct fake_plane *array; uint64_t other[15]; uint32_t flags; };
struct texture_desc { uint32_t address[3], filter, flags, other[21]; };
CUresult cuTexObjectCreate(uint64_t *texture, const struct resource_desc *of, const struct texture_desc *how, const void *view) {
    CALLED("cuTexObjectCreate");
    if (of->type || of->flags || view || how->address[0] != 1 || how->address[1] != 1 || how->filter || how->flags != 1) return ILLEGAL;
    for (struct resource *r = resources; r; r = r->next)
        if (of->array == &r->image->plane[0] || of->array == &r->image->plane[1]) {
            struct texture *t = malloc(sizeof *t);
            *t = (struct texture){of->array, textures};
            textures = t;
            *texture = (uint64_t)(uintptr_t)t;
            live++;
            return 0;
        }
    return ILLEGAL;
}
CUresult cuTexObjectDestroy(uint64_t texture) {
    for (struct texture **t = &textures; *t; t = &(*t)->next)
        if ((uintptr_t)*t == texture) {
            struct texture *old = *t;
            *t = old->next;
            free(old);
            live--;
            return called("cuTexObjectDestroy");
        }
    gone("a texture is given back twice");
    return ILLEGAL;
}
CUresult cuGetErrorName(CUresult code, const char **name) {
    *name = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : code == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : NULL;
    return *name ? 0 : ILLEGAL;
}
