// SPDX-License-Identifier: Apache-2.0
// Stands in for the kernel's GPIO character device (uAPI v2), input devices and hardware watchdog, by LD_PRELOAD: any file is
// a chip or a device, and its bytes are the levels: '1' closed, '0' open, anything else gone; any file is a watchdog that
// takes timeouts of whole 2 s, and keeps what it is pinged with. No other ioctl is touched. An input device, a file whose name begins with
// "event", is opened as slowly as the file beside it says whose name ends with ".slow": a number of ms. A dot is added there for each
// opening that has been.
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE // It makes functions of our own of open.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <linux/input.h>
#include <linux/watchdog.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned offsets[1024];

// The byte at `at` of the file behind `fd`; 0 where there is none.
static char level(int fd, unsigned at) {
    char byte = 0;
    return pread(fd, &byte, 1, at) == 1 ? byte : 0;
}

static int gone(void) {
    errno = ENODEV;
    return -1;
}

static int gpio(int fd, unsigned long request, void *argument) {
    if (request == GPIO_V2_GET_LINE_IOCTL) {
        struct gpio_v2_line_request *line = argument;
        char path[64];
        if (line->num_lines != 1 || !(line->config.flags & GPIO_V2_LINE_FLAG_INPUT)) {
            errno = EINVAL;
            return -1;
        }
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        line->fd = open(path, O_RDONLY | O_CLOEXEC);
        if (line->fd < 0 || line->fd >= 1024) return gone();
        offsets[line->fd] = line->offsets[0];
        return 0;
    }
    if (request == GPIO_V2_LINE_GET_VALUES_IOCTL && fd < 1024) {
        struct gpio_v2_line_values *values = argument;
        char found = level(fd, offsets[fd]);
        if (found != '0' && found != '1') return gone();
        values->bits = found == '1' ? values->mask & 1 : 0;
        return 0;
    }
    errno = ENOTTY;
    return -1;
}

static int input(int fd, unsigned long request, unsigned char *argument) {
    size_t size = _IOC_SIZE(request);
    char found = level(fd, 0);
    if (found != '0' && found != '1') return gone();
    memset(argument, 0, size);
    switch (_IOC_NR(request)) {
    case 0x20: // EVIOCGBIT(0): what kinds of events there are
        argument[0] = 1 << EV_KEY;
        break;
    case 0x20 + EV_KEY: // EVIOCGBIT(EV_KEY): one key
        argument[BTN_TR / 8] = 1 << (BTN_TR % 8);
        break;
    case 0x18: // EVIOCGKEY: which are held
        if (found == '1') argument[BTN_TR / 8] = 1 << (BTN_TR % 8);
        break;
    }
    return (int)size;
}

int ioctl(int fd, unsigned long request, ...) {
    static int (*next)(int, unsigned long, ...);
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    if (_IOC_TYPE(request) == 0xB4) return gpio(fd, request, argument);
    if (request == WDIOC_SETTIMEOUT) {
        int *timeout_s = argument;
        *timeout_s += *timeout_s % 2;
        return 0;
    }
    if (_IOC_TYPE(request) == 'E') return input(fd, request, argument);
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "ioctl");
    return next(fd, request, argument);
}

static int opens(const char *path, int flags, mode_t mode) {
    char name[4096], ms[16] = "";
    int slow = -1;
    if (strstr(path, "/event") && snprintf(name, sizeof name, "%s.slow", path) < (int)sizeof name)
        slow = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_APPEND | O_CLOEXEC, 0);
    if (slow >= 0 && read(slow, ms, sizeof ms - 1) > 0) {
        usleep((useconds_t)strtoul(ms, NULL, 10) * 1000);
        if (write(slow, ".", 1) != 1) abort();
    }
    if (slow >= 0) close(slow);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static mode_t mode_of(int flags, va_list list) {
    int made = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
    return made ? va_arg(list, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    return opens(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    return opens(path, flags, mode);
}
