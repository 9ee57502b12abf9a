// SPDX-License-Identifier: Apache-2.0
// One step of a denoising loop: what the graph said of the sample makes the next sample. One thread a number.
//
// In the order in which the processor computes it (src/policy/decode/flow.rs and diffusion.rs), in 32-bit floats, without fusing
// a multiplication and an addition (--fmad=false) and with the division that IEEE 754 asks for: the bits are the same. The tests
// compile this very file for the processor and compare. In the part of C that C++ shares, so that a C compiler takes it.
//
// make_ptx.py makes step.ptx of it.

// Words of a step's table, in order; turns.rs writes them.
enum {
    STEP_VALUES,
    STEP_RULE,
    STEP_CLIPS,
    STEP_CLIP,   // this and the rest are bits of floats
    STEP_REST,   // of Euler the step's length
    STEP_SHARE,
    STEP_CLEAN,
    STEP_NOISE
};

// Euler, or DDIM by what the graph says.
enum { STEP_EULER, STEP_SAYS_NOISE, STEP_SAYS_SAMPLE, STEP_SAYS_VELOCITY };

#ifdef __cplusplus
extern "C"
#endif
__global__ void step(float *sample, const float *said, const int *table)
{
    const float *numbers = (const float *)table;
    const int at = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (at >= table[STEP_VALUES]) return;
    const int rule = table[STEP_RULE];
    const float x = sample[at], says = said[at];
    const float rest = numbers[STEP_REST], share = numbers[STEP_SHARE], bound = numbers[STEP_CLIP];
    if (rule == STEP_EULER) {
        sample[at] = x + rest * says;
        return;
    }
    float clean = says, noise = says;
    if (rule == STEP_SAYS_NOISE) {
        clean = (x - rest * says) / share;
    } else if (rule == STEP_SAYS_SAMPLE) {
        noise = (x - share * says) / rest;
    } else {
        clean = share * x - rest * says;
        noise = share * says + rest * x;
    }
    if (table[STEP_CLIPS]) {
        if (clean < -bound) clean = -bound;
        if (clean > bound) clean = bound;
    }
    sample[at] = numbers[STEP_CLEAN] * clean + numbers[STEP_NOISE] * noise;
}
