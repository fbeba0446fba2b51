// 1 - SSIM with its gradient in one custom call. A loss is linear in it, so the gradient is known
// when the value is, and nothing of the blurred pictures has to be kept.
//
// Where both pictures are equal in a pixel's whole window SSIM is 1 and its derivatives are 0:
// only the box around what differs is computed. Layers of eyes and mouth on key colour differ in a
// few percent of a picture.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "core/ssim_math.h"
#include "core/ssim_operands.h"
#include "cpu/parallel.h"
#include "cpu/ssim_band.h"

namespace fg {

namespace {

constexpr int64_t kLeastRows = 24;  // of a band: each computes 20 rows of its neighbours again

// The box around all that differs; empty where nothing does.
Rect difference(const float* x, const float* y, int64_t height, int64_t width, int64_t channels) {
  Rect box{height, 0, width, 0};
  const int64_t n = width * channels;
  for (int64_t row = 0; row < height; ++row, x += n, y += n) {
    if (!std::memcmp(x, y, n * sizeof(float))) continue;
    box.row0 = std::min(box.row0, row), box.row1 = row + 1;
    const auto differs = [&](int64_t i) { return std::memcmp(x + i, y + i, sizeof(float)) != 0; };
    int64_t left = 0, right = n;
    while (left < box.col0 * channels && !differs(left)) ++left;
    while (right > box.col1 * channels && !differs(right - 1)) --right;
    box.col0 = std::min(box.col0, left / channels);
    box.col1 = std::max(box.col1, (right + channels - 1) / channels);
  }
  return box;
}

Rect grown(const Rect& box, int64_t by, int64_t height, int64_t width) {
  return {std::max<int64_t>(0, box.row0 - by), std::min(height, box.row1 + by),
          std::max<int64_t>(0, box.col0 - by), std::min(width, box.col1 + by)};
}

ffi::Error ssim(F32 x, F32 y, F32Out distance, F32Out v_x, ffi::ThreadPool pool) {
  SsimSize size;
  FG_TRY(check_ssim(x, y, *distance, *v_x, &size));
  const auto kernel = FG_CHOOSE(ssim_band);
  const int64_t pixels = size.height * size.width, n = pixels * size.channels;
  const int64_t workers = worker_count(pool);
  std::vector<double> row_sums(static_cast<size_t>(size.pictures * size.height), 0.0);
  for (int64_t b = 0; b < size.pictures; ++b) {
    const float *xs = x.typed_data() + b * n, *ys = y.typed_data() + b * n;
    float* out = v_x->typed_data() + b * n;
    std::fill(out, out + n, 0.0f);
    double* sums = row_sums.data() + b * size.height;
    const Rect box = difference(xs, ys, size.height, size.width, size.channels);
    if (box.row0 < box.row1) {
      const Rect map = grown(box, kSsimHalf, size.height, size.width);
      const Rect reach = grown(map, kSsimHalf, size.height, size.width);
      const int64_t rows = reach.row1 - reach.row0;
      const int64_t bands = std::max<int64_t>(1, std::min(workers, rows / kLeastRows));
      parallel_for(pool, bands, [&](int64_t k) {
        const std::unique_ptr<float[]> scratch(new float[ssim_scratch(size.width, size.channels)]);
        SsimBand band{xs,
                      ys,
                      size.height,
                      size.width,
                      size.channels,
                      map,
                      reach,
                      -1.0f / static_cast<float>(n),
                      out,
                      sums,
                      scratch.get()};
        band.out.row0 = reach.row0 + rows * k / bands;
        band.out.row1 = reach.row0 + rows * (k + 1) / bands;
        kernel(band);
      });
    }
    double sum = 0.0;
    for (int64_t row = 0; row < size.height; ++row) sum += sums[row];
    distance->typed_data()[b] = static_cast<float>(sum / static_cast<double>(n));
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace fg

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_ssim, fg::ssim, fg::ssim_call().Ctx<xla::ffi::ThreadPool>());
