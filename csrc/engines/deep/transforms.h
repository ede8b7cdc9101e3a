// Convolutions that multiply fewer numbers than they have taps: the transforms of a tile of pixels, and back.
// Each is a struct with
//   kIn, kStep  pixels of a tile's side that are read, and from one tile to the next
//   kOut        pixels of the result's side
//   kLead       pixels that are read before the tile's own first
//   kCount      products for each pair of channels
//   forward     8 channels of the kIn x kIn pixels -> kCount vectors, `step` floats apart
//   inverse     kCount vectors of products -> kOut x kOut pixels
//   taps        how many numbers a pair of channels has as given, and `weight`, those to kCount factors
#pragma once

#include <cstdint>

#include "engines/deep/matrix.h"
#include "engines/up_conv.h"

namespace cgnrt {
namespace deep {
namespace CGNRT_ISA {
namespace {

// Factors of kTile output channels at a time: [tap][lane] to [product][lane].
using Lanes = double[kTile];

// rows (Count x Taps) times w (Taps x Taps) times rows transposed, for every lane.
template <int Count, int Taps>
inline void sandwich(const double (&rows)[Count][Taps], const Lanes* w, Lanes* to) {
  Lanes half[Count][Taps];
  for (int i = 0; i < Count; ++i) {
    for (int j = 0; j < Taps; ++j) {
      for (int lane = 0; lane < kTile; ++lane) {
        double sum = 0;
        for (int t = 0; t < Taps; ++t) sum += rows[i][t] * w[t * Taps + j][lane];
        half[i][j][lane] = sum;
      }
    }
  }
  for (int i = 0; i < Count; ++i) {
    for (int j = 0; j < Count; ++j) {
      for (int lane = 0; lane < kTile; ++lane) {
        double sum = 0;
        for (int t = 0; t < Taps; ++t) sum += half[i][t][lane] * rows[j][t];
        to[i * Count + j][lane] = sum;
      }
    }
  }
}

// Winograd's minimal filtering F(4x4, 3x3), points 0, 1, -1, 2, -2 (Lavin & Gray 2016): 36 products for 16
// pixels.
struct Tile4 {
  static constexpr int kIn = 6, kStep = 4, kOut = 4, kLead = 1, kCount = 36, kTaps = 9;

  static inline void line(const Run& d0, const Run& d1, const Run& d2, const Run& d3, const Run& d4,
                          const Run& d5, Run* to, int step) {
    const Run a = d4 - 4.0f * d2;
    const Run b = d3 - 4.0f * d1;
    const Run c = d4 - d2;
    const Run d = 2.0f * (d3 - d1);
    to[0] = 4.0f * d0 - 5.0f * d2 + d4;
    to[step] = a + b;
    to[2 * step] = a - b;
    to[3 * step] = c + d;
    to[4 * step] = c - d;
    to[5 * step] = 4.0f * d1 - 5.0f * d3 + d5;
  }

  static inline void forward(const float* const* p, int channel, float* to, std::int64_t step) {
    Run t[6][6];
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) {
      line(load(p[j] + channel), load(p[6 + j] + channel), load(p[12 + j] + channel),
           load(p[18 + j] + channel), load(p[24 + j] + channel), load(p[30 + j] + channel), &t[0][j], 6);
    }
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      Run row[6];
      line(t[i][0], t[i][1], t[i][2], t[i][3], t[i][4], t[i][5], row, 1);
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j) store(to + (i * 6 + j) * step, row[j]);
    }
  }

  static inline void back(const Run& m0, const Run& m1, const Run& m2, const Run& m3, const Run& m4,
                          const Run& m5, Run* to, int step) {
    const Run a = m1 + m2, b = m1 - m2, c = m3 + m4, d = m3 - m4;
    to[0] = m0 + a + c;
    to[step] = b + 2.0f * d;
    to[2 * step] = a + 4.0f * c;
    to[3 * step] = b + 8.0f * d + m5;
  }

  static inline void inverse(const float* m, std::int64_t step, Run* out) {
    Run t[4][6];
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) {
      const auto at = [&](int i) { return load(m + (i * 6 + j) * step); };
      back(at(0), at(1), at(2), at(3), at(4), at(5), &t[0][j], 6);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) back(t[i][0], t[i][1], t[i][2], t[i][3], t[i][4], t[i][5], out + 4 * i, 1);
  }

  static void weight(const Lanes* taps, Lanes* to) {
    static constexpr double kRowsOf[6][3] = {{1.0 / 4, 0, 0},
                                             {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                             {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                             {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                             {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                             {0, 0, 1}};
    sandwich(kRowsOf, taps, to);
  }
};

// F(2x2, 3x3): 16 products for 4 pixels.
struct Tile2 {
  static constexpr int kIn = 4, kStep = 2, kOut = 2, kLead = 1, kCount = 16, kTaps = 9;

  static inline void line(const Run& d0, const Run& d1, const Run& d2, const Run& d3, Run* to, int step) {
    to[0] = d0 - d2;
    to[step] = d1 + d2;
    to[2 * step] = d2 - d1;
    to[3 * step] = d1 - d3;
  }

  static inline void forward(const float* const* p, int channel, float* to, std::int64_t step) {
    Run t[4][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      line(load(p[j] + channel), load(p[4 + j] + channel), load(p[8 + j] + channel),
           load(p[12 + j] + channel), &t[0][j], 4);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      Run row[4];
      line(t[i][0], t[i][1], t[i][2], t[i][3], row, 1);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) store(to + (i * 4 + j) * step, row[j]);
    }
  }

  static inline void inverse(const float* m, std::int64_t step, Run* out) {
    Run t[2][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const auto at = [&](int i) { return load(m + (i * 4 + j) * step); };
      t[0][j] = at(0) + at(1) + at(2);
      t[1][j] = at(1) - at(2) - at(3);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      out[2 * i] = t[i][0] + t[i][1] + t[i][2];
      out[2 * i + 1] = t[i][1] - t[i][2] - t[i][3];
    }
  }

  static void weight(const Lanes* taps, Lanes* to) {
    static constexpr double kRowsOf[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
    sandwich(kRowsOf, taps, to);
  }
};

// Nearest x2 up-sampling and a 3x3 convolution, by the nine products of engines/up_conv.h.
struct Up {
  static constexpr int kIn = 3, kStep = 1, kOut = 2, kLead = 1, kCount = 9, kTaps = 16;

  static inline void forward(const float* const* p, int channel, float* to, std::int64_t step) {
    Run t[3][3];
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      const Run here = load(p[3 + j] + channel);
      t[0][j] = here;
      t[1][j] = load(p[j] + channel) - here;
      t[2][j] = here - load(p[6 + j] + channel);
    }
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      store(to + (i * 3) * step, t[i][1]);
      store(to + (i * 3 + 1) * step, t[i][0] - t[i][1]);
      store(to + (i * 3 + 2) * step, t[i][1] - t[i][2]);
    }
  }

  static inline void inverse(const float* m, std::int64_t step, Run* out) {
    const auto at = [&](int i, int j) { return load(m + (i * 3 + j) * step); };
#pragma GCC unroll 2
    for (int a = 0; a < 2; ++a) {
      const Run plain = at(0, 0) + at(a + 1, 0);
#pragma GCC unroll 2
      for (int b = 0; b < 2; ++b) out[2 * a + b] = plain + at(0, b + 1) + at(a + 1, b + 1);
    }
  }

  static void weight(const Lanes* taps, Lanes* to) { sandwich(kUpConvSums, taps, to); }
};

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace deep
}  // namespace cgnrt
