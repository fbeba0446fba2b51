// The encoding's loops that are compiled once per instruction set.
#pragma once

#include <cstdint>

#include "core/encode_math.h"
#include "cpu/isa.h"

namespace fg {

constexpr int64_t kEncodeBlock = 512;  // points handed to a worker at a time; whole vectors

// What the gradient of a table reads, by column: a table has one owner, who sees all points.
struct EncodeColumns {
  float* unit;     // [3, stride] coordinates, 0 to 1 within the bound
  float* v;        // [features, stride] cotangents; 0 where a point is outside, and from N on
  int64_t stride;  // N, rounded up to whole blocks
};

#define FG_DECLARE_ENCODE(isa)                                                                    \
  namespace isa {                                                                                 \
  void encode(const Levels&, const float* tables, const float* points, float* features,           \
              int64_t begin, int64_t end);                                                        \
  void encode_coords_vjp(const Levels&, const float* tables, const float* points, const float* v, \
                         float* v_points, const EncodeColumns&, int64_t begin, int64_t end);      \
  void encode_table_vjp(const Levels&, const EncodeColumns&, float* v_tables, int plane,          \
                        int level, int64_t n);                                                    \
  }
FG_FOR_EACH_ISA(FG_DECLARE_ENCODE)
#undef FG_DECLARE_ENCODE

}  // namespace fg
