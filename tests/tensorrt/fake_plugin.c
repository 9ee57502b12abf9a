// SPDX-License-Identifier: Apache-2.0
// The library of plugins that lies beside the fake TensorRT, as libnvinfer_plugin does beside libnvinfer.
#include <stdlib.h>

struct callback;
void fake_nvinfer_plugged(struct callback *logger);

_Bool initLibNvInferPlugins(void *logger, const char *name) {
    // In the space of names without a name, which the plans of trtexec look into.
    if (!logger || !name || *name) abort();
    fake_nvinfer_plugged(logger);
    return 1;
}
