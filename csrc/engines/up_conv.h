// How both engines compute nearest x2 up-sampling followed by a 3x3 convolution.
//
// Along one axis, with the taps (w0, w1, w2) and S = w0 + w1 + w2,
//   out[2i]     = S p[i] + w0 (p[i-1] - p[i])
//   out[2i + 1] = S p[i] - w2 (p[i] - p[i+1])
// so three products make two outputs. Along both axes nine products make four: 9/4 multiply-adds per output
// and channel pair, where the trained form takes 9 and a transposed convolution 4.
//
// The weights come as the 4x4 taps of that transposed convolution: (w2, w1 + w2, w0 + w1, w0) along an axis.
#pragma once

namespace cgnrt {

// S, w0 and -w2 as sums of the four taps of an axis.
constexpr double kUpConvSums[3][4] = {{0, 1, 0, 1}, {0, 0, 0, 1}, {-1, 0, 0, 0}};

}  // namespace cgnrt
