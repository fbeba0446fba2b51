#include "cpu/binning.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace fg {
namespace {

constexpr int64_t kChunk = 2048;  // Gaussians an item of a parallel loop

int64_t chunks(int64_t n) { return (n + kChunk - 1) / kChunk; }

void classify(const Scene& s, int64_t i, Bins* bins) {
  uint32_t key = kCulled;
  TileRect rect = {0, 0, 0, 0};
  const float *m = s.means2d + 2 * i, *q = s.conics + 3 * i;
  bool ok = s.radii[2 * i] > 0 && s.radii[2 * i + 1] > 0;
  if (ok) {
    ok = finite(m[0]) && finite(m[1]) && finite(s.depths[i]);
    for (int d = 0; d < s.channels; ++d) ok = ok && finite(s.colors[i * s.channels + d]);
  }
  if (ok) {
    float hx, hy;
    half_extents(q[0], q[1], q[2], s.opacities[i], &hx, &hy);
    ok = hx > 0 && hy > 0 && tile_span(m[0], hx, s.width, &rect.x0, &rect.x1) &&
         tile_span(m[1], hy, s.height, &rect.y0, &rect.y1);
    bins->half_height[i] = hy;
    if (ok) key = depth_key(s.depths[i]);
  }
  bins->rect_of[i] = rect;
  bins->key[i] = key;
}

// Stable least-significant-digit radix sort of n (key, order) pairs: 3 passes of 11 bits; the
// result lies in key, order.
void radix_sort(int64_t n, Bins* b) {
  constexpr int kBits = 11, kSize = 1 << kBits;
  static thread_local int32_t count[3][kSize];
  std::memset(count, 0, sizeof(count));
  for (int64_t i = 0; i < n; ++i) {
    for (int p = 0; p < 3; ++p) ++count[p][(b->key[i] >> (p * kBits)) & (kSize - 1)];
  }
  for (int p = 0; p < 3; ++p) {
    int32_t sum = 0;
    for (int k = 0; k < kSize; ++k) {
      const int32_t c = count[p][k];
      count[p][k] = sum;
      sum += c;
    }
    for (int64_t i = 0; i < n; ++i) {
      const int32_t to = count[p][(b->key[i] >> (p * kBits)) & (kSize - 1)]++;
      b->key_swap[to] = b->key[i];
      b->order_swap[to] = b->order[i];
    }
    b->key.swap(b->key_swap);
    b->order.swap(b->order_swap);
  }
}

}  // namespace

bool bin(xla::ffi::ThreadPool& pool, const Scene& s, bool with_slots, Bins* b) {
  const int64_t n = s.n;
  b->tiles_x = (s.width + kTileSize - 1) / kTileSize;
  b->tiles_y = (s.height + kTileSize - 1) / kTileSize;
  const int64_t tiles = static_cast<int64_t>(b->tiles_x) * b->tiles_y;
  grow(b->rect_of, n), grow(b->half_height, n);
  grow(b->key, n), grow(b->key_swap, n), grow(b->order, n), grow(b->order_swap, n);
  parallel_for(pool, chunks(n), [&](int64_t c) {
    for (int64_t i = c * kChunk; i < std::min(n, (c + 1) * kChunk); ++i) classify(s, i, b);
  });

  int64_t visible = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (b->key[i] == kCulled) continue;
    b->key[visible] = b->key[i];
    b->order[visible++] = static_cast<int32_t>(i);
  }
  radix_sort(visible, b);
  b->visible = visible;

  const int stride = kRecordHead + s.channels;
  grow(b->rects, visible), grow(b->offset, visible + 1), grow(b->records, visible * stride);
  int64_t entries = 0;
  for (int64_t p = 0; p < visible; ++p) {
    b->rects[p] = b->rect_of[b->order[p]];
    b->offset[p] = static_cast<int32_t>(entries);
    entries += b->rects[p].count();
    if (entries > std::numeric_limits<int32_t>::max()) return false;
  }
  b->offset[visible] = static_cast<int32_t>(entries);
  b->entries = entries;
  parallel_for(pool, chunks(visible), [&](int64_t c) {
    for (int64_t p = c * kChunk; p < std::min(visible, (c + 1) * kChunk); ++p) {
      const int64_t i = b->order[p];
      float* r = b->records.data() + p * stride;
      r[0] = s.means2d[2 * i], r[1] = s.means2d[2 * i + 1];
      r[2] = s.conics[3 * i], r[3] = s.conics[3 * i + 1], r[4] = s.conics[3 * i + 2];
      r[5] = s.opacities[i], r[6] = b->half_height[i], r[7] = 0.0f;
      std::memcpy(r + kRecordHead, s.colors + i * s.channels, s.channels * sizeof(float));
    }
  });

  // Bands of tile rows: each worker walks all Gaussians in depth order and appends those of its
  // band, so every list is in depth order whatever the number of bands.
  grow(b->tile_begin, tiles + 1), grow(b->cursor, tiles), grow(b->lists, entries);
  if (with_slots) grow(b->slots, entries);
  const int bands = std::max(1, std::min(b->tiles_y, worker_count(pool)));
  const auto over_band = [&](int64_t band, auto&& visit) {
    const int y0 = static_cast<int>(b->tiles_y * band / bands),
              y1 = static_cast<int>(b->tiles_y * (band + 1) / bands);
    for (int64_t p = 0; p < visible; ++p) {
      const TileRect& r = b->rects[p];
      for (int y = std::max<int>(r.y0, y0); y < std::min<int>(r.y1, y1); ++y) {
        const int32_t slot = b->offset[p] + (y - r.y0) * (r.x1 - r.x0);
        for (int x = r.x0; x < r.x1; ++x)
          visit(static_cast<int64_t>(y) * b->tiles_x + x, p, slot + x - r.x0);
      }
    }
  };
  std::memset(b->cursor.data(), 0, tiles * sizeof(int32_t));
  parallel_for(pool, bands, [&](int64_t band) {
    over_band(band, [&](int64_t tile, int64_t, int32_t) { ++b->cursor[tile]; });
  });
  int32_t sum = 0;
  for (int64_t t = 0; t < tiles; ++t) {
    b->tile_begin[t] = sum;
    sum += b->cursor[t];
    b->cursor[t] = b->tile_begin[t];
  }
  b->tile_begin[tiles] = sum;
  parallel_for(pool, bands, [&](int64_t band) {
    over_band(band, [&](int64_t tile, int64_t p, int32_t slot) {
      const int32_t at = b->cursor[tile]++;
      b->lists[at] = static_cast<int32_t>(p);
      if (with_slots) b->slots[at] = slot;
    });
  });

  grow(b->schedule, tiles);
  for (int64_t t = 0; t < tiles; ++t) b->schedule[t] = static_cast<int32_t>(t);
  std::sort(b->schedule.data(), b->schedule.data() + tiles, [&](int32_t i, int32_t j) {
    const int32_t a = b->tile_begin[i + 1] - b->tile_begin[i],
                  c = b->tile_begin[j + 1] - b->tile_begin[j];
    return a != c ? a > c : i < j;
  });
  return true;
}

Tile tile_at(const Scene& s, const Bins& b, int64_t t) {
  Tile tile;
  tile.x0 = static_cast<int>(t % b.tiles_x) * kTileSize;
  tile.y0 = static_cast<int>(t / b.tiles_x) * kTileSize;
  tile.width = s.width, tile.height = s.height, tile.channels = s.channels;
  tile.list = b.lists.data() + b.tile_begin[t];
  tile.count = b.tile_begin[t + 1] - b.tile_begin[t];
  tile.records = b.records.data();
  return tile;
}

}  // namespace fg
