// Checks the index computations that host and device share; exit code 0 if all hold.
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "core/strides.h"
#include "core/tiles.h"
#include "cuda/layout.h"

namespace fg {

#define EXPECT(condition)                                           \
  do {                                                              \
    if (!(condition)) {                                             \
      fprintf(stderr, "line %d: %s fails\n", __LINE__, #condition); \
      exit(1);                                                      \
    }                                                               \
  } while (0)

void test_depth_keys_order_like_depths() {
  const float depths[] = {-3e38f, -2.0f, -1e-40f, 0.0f, 1e-40f, 0.2f, 0.20000002f, 7.0f, 3.4e38f};
  for (int k = 0; k + 1 < 9; ++k) EXPECT(depth_key(depths[k]) < depth_key(depths[k + 1]));
  EXPECT(depth_key(3.4028235e38f) < kCulled);
}

// Against a search over all pixel centres.
void test_tile_span_holds_the_touched_pixels() {
  std::mt19937 random(0);
  std::uniform_real_distribution<float> center(-40.0f, 90.0f), half(0.0f, 30.0f);
  for (int k = 0; k < 20000; ++k) {
    const int size = 1 + static_cast<int>(random() % 70);
    const float c = center(random), h = k % 3 ? half(random) : 0.01f * half(random);
    int first = size, last = -1;
    for (int x = 0; x < size; ++x) {
      if (x >= c - h - 0.5f && x <= c + h - 0.5f) first = std::min(first, x), last = x;
    }
    int16_t begin = -1, end = -1;
    EXPECT(tile_span(c, h, size, &begin, &end) == (last >= 0));
    if (last >= 0) EXPECT(begin == first / kTileSize && end == last / kTileSize + 1);
  }
  int16_t begin, end;
  EXPECT(!tile_span(NAN, 1.0f, 50, &begin, &end));
  EXPECT(tile_span(3.0f, INFINITY, 50, &begin, &end) && begin == 0 && end == 4);
}

void test_tiles_of_a_rect_go_row_by_row() {
  const TileRect rect = {2, 1, 5, 3};
  const int expected[] = {12, 13, 14, 22, 23, 24};
  EXPECT(rect.count() == 6);
  for (int k = 0; k < 6; ++k) EXPECT(tile_in(rect, k, 10) == expected[k]);
}

void test_lower_bound_is_the_standard_one() {
  std::mt19937 random(1);
  for (int n = 0; n < 40; ++n) {
    std::vector<uint32_t> keys(n);
    for (uint32_t& k : keys) k = random() % 12;
    std::sort(keys.begin(), keys.end());
    for (uint32_t key = 0; key < 14; ++key) {
      const auto expected = std::lower_bound(keys.begin(), keys.end(), key) - keys.begin();
      EXPECT(lower_bound(keys.data(), n, key) == expected);
    }
  }
}

void test_bits_and_saturation() {
  EXPECT(bits_for(0) == 1 && bits_for(1) == 1 && bits_for(2) == 2 && bits_for(1024) == 11);
  EXPECT(bits_for(0xFFFFFFFFu) == 32 && bits_for(0x80000000u) == 32);
  EXPECT(saturating_add(3, 4) == 7 && saturating_add(0xFFFFFFF0u, 0x20u) == 0xFFFFFFFFu);
}

// Every value is held by exactly one lane, and the halving leaves its sum there.
void test_reduce_scatter_gives_each_sum_to_one_lane() {
  for (int count = 1; count <= kSlotHead + kMaxChannels; ++count) {
    std::vector<std::vector<int64_t>> v(32, std::vector<int64_t>(count));
    std::vector<int64_t> sums(count);
    for (int lane = 0; lane < 32; ++lane) {
      for (int k = 0; k < count; ++k) sums[k] += v[lane][k] = 1000 * k + lane * lane;
    }
    int size = count;
    for (int offset = 16; offset > 0; offset /= 2) {
      const int half = (size + 1) / 2;
      auto before = v;
      const auto low = [&](int lane, int k) { return before[lane][k]; };
      const auto high = [&](int lane, int k) {
        return k + half < size ? before[lane][k + half] : 0;
      };
      for (int lane = 0; lane < 32; ++lane) {
        const bool upper = lane & offset;
        const int other = lane ^ offset;
        for (int k = 0; k < half; ++k)
          v[lane][k] = upper ? high(lane, k) + high(other, k) : low(lane, k) + low(other, k);
      }
      size = half;
    }
    std::set<int> held;
    for (int lane = 0; lane < 32; ++lane) {
      for (int k = 0; k < 3; ++k) {
        const int index = scatter_index(count, lane, k);
        if (index < 0) continue;
        EXPECT(k < size && index < count && held.insert(index).second);
        EXPECT(v[lane][k] == sums[index]);
      }
    }
    EXPECT(static_cast<int>(held.size()) == count);
  }
}

void test_a_patch_is_touched_where_a_pixel_centre_lies_in_the_box() {
  std::mt19937 random(2);
  std::uniform_real_distribution<float> place(-20.0f, 30.0f), half(0.0f, 12.0f);
  for (int k = 0; k < 20000; ++k) {
    const float u = place(random), v = place(random), hx = half(random), hy = half(random);
    bool any = false;
    for (int pixel = 0; pixel < 32; ++pixel) {
      const float x = 0.5f + pixel % 8, y = 0.5f + pixel / 8;
      any = any || (fabsf(u - x) <= hx && fabsf(v - y) <= hy);
    }
    EXPECT(!any || touches_patch(u, v, hx, hy, 0.5f, 0.5f));  // never misses one
  }
  EXPECT(!touches_patch(-2.0f, 2.0f, 2.0f, 9.0f, 0.5f, 0.5f));
  EXPECT(!touches_patch(4.0f, 6.0f, 9.0f, 2.0f, 0.5f, 0.5f));
}

// What images bring one by one suffices for all of them, and areas neither overlap nor end late.
void test_buffers_of_single_images_hold_the_batch() {
  std::mt19937 random(3);
  for (int k = 0; k < 2000; ++k) {
    const int64_t b = 1 + random() % 40, n = random() % 3000, w = 1 + random() % 200,
                  h = 1 + random() % 200, d = 1 + random() % 32, c = 1 + random() % 50000;
    const Sizes one = {1, n, w, h, d, c}, all = {b, n, w, h, d, c};
    EXPECT(StateLayout(all).bytes <= b * StateLayout(one).bytes);
    EXPECT(BinLayout(all).bytes <= b * BinLayout(one).bytes);
    EXPECT(BlendGradLayout(all).bytes <= b * BlendGradLayout(one).bytes);
    EXPECT(ProjectGradLayout(b, n).bytes <= b * ProjectGradLayout(1, n).bytes);
    const StateLayout s(all);
    EXPECT(s.runs >= s.records + 32 * b * n && s.entries >= s.runs + 8 * b * n);
    EXPECT(s.lists >= s.entries + 8 * b * c && s.bytes >= s.lists + 8 * all.tiles());
    const BinLayout bin(all);
    EXPECT(bin.block_pairs >= bin.depth_counts + sort_count_bytes(b * n));
    EXPECT(bin.bytes >= bin.tile_counts + sort_count_bytes(b * c));
    EXPECT(BlendGradLayout(all).tile_sums >= 4 * (kSlotHead + d) * b * c);
  }
}

// Against the index by all dims, whatever is merged.
void test_leading_dims_broadcast() {
  std::mt19937 random(4);
  for (int k = 0; k < 2000; ++k) {
    const int rank = static_cast<int>(random() % 5);
    int64_t full[5], dims[5], count = 1;
    for (int d = 0; d < rank; ++d) {
      full[d] = 1 + random() % 4, dims[d] = random() % 2 ? full[d] : 1, count *= full[d];
    }
    Leading l;
    EXPECT(make_leading(full, dims, rank, &l) && l.rank <= rank);
    for (int64_t b = 0; b < count; ++b) {
      int64_t expected = 0, step = 1, rest = b;
      for (int d = rank - 1; d >= 0; --d) {
        expected += dims[d] == 1 ? 0 : rest % full[d] * step;
        rest /= full[d], step *= dims[d];
      }
      EXPECT(item_of(l, b) == expected);
    }
  }
  const int64_t full[] = {2, 3, 4}, wrong[] = {2, 2, 4}, shared[] = {1, 1, 1};
  Leading l;
  EXPECT(make_leading(full, full, 3, &l) && l.rank == 1 && l.full[0] == 24);
  EXPECT(make_leading(full, shared, 3, &l) && l.rank == 1 && l.stride[0] == 0);
  EXPECT(!make_leading(full, wrong, 3, &l));
  const int64_t many[] = {1 << 20, 1 << 20};
  EXPECT(!make_leading(many, many, 2, &l));
}

}  // namespace fg

int main() {
  fg::test_depth_keys_order_like_depths();
  fg::test_tile_span_holds_the_touched_pixels();
  fg::test_tiles_of_a_rect_go_row_by_row();
  fg::test_lower_bound_is_the_standard_one();
  fg::test_bits_and_saturation();
  fg::test_reduce_scatter_gives_each_sum_to_one_lane();
  fg::test_a_patch_is_touched_where_a_pixel_centre_lies_in_the_box();
  fg::test_buffers_of_single_images_hold_the_batch();
  fg::test_leading_dims_broadcast();
  return 0;
}
