// SPDX-License-Identifier: Apache-2.0
// A camera on the network, for a machine without one: GStreamer's own RTSP server on loopback, which sends JPEG or H.264 over RTP.
// In its uppermost rows each picture bears the time at which it was drawn, so that who sees it knows which way is up, which one
// came before, and how old it is. Pictures are held back by up to JITTER_MS, the first the longest, as a network would.
//   rtsp_camera PORT JITTER_MS jpegenc|openh264enc|x264enc
// Port 0: any. It says "port N" once it listens, and serves rtsp://127.0.0.1:N/camera until it is killed.
#include <gst/rtsp-server/rtsp-server.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Three rows of twenty cells: sixty bits.
enum { WIDTH = 320, HEIGHT = 240, CELL = 16, COLUMNS = WIDTH / CELL, BITS = 60, STAMPED = BITS / COLUMNS * CELL };

static guint jitter_us;

// From the encoder on. H.264 without pictures that wait for later ones, as cameras send it, at a rate at which the cells stay legible;
// whoever comes late finds the parameters of the stream beside each whole picture.
static const struct { const char *encoder, *coded; } CODINGS[] = {
    {"jpegenc", "jpegenc ! rtpjpegpay name=pay0 pt=26"},
    {"openh264enc", "openh264enc bitrate=4000000 gop-size=30 complexity=low ! rtph264pay name=pay0 pt=96 config-interval=-1"},
    {"x264enc", "x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 key-int-max=30 ! video/x-h264,profile=baseline ! "
                "rtph264pay name=pay0 pt=96 config-interval=-1"},
};

// Microseconds of CLOCK_MONOTONIC, the highest bit first, as light and dark cells without colour.
static GstPadProbeReturn stamp(GstPad *pad, GstPadProbeInfo *info, gpointer count) {
    (void)pad;
    GstBuffer *picture = gst_buffer_make_writable(GST_PAD_PROBE_INFO_BUFFER(info));
    GST_PAD_PROBE_INFO_DATA(info) = picture;
    GstMapInfo map;
    if (!gst_buffer_map(picture, &map, GST_MAP_READWRITE) || map.size < WIDTH * HEIGHT * 3 / 2)
        g_error("expected I420 pictures of %d x %d", WIDTH, HEIGHT);
    guint64 now_us = (guint64)g_get_monotonic_time();
    for (int row = 0; row < STAMPED; row++)
        for (int column = 0; column < COLUMNS; column++) {
            int bit = BITS - 1 - (row / CELL * COLUMNS + column);
            memset(map.data + row * WIDTH + column * CELL, (now_us >> bit) & 1 ? 235 : 16, CELL);
        }
    guint8 *chroma = map.data + WIDTH * HEIGHT;
    for (int plane = 0; plane < 2; plane++)
        memset(chroma + plane * WIDTH * HEIGHT / 4, 128, STAMPED * WIDTH / 4);
    gst_buffer_unmap(picture, &map);
    guint *sent = count;
    g_usleep(jitter_us * (3 - (*sent)++ % 4) / 3);
    return GST_PAD_PROBE_OK;
}

static void configure(GstRTSPMediaFactory *factory, GstRTSPMedia *media, gpointer data) {
    (void)factory, (void)data;
    GstElement *bin = gst_rtsp_media_get_element(media);
    GstElement *drawn = gst_bin_get_by_name(GST_BIN(bin), "drawn");
    GstPad *pad = gst_element_get_static_pad(drawn, "src");
    gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, stamp, g_new0(guint, 1), g_free);
    gst_object_unref(pad);
    gst_object_unref(drawn);
    gst_object_unref(bin);
}

int main(int argc, char **argv) {
    gst_init(&argc, &argv);
    const char *coded = NULL;
    for (size_t i = 0; argc == 4 && i < G_N_ELEMENTS(CODINGS); i++)
        if (strcmp(argv[3], CODINGS[i].encoder) == 0) coded = CODINGS[i].coded;
    if (!coded)
        g_error("expected PORT JITTER_MS and an encoder that is known");
    jitter_us = (guint)atoi(argv[2]) * 1000;
    GstRTSPServer *server = gst_rtsp_server_new();
    gst_rtsp_server_set_address(server, "127.0.0.1");
    gst_rtsp_server_set_service(server, argv[1]);
    GstRTSPMediaFactory *factory = gst_rtsp_media_factory_new();
    char *launch = g_strdup_printf("( videotestsrc is-live=true pattern=smpte75 ! "
        "video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! identity name=drawn ! %s )", coded);
    gst_rtsp_media_factory_set_launch(factory, launch);
    g_free(launch);
    g_signal_connect(factory, "media-configure", G_CALLBACK(configure), NULL);
    GstRTSPMountPoints *mounts = gst_rtsp_server_get_mount_points(server);
    gst_rtsp_mount_points_add_factory(mounts, "/camera", factory);
    g_object_unref(mounts);
    if (gst_rtsp_server_attach(server, NULL) == 0)
        g_error("port %s of 127.0.0.1 is not free", argv[1]);
    printf("port %d\n", gst_rtsp_server_get_bound_port(server));
    fflush(stdout);
    g_main_loop_run(g_main_loop_new(NULL, FALSE));
}
