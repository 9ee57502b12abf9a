// SPDX-License-Identifier: Apache-2.0
//! Where TensorRT keeps each method that is called: its place in the table of virtual functions.
//!
//! A public object of TensorRT is two pointers: the table of its own class, and the implementation, whose class
//! (`nvinfer1::apiv::V...`) has a table in the order of its declaration. Those declarations are public
//! (`include/NvInferImpl.h` of NVIDIA/TensorRT). From 10.3 to 10.16 they only grew at the end; 11.0 took methods out, so
//! that what follows moved up. `tests/tensorrt/slots.cpp`, compiled against the headers of a version, prints these
//! numbers; they were compared for every tag from v10.3.0 to v10.16, v11.0 and v11.1. That 11.2 to 11.4 are as 11.1 was
//! read in their headers as `trtx-sys` 0.9.1 carries them.

use super::Layout;

/// Places of the methods in one layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// `VRuntime::deserializeCudaEngine(void const*, size_t)`.
    pub deserialize: usize,
    /// `VRuntime::setErrorRecorder(IErrorRecorder*)`.
    pub runtime_set_recorder: usize,
    /// `VCudaEngine::createExecutionContext(ExecutionContextAllocationStrategy)`.
    pub create_context: usize,
    /// `VCudaEngine::createEngineInspector()`.
    pub create_inspector: usize,
    /// `VCudaEngine::getTensorShape(char const*)`.
    pub tensor_shape: usize,
    /// `VCudaEngine::getTensorDataType(char const*)`.
    pub tensor_type: usize,
    /// `VCudaEngine::getTensorIOMode(char const*)`.
    pub tensor_mode: usize,
    /// `VCudaEngine::getNbIOTensors()`.
    pub tensors_len: usize,
    /// `VCudaEngine::getIOTensorName(int32_t)`.
    pub tensor_name: usize,
    /// `VCudaEngine::getDeviceMemorySizeV2()`.
    pub device_memory: usize,
    /// `VExecutionContext::setProfiler(IProfiler*)`.
    pub set_profiler: usize,
    /// `VExecutionContext::setErrorRecorder(IErrorRecorder*)`.
    pub context_set_recorder: usize,
    /// `VExecutionContext::setInputShape(char const*, Dims const&)`.
    pub set_input_shape: usize,
    /// `VExecutionContext::setTensorAddress(char const*, void*)`.
    pub set_tensor_address: usize,
    /// `VExecutionContext::inferShapes(int32_t, char const**)`.
    pub infer_shapes: usize,
    /// `VExecutionContext::enqueueV3(cudaStream_t)`.
    pub enqueue: usize,
    /// `VEngineInspector::getEngineInformation(LayerInformationFormat)`.
    pub engine_information: usize,
}

/// 10.3 to 10.16.
const TEN: Slots = Slots {
    deserialize: 3,
    runtime_set_recorder: 9,
    create_context: 5,
    create_inspector: 18,
    tensor_shape: 19,
    tensor_type: 20,
    tensor_mode: 23,
    tensors_len: 30,
    tensor_name: 31,
    device_memory: 52,
    set_profiler: 5,
    context_set_recorder: 14,
    set_input_shape: 21,
    set_tensor_address: 24,
    infer_shapes: 28,
    enqueue: 37,
    engine_information: 6,
};

/// 11.0 to 11.4.
const ELEVEN: Slots = Slots {
    deserialize: 3,
    runtime_set_recorder: 8,
    create_context: 5,
    create_inspector: 14,
    tensor_shape: 15,
    tensor_type: 16,
    tensor_mode: 19,
    tensors_len: 26,
    tensor_name: 27,
    device_memory: 44,
    set_profiler: 5,
    context_set_recorder: 13,
    set_input_shape: 20,
    set_tensor_address: 23,
    infer_shapes: 27,
    enqueue: 36,
    engine_information: 6,
};

impl Slots {
    /// The places in `layout`.
    #[must_use]
    pub const fn of(layout: Layout) -> &'static Slots {
        match layout {
            Layout::Ten => &TEN,
            Layout::Eleven => &ELEVEN,
        }
    }

    /// Each with the name that `tests/tensorrt/slots.cpp` prints.
    #[must_use]
    pub fn named(&self) -> [(&'static str, usize); 17] {
        [
            ("VRuntime::deserializeCudaEngine", self.deserialize),
            ("VRuntime::setErrorRecorder", self.runtime_set_recorder),
            ("VCudaEngine::createExecutionContext", self.create_context),
            ("VCudaEngine::createEngineInspector", self.create_inspector),
            ("VCudaEngine::getTensorShape", self.tensor_shape),
            ("VCudaEngine::getTensorDataType", self.tensor_type),
            ("VCudaEngine::getTensorIOMode", self.tensor_mode),
            ("VCudaEngine::getNbIOTensors", self.tensors_len),
            ("VCudaEngine::getIOTensorName", self.tensor_name),
            ("VCudaEngine::getDeviceMemorySizeV2", self.device_memory),
            ("VExecutionContext::setProfiler", self.set_profiler),
            (
                "VExecutionContext::setErrorRecorder",
                self.context_set_recorder,
            ),
            ("VExecutionContext::setInputShape", self.set_input_shape),
            (
                "VExecutionContext::setTensorAddress",
                self.set_tensor_address,
            ),
            ("VExecutionContext::inferShapes", self.infer_shapes),
            ("VExecutionContext::enqueueV3", self.enqueue),
            (
                "VEngineInspector::getEngineInformation",
                self.engine_information,
            ),
        ]
    }
}
