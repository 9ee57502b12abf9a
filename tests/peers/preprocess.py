# SPDX-License-Identifier: Apache-2.0
"""What OpenCV takes for what benches/picture.rs measures: 640x480 RGB -> 224x224 floats, channels first, one thread."""

import time

import cv2
import numpy as np

cv2.setNumThreads(1)
picture = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
mean, std = np.float32([0.485, 0.456, 0.406]) * 255, np.float32([0.229, 0.224, 0.225]) * 255
for name, kernel in [("bilinear", cv2.INTER_LINEAR), ("area", cv2.INTER_AREA), ("bicubic", cv2.INTER_CUBIC)]:
    times = []
    for _ in range(300):
        began = time.perf_counter()
        small = cv2.resize(picture, (224, 224), interpolation=kernel)
        tensor = np.ascontiguousarray(((small.astype(np.float32) - mean) / std).transpose(2, 0, 1))
        times.append(time.perf_counter() - began)
    print(f"opencv {cv2.__version__} {name:9} p50 {sorted(times)[150] * 1e3:.3f} ms, {tensor.shape}")
