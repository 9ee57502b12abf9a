// SPDX-License-Identifier: Apache-2.0
// A TensorRT for a machine without one, with the tables of 10.x (-DLAYOUT=10) or 11.x (-DLAYOUT=11). Every place that
// the binding does not need holds a function that ends the process with a message: a wrong place cannot go unseen. The
// places were written down from NVIDIA's headers, not from the binding.
//
// As the real library it has one logger: the first that it is given, for as long as any object lives. It warns of another, passes it
// over, and says a line when an object goes; a logger that is gone by then ends the process.
//
// A plan is text: "FAKEPLAN", then words that say what is wrong with it. The engine computes
// actions[i] = 2 image[i] + tokens[i % 4] and count = number of tokens that are not 0. With the word "bench" it has the
// tensors of the shipped policy and gives zeros: an engine that loads and is wrong. With the word "described" it has the
// tensors that follow, a line each, and the test computes: it is called with their addresses (fake_nvinfer_body).
// With "grumbles" it warns when it is read and records an error at each run, and does both all the same. With "threaded" it says something
// on a thread of its own when it is read. With "plugged" it has a layer of a plugin: it is read if the library of fake_plugin.c has been
// initialised. With "vanishes=N" what its context puts on a recording stream from the N-th time on is not recorded, as of a library that
// works on a stream of its own.
// With "bench answers=FILE" it has the shipped policy's tensors and gives what the file has for these inputs, or, if it has none, what it
// has first: all tensors' bytes one after the other, again and again. FAKE_NVINFER_US is how long it takes, or "us=N" before the answers.
#define _GNU_SOURCE // memmem
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if LAYOUT == 10
enum { VERSION = 100300, DESERIALIZE = 3, RUNTIME_RECORDER = 9, CONTEXT = 5, INSPECTOR = 18, SHAPE = 19, TYPE = 20, MODE = 23,
       TENSORS = 30, NAME = 31, MEMORY = 52, PROFILER = 5, CONTEXT_RECORDER = 14, INPUT_SHAPE = 21, ADDRESS = 24, INFER = 28,
       ENQUEUE = 37, INFORMATION = 6, LOG = 0, LAYER_TIME = 0 };
#else
enum { VERSION = 110400, DESERIALIZE = 3, RUNTIME_RECORDER = 8, CONTEXT = 5, INSPECTOR = 14, SHAPE = 15, TYPE = 16, MODE = 19,
       TENSORS = 26, NAME = 27, MEMORY = 44, PROFILER = 5, CONTEXT_RECORDER = 13, INPUT_SHAPE = 20, ADDRESS = 23, INFER = 27,
       ENQUEUE = 36, INFORMATION = 6, LOG = 4, LAYER_TIME = 4 };
#endif
enum { REPORT = 9, REFER = 10, UNREFER = 11, SLOTS = 64, TENSORS_MAX = 48, PLAN_MAX = 4096 };

struct stream;
int fake_cuda_work(struct stream *, void (*)(void *), void *);
int fake_cuda_recording(struct stream *);
int fake_cuda_reaches(const void *, size_t);
void fake_cuda_touch(const void *, size_t);
int fake_cuda_is_host(const void *);
void fake_cuda_spend(int);
int fake_cuda_refuses(const char *);

typedef void (*function)(void);
struct callback { function *table; };
struct implementation { function *table; struct state *state; };
struct object { function *table; struct implementation *implementation; };
struct dims { int32_t len; int64_t sides[8]; };
struct info { const char *kind; int32_t major, minor; };
struct tensor { char direction, name[64]; int type; struct dims shape; };

struct state {
    struct object object;
    struct implementation implementation;
    function own[2], slots[SLOTS];
    struct state *parent;
    const char *kind;
    struct callback *logger, *recorder, *profiler;
    char plan[PLAN_MAX];
    struct tensor tensors[TENSORS_MAX];
    int len;
    void *address[TENSORS_MAX];
    int shaped, recordings;
};

static int version = VERSION, runtime_mode, plugins;
static _Atomic int live;
// The logger that is kept, and its table as it was.
static struct callback *registered;
static function *registered_table;
// The file of the plan that was read last.
static char answers[PLAN_MAX];
void fake_nvinfer_version(int v) { version = v; }
void fake_nvinfer_runtime(int mode) { runtime_mode = mode; }
int fake_nvinfer_live(void) { return live; }
int fake_nvinfer_plugins(void) { return plugins; }
static void (*body)(const char *plan, void **addresses, int count);
void fake_nvinfer_body(void (*b)(const char *, void **, int)) { body = b; }

static void trap(void) {
    fprintf(stderr, "fake TensorRT %d: a method was called that the binding does not need: wrong place in a table\n", LAYOUT);
    abort();
}
static void say(struct callback *logger, int severity, const char *text) {
    if (logger == registered && logger->table != registered_table) {
        fprintf(stderr, "fake TensorRT %d: the logger is gone, and there is this to say: %s\n", LAYOUT, text);
        abort();
    }
    ((void (*)(struct callback *, int, const char *))logger->table[LOG])(logger, severity, text);
}
static void report(struct state *s, int code, const char *text) {
    if (s->recorder) ((_Bool(*)(struct callback *, int, const char *))s->recorder->table[REPORT])(s->recorder, code, text);
    if (s->logger) say(s->logger, 1, text);
}
static void complete(void *object) { (void)object; trap(); }
static void deleting(struct object *object) {
    struct state *s = object->implementation->state;
    if (s->recorder) ((int32_t(*)(struct callback *))s->recorder->table[UNREFER])(s->recorder);
    char text[PLAN_MAX];
    snprintf(text, sizeof text, "gone: %s of %.60s", s->kind, s->plan);
    say(s->logger, strstr(s->plan, "laments") ? 2 : 3, text);
    live--;
    free(s);
}
static struct state *make(struct state *parent, const char *kind) {
    struct state *s = calloc(1, sizeof *s);
    s->kind = kind;
    s->object.table = s->own;
    s->object.implementation = &s->implementation;
    s->implementation.table = s->slots;
    s->implementation.state = s;
    s->own[0] = (function)complete;
    s->own[1] = (function)deleting;
    for (int i = 0; i < SLOTS; i++) s->slots[i] = trap;
    s->parent = parent;
    if (parent) { s->logger = parent->logger; memcpy(s->plan, parent->plan, sizeof s->plan); }
    live++;
    return s;
}
static int is(struct state *s, const char *word) { return strstr(s->plan, word) != NULL; }

static void set_recorder(struct implementation *i, struct callback *recorder) {
    i->state->recorder = recorder;
    int32_t before = ((int32_t(*)(struct callback *))recorder->table[REFER])(recorder);
    if (before < 1) abort();
    struct info info = ((struct info(*)(struct callback *))recorder->table[1])(recorder);
    if (strcmp(info.kind, "IErrorRecorder") != 0) abort();
}

// Engine. A line a tensor: direction, name, type, sides.
static const char *usual = "\ni image 0 1,3,2,2\ni tokens 8 1,4\no actions 0 1,12\no count 3 1";
static const char *of_the_bench = "\ni image 0 1,3,96,96\ni state 0 1,8\ni tokens 3 1,16\no action 0 1,16,7\no keypoint 0 1,2\no presence 0 1,1";
static void describe(struct state *s) {
    const char *line = is(s, "described") ? s->plan : is(s, "bench") ? of_the_bench : usual;
    for (s->len = 0; (line = strchr(line, '\n')); ) {
        struct tensor *t = &s->tensors[s->len];
        char sides[128];
        line++;
        if (s->len == TENSORS_MAX || sscanf(line, "%c %63s %d %127s", &t->direction, t->name, &t->type, sides) != 4) abort();
        t->shape.len = 0;
        for (char *side = strtok(sides, ","); side && t->shape.len < 8; side = strtok(NULL, ",")) t->shape.sides[t->shape.len++] = atoll(side);
        s->len++;
    }
}
static size_t values(const struct tensor *t) {
    size_t all = 1;
    for (int side = 0; side < t->shape.len; side++) all *= (size_t)t->shape.sides[side];
    return all;
}
static size_t bytes(const struct tensor *t) { return values(t) * (t->type == 8 ? 8 : 4); }
static int by_name(struct state *s, const char *name) {
    for (int i = 0; i < s->len; i++) if (strcmp(name, s->tensors[i].name) == 0) return i;
    return -1;
}
static struct tensor *found(struct state *s, const char *name) {
    int index = by_name(s, name);
    return &s->tensors[index < 0 ? 0 : index];
}
static int32_t tensors_len(struct implementation *i) { return is(i->state, "few") ? i->state->len - 1 : i->state->len; }
static const char *tensor_name(struct implementation *i, int32_t index) {
    if (is(i->state, "renamed") && index == 0) return "picture";
    if (is(i->state, "nameless") && index == 0) return NULL;
    return i->state->tensors[index].name;
}
static struct dims tensor_shape(struct implementation *i, const char *name) {
    struct dims d = found(i->state, name)->shape;
    if (is(i->state, "dynamic")) d.sides[0] = -1;
    if (is(i->state, "wide") && strcmp(name, "actions") == 0) d.sides[1] = 13;
    if (is(i->state, "deep") && strcmp(name, "actions") == 0) d.len = 99;
    return d;
}
static int32_t tensor_type(struct implementation *i, const char *name) {
    return is(i->state, "half") && strcmp(name, "actions") == 0 ? 1 : found(i->state, name)->type;
}
static int32_t tensor_mode(struct implementation *i, const char *name) {
    return is(i->state, "modeless") ? 0 : found(i->state, name)->direction == 'i' ? 1 : 2;
}
static int64_t device_memory(struct implementation *i) { (void)i; return 48 << 20; }

// Context.
static void set_profiler(struct implementation *i, struct callback *profiler) { i->state->profiler = profiler; }
static _Bool set_input_shape(struct implementation *i, const char *name, const struct dims *d) {
    int index = by_name(i->state, name);
    if (index < 0 || i->state->tensors[index].direction != 'i' || d->sides[0] != 1) return 0;
    if (is(i->state, "unshaped")) { report(i->state, 3, "setInputShape: the shape is outside every profile"); return 0; }
    i->state->shaped++;
    return 1;
}
static _Bool set_address(struct implementation *i, const char *name, void *address) {
    int index = by_name(i->state, name);
    if (index < 0 || !fake_cuda_reaches(address, bytes(&i->state->tensors[index])) || is(i->state, "homeless") || (is(i->state, "picky") && fake_cuda_is_host(address))) { report(i->state, 3, "setTensorAddress: not aligned"); return 0; }
    i->state->address[index] = address;
    return 1;
}
static int32_t infer(struct implementation *i, int32_t room, const char **list) {
    (void)room; (void)list;
    if (is(i->state, "endless")) return 1;
    return is(i->state, "dynamic") && i->state->shaped < 2 ? 1 : 0;
}
static void answer(struct state *s) {
    static char *all;
    static long len;
    if (!all) {
        FILE *file = fopen(answers, "rb");
        if (!file || fseek(file, 0, SEEK_END)) abort();
        len = ftell(file);
        rewind(file);
        all = malloc((size_t)len);
        if (fread(all, 1, (size_t)len, file) != (size_t)len) abort();
        fclose(file);
    }
    size_t of[2] = {0, 0};
    for (int k = 0; k < s->len; k++) of[s->tensors[k].direction == 'o'] += bytes(&s->tensors[k]);
    const char *found = all;
    for (const char *record = all; record + of[0] + of[1] <= all + len; record += of[0] + of[1]) {
        const char *at = record;
        int same = 1;
        for (int k = 0; k < s->len; k++)
            if (s->tensors[k].direction == 'i') {
                same &= memcmp(at, s->address[k], bytes(&s->tensors[k])) == 0;
                at += bytes(&s->tensors[k]);
            }
        if (same) { found = record; break; }
    }
    found += of[0];
    for (int k = 0; k < s->len; k++)
        if (s->tensors[k].direction == 'o') {
            memcpy(s->address[k], found, bytes(&s->tensors[k]));
            found += bytes(&s->tensors[k]);
        }
    const char *us = getenv("FAKE_NVINFER_US"), *own = strstr(s->plan, " us=");
    fake_cuda_spend(own ? atoi(own + 4) : us ? atoi(us) : 0);
}
static void compute(void *argument) {
    struct state *s = argument;
    for (int k = 0; k < s->len; k++)
        if (!fake_cuda_reaches(s->address[k], bytes(&s->tensors[k]))) {
            fprintf(stderr, "fake TensorRT: %s lies where no memory is any more\n", s->tensors[k].name);
            abort();
        }
    for (int k = 0; k < s->len; k++) fake_cuda_touch(s->address[k], bytes(&s->tensors[k]));
    if (is(s, "described")) {
        body(s->plan, s->address, s->len);
        return;
    }
    if (answers[0]) {
        answer(s);
        return;
    }
    if (is(s, "bench")) {
        for (int k = 0; k < s->len; k++)
            if (s->tensors[k].direction == 'o') memset(s->address[k], 0, bytes(&s->tensors[k]));
        return;
    }
    const float *image = s->address[0];
    const int64_t *tokens = s->address[1];
    float *actions = s->address[2];
    int32_t *said = s->address[3];
    *said = 0;
    for (int i = 0; i < 12; i++) actions[i] = 2 * image[i] + (float)tokens[i % 4];
    for (int i = 0; i < 4; i++) *said += tokens[i] != 0;
}
static _Bool enqueue(struct implementation *i, struct stream *stream) {
    struct state *s = i->state;
    if (is(s, "broken")) { report(s, 7, "enqueueV3: Error Code 7: Internal Error (cask convolution)"); return 0; }
    if (is(s, "restless") && fake_cuda_recording(stream)) { report(s, 7, "enqueueV3: data-dependent shapes cannot be captured"); return 0; }
    // What it says of a context that is lost has no code.
    if (fake_cuda_refuses("enqueueV3")) { report(s, 1, "enqueueV3: Error Code 1: Cuda Runtime (an illegal memory access was encountered)"); return 0; }
    for (int k = 0; k < s->len; k++) if (!s->address[k]) return 0;
    // As the real library: what is recorded is not logged.
    if (is(s, "grumbles")) { struct state heard = *s; heard.logger = NULL; report(&heard, 9, "enqueueV3: Error Code 9: Skipping tactic 3, going on with another"); }
    if (s->profiler) {
        void (*time)(struct callback *, const char *, float) = (void (*)(struct callback *, const char *, float))s->profiler->table[LAYER_TIME];
        time(s->profiler, "conv1", 0.25f);
        time(s->profiler, "matmul2", 0.5f);
    }
    const char *vanishes = strstr(s->plan, "vanishes=");
    if (vanishes && fake_cuda_recording(stream) && ++s->recordings >= atoi(vanishes + strlen("vanishes="))) return 1;
    return fake_cuda_work(stream, compute, s) == 0;
}

static const char *information(struct implementation *i, int32_t format) { (void)i; return format == 1 ? "{\"Layers\": [\"conv1\", \"matmul2\"]}" : "layers"; }
static struct object *create_inspector(struct implementation *i) {
    struct state *s = make(i->state, "inspector");
    s->slots[INFORMATION] = (function)information;
    return &s->object;
}
static struct object *create_context(struct implementation *i, int32_t strategy) {
    if (is(i->state, "homesick") || strategy != 0) { say(i->state->logger, 1, "createExecutionContext: out of memory"); return NULL; }
    struct state *s = make(i->state, "context");
    describe(s);
    s->slots[PROFILER] = (function)set_profiler;
    s->slots[CONTEXT_RECORDER] = (function)set_recorder;
    s->slots[INPUT_SHAPE] = (function)set_input_shape;
    s->slots[ADDRESS] = (function)set_address;
    s->slots[INFER] = (function)infer;
    s->slots[ENQUEUE] = (function)enqueue;
    return &s->object;
}
static void *elsewhere(void *argument) {
    struct state *s = argument;
    char text[PLAN_MAX];
    snprintf(text, sizeof text, "on a thread of its own: %.60s", s->plan);
    say(s->logger, 2, text);
    return NULL;
}
static struct object *deserialize(struct implementation *i, const void *blob, size_t len) {
    if (memmem(blob, len, "plugged", 7) && !plugins) {
        report(i->state, 4, "deserializeCudaEngine: Error Code 4: no creator of the plugin FakeGelu, version 1, is registered");
        return NULL;
    }
    if (len < 8 || len >= PLAN_MAX || memcmp(blob, "FAKEPLAN", 8) != 0) {
        const char *text = "deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion magicTagRead == kMAGIC_TAG failed)";
        struct state heard = *i->state;
        // What a library may do with an error: tell both, one of the two, none.
        int mute = memmem(blob, len, "mute", 4) != NULL;
        if (mute || memmem(blob, len, "unrecorded", 10)) heard.recorder = NULL;
        if (mute || memmem(blob, len, "unlogged", 8)) heard.logger = NULL;
        report(&heard, 4, text);
        return NULL;
    }
    struct state *s = make(i->state, "engine");
    memcpy(s->plan, blob, len);
    char read[PLAN_MAX];
    snprintf(read, sizeof read, "read: %.60s", s->plan);
    say(s->logger, 3, read);
    pthread_t own;
    if (is(s, "threaded") && (pthread_create(&own, NULL, elsewhere, s) || pthread_join(own, NULL))) abort();
    char *file = strstr(s->plan, " answers=");
    answers[0] = 0;
    if (file) {
        snprintf(answers, sizeof answers, "%s", file + strlen(" answers="));
        *file = 0;
    }
    describe(s);
    if (is(s, "grumbles")) say(s->logger, 2, "Using an engine plan file across different models of devices is not recommended");
    s->slots[CONTEXT] = (function)create_context;
    s->slots[INSPECTOR] = (function)create_inspector;
    s->slots[SHAPE] = (function)tensor_shape;
    s->slots[TYPE] = (function)tensor_type;
    s->slots[MODE] = (function)tensor_mode;
    s->slots[TENSORS] = (function)tensors_len;
    s->slots[NAME] = (function)tensor_name;
    s->slots[MEMORY] = (function)device_memory;
    return &s->object;
}

// For the library of plugins.
void fake_nvinfer_plugged(struct callback *logger) {
    plugins++;
    say(logger, 3, "fake TensorRT has its plugins");
}

int32_t getInferLibVersion(void) { return version; }
void *createInferRuntime_INTERNAL(struct callback *logger, int32_t asked) {
    if (asked != version) abort();
#if LAYOUT == 11
    struct info info = ((struct info(*)(struct callback *))logger->table[1])(logger);
    if (strcmp(info.kind, "ILogger") != 0 || info.major != 1) abort();
    if (((int32_t(*)(struct callback *))logger->table[0])(logger) != 0) abort();
#endif
    if (!live) {
        registered = logger;
        registered_table = logger->table;
    } else if (logger != registered) {
        say(registered, 2, "The logger passed into createInferRuntime differs from one already registered: it is ignored");
        logger = registered;
    }
    say(logger, 3, "fake TensorRT");
    say(logger, 4, "a verbose line that nobody keeps");
    if (runtime_mode != 0) {
        say(logger, 1, "createInferRuntime: Error Code 6: API Usage Error (CUDA initialization failure with error: 35)");
        return runtime_mode == 1 ? NULL : (void *)(uintptr_t)0x228;
    }
    struct state *s = make(NULL, "runtime");
    s->logger = logger;
    s->slots[DESERIALIZE] = (function)deserialize;
    s->slots[RUNTIME_RECORDER] = (function)set_recorder;
    return &s->object;
}
