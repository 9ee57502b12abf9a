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

enum { DEVICES = 8, BUFFERS = 8, PAYLOADS = 8, FORMATS = 7, CONTROLS = 8, ROW_PADDING = 64 };
enum fault {
    GOOD, UNPLUGGED, DQBUF_EIO, ERROR_FLAG, SEQUENCE_GAP, SHORT, SILENT, FOREIGN_CLOCK, NO_BANDWIDTH, OTHER_MODEL,
    CONTROL_SPRINGS_BACK, OTHER_SIZE, SLOW, END_OF_FRAME, FEW_FORMATS, WIDE_ROWS, SLOW_OPEN, SLOW_CONTROLS, WEDGED,
    // Every size between two, as v4l2loopback and image processors offer; a driver that leaves out the step.
    STEPWISE, CONTINUOUS, NO_STEP,
    // Another program streams from it, as uvcvideo says it; the node is not for this user.
    BUSY, DENIED,
    // Of the formats that it offers, UYVY is one that it does not take, or not this time.
    REFUSES_UYVY, TRIPS_ON_UYVY,
    // It has GREY before YUYV and MJPG, or nothing else, or does not take those two this time.
    GREY_FIRST, GREY_ONLY, TRIPS_ON_COLOURS,
    // Every picture is flagged, or cut off, until it is started again.
    STUCK_FLAGS, STUCK_SHORT,
    // Its names are longer than their fields and end inside a character; its lists have no end; numbers that no header has.
    CUT_NAMES, ENDLESS, ODD_NUMBERS,
    // Its YUV is of full range, or of high definition's matrix.
    FULL_RANGE, HD_COLOURS,
    // The bus has room for JPEG alone, or for brightness alone, which it says when the stream is to begin, as xHCI does.
    ROOM_FOR_JPEG, ROOM_FOR_GREY,
    // Its times are flagged as those of the monotonic clock and are of another one, as NVIDIA's vi5 gives them.
    AHEAD, BEHIND,
    // The first picture comes late.
    LATE_START,
    // The node beside that of the pictures; pictures in planes of their own; a node that takes pictures.
    METADATA_NODE, MULTI_PLANAR, OUTPUT_NODE,
    // Rows come in two fields, always, or unless they are asked for otherwise.
    INTERLACED, INTERLACED_UNLESS_ASKED,
    // It has H.264 beside YUYV and MJPG; that alone; JPEG alone.
    WITH_H264, H264_ONLY, JPEG_ONLY,
    // It sends twice as many pictures as it is asked for.
    FAST,
    // Controls are as they were made when a stream begins; exposure is, with each picture; none can be read while it streams.
    FORGETS_CONTROLS, EXPOSURE_RETURNS, MUTE_CONTROLS,
    // It cannot be asked for its sizes, nor for its rates.
    NO_SIZES, FAULTS
};
enum { SLOW_OPEN_MS = 2000, SLOW_CONTROL_MS = 300, MAPS = 32 };
// How far another clock is from the monotonic one, and what a late start takes.
static const uint64_t AHEAD_NS = 26000000000u, BEHIND_NS = 5000000000u, LATE_START_NS = 4000000000u;

struct device {
    pthread_mutex_t mutex;        // of its own, so that no camera waits for another one
    int fd;                       // the memfd, or -1
    enum fault fault;
    uint32_t fourcc, width, height, stride, field, buffer_len, buffers;
    uint64_t period_ns, next_ns;
    int streaming, stuck;
    uint32_t sequence;
    int state[BUFFERS];           // 0 ours, 1 queued, 2 done
    struct v4l2_buffer done[BUFFERS];
    uint64_t order[BUFFERS], next_order;
    uint8_t *mapping;
    const uint8_t *payload[PAYLOADS];
    uint32_t payload_len[PAYLOADS], payloads, shown[BUFFERS], given;
    int64_t value[CONTROLS];      // of each control
    uint32_t lost;
    void *maps[MAPS];             // of the client: each keeps the open node, as in the kernel
};

static struct device devices[DEVICES];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static long (*real_syscall)(long, ...);
static int (*real_open)(const char *, int, ...);
static int (*real_poll)(struct pollfd *, nfds_t, int);
static int (*real_close)(int);
static void *(*real_mmap)(void *, size_t, int, int, int, off_t);
static int (*real_munmap)(void *, size_t);
// What is wrong with each camera, in a file that another process writes; if there is one.
static const volatile int32_t *faults_told;

static void resolve(void) {
    real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    real_open = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    real_poll = (int (*)(struct pollfd *, nfds_t, int))dlsym(RTLD_NEXT, "poll");
    real_close = (int (*)(int))dlsym(RTLD_NEXT, "close");
    real_mmap = (void *(*)(void *, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
    real_munmap = (int (*)(void *, size_t))dlsym(RTLD_NEXT, "munmap");
    for (int i = 0; i < DEVICES; i++) {
        pthread_mutex_init(&devices[i].mutex, NULL);
        devices[i].fd = -1;
        devices[i].fault = UNPLUGGED;
        devices[i].period_ns = 33333333;
    }
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void nap_ms(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
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

// A driver's own, of 64 bits, as a UVC camera has none.
#define OWN_NUMBER (V4L2_CID_USER_BASE + 0x10f0)
// As a UVC camera has them. What a camera sets by itself has a master: while that is not at `manual`, setting it by hand is
// refused, as uvcvideo refuses it.
static const struct {
    uint32_t id, type;
    const char *name;
    int64_t minimum, maximum, step, at_first;
    int master, manual;
} controls[CONTROLS] = {
    {V4L2_CID_AUTO_WHITE_BALANCE, V4L2_CTRL_TYPE_BOOLEAN, "White Balance, Automatic", 0, 1, 1, 1, -1, 0},
    {V4L2_CID_WHITE_BALANCE_TEMPERATURE, V4L2_CTRL_TYPE_INTEGER, "White Balance Temperature", 2800, 6500, 10, 4600, 0, 0},
    {V4L2_CID_EXPOSURE_AUTO, V4L2_CTRL_TYPE_MENU, "Auto Exposure", 0, 3, 1, V4L2_EXPOSURE_APERTURE_PRIORITY, -1, 0},
    {V4L2_CID_EXPOSURE_ABSOLUTE, V4L2_CTRL_TYPE_INTEGER, "Exposure Time, Absolute", 1, 5000, 1, 157, 2, V4L2_EXPOSURE_MANUAL},
    {V4L2_CID_FOCUS_ABSOLUTE, V4L2_CTRL_TYPE_INTEGER, "Focus, Absolute", 0, 255, 5, 60, 5, 0},
    {V4L2_CID_FOCUS_AUTO, V4L2_CTRL_TYPE_BOOLEAN, "Focus, Automatic Continuous", 0, 1, 1, 1, -1, 0},
    {OWN_NUMBER, V4L2_CTRL_TYPE_INTEGER64, "Own Number", 0, (int64_t)1 << 40, 1, 0, -1, 0},
    // Its value here is how often it was pressed.
    {V4L2_CID_DO_WHITE_BALANCE, V4L2_CTRL_TYPE_BUTTON, "White Balance, Once", 0, 0, 0, 0, -1, 0},
};

static void forget_controls(struct device *d) {
    for (int i = 0; i < CONTROLS; i++) d->value[i] = controls[i].at_first;
}

static int which(uint32_t id) {
    for (int i = 0; i < CONTROLS; i++)
        if (controls[i].id == id) return i;
    return -1;
}

static void becomes(struct device *d, int fault) {
    // A plug that is put back gives the camera its power again, and its controls what they were made with.
    if (d->fault == UNPLUGGED && fault != UNPLUGGED) forget_controls(d);
    // Who still holds the node of a camera that is gone keeps nobody from the next one.
    if (fault == UNPLUGGED) memset(d->maps, 0, sizeof d->maps);
    d->fault = fault >= 0 && fault < FAULTS ? (enum fault)fault : GOOD;
    d->stuck = d->fault == STUCK_FLAGS || d->fault == STUCK_SHORT;
}
// With the camera's mutex; and what another process has told of it meanwhile.
static void take(struct device *d) {
    pthread_mutex_lock(&d->mutex);
    int told = faults_told ? faults_told[d - devices] : (int)d->fault;
    if (told != (int)d->fault) becomes(d, told);
}

// What the test may do.
void fake_v4l_fault(int index, int fault) {
    pthread_once(&once, resolve);
    struct device *d = &devices[index];
    pthread_mutex_lock(&d->mutex);
    becomes(d, fault);
    pthread_mutex_unlock(&d->mutex);
}
void fake_v4l_payload(int index, const uint8_t *bytes, uint32_t len) {
    struct device *d = &devices[index];
    pthread_mutex_lock(&d->mutex);
    if (d->payloads < PAYLOADS) {
        uint8_t *copy = malloc(len);
        memcpy(copy, bytes, len);
        d->payload[d->payloads] = copy;
        d->payload_len[d->payloads++] = len;
    }
    pthread_mutex_unlock(&d->mutex);
}
void fake_v4l_forget(int index) { devices[index].payloads = 0; }
uint32_t fake_v4l_lost(int index) { return devices[index].lost; }
uint32_t fake_v4l_fourcc(int index) { return devices[index].fourcc; }
// The payload of the buffer that was taken last.
uint32_t fake_v4l_given(int index) { return devices[index].given; }

// For a program without a test inside: FAKE_V4L_SHOWS names files, a picture each, which every camera shows in turn, and
// FAKE_V4L_FAULT the number of what is wrong with it; or FAKE_V4L_FAULTS a file of such numbers, 32 bits a camera, that may
// be written meanwhile.
static void from_environment(void) {
    const char *shows = getenv("FAKE_V4L_SHOWS"), *fault = getenv("FAKE_V4L_FAULT"), *told = getenv("FAKE_V4L_FAULTS");
    int file = told ? real_open(told, O_RDONLY | O_CLOEXEC) : -1;
    if (told) {
        void *at = real_mmap(NULL, DEVICES * sizeof *faults_told, PROT_READ, MAP_SHARED, file, 0);
        if (at == MAP_FAILED) { perror("FAKE_V4L_FAULTS"); abort(); }
        faults_told = at;
        real_close(file);
    }
    char *list = shows ? strdup(shows) : NULL, *rest = NULL;
    for (char *path = list ? strtok_r(list, ":", &rest) : NULL; path; path = strtok_r(NULL, ":", &rest)) {
        static uint8_t bytes[4 << 20];
        FILE *file = fopen(path, "rb");
        size_t len = file ? fread(bytes, 1, sizeof bytes, file) : 0;
        if (file) fclose(file);
        if (len == 0) { fprintf(stderr, "FAKE_V4L_SHOWS: %s is empty or cannot be read\n", path); abort(); }
        for (int i = 0; i < DEVICES; i++) fake_v4l_payload(i, bytes, (uint32_t)len);
    }
    for (int i = 0; list && i < DEVICES; i++) fake_v4l_fault(i, fault ? atoi(fault) : GOOD);
    free(list);
}
__attribute__((constructor)) static void start(void) {
    pthread_once(&once, resolve);
    from_environment();
}

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
        if (d->fault == EXPOSURE_RETURNS) {
            int exposure = which(V4L2_CID_EXPOSURE_ABSOLUTE);
            d->value[exposure] = controls[exposure].at_first;
        }
        uint32_t p = sequence % d->payloads, len = d->payload_len[p];
        if (len > d->buffer_len) len = d->buffer_len;
        memcpy(d->mapping + (size_t)index * d->buffer_len, d->payload[p], len);
        if (d->fault == SHORT || (d->fault == STUCK_SHORT && d->stuck)) len = len / 2;
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
            b->flags |= V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
            b->flags |= d->fault == END_OF_FRAME ? V4L2_BUF_FLAG_TSTAMP_SRC_EOF : V4L2_BUF_FLAG_TSTAMP_SRC_SOE;
            uint64_t stamp = d->fault == AHEAD ? at + AHEAD_NS : d->fault == BEHIND ? at - BEHIND_NS : at;
            b->timestamp.tv_sec = (time_t)(stamp / 1000000000u);
            b->timestamp.tv_usec = (suseconds_t)(stamp % 1000000000u / 1000u);
        } else {
            b->timestamp.tv_sec = 12345;
        }
        if (d->fault == ERROR_FLAG || (d->fault == STUCK_FLAGS && d->stuck)) b->flags |= V4L2_BUF_FLAG_ERROR;
        d->shown[index] = p;
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

// Waits until a picture lies in its buffer, but for no longer than a second: then the camera does not stream.
void fake_v4l_wait(int index) {
    struct device *d = &devices[index];
    for (uint64_t until = now_ns() + 1000000000u; now_ns() < until;) {
        pthread_mutex_lock(&d->mutex);
        advance(d);
        int ready = oldest_done(d) >= 0;
        uint64_t next = d->next_ns;
        pthread_mutex_unlock(&d->mutex);
        if (ready) return;
        struct timespec t = {(time_t)(next / 1000000000u), (long)(next % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    }
}

static const uint32_t offered[FORMATS] = {
    V4L2_PIX_FMT_MJPEG, V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_NV12, V4L2_PIX_FMT_UYVY,
    V4L2_PIX_FMT_RGB24, V4L2_PIX_FMT_BGR24, V4L2_PIX_FMT_GREY,
};
static const uint32_t grey_first[3] = {V4L2_PIX_FMT_GREY, V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_MJPEG};
static const uint32_t h264_last[3] = {V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_MJPEG, V4L2_PIX_FMT_H264};
static const uint32_t jpeg[1] = {V4L2_PIX_FMT_JPEG};
static int formats(const struct device *d) {
    switch (d->fault) {
    case GREY_ONLY: case H264_ONLY: case JPEG_ONLY: return 1;
    case FEW_FORMATS: case GREY_FIRST: case TRIPS_ON_COLOURS: case ROOM_FOR_GREY: case WITH_H264: return 3;
    default: return FORMATS;
    }
}
static uint32_t format(const struct device *d, int i) {
    switch (d->fault) {
    case GREY_ONLY: case GREY_FIRST: case TRIPS_ON_COLOURS: case ROOM_FOR_GREY: return grey_first[i];
    case WITH_H264: return h264_last[i];
    case H264_ONLY: return h264_last[2 - i];
    case JPEG_ONLY: return jpeg[i];
    default: return offered[i];
    }
}
// Whether the bus has room for what was agreed.
static int has_room(const struct device *d) {
    switch (d->fault) {
    case NO_BANDWIDTH: return 0;
    case ROOM_FOR_JPEG: return d->fourcc == V4L2_PIX_FMT_MJPEG;
    case ROOM_FOR_GREY: return d->fourcc == V4L2_PIX_FMT_GREY;
    default: return 1;
    }
}
// What the node that is open gives, or takes.
static uint32_t capabilities(const struct device *d) {
    uint32_t all = V4L2_CAP_STREAMING | V4L2_CAP_EXT_PIX_FORMAT;
    switch (d->fault) {
    case METADATA_NODE: return all | V4L2_CAP_META_CAPTURE;
    case MULTI_PLANAR: return all | V4L2_CAP_VIDEO_CAPTURE_MPLANE;
    case OUTPUT_NODE: return all | V4L2_CAP_VIDEO_OUTPUT;
    default: return all | V4L2_CAP_VIDEO_CAPTURE;
    }
}

// Each "\xc3\xa9" is one character; 32 bytes with a zero at the end hold half of the tenth.
static const char cut_name[] = "Fake camera \xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9";
static void named(const struct device *d, void *field, const char *name) {
    const char *from = d->fault == CUT_NAMES ? cut_name : name;
    memset(field, 0, 32);
    memcpy(field, from, strnlen(from, 31));
}

static void fit(struct device *d, struct v4l2_pix_format *f) {
    int known = 0;
    for (int i = 0; i < formats(d); i++) known |= format(d, i) == f->pixelformat;
    if (!known) f->pixelformat = format(d, 0);
    // Three sizes; anything else becomes the nearest one.
    if (f->width >= 480) { f->width = 640; f->height = 480; }
    else if (f->width >= 272) { f->width = 320; f->height = 240; }
    else { f->width = 224; f->height = 224; }
    if (d->fault == OTHER_SIZE) { f->width = 160; f->height = 120; }
    int in_fields = d->fault == INTERLACED || (d->fault == INTERLACED_UNLESS_ASKED && f->field != V4L2_FIELD_NONE);
    f->field = in_fields ? V4L2_FIELD_INTERLACED : V4L2_FIELD_NONE;
    uint32_t row = 0, rows = f->height;
    switch (f->pixelformat) {
    case V4L2_PIX_FMT_YUYV: case V4L2_PIX_FMT_UYVY: row = f->width * 2; break;
    case V4L2_PIX_FMT_RGB24: case V4L2_PIX_FMT_BGR24: row = f->width * 3; break;
    case V4L2_PIX_FMT_NV12: row = f->width; rows += rows / 2; break;
    case V4L2_PIX_FMT_GREY: row = f->width; break;
    default: break;
    }
    if (row && d->fault == WIDE_ROWS) row += ROW_PADDING;
    f->bytesperline = row;
    f->sizeimage = row ? row * rows : f->width * f->height * 2;
    // As uvcvideo declares it: the rest is as the colour space has it.
    f->priv = V4L2_PIX_FMT_PRIV_MAGIC;
    f->colorspace = d->fault == HD_COLOURS ? V4L2_COLORSPACE_REC709 : V4L2_COLORSPACE_SRGB;
    f->ycbcr_enc = V4L2_YCBCR_ENC_DEFAULT;
    f->quantization = d->fault == FULL_RANGE ? V4L2_QUANTIZATION_FULL_RANGE : V4L2_QUANTIZATION_DEFAULT;
    f->xfer_func = V4L2_XFER_FUNC_DEFAULT;
    if (d->fault == ODD_NUMBERS) {
        f->field = 42;
        f->colorspace = 99;
        f->ycbcr_enc = 77;
        f->quantization = 9;
        f->xfer_func = 33;
    }
}

static int fail(int error) { errno = error; return -1; }

static int set_control(struct device *d, int i, int64_t value) {
    int master = controls[i].master;
    if (controls[i].type == V4L2_CTRL_TYPE_BUTTON) { d->value[i]++; return 0; }
    if (master >= 0 && d->value[master] != controls[i].manual) return fail(EACCES);
    if (value < controls[i].minimum || value > controls[i].maximum) return fail(ERANGE);
    // Of the menu, UVC cameras have "manual" and "aperture priority".
    if (controls[i].type == V4L2_CTRL_TYPE_MENU && value != V4L2_EXPOSURE_MANUAL && value != V4L2_EXPOSURE_APERTURE_PRIORITY)
        return fail(EINVAL);
    if (d->fault != CONTROL_SPRINGS_BACK) d->value[i] = value;
    return 0;
}

static int control(struct device *d, unsigned long request, void *arg) {
    if (request == VIDIOC_QUERY_EXT_CTRL) {
        struct v4l2_query_ext_ctrl *q = arg;
        uint32_t next = q->id & (V4L2_CTRL_FLAG_NEXT_CTRL | V4L2_CTRL_FLAG_NEXT_COMPOUND), id = q->id & ~next;
        int found = next ? -1 : which(id);
        // They are given in the order of their numbers.
        for (int i = 0; next && i < CONTROLS; i++)
            if (controls[i].id > id && (found < 0 || controls[i].id < controls[found].id)) found = i;
        if (found < 0) return fail(EINVAL);
        memset(q, 0, sizeof *q);
        q->id = controls[found].id;
        q->type = controls[found].type;
        named(d, q->name, controls[found].name);
        q->minimum = controls[found].minimum;
        q->maximum = controls[found].maximum;
        q->step = (uint64_t)controls[found].step;
        q->default_value = controls[found].at_first;
        q->elem_size = q->type == V4L2_CTRL_TYPE_INTEGER64 ? 8 : 4;
        q->elems = 1;
        int master = controls[found].master;
        if (master >= 0 && d->value[master] != controls[found].manual) q->flags |= V4L2_CTRL_FLAG_INACTIVE;
        return 0;
    }
    struct v4l2_ext_controls *list = arg;
    for (uint32_t i = 0; i < list->count; i++) {
        struct v4l2_ext_control *c = &list->controls[i];
        int at = which(c->id);
        if (at < 0) return fail(EINVAL);
        int wide = controls[at].type == V4L2_CTRL_TYPE_INTEGER64;
        if (request == VIDIOC_S_EXT_CTRLS) {
            if (set_control(d, at, wide ? c->value64 : c->value)) return -1;
        } else if (controls[at].type == V4L2_CTRL_TYPE_BUTTON) {
            return fail(EACCES);
        } else if (d->fault == MUTE_CONTROLS && d->streaming) {
            return fail(EIO);
        } else if (wide) {
            c->value64 = d->value[at];
        } else {
            // The rest of the union is whatever was there.
            c->value = (int32_t)d->value[at];
        }
    }
    return 0;
}

// What the test may do, of controls.
int64_t fake_v4l_control(int index, uint32_t id) {
    int at = which(id);
    return at < 0 ? -1 : devices[index].value[at];
}
// As another program sets it, or the camera itself.
void fake_v4l_turn(int index, uint32_t id, int64_t value) {
    struct device *d = &devices[index];
    int at = which(id);
    pthread_mutex_lock(&d->mutex);
    if (at >= 0) d->value[at] = value;
    pthread_mutex_unlock(&d->mutex);
}

static int answer(struct device *d, unsigned long request, void *arg) {
    if (d->fault == UNPLUGGED) return fail(ENODEV);
    int index = (int)(d - devices);
    // The kernel itself refuses what is not of the node's kind.
    if (request != VIDIOC_QUERYCAP && !(capabilities(d) & V4L2_CAP_VIDEO_CAPTURE)) return fail(EINVAL);
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *c = arg;
        memset(c, 0, sizeof *c);
        strcpy((char *)c->driver, "uvcvideo");
        named(d, c->card, d->fault == OTHER_MODEL ? "Other camera" : "Fake camera");
        // A node beside that of the pictures is of the same plug.
        snprintf((char *)c->bus_info, sizeof c->bus_info, "usb-fake-%d", d->fault == METADATA_NODE && index ? index - 1 : index);
        c->version = 0x060100;
        c->device_caps = capabilities(d);
        // Those of all its nodes together.
        c->capabilities = c->device_caps | V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_META_CAPTURE | V4L2_CAP_DEVICE_CAPS;
        return 0;
    }
    case VIDIOC_ENUM_FMT: {
        struct v4l2_fmtdesc *f = arg;
        uint32_t i = f->index;
        if (f->type != V4L2_BUF_TYPE_VIDEO_CAPTURE) return fail(EINVAL);
        if (i >= (uint32_t)formats(d) && d->fault != ENDLESS) return fail(EINVAL);
        memset(f, 0, sizeof *f);
        f->index = i;
        f->type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
        f->pixelformat = format(d, (int)(i % (uint32_t)formats(d)));
        named(d, f->description, "as its name says");
        return 0;
    }
    case VIDIOC_ENUM_FRAMESIZES: {
        struct v4l2_frmsizeenum *f = arg;
        static const uint32_t sizes[3][2] = {{640, 480}, {320, 240}, {224, 224}};
        if (d->fault == NO_SIZES) return fail(ENOTTY);
        if (d->fault == STEPWISE || d->fault == CONTINUOUS || d->fault == NO_STEP) {
            if (f->index > 0) return fail(EINVAL);
            f->type = d->fault == CONTINUOUS ? V4L2_FRMSIZE_TYPE_CONTINUOUS : V4L2_FRMSIZE_TYPE_STEPWISE;
            f->stepwise.min_width = 48;
            f->stepwise.min_height = 32;
            f->stepwise.max_width = f->stepwise.max_height = 8192;
            f->stepwise.step_width = d->fault == STEPWISE ? 16 : d->fault == CONTINUOUS;
            f->stepwise.step_height = d->fault == STEPWISE ? 8 : d->fault == CONTINUOUS;
            return 0;
        }
        if (f->index > 2 && d->fault != ENDLESS) return fail(EINVAL);
        f->type = V4L2_FRMSIZE_TYPE_DISCRETE;
        f->discrete.width = sizes[f->index % 3][0];
        f->discrete.height = sizes[f->index % 3][1];
        return 0;
    }
    case VIDIOC_ENUM_FRAMEINTERVALS: {
        struct v4l2_frmivalenum *f = arg;
        static const struct v4l2_fract large[3] = {{1, 30}, {1, 15}, {2, 15}}, small[3] = {{1, 15}, {1, 60}, {1001, 30000}};
        static const struct v4l2_frmival_stepwise all = {{1, 60}, {1, 1}, {1, 60}};
        if (d->fault == NO_SIZES) return fail(ENOTTY);
        if (d->fault == STEPWISE || d->fault == CONTINUOUS || d->fault == NO_STEP) {
            if (f->index > 0) return fail(EINVAL);
            f->type = d->fault == CONTINUOUS ? V4L2_FRMIVAL_TYPE_CONTINUOUS : V4L2_FRMIVAL_TYPE_STEPWISE;
            f->stepwise = all;
            return 0;
        }
        if (f->index > 2 && d->fault != ENDLESS) return fail(EINVAL);
        f->type = V4L2_FRMIVAL_TYPE_DISCRETE;
        f->discrete = f->width < 640 ? small[f->index % 3] : large[f->index % 3];
        return 0;
    }
    case VIDIOC_TRY_FMT:
    case VIDIOC_S_FMT: {
        struct v4l2_format *f = arg;
        if (d->buffers > 0 || d->fault == BUSY) return fail(EBUSY);
        int uyvy = f->fmt.pix.pixelformat == V4L2_PIX_FMT_UYVY;
        if (uyvy && d->fault == REFUSES_UYVY) return fail(EINVAL);
        if (uyvy && d->fault == TRIPS_ON_UYVY) return fail(EIO);
        if (f->fmt.pix.pixelformat != V4L2_PIX_FMT_GREY && d->fault == TRIPS_ON_COLOURS) return fail(EIO);
        fit(d, &f->fmt.pix);
        if (request == VIDIOC_TRY_FMT) return 0;
        d->fourcc = f->fmt.pix.pixelformat;
        d->width = f->fmt.pix.width;
        d->height = f->fmt.pix.height;
        d->stride = f->fmt.pix.bytesperline;
        d->field = f->fmt.pix.field;
        d->buffer_len = (f->fmt.pix.sizeimage + 4095u) & ~4095u;
        return 0;
    }
    case VIDIOC_G_FMT: {
        struct v4l2_format *f = arg;
        memset(&f->fmt.pix, 0, sizeof f->fmt.pix);
        f->fmt.pix.width = d->width ? d->width : 640;
        f->fmt.pix.height = d->height ? d->height : 480;
        f->fmt.pix.pixelformat = d->fourcc ? d->fourcc : format(d, 0);
        f->fmt.pix.field = d->field;
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
        if (d->fault == FAST) period = 16666667;
        d->period_ns = period;
        memset(c, 0, sizeof *c);
        c->capability = V4L2_CAP_TIMEPERFRAME;
        c->timeperframe.numerator = (uint32_t)(period / 1000);
        c->timeperframe.denominator = 1000000;
        return 0;
    }
    case VIDIOC_QUERYMENU: {
        struct v4l2_querymenu *m = arg;
        int manual = m->index == V4L2_EXPOSURE_MANUAL;
        if (m->id != V4L2_CID_EXPOSURE_AUTO || (!manual && m->index != V4L2_EXPOSURE_APERTURE_PRIORITY)) return fail(EINVAL);
        named(d, m->name, manual ? "Manual Mode" : "Aperture Priority Mode");
        return 0;
    }
    case VIDIOC_QUERY_EXT_CTRL:
    case VIDIOC_S_EXT_CTRLS:
    case VIDIOC_G_EXT_CTRLS:
        return control(d, request, arg);
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *r = arg;
        if (d->streaming) return fail(EBUSY);
        if (d->mapping) { real_munmap(d->mapping, (size_t)d->buffers * d->buffer_len); d->mapping = NULL; }
        if (r->count > BUFFERS) r->count = BUFFERS;
        d->buffers = r->count;
        memset(d->state, 0, sizeof d->state);
        if (r->count) {
            if (ftruncate(d->fd, (off_t)d->buffers * d->buffer_len)) return fail(ENOMEM);
            d->mapping = real_mmap(NULL, (size_t)d->buffers * d->buffer_len, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd, 0);
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
        if (d->fault == DQBUF_EIO || d->fault == WEDGED) return fail(EIO);
        advance(d);
        int done = oldest_done(d);
        if (done < 0) return fail(EAGAIN);
        *b = d->done[done];
        d->given = d->shown[done];
        d->state[done] = 0;
        return 0;
    }
    case VIDIOC_STREAMON:
        if (!has_room(d)) return fail(ENOSPC);
        if (d->fault == FORGETS_CONTROLS) forget_controls(d);
        d->streaming = 1;
        d->stuck = 0;
        d->sequence = 0;
        d->next_ns = now_ns() + (d->fault == LATE_START ? LATE_START_NS : d->period_ns);
        return 0;
    case VIDIOC_STREAMOFF:
        if (d->fault == WEDGED) return fail(EIO);
        d->streaming = 0;
        memset(d->state, 0, sizeof d->state);
        return 0;
    default:
        return fail(ENOTTY);
    }
}

static int is_mapped(const struct device *d) {
    int mapped = 0;
    for (int i = 0; i < MAPS; i++) mapped |= d->maps[i] != NULL;
    return mapped;
}

static int opened(struct device *d) {
    take(d);
    int slow = d->fault == SLOW_OPEN;
    pthread_mutex_unlock(&d->mutex);
    if (slow) nap_ms(SLOW_OPEN_MS);
    take(d);
    int fd;
    if (d->fault == UNPLUGGED) {
        fd = fail(ENOENT);
    } else if (d->fault == DENIED) {
        fd = fail(EACCES);
    } else if (d->fd >= 0 || is_mapped(d)) {
        fd = fail(EBUSY);
    } else {
        fd = memfd_create("camera", MFD_CLOEXEC);
        d->fd = fd;
        d->streaming = 0;
        d->buffers = 0;
        d->fourcc = 0;
    }
    int error = errno;
    pthread_mutex_unlock(&d->mutex);
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
    struct device *d = by_fd(fd);
    if (d) {
        take(d);
        if (d->mapping) { real_munmap(d->mapping, (size_t)d->buffers * d->buffer_len); d->mapping = NULL; }
        d->fd = -1;
        d->streaming = 0;
        d->buffers = 0;
        pthread_mutex_unlock(&d->mutex);
    }
    return real_close(fd);
}
void *mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset) {
    pthread_once(&once, resolve);
    void *got = real_mmap(at, len, protection, flags, fd, offset);
    struct device *d = got == MAP_FAILED ? NULL : by_fd(fd);
    if (d) {
        take(d);
        for (int i = 0; i < MAPS; i++)
            if (!d->maps[i]) { d->maps[i] = got; break; }
        pthread_mutex_unlock(&d->mutex);
    }
    return got;
}
void *mmap64(void *at, size_t len, int protection, int flags, int fd, off_t offset) {
    return mmap(at, len, protection, flags, fd, offset);
}
int munmap(void *at, size_t len) {
    pthread_once(&once, resolve);
    for (int n = 0; n < DEVICES; n++)
        for (int i = 0; i < MAPS; i++)
            if (devices[n].maps[i] == at) devices[n].maps[i] = NULL;
    return real_munmap(at, len);
}
int poll(struct pollfd *list, nfds_t count, int timeout_ms) {
    pthread_once(&once, resolve);
    struct device *d = count == 1 ? by_fd(list[0].fd) : NULL;
    if (!d) return real_poll(list, count, timeout_ms);
    uint64_t until = now_ns() + (uint64_t)(timeout_ms < 0 ? 60000 : timeout_ms) * 1000000u;
    for (;;) {
        take(d);
        advance(d);
        int gone = d->fault == UNPLUGGED, ready = oldest_done(d) >= 0 || d->fault == DQBUF_EIO || d->fault == WEDGED;
        uint64_t next = d->next_ns;
        pthread_mutex_unlock(&d->mutex);
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
    struct device *d = by_fd(fd);
    if (!d) return 0;
    take(d);
    int slow = d->fault == SLOW_CONTROLS && (request & 0xffffffffu) == VIDIOC_S_EXT_CTRLS;
    pthread_mutex_unlock(&d->mutex);
    if (slow) nap_ms(SLOW_CONTROL_MS);
    take(d);
    *result = answer(d, request & 0xffffffffu, arg);
    int error = errno;
    pthread_mutex_unlock(&d->mutex);
    errno = error;
    return 1;
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
