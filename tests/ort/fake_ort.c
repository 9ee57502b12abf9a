// SPDX-License-Identifier: Apache-2.0
// An ONNX Runtime with GPU providers for a machine without a GPU, as far as it is called; any other function of its table ends the
// process. Where a function stands the test says (-DAT_Run...=N), by the declarations that the binding uses: that those are right is
// shown under the real library.
//
// Whatever the file, the graph takes "x" and gives "y", two floats each, as they are; with TF32 on, without the 13 bits of a mantissa that
// TF32 has not. "runs=" in the file and what follows says what becomes of each run, the first at load: '.' right, 'x' refused, '7'
// refused because the context is lost, 'b' refused before it, when an output is bound; right after the last. With -DOLD nothing can be asked of the CUDA provider.
#define _GNU_SOURCE // memmem
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct wishes { int tf32; };
struct options { int tf32; };
struct session { int tf32; char runs[64]; size_t run; };
struct value { float *data; };
struct binding { const float *from; float *to; struct session *session; };

static void trap(void) {
    fprintf(stderr, "fake ONNX Runtime: a function was called that it does not have\n");
    abort();
}
// A status is its words; none is success.
static void *refuse(const char *words) { return strdup(words); }
static void *good(void) { return NULL; }
static void *make(void **out, size_t len) {
    *out = calloc(1, len);
    return NULL;
}

static const char *message(const char *status) { return status; }
static void *create_env(void *log, void *parameter, int level, const char *name, void **out) { return make(out, 1); }
static void *create_info(int allocator, int memory, void **out) { return make(out, 1); }
static void *default_allocator(void **out) {
    static char allocator;
    *out = &allocator;
    return NULL;
}
static void *allocator_free(void *allocator, void *memory) {
    free(memory);
    return NULL;
}

static char *names[] = {"TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"};
static void *providers(char ***out, int *count) {
    *out = names;
    *count = 3;
    return NULL;
}
static void *create_options(void **out) { return make(out, sizeof(struct options)); }
static void *create_wishes(struct wishes **out) {
    make((void **)out, sizeof **out);
    (*out)->tf32 = 1;
    return NULL;
}
static void *update(struct wishes *wishes, const char *const *keys, const char *const *values, size_t count) {
#ifdef OLD
    return refuse("Unknown provider option: \"use_tf32\".");
#else
    for (size_t i = 0; i < count; i++) {
        if (strcmp(keys[i], "use_tf32")) return refuse("Unknown provider option");
        wishes->tf32 = atoi(values[i]);
    }
    return NULL;
#endif
}
static void *append(struct options *options, const struct wishes *wishes) {
    options->tf32 = wishes->tf32;
    return NULL;
}

static void *create_session(void *env, const void *file, size_t len, const struct options *options, struct session **out) {
    make((void **)out, sizeof **out);
    (*out)->tf32 = options->tf32;
    const char *at = memmem(file, len, "runs=", 5), *end = (const char *)file + len;
    size_t runs = 0;
    for (at = at ? at + 5 : end; at < end && strchr(".x7b", *at) && *at && runs < 63; at++) (*out)->runs[runs++] = *at;
    return NULL;
}
static void *one(void *session, size_t *count) {
    *count = 1;
    return NULL;
}
static void *input_name(void *session, size_t at, void *allocator, char **out) {
    *out = strdup("x");
    return NULL;
}
static void *output_name(void *session, size_t at, void *allocator, char **out) {
    *out = strdup("y");
    return NULL;
}
static void *type_info(void *session, size_t at, void **out) { return make(out, 1); }
static void *as_tensor(void *info, void **out) {
    *out = info;
    return NULL;
}
static void *element_type(void *info, int *out) {
    *out = 1; // ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
    return NULL;
}
static void *side(void *info, int64_t *sides, size_t count) {
    sides[0] = 2;
    return NULL;
}

static void *create_binding(struct session *session, struct binding **out) {
    make((void **)out, sizeof **out);
    (*out)->session = session;
    return NULL;
}
static void *create_value(void *info, float *data, size_t len, const int64_t *shape, size_t sides, int type, struct value **out) {
    make((void **)out, sizeof **out);
    (*out)->data = data;
    return len == 8 ? NULL : refuse("two floats have 8 bytes");
}
static void *bind_input(struct binding *binding, const char *name, const struct value *value) {
    binding->from = value->data;
    return NULL;
}
static void *bind_output(struct binding *binding, const char *name, const struct value *value) {
    struct session *session = binding->session;
    if (session->runs[session->run] == 'b') {
        session->run++;
        return refuse("no room for a binding");
    }
    binding->to = value->data;
    return NULL;
}
static void *run(struct session *session, void *options, struct binding *binding) {
    char what = session->runs[session->run];
    session->run += what != 0;
    if (what == 'x') return refuse("Non-zero status code returned while running Gemm node: CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0");
    if (what == '7') return refuse("CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; expr=cudaStreamSynchronize(stream)");
    for (int i = 0; i < 2; i++) {
        uint32_t bits;
        memcpy(&bits, &binding->from[i], 4);
        if (session->tf32) bits &= ~0x1fffu;
        memcpy(&binding->to[i], &bits, 4);
    }
    return NULL;
}

static void *table[PLACES];
__attribute__((constructor)) static void fill(void) {
    for (int i = 0; i < PLACES; i++) table[i] = (void *)trap;
    table[AT_GetErrorMessage] = (void *)message;
    table[AT_ReleaseStatus] = (void *)free;
    table[AT_CreateEnvWithCustomLogger] = (void *)create_env;
    table[AT_ReleaseEnv] = (void *)free;
    table[AT_GetAvailableProviders] = (void *)providers;
    table[AT_ReleaseAvailableProviders] = (void *)good;
    table[AT_CreateSessionOptions] = (void *)create_options;
    table[AT_ReleaseSessionOptions] = (void *)free;
    table[AT_SessionOptionsSetCustomCreateThreadFn] = (void *)good;
    table[AT_SessionOptionsSetCustomThreadCreationOptions] = (void *)good;
    table[AT_SessionOptionsSetCustomJoinThreadFn] = (void *)good;
    table[AT_SetIntraOpNumThreads] = (void *)good;
    table[AT_SetInterOpNumThreads] = (void *)good;
    table[AT_AddSessionConfigEntry] = (void *)good;
    table[AT_CreateCUDAProviderOptions] = (void *)create_wishes;
    table[AT_UpdateCUDAProviderOptions] = (void *)update;
    table[AT_SessionOptionsAppendExecutionProvider_CUDA_V2] = (void *)append;
    table[AT_ReleaseCUDAProviderOptions] = (void *)free;
    table[AT_CreateTensorRTProviderOptions] = (void *)create_wishes;
    table[AT_SessionOptionsAppendExecutionProvider_TensorRT_V2] = (void *)append;
    table[AT_ReleaseTensorRTProviderOptions] = (void *)free;
    table[AT_CreateSessionFromArray] = (void *)create_session;
    table[AT_ReleaseSession] = (void *)free;
    table[AT_SessionGetInputCount] = (void *)one;
    table[AT_SessionGetOutputCount] = (void *)one;
    table[AT_SessionGetInputName] = (void *)input_name;
    table[AT_SessionGetOutputName] = (void *)output_name;
    table[AT_SessionGetInputTypeInfo] = (void *)type_info;
    table[AT_SessionGetOutputTypeInfo] = (void *)type_info;
    table[AT_GetAllocatorWithDefaultOptions] = (void *)default_allocator;
    table[AT_AllocatorFree] = (void *)allocator_free;
    table[AT_CastTypeInfoToTensorInfo] = (void *)as_tensor;
    table[AT_GetTensorElementType] = (void *)element_type;
    table[AT_GetDimensionsCount] = (void *)one;
    table[AT_GetDimensions] = (void *)side;
    table[AT_ReleaseTypeInfo] = (void *)free;
    table[AT_CreateCpuMemoryInfo] = (void *)create_info;
    table[AT_ReleaseMemoryInfo] = (void *)free;
    table[AT_CreateTensorWithDataAsOrtValue] = (void *)create_value;
    table[AT_ReleaseValue] = (void *)free;
    table[AT_CreateIoBinding] = (void *)create_binding;
    table[AT_ReleaseIoBinding] = (void *)free;
    table[AT_BindInput] = (void *)bind_input;
    table[AT_BindOutput] = (void *)bind_output;
    table[AT_RunWithBinding] = (void *)run;
}
static const void *api(uint32_t version) { return version <= 17 ? table : NULL; }
static const char *version(void) { return "1.31.1"; }
static const struct { const void *(*api)(uint32_t); const char *(*version)(void); } base = {api, version};
const void *OrtGetApiBase(void) { return &base; }
