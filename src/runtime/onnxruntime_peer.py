# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime beside our own engine: started by `tendon policy bench --onnxruntime PYTHON`, told in lines what to run.

The one argument is JSON: threads, and stages with their file and inputs. First it says its version; then each line "STAGE COUNT" is
answered with the times of that many runs, in microseconds. Inputs and outputs are bound to memory that is there already, as
our engine's are, and only the run itself is timed.
"""

import json
import sys
import time

import numpy as np
import onnxruntime

wanted = json.loads(sys.argv[1])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = wanted["threads"]
options.inter_op_num_threads = 1
# A second core that spins would slow whoever is measured beside it.
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
TYPES = {"f32": np.float32, "i64": np.int64, "i32": np.int32}
dice = np.random.default_rng(1)
stages, kept = [], []
for stage in wanted["stages"]:
    session = onnxruntime.InferenceSession(stage["path"], options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, tensor in stage["inputs"].items():
        dtype = TYPES[tensor["dtype"]]
        values = dice.normal(0, 0.1, tensor["shape"]) if dtype is np.float32 else np.ones(tensor["shape"])
        values = np.ascontiguousarray(values.astype(dtype))
        bound = onnxruntime.OrtValue.ortvalue_from_numpy(values)
        kept.append((values, bound))
        binding.bind_ortvalue_input(name, bound)
    # Once, to learn the outputs' shapes; then they have memory of their own.
    for output in session.get_outputs():
        binding.bind_output(output.name)
    session.run_with_iobinding(binding)
    for output, value in zip(session.get_outputs(), binding.get_outputs()):
        binding.bind_ortvalue_output(output.name, value)
        kept.append((None, value))
    stages.append((session, binding))
print(onnxruntime.__version__, flush=True)
for line in sys.stdin:
    index, count = (int(word) for word in line.split())
    session, binding = stages[index]
    times = []
    for _ in range(count):
        began = time.perf_counter_ns()
        session.run_with_iobinding(binding)
        times.append(time.perf_counter_ns() - began)
    print(*(f"{taken / 1e3:.3f}" for taken in times), flush=True)
