# SPDX-License-Identifier: Apache-2.0
"""What OpenCV takes for what benches/picture.rs measures: 640x480 RGB -> 224x224 floats, channels first, one thread.

The bench starts it (PEERS_PYTHON=... cargo bench --bench picture) and tells it in lines: a kernel and a number of pictures. It answers
with a time for each, in ms. By hand: echo "bilinear 100" | python tests/peers/preprocess.py
"""

import sys
import time

import cv2
import numpy as np

cv2.setNumThreads(1)
picture = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
mean, std = np.float32([0.485, 0.456, 0.406]) * 255, np.float32([0.229, 0.224, 0.225]) * 255
KERNELS = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "bicubic": cv2.INTER_CUBIC}
small = np.empty((224, 224, 3), np.uint8)
tensor = np.empty((1, 3, 224, 224), np.float32)
factor = (1 / std).reshape(1, 3, 1, 1)
for line in sys.stdin:
    kernel, count = line.split()
    times = []
    for _ in range(int(count)):
        began = time.perf_counter()
        cv2.resize(picture, (224, 224), dst=small, interpolation=KERNELS[kernel])
        # Its own way of giving a network a picture: channels first and less the mean, in C++; then the deviation.
        blob = cv2.dnn.blobFromImage(small, mean=mean.tolist())
        np.multiply(blob, factor, out=tensor)
        times.append(time.perf_counter() - began)
    print(*(f"{taken * 1e3:.4f}" for taken in times), flush=True)
