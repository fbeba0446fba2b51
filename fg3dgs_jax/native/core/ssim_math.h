// SSIM of losses.py (11 x 11 Gaussian window, zero padded, biased moments) with its gradient, for
// host and device.
#pragma once

#include <stdint.h>

#include "core/gaussian_math.h"

namespace fg {

constexpr int kSsimHalf = 5, kSsimTaps = 2 * kSsimHalf + 1;
constexpr float kSsimC1 = 0.01f * 0.01f, kSsimC2 = 0.03f * 0.03f;
// exp(-k^2 / (2 * 1.5^2)) for k = -5 .. 5, normalised; losses.py computes the same.
constexpr float kSsimWindow[kSsimTaps] = {
    0.00102838008447911f, 0.00759875813523919f, 0.03600077212843083f, 0.10936068950970002f,
    0.21300553771125369f, 0.26601172486179436f, 0.21300553771125369f, 0.10936068950970002f,
    0.03600077212843083f, 0.00759875813523919f, 0.00102838008447911f};

// What one pixel gives: 1 - SSIM, and d SSIM / d (blurred x), d (blurred x y), d (blurred x^2).
struct SsimPixel {
  float distance, v_mean, v_product, v_square;
};

// mean_x, mean_y, squares, product: the blurred x, y, x^2 + y^2 and x y.
FG_HD SsimPixel ssim_pixel(float mean_x, float mean_y, float squares, float product) {
  const float means = mean_x * mean_y, mean_squares = mean_x * mean_x + mean_y * mean_y;
  const float a = 2.0f * means + kSsimC1, b = 2.0f * (product - means) + kSsimC2;
  const float c = mean_squares + kSsimC1, d = squares - mean_squares + kSsimC2;
  const float inverse = 1.0f / (c * d), s = a * b * inverse;
  SsimPixel out;
  out.distance = 1.0f - s;
  out.v_product = 2.0f * a * inverse;
  out.v_square = -s * c * inverse;
  out.v_mean = 2.0f * (b - a) * inverse * mean_y + 2.0f * s * (c - d) * inverse * mean_x;
  return out;
}

}  // namespace fg
