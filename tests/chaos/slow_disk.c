// SPDX-License-Identifier: Apache-2.0
// Preloaded: a disk that takes as many seconds for each fsync as the first byte of the file in SLOW_DISK says, or answers
// with an error of the disk (EIO) where that is 255.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int fsync(int file) {
    unsigned char seconds = 0;
    const char *path = getenv("SLOW_DISK");
    int told = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (told >= 0) {
        if (read(told, &seconds, 1) != 1) seconds = 0;
        close(told);
    }
    if (seconds == 255) {
        errno = EIO;
        return -1;
    }
    if (seconds) sleep(seconds);
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return real(file);
}
