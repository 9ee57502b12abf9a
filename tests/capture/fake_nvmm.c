// SPDX-License-Identifier: Apache-2.0
// A Jetson's image processor for a machine without one: NVIDIA's library of surfaces, and a GStreamer element "nvfake" that puts
// pictures into such surfaces, four in turns, as a camera or a scaler does. The layout is nvbufsurface.h's of Jetson Linux 36,
// written down a second time. What is not given back, or given back while CUDA has it, ends the process.
#include <gst/gst.h>
#include <gst/video/video.h>
#include <stdbool.h>
#include <stdint.h>
#include "../tensorrt/fake_image.h"

typedef struct {
    uint32_t num_planes, width[4], height[4], pitch[4], offset[4], psize[4], bytesPerPix[4];
    void *_reserved[16];
} PlaneParams;
typedef struct {
    void *addr[4], *eglImage, *_reserved[4];
} MappedAddr;
typedef struct {
    uint32_t width, height, pitch;
    int colorFormat, layout;
    uint64_t bufferDesc;
    uint32_t dataSize;
    void *dataPtr;
    PlaneParams planeParams;
    MappedAddr mappedAddr;
    void *paramex, *_reserved[3];
} SurfaceParams;
typedef struct {
    uint32_t gpuId, batchSize, numFilled;
    bool isContiguous;
    int memType;
    SurfaceParams *surfaceList;
    void *_reserved[4];
} Surface;
_Static_assert(sizeof(PlaneParams) == 232 && sizeof(MappedAddr) == 72 && sizeof(SurfaceParams) == 384 && sizeof(Surface) == 64, "as on aarch64");

int cuMemAlloc_v2(uint64_t *, size_t);
int cuMemFree_v2(uint64_t);

enum { TURNS = 4 };
// The first image is the library's, the others an element's before us, in turns.
struct owned { Surface surface; SurfaceParams params; struct fake_image image[3]; int theirs; uint64_t device; char *host; };

// Knobs. `wrong`: 1 width, 2 planes, 3 memory too short, 4 no list, 5 nothing filled, 6 a buffer that holds too little, 7 mapped anew
// by an element before, at each picture, 8 colours of NV21, 9 another device's.
static gint memory_type, tiled, converts, wrong, map_code, images, surfaces;
void fake_nvmm_set(int type, int is_tiled, int can_convert, int what_is_wrong, int code) {
    g_atomic_int_set(&memory_type, type);
    g_atomic_int_set(&tiled, is_tiled);
    g_atomic_int_set(&converts, can_convert);
    g_atomic_int_set(&wrong, what_is_wrong);
    g_atomic_int_set(&map_code, code);
}
int fake_nvmm_images(void) { return g_atomic_int_get(&images); }
int fake_nvmm_surfaces(void) { return g_atomic_int_get(&surfaces); }

static void fail(const char *what) {
    g_printerr("fake NVMM: %s\n", what);
    abort();
}

// NVIDIA's library.
static void map_image(struct owned *o, int image) {
    if (!o->params.mappedAddr.eglImage) g_atomic_int_inc(&images);
    int registered = o->image[image].registered;
    if (image) o->image[image] = o->image[0];
    o->image[image].registered = registered;
    o->params.mappedAddr.eglImage = &o->image[image];
}
static void unmap_image(struct owned *o) {
    o->params.mappedAddr.eglImage = NULL;
    (void)g_atomic_int_dec_and_test(&images);
}
int NvBufSurfaceMapEglImage(Surface *s, int index) {
    int code = g_atomic_int_get(&map_code);
    if (index || code) return index ? -1 : code;
    struct owned *o = (struct owned *)s;
    if (o->params.mappedAddr.eglImage) fail("an image is mapped that is mapped");
    map_image(o, 0);
    return 0;
}
int NvBufSurfaceUnMapEglImage(Surface *s, int index) {
    struct owned *o = (struct owned *)s;
    if (index || o->params.mappedAddr.eglImage != &o->image[0]) fail("an image is unmapped that is not there, or another's");
    if (o->image[0].registered) fail("an image is unmapped while CUDA has it");
    unmap_image(o);
    return 0;
}

static void free_surface(void *data) {
    struct owned *o = data;
    if (o->params.mappedAddr.eglImage || o->image[0].registered || o->image[1].registered || o->image[2].registered) fail("a surface goes whose image is mapped");
    if (o->device) cuMemFree_v2(o->device);
    free(o->host);
    free(o);
    (void)g_atomic_int_dec_and_test(&surfaces);
}

static struct owned *make_surface(const GstVideoInfo *info) {
    struct owned *o = calloc(1, sizeof *o);
    PlaneParams *p = &o->params.planeParams;
    uint32_t at = 0;
    p->num_planes = GST_VIDEO_INFO_N_PLANES(info);
    for (uint32_t plane = 0; plane < p->num_planes; plane++) {
        int component = plane;
        p->width[plane] = GST_VIDEO_INFO_COMP_WIDTH(info, component);
        p->height[plane] = GST_VIDEO_INFO_COMP_HEIGHT(info, component);
        p->bytesPerPix[plane] = GST_VIDEO_INFO_COMP_PSTRIDE(info, component);
        // As the hardware has it: rows longer than their pixels, planes apart.
        p->pitch[plane] = (p->width[plane] * p->bytesPerPix[plane] + 255) / 256 * 256;
        p->offset[plane] = at;
        p->psize[plane] = p->pitch[plane] * p->height[plane];
        at += p->psize[plane] + 512;
    }
    o->surface = (Surface){.batchSize = 1, .numFilled = 1, .memType = g_atomic_int_get(&memory_type), .surfaceList = &o->params};
    o->params.width = GST_VIDEO_INFO_WIDTH(info);
    o->params.height = GST_VIDEO_INFO_HEIGHT(info);
    o->params.pitch = p->pitch[0];
    o->params.dataSize = at;
    if (o->surface.memType >= 1 && o->surface.memType <= 3) {
        if (cuMemAlloc_v2(&o->device, at)) fail("no memory of the device");
        o->params.dataPtr = (void *)(uintptr_t)o->device;
    } else o->host = malloc(at);
    unsigned char *bytes = o->host ? (unsigned char *)o->host : o->params.dataPtr;
    o->image[0] = (struct fake_image){FAKE_IMAGE, g_atomic_int_get(&tiled), (int)p->num_planes, 0, {{0}}};
    for (uint32_t plane = 0; plane < p->num_planes; plane++)
        o->image[0].plane[plane] = (struct fake_plane){bytes + p->offset[plane], (int)p->pitch[plane], (int)p->width[plane], (int)p->height[plane], (int)p->bytesPerPix[plane]};
    g_atomic_int_inc(&surfaces);
    return o;
}

// What a faulty element, or one of another release, would say. The good description comes back when the surface is freed or used again.
static void describe(struct owned *o, const GstVideoInfo *info) {
    int what = g_atomic_int_get(&wrong);
    o->surface.surfaceList = what == 4 ? NULL : &o->params;
    o->surface.numFilled = what != 5;
    o->params.width = GST_VIDEO_INFO_WIDTH(info) - (what == 1 ? 2 : 0);
    o->params.planeParams.num_planes = GST_VIDEO_INFO_N_PLANES(info) + (what == 2 ? 1 : 0);
    if (what == 3) o->params.dataSize = 100;
    const GstVideoColorimetry *c = &info->colorimetry;
    int nv12 = (c->matrix == GST_VIDEO_COLOR_MATRIX_BT709 ? 33 : 6) + (c->range == GST_VIDEO_COLOR_RANGE_0_255);
    GstVideoFormat format = GST_VIDEO_INFO_FORMAT(info);
    o->params.colorFormat = what == 8 ? 8 : format == GST_VIDEO_FORMAT_NV12 ? nv12 : format == GST_VIDEO_FORMAT_RGBA ? 19 : 1;
    o->surface.gpuId = what == 9;
    if (what == 7) map_image(o, o->theirs = o->theirs == 1 ? 2 : 1);
}

// The element.
typedef struct { GstElement base; GstPad *sink, *src; GstVideoInfo info; GstMemory *memory[TURNS]; struct owned *owned[TURNS]; int turn, described; } Fake;
typedef struct { GstElementClass base; } FakeClass;
G_DEFINE_TYPE(Fake, fake, GST_TYPE_ELEMENT)

#define CAPS "{ NV12, RGBA, GRAY8 }"
static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE(CAPS)));
static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS,
    GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE_WITH_FEATURES("memory:NVMM", CAPS) ";" GST_VIDEO_CAPS_MAKE(CAPS)));

static void drop_surfaces(Fake *f) {
    for (int i = 0; i < TURNS; i++) {
        struct owned *o = f->owned[i];
        if (o) o->surface.surfaceList = &o->params;
        if (o && o->theirs) unmap_image(o);
        if (f->memory[i]) gst_memory_unref(f->memory[i]);
        f->memory[i] = NULL;
        f->owned[i] = NULL;
    }
}

static gboolean takes(GstPad *src) {
    GstCaps *peer = gst_pad_peer_query_caps(src, NULL);
    gboolean found = FALSE;
    for (guint i = 0; peer && i < gst_caps_get_size(peer); i++) found |= gst_caps_features_contains(gst_caps_get_features(peer, i), "memory:NVMM");
    if (peer) gst_caps_unref(peer);
    return found;
}

static gboolean on_event(GstPad *pad, GstObject *parent, GstEvent *event) {
    Fake *f = (Fake *)parent;
    if (GST_EVENT_TYPE(event) != GST_EVENT_CAPS) return gst_pad_event_default(pad, parent, event);
    GstCaps *caps;
    gst_event_parse_caps(event, &caps);
    gst_video_info_from_caps(&f->info, caps);
    drop_surfaces(f);
    f->described = takes(f->src) || !g_atomic_int_get(&converts);
    GstCaps *out = gst_caps_copy(caps);
    if (f->described) gst_caps_set_features(out, 0, gst_caps_features_new("memory:NVMM", NULL));
    gboolean taken = gst_pad_push_event(f->src, gst_event_new_caps(out));
    gst_caps_unref(out);
    gst_event_unref(event);
    return taken;
}

static GstFlowReturn on_picture(GstPad *pad, GstObject *parent, GstBuffer *in) {
    Fake *f = (Fake *)parent;
    (void)pad;
    if (!f->described) return gst_pad_push(f->src, in);
    int turn = f->turn = (f->turn + 1) % TURNS;
    if (!f->memory[turn]) {
        f->owned[turn] = make_surface(&f->info);
        f->memory[turn] = gst_memory_new_wrapped(0, f->owned[turn], sizeof(Surface), 0, sizeof(Surface), f->owned[turn], free_surface);
    }
    struct owned *o = f->owned[turn];
    GstVideoFrame frame;
    if (!gst_video_frame_map(&frame, &f->info, in, GST_MAP_READ)) fail("a picture that cannot be read");
    for (int plane = 0; plane < o->image[0].planes; plane++) {
        const struct fake_plane *p = &o->image[0].plane[plane];
        const unsigned char *from = GST_VIDEO_FRAME_PLANE_DATA(&frame, plane);
        for (int row = 0; row < p->height; row++)
            memcpy(p->bytes + row * p->pitch, from + row * GST_VIDEO_FRAME_PLANE_STRIDE(&frame, plane), (size_t)(p->width * p->channels));
    }
    gst_video_frame_unmap(&frame);
    describe(o, &f->info);
    GstBuffer *out = gst_buffer_new();
    GstMemory *memory = gst_memory_ref(f->memory[turn]);
    if (g_atomic_int_get(&wrong) == 6) {
        gst_memory_unref(memory);
        memory = gst_allocator_alloc(NULL, 8, NULL);
    }
    gst_buffer_append_memory(out, memory);
    gst_buffer_copy_into(out, in, GST_BUFFER_COPY_TIMESTAMPS | GST_BUFFER_COPY_FLAGS, 0, -1);
    gst_buffer_unref(in);
    return gst_pad_push(f->src, out);
}

static GstStateChangeReturn fake_change_state(GstElement *element, GstStateChange change) {
    GstStateChangeReturn done = GST_ELEMENT_CLASS(fake_parent_class)->change_state(element, change);
    if (change == GST_STATE_CHANGE_PAUSED_TO_READY) drop_surfaces((Fake *)element);
    return done;
}

static void fake_class_init(FakeClass *class) {
    GstElementClass *element = GST_ELEMENT_CLASS(class);
    element->change_state = fake_change_state;
    gst_element_class_add_static_pad_template(element, &sink_template);
    gst_element_class_add_static_pad_template(element, &src_template);
    gst_element_class_set_static_metadata(element, "fake NVMM", "Filter/Video", "puts pictures into surfaces", "Tendon");
}

static void fake_init(Fake *f) {
    f->sink = gst_pad_new_from_static_template(&sink_template, "sink");
    f->src = gst_pad_new_from_static_template(&src_template, "src");
    gst_pad_set_event_function(f->sink, on_event);
    gst_pad_set_chain_function(f->sink, on_picture);
    gst_element_add_pad(GST_ELEMENT(f), f->sink);
    gst_element_add_pad(GST_ELEMENT(f), f->src);
}

// Call it once, after gst_init.
int fake_nvmm_register(void) { return gst_element_register(NULL, "nvfake", GST_RANK_NONE, fake_get_type()); }
