// SPDX-License-Identifier: Apache-2.0
// A surface of the image processor into 8-bit RGB, as the rest of the pipeline takes it: one thread a pixel.
//
// Colours by whole numbers, in units of 2^-16, so that a device and the processor for which the tests compile this file give
// the same bytes. Chroma is not interpolated: of 4:2:0, four pixels share one. In the part of C that C++ shares.
//
// make_ptx.py makes surface.ptx of it.

// Words of the table, in order; surface.rs writes them.
enum {
    SURFACE_WIDTH,
    SURFACE_HEIGHT,
    SURFACE_KIND,
    SURFACE_TEXTURES,  // the planes are textures: tiled memory, which only the texture units can read
    SURFACE_PITCH,     // bytes a row of the first plane, and of the second
    SURFACE_PITCH_2,
    SURFACE_BLACK,     // luma that is black
    SURFACE_LUMA,      // what a unit of luma, and of chroma, adds
    SURFACE_V_TO_R,
    SURFACE_U_TO_G,
    SURFACE_V_TO_G,
    SURFACE_U_TO_B
};

// As surface.rs numbers them.
enum { SURFACE_NV12, SURFACE_RGBA, SURFACE_GREY };

#ifdef __CUDACC__
// Up to four channels of a texel, as whole numbers.
static __device__ void texel(unsigned long long texture, int x, int y, unsigned int channels[4])
{
    asm("tex.2d.v4.u32.f32 {%0, %1, %2, %3}, [%4, {%5, %6}];"
        : "=r"(channels[0]), "=r"(channels[1]), "=r"(channels[2]), "=r"(channels[3])
        : "l"(texture), "f"((float)x + 0.5f), "f"((float)y + 0.5f));
}
#endif

static __device__ unsigned char to_level(int sum)
{
    const int level = (sum + 32768) >> 16;
    return (unsigned char)(level < 0 ? 0 : level > 255 ? 255 : level);
}

// `wide` channels of one pixel of a plane.
static __device__ void sample(unsigned long long plane, int is_texture, int pitch, int wide, int x, int y, unsigned int channels[4])
{
    if (is_texture) {
        texel(plane, x, y, channels);
        return;
    }
    const unsigned char *from = (const unsigned char *)plane + (long long)y * pitch + (long long)x * wide;
    for (int channel = 0; channel < wide; channel++) channels[channel] = from[channel];
}

#ifdef __cplusplus
extern "C"
#endif
__global__ void surface(unsigned char *rgb, unsigned long long first, unsigned long long second, const int *table)
{
    const int width = table[SURFACE_WIDTH], kind = table[SURFACE_KIND], is_texture = table[SURFACE_TEXTURES];
    const int at = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (at >= width * table[SURFACE_HEIGHT]) return;
    const int x = at % width, y = at / width;
    unsigned char *to = rgb + (long long)at * 3;
    unsigned int pixel[4], chroma[4];
    sample(first, is_texture, table[SURFACE_PITCH], kind == SURFACE_RGBA ? 4 : 1, x, y, pixel);
    if (kind == SURFACE_RGBA) {
        for (int channel = 0; channel < 3; channel++) to[channel] = (unsigned char)pixel[channel];
        return;
    }
    if (kind == SURFACE_GREY) {
        to[0] = to[1] = to[2] = (unsigned char)pixel[0];
        return;
    }
    sample(second, is_texture, table[SURFACE_PITCH_2], 2, x / 2, y / 2, chroma);
    const int luma = ((int)pixel[0] - table[SURFACE_BLACK]) * table[SURFACE_LUMA];
    const int u = (int)chroma[0] - 128, v = (int)chroma[1] - 128;
    to[0] = to_level(luma + v * table[SURFACE_V_TO_R]);
    to[1] = to_level(luma + u * table[SURFACE_U_TO_G] + v * table[SURFACE_V_TO_G]);
    to[2] = to_level(luma + u * table[SURFACE_U_TO_B]);
}
