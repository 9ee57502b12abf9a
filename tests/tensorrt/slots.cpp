// SPDX-License-Identifier: Apache-2.0
// Prints where the compiler puts each virtual method that the binding calls, from whatever TensorRT headers it is given:
//   c++ -std=c++17 -I HEADERS -I (folder with a cuda_runtime_api.h) tests/tensorrt/slots.cpp -o slots && ./slots
// A pointer to a virtual member function holds one plus its offset in the table (Itanium C++ ABI, section 2.3; on
// AArch64 the offset itself, with the marker beside it).
#include <NvInferRuntime.h>
#include <NvInferVersion.h>
#include <cstdint>
#include <cstdio>
#include <cstring>

using namespace nvinfer1;

template <typename Method>
static void print(char const* name, Method method) {
    std::uintptr_t parts[2];
    static_assert(sizeof method == sizeof parts, "pointer and adjustment");
    std::memcpy(parts, &method, sizeof parts);
#if defined(__aarch64__)
    std::uintptr_t const offset = parts[0];
#else
    std::uintptr_t const offset = parts[0] - 1;
#endif
    std::printf("%s %zu\n", name, static_cast<std::size_t>(offset / sizeof(void*)));
}

#define SLOT(type, method) print(#type "::" #method, &type::method)

// Methods of the callbacks are protected or pure: their place is told by a class that opens them.
struct Logger : ILogger { using ILogger::log; };

int main() {
    using namespace apiv;
    std::printf("version %d\n", NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH);
    std::printf("sizeof(Dims64) %zu\n", sizeof(Dims64));
    print("VRuntime::deserializeCudaEngine", static_cast<ICudaEngine* (VRuntime::*)(void const*, std::size_t) noexcept>(&VRuntime::deserializeCudaEngine));
    SLOT(VRuntime, setErrorRecorder);
    print("VCudaEngine::createExecutionContext", static_cast<IExecutionContext* (VCudaEngine::*)(ExecutionContextAllocationStrategy) noexcept>(&VCudaEngine::createExecutionContext));
    SLOT(VCudaEngine, createEngineInspector);
    SLOT(VCudaEngine, getTensorShape);
    SLOT(VCudaEngine, getTensorDataType);
    SLOT(VCudaEngine, getTensorIOMode);
    SLOT(VCudaEngine, getNbIOTensors);
    SLOT(VCudaEngine, getIOTensorName);
    SLOT(VCudaEngine, getDeviceMemorySizeV2);
    SLOT(VExecutionContext, setProfiler);
    SLOT(VExecutionContext, setErrorRecorder);
    SLOT(VExecutionContext, setEnqueueEmitsProfile);
    SLOT(VExecutionContext, reportToProfiler);
    SLOT(VExecutionContext, setInputShape);
    SLOT(VExecutionContext, setTensorAddress);
    SLOT(VExecutionContext, inferShapes);
    SLOT(VExecutionContext, enqueueV3);
    SLOT(VEngineInspector, getEngineInformation);
    print("ILogger::log", &Logger::log);
    print("IProfiler::reportLayerTime", &IProfiler::reportLayerTime);
    print("IErrorRecorder::getNbErrors", &IErrorRecorder::getNbErrors);
    print("IErrorRecorder::reportError", &IErrorRecorder::reportError);
    print("IErrorRecorder::decRefCount", &IErrorRecorder::decRefCount);
}
