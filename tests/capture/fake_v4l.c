// SPDX-License-Identifier: Apache-2.0
// A camera for a machine without one: answers open, ioctl, mmap and poll as a UVC camera's node does, for every node
// named video40 to video47. Preloaded (LD_PRELOAD) under the real capture code; the test in the same process sets what
// is wrong with it through the fake_v4l_* functions.
//
// An open node is a memfd, so that mmap, munmap and close are the kernel's own. Pictures come at the agreed rate by
// CLOCK_MONOTONIC; a picture for which no buffer is queued is lost, and its number with it, as in the uvcvideo driver.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { DEVICES = 8, BUFFERS = 8, PAYLOADS = 8, FORMATS = 3 };
enum fault {
    GOOD, UNPLUGGED, DQBUF_EIO, ERROR_FLAG, SEQUENCE_GAP, SHORT, SILENT, FOREIGN_CLOCK, NO_BANDWIDTH, OTHER_MODEL,
    CONTROL_SPRINGS_BACK, OTHER_SIZE, SLOW, FAULTS
};

struct device {
    int fd;                       // the memfd, or -1
    enum fault fault;
    uint32_t fourcc, width, height, stride, buffer_len, buffers;
    uint64_t period_ns, next_ns;
    int streaming;
    uint32_t sequence;
    int state[BUFFERS];           // 0 ours, 1 queued, 2 done
    struct v4l2_buffer done[BUFFERS];
    uint64_t order[BUFFERS], next_order;
    uint8_t *mapping;
    const uint8_t *payload[PAYLOADS];
    uint32_t payload_len[PAYLOADS], payloads;
    int64_t exposure;
    uint32_t lost;
};

static struct device devices[DEVICES];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static long (*real_syscall)(long, ...);
static int (*real_open)(const char *, int, ...);
static int (*real_poll)(struct pollfd *, nfds_t, int);
static int (*real_close)(int);

static void resolve(void) {
    real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    real_open = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    real_poll = (int (*)(struct pollfd *, nfds_t, int))dlsym(RTLD_NEXT, "poll");
    real_close = (int (*)(int))dlsym(RTLD_NEXT, "close");
    for (int i = 0; i < DEVICES; i++) {
        devices[i].fd = -1;
        devices[i].exposure = 100;
        devices[i].fault = UNPLUGGED;
        devices[i].period_ns = 33333333;
    }
}
__attribute__((constructor)) static void start(void) { pthread_once(&once, resolve); }

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct device *by_path(const char *path) {
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    if (strncmp(name, "video4", 6) != 0 || name[6] < '0' || name[6] > '7' || name[7] != 0) return NULL;
    return &devices[name[6] - '0'];
}

static struct device *by_fd(int fd) {
    for (int i = 0; i < DEVICES && fd >= 0; i++)
        if (devices[i].fd == fd) return &devices[i];
    return NULL;
}

// What the test may do.
void fake_v4l_fault(int index, int fault) {
    pthread_once(&once, resolve);
    pthread_mutex_lock(&mutex);
    devices[index].fault = fault < FAULTS ? (enum fault)fault : GOOD;
    pthread_mutex_unlock(&mutex);
}
void fake_v4l_payload(int index, const uint8_t *bytes, uint32_t len) {
    pthread_mutex_lock(&mutex);
    struct device *d = &devices[index];
    if (d->payloads < PAYLOADS) {
        uint8_t *copy = malloc(len);
        memcpy(copy, bytes, len);
        d->payload[d->payloads] = copy;
        d->payload_len[d->payloads++] = len;
    }
    pthread_mutex_unlock(&mutex);
}
void fake_v4l_forget(int index) { devices[index].payloads = 0; }
uint32_t fake_v4l_lost(int index) { return devices[index].lost; }
uint32_t fake_v4l_fourcc(int index) { return devices[index].fourcc; }
int64_t fake_v4l_exposure(int index) { return devices[index].exposure; }

// Pictures that are due by now go into queued buffers.
static void advance(struct device *d) {
    if (!d->streaming || d->fault == SILENT || d->payloads == 0) return;
    uint64_t now = now_ns();
    while (d->next_ns <= now) {
        uint64_t at = d->next_ns;
        d->next_ns += d->period_ns;
        uint32_t sequence = d->sequence++;
        if (d->fault == SEQUENCE_GAP && sequence % 5 == 4) { d->sequence += 3; }
        int index = -1;
        for (int i = 0; i < (int)d->buffers; i++)
            if (d->state[i] == 1 && (index < 0 || d->order[i] < d->order[index])) index = i;
        if (index < 0) { d->lost++; continue; }
        uint32_t p = sequence % d->payloads, len = d->payload_len[p];
        if (len > d->buffer_len) len = d->buffer_len;
        memcpy(d->mapping + (size_t)index * d->buffer_len, d->payload[p], len);
        if (d->fault == SHORT) len = len / 2;
        struct v4l2_buffer *b = &d->done[index];
        memset(b, 0, sizeof *b);
        b->index = (uint32_t)index;
        b->type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
        b->memory = V4L2_MEMORY_MMAP;
        b->bytesused = len;
        b->length = d->buffer_len;
        b->sequence = sequence;
        b->field = V4L2_FIELD_NONE;
        b->flags = V4L2_BUF_FLAG_MAPPED | V4L2_BUF_FLAG_DONE;
        if (d->fault != FOREIGN_CLOCK) {
            b->flags |= V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC | V4L2_BUF_FLAG_TSTAMP_SRC_SOE;
            b->timestamp.tv_sec = (time_t)(at / 1000000000u);
            b->timestamp.tv_usec = (suseconds_t)(at % 1000000000u / 1000u);
        } else {
            b->timestamp.tv_sec = 12345;
        }
        if (d->fault == ERROR_FLAG) b->flags |= V4L2_BUF_FLAG_ERROR;
        d->state[index] = 2;
        d->order[index] = d->next_order++;
    }
}

static int oldest_done(struct device *d) {
    int index = -1;
    for (int i = 0; i < (int)d->buffers; i++)
        if (d->state[i] == 2 && (index < 0 || d->order[i] < d->order[index])) index = i;
    return index;
}

static const uint32_t offered[FORMATS] = {V4L2_PIX_FMT_MJPEG, V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_NV12};

static void fit(struct device *d, struct v4l2_pix_format *f) {
    int known = 0;
    for (int i = 0; i < FORMATS; i++) known |= offered[i] == f->pixelformat;
    if (!known) f->pixelformat = V4L2_PIX_FMT_MJPEG;
    // Two sizes; anything else becomes the nearer one.
    if (f->width >= 480) { f->width = 640; f->height = 480; } else { f->width = 320; f->height = 240; }
    if (d->fault == OTHER_SIZE) { f->width = 160; f->height = 120; }
    f->field = V4L2_FIELD_NONE;
    f->bytesperline = f->pixelformat == V4L2_PIX_FMT_YUYV ? f->width * 2 : f->pixelformat == V4L2_PIX_FMT_NV12 ? f->width : 0;
    f->sizeimage = f->pixelformat == V4L2_PIX_FMT_NV12 ? f->width * f->height * 3 / 2 : f->width * f->height * 2;
}

static int fail(int error) { errno = error; return -1; }

static int control(struct device *d, unsigned long request, void *arg) {
    if (request == VIDIOC_QUERY_EXT_CTRL) {
        struct v4l2_query_ext_ctrl *q = arg;
        if ((q->id & ~(V4L2_CTRL_FLAG_NEXT_CTRL | V4L2_CTRL_FLAG_NEXT_COMPOUND)) > V4L2_CID_EXPOSURE_ABSOLUTE) return fail(EINVAL);
        if (q->id != V4L2_CID_EXPOSURE_ABSOLUTE && !(q->id & V4L2_CTRL_FLAG_NEXT_CTRL)) return fail(EINVAL);
        memset(q, 0, sizeof *q);
        q->id = V4L2_CID_EXPOSURE_ABSOLUTE;
        q->type = V4L2_CTRL_TYPE_INTEGER;
        strcpy(q->name, "Exposure Time, Absolute");
        q->minimum = 1; q->maximum = 5000; q->step = 1; q->default_value = 100;
        q->elem_size = 4; q->elems = 1;
        return 0;
    }
    struct v4l2_ext_controls *list = arg;
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->controls[i].id != V4L2_CID_EXPOSURE_ABSOLUTE) return fail(EINVAL);
        if (request == VIDIOC_S_EXT_CTRLS) {
            if (list->controls[i].value < 1 || list->controls[i].value > 5000) return fail(ERANGE);
            if (d->fault != CONTROL_SPRINGS_BACK) d->exposure = list->controls[i].value;
        } else {
            list->controls[i].value64 = 0;
            list->controls[i].value = (int32_t)d->exposure;
        }
    }
    return 0;
}

static int answer(struct device *d, unsigned long request, void *arg) {
    if (d->fault == UNPLUGGED) return fail(ENODEV);
    int index = (int)(d - devices);
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *c = arg;
        memset(c, 0, sizeof *c);
        strcpy((char *)c->driver, "uvcvideo");
        snprintf((char *)c->card, sizeof c->card, d->fault == OTHER_MODEL ? "Other camera" : "Fake camera");
        snprintf((char *)c->bus_info, sizeof c->bus_info, "usb-fake-%d", index);
        c->version = 0x060100;
        c->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING | V4L2_CAP_EXT_PIX_FORMAT;
        c->capabilities = c->device_caps | V4L2_CAP_DEVICE_CAPS;
        return 0;
    }
    case VIDIOC_ENUM_FMT: {
        struct v4l2_fmtdesc *f = arg;
        uint32_t i = f->index;
        if (f->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || i >= FORMATS) return fail(EINVAL);
        memset(f, 0, sizeof *f);
        f->index = i;
        f->type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
        f->pixelformat = offered[i];
        strcpy((char *)f->description, "as its name says");
        return 0;
    }
    case VIDIOC_ENUM_FRAMESIZES: {
        struct v4l2_frmsizeenum *f = arg;
        if (f->index > 1) return fail(EINVAL);
        f->type = V4L2_FRMSIZE_TYPE_DISCRETE;
        f->discrete.width = f->index ? 320 : 640;
        f->discrete.height = f->index ? 240 : 480;
        return 0;
    }
    case VIDIOC_TRY_FMT:
    case VIDIOC_S_FMT: {
        struct v4l2_format *f = arg;
        if (d->buffers > 0) return fail(EBUSY);
        fit(d, &f->fmt.pix);
        if (request == VIDIOC_TRY_FMT) return 0;
        d->fourcc = f->fmt.pix.pixelformat;
        d->width = f->fmt.pix.width;
        d->height = f->fmt.pix.height;
        d->stride = f->fmt.pix.bytesperline;
        d->buffer_len = (f->fmt.pix.sizeimage + 4095u) & ~4095u;
        return 0;
    }
    case VIDIOC_G_FMT: {
        struct v4l2_format *f = arg;
        memset(&f->fmt.pix, 0, sizeof f->fmt.pix);
        f->fmt.pix.width = d->width ? d->width : 640;
        f->fmt.pix.height = d->height ? d->height : 480;
        f->fmt.pix.pixelformat = d->fourcc ? d->fourcc : V4L2_PIX_FMT_MJPEG;
        fit(d, &f->fmt.pix);
        return 0;
    }
    case VIDIOC_S_PARM:
    case VIDIOC_G_PARM: {
        struct v4l2_streamparm *p = arg;
        struct v4l2_captureparm *c = &p->parm.capture;
        uint64_t period = d->period_ns;
        if (request == VIDIOC_S_PARM && c->timeperframe.denominator)
            period = (uint64_t)c->timeperframe.numerator * 1000000000u / c->timeperframe.denominator;
        if (d->fault == SLOW) period = 200000000;
        d->period_ns = period;
        memset(c, 0, sizeof *c);
        c->capability = V4L2_CAP_TIMEPERFRAME;
        c->timeperframe.numerator = (uint32_t)(period / 1000);
        c->timeperframe.denominator = 1000000;
        return 0;
    }
    case VIDIOC_QUERY_EXT_CTRL:
    case VIDIOC_S_EXT_CTRLS:
    case VIDIOC_G_EXT_CTRLS:
        return control(d, request, arg);
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *r = arg;
        if (d->streaming && r->count) return fail(EBUSY);
        if (d->mapping) { munmap(d->mapping, (size_t)d->buffers * d->buffer_len); d->mapping = NULL; }
        if (r->count > BUFFERS) r->count = BUFFERS;
        d->buffers = r->count;
        memset(d->state, 0, sizeof d->state);
        if (r->count) {
            if (ftruncate(d->fd, (off_t)d->buffers * d->buffer_len)) return fail(ENOMEM);
            d->mapping = mmap(NULL, (size_t)d->buffers * d->buffer_len, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd, 0);
            if (d->mapping == MAP_FAILED) { d->mapping = NULL; return fail(ENOMEM); }
        }
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *b = arg;
        if (b->index >= d->buffers) return fail(EINVAL);
        b->length = d->buffer_len;
        b->m.offset = b->index * d->buffer_len;
        return 0;
    }
    case VIDIOC_QBUF: {
        struct v4l2_buffer *b = arg;
        if (b->index >= d->buffers || d->state[b->index] != 0) return fail(EINVAL);
        d->state[b->index] = 1;
        d->order[b->index] = d->next_order++;
        return 0;
    }
    case VIDIOC_DQBUF: {
        struct v4l2_buffer *b = arg;
        if (!d->streaming) return fail(EINVAL);
        if (d->fault == DQBUF_EIO) return fail(EIO);
        advance(d);
        int done = oldest_done(d);
        if (done < 0) return fail(EAGAIN);
        *b = d->done[done];
        d->state[done] = 0;
        return 0;
    }
    case VIDIOC_STREAMON:
        if (d->fault == NO_BANDWIDTH) return fail(ENOSPC);
        d->streaming = 1;
        d->sequence = 0;
        d->next_ns = now_ns() + d->period_ns;
        return 0;
    case VIDIOC_STREAMOFF:
        d->streaming = 0;
        memset(d->state, 0, sizeof d->state);
        return 0;
    default:
        return fail(ENOTTY);
    }
}

static int opened(struct device *d) {
    pthread_mutex_lock(&mutex);
    int fd;
    if (d->fault == UNPLUGGED) {
        fd = fail(ENOENT);
    } else if (d->fd >= 0) {
        fd = fail(EBUSY);
    } else {
        fd = memfd_create("camera", MFD_CLOEXEC);
        d->fd = fd;
        d->streaming = 0;
        d->buffers = 0;
        d->fourcc = 0;
    }
    int error = errno;
    pthread_mutex_unlock(&mutex);
    errno = error;
    return fd;
}

// What is interposed.
int open(const char *path, int flags, ...) {
    pthread_once(&once, resolve);
    struct device *d = flags & O_CREAT ? NULL : by_path(path);
    if (d) return opened(d);
    va_list list;
    va_start(list, flags);
    mode_t mode = (mode_t)va_arg(list, int);
    va_end(list);
    return real_open(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = (mode_t)va_arg(list, int);
    va_end(list);
    return open(path, flags, mode);
}
int close(int fd) {
    pthread_once(&once, resolve);
    pthread_mutex_lock(&mutex);
    struct device *d = by_fd(fd);
    if (d) {
        if (d->mapping) { munmap(d->mapping, (size_t)d->buffers * d->buffer_len); d->mapping = NULL; }
        d->fd = -1;
        d->streaming = 0;
        d->buffers = 0;
    }
    pthread_mutex_unlock(&mutex);
    return real_close(fd);
}
int poll(struct pollfd *list, nfds_t count, int timeout_ms) {
    pthread_once(&once, resolve);
    struct device *d = count == 1 ? by_fd(list[0].fd) : NULL;
    if (!d) return real_poll(list, count, timeout_ms);
    uint64_t until = now_ns() + (uint64_t)(timeout_ms < 0 ? 60000 : timeout_ms) * 1000000u;
    for (;;) {
        pthread_mutex_lock(&mutex);
        advance(d);
        int gone = d->fault == UNPLUGGED, ready = oldest_done(d) >= 0 || d->fault == DQBUF_EIO;
        uint64_t next = d->next_ns;
        pthread_mutex_unlock(&mutex);
        list[0].revents = gone ? POLLERR | POLLHUP : ready ? POLLIN : 0;
        if (gone || ready) return 1;
        uint64_t now = now_ns(), wake = next > now && next < until ? next : until;
        if (now >= until) return 0;
        // A plug is pulled while somebody waits: look every 5 ms.
        uint64_t nap = wake > now ? wake - now : 0;
        if (nap > 5000000u) nap = 5000000u;
        if (nap < 50000u) nap = 50000u;
        struct timespec t = {(time_t)(nap / 1000000000u), (long)(nap % 1000000000u)};
        nanosleep(&t, NULL);
    }
}
static int answered(int fd, unsigned long request, void *arg, int *result) {
    pthread_mutex_lock(&mutex);
    struct device *d = by_fd(fd);
    if (d) *result = answer(d, request & 0xffffffffu, arg);
    int error = errno;
    pthread_mutex_unlock(&mutex);
    errno = error;
    return d != NULL;
}
int ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void *arg = va_arg(list, void *);
    va_end(list);
    pthread_once(&once, resolve);
    int result;
    if (answered(fd, request, arg, &result)) return result;
    return (int)real_syscall(SYS_ioctl, fd, request, arg);
}
long syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long), d = va_arg(list, long), e = va_arg(list, long),
         f = va_arg(list, long);
    va_end(list);
    pthread_once(&once, resolve);
    int result;
    if (number == SYS_ioctl && answered((int)a, (unsigned long)b, (void *)c, &result)) return result;
    return real_syscall(number, a, b, c, d, e, f);
}
