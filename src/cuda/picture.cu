// SPDX-License-Identifier: Apache-2.0
// A camera's picture into a tensor in one kernel: resize, round, normalise, lay out. One thread a pixel of the tensor.
//
// The sums are made in the order in which the processor's path makes them (src/policy/picture/resample.rs), in 32-bit floats,
// without fusing a multiplication and an addition (--fmad=false), or in whole numbers with rows first (src/policy/image.rs): the bits
// are the same. The tests compile this very file for the processor and compare. In the part of C that C++ shares, so that a C compiler takes it.
//
// make_ptx.py makes picture.ptx of it.

// Words of the table, in order; picture.rs writes them. Places are in words from the table's begin, steps in bytes.
enum {
    OUT_WIDTH,
    OUT_HEIGHT,
    INNER_WIDTH,   // of the resized picture, a part of which the output shows
    INNER_HEIGHT,
    SHIFT_X,       // from a pixel of the output to one of the resized picture
    SHIFT_Y,
    ORIGIN,        // first byte of the picture, as it is walked through
    PIXEL_STEP,
    ROW_STEP,
    COLUMN_TAPS,   // taps of a column, places of first pixels and of weights
    COLUMN_STARTS,
    COLUMN_WEIGHTS,
    ROW_TAPS,
    ROW_STARTS,
    ROW_WEIGHTS,
    ROUNDS_BETWEEN,
    ROUNDS_AFTER,
    PAD,           // bits of a float
    LEVEL_SETS,
    LEVELS,        // place of [set][channel][factor, addend]
    CHANNELS_LAST,
    BLUE_FIRST,
    COLUMN_BITS,   // of a fraction, in whole weights; 0: weights are floats
    ROW_BITS,
    BYTE_LEVELS    // with them: place of what each byte becomes
};

// The nearest whole number of 0 to 255, halves upwards.
static __device__ float to_byte(float value)
{
    return floorf(fminf(fmaxf(value, 0.0f), 255.0f) + 0.5f);
}

// A sum of whole weights with so many bits of a fraction, and half of one in it.
static __device__ int to_whole(int sum, int bits)
{
    const int value = sum >> bits;
    return value < 0 ? 0 : value > 255 ? 255 : value;
}

#ifdef __cplusplus
extern "C"
#endif
__global__ void picture(const unsigned char *rgb, float *tensor, const int *table)
{
    const float *numbers = (const float *)table;
    const int width = table[OUT_WIDTH], height = table[OUT_HEIGHT];
    const int at = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (at >= width * height) return;
    const int column = at % width + table[SHIFT_X], row = at / width + table[SHIFT_Y];
    const int whole = table[COLUMN_BITS];
    float sum[3];
    sum[0] = sum[1] = sum[2] = numbers[PAD];
    if (column >= 0 && row >= 0 && column < table[INNER_WIDTH] && row < table[INNER_HEIGHT]) {
        const int across = table[COLUMN_TAPS], down = table[ROW_TAPS], step = table[PIXEL_STEP];
        const float *wide = numbers + table[COLUMN_WEIGHTS] + column * across;
        const float *high = numbers + table[ROW_WEIGHTS] + row * down;
        const long long first = (long long)table[ORIGIN]
            + (long long)table[table[ROW_STARTS] + row] * table[ROW_STEP]
            + (long long)table[table[COLUMN_STARTS] + column] * step;
        const unsigned char *line = rgb + first;
        const int between = table[ROUNDS_BETWEEN];
        sum[0] = sum[1] = sum[2] = 0.0f;
        if (whole) {
            const int bits = table[ROW_BITS];
            int total[3];
            total[0] = total[1] = total[2] = 1 << (whole - 1);
            for (int side = 0; side < across; side++) {
                const unsigned char *pixel = line;
                int red, green, blue;
                red = green = blue = 1 << (bits - 1);
                for (int tap = 0; tap < down; tap++) {
                    const int weight = (int)high[tap];
                    red += weight * pixel[0];
                    green += weight * pixel[1];
                    blue += weight * pixel[2];
                    pixel += table[ROW_STEP];
                }
                total[0] += (int)wide[side] * to_whole(red, bits);
                total[1] += (int)wide[side] * to_whole(green, bits);
                total[2] += (int)wide[side] * to_whole(blue, bits);
                line += step;
            }
            for (int colour = 0; colour < 3; colour++)
                sum[colour] = numbers[table[BYTE_LEVELS] + to_whole(total[colour], whole)];
        } else for (int tap = 0; tap < down; tap++) {
            const unsigned char *pixel = line;
            float red = 0.0f, green = 0.0f, blue = 0.0f;
            for (int side = 0; side < across; side++) {
                const float weight = wide[side];
                red += weight * (float)pixel[0];
                green += weight * (float)pixel[1];
                blue += weight * (float)pixel[2];
                pixel += step;
            }
            if (between) {
                red = to_byte(red);
                green = to_byte(green);
                blue = to_byte(blue);
            }
            sum[0] += high[tap] * red;
            sum[1] += high[tap] * green;
            sum[2] += high[tap] * blue;
            line += table[ROW_STEP];
        }
        if (table[ROUNDS_AFTER] && !whole)
            for (int colour = 0; colour < 3; colour++) sum[colour] = to_byte(sum[colour]);
    }
    const int sets = table[LEVEL_SETS], channels = 3 * sets;
    for (int channel = 0; channel < channels; channel++) {
        const float *level = numbers + table[LEVELS] + 2 * channel;
        const int colour = table[BLUE_FIRST] ? 2 - channel % 3 : channel % 3;
        const int place = table[CHANNELS_LAST] ? at * channels + channel : channel * width * height + at;
        tensor[place] = sum[colour] * level[0] + level[1];
    }
}
