#include "cpu/bin.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace fg {
namespace {

constexpr int kMaxDigitBits = 12;

// Depth order, near to far and ties by index: a least-significant-digit radix sort of only those
// bits in which the keys differ (a head's depths: two passes).
void sort_by_depth(int64_t n, uint32_t least, uint32_t most, Bins* b) {
  static thread_local int32_t count[1 << kMaxDigitBits];
  uint64_t *from = b->pairs.reserve(b->visible), *to = b->pairs_swap.reserve(b->visible);
  int64_t visible = 0;
  for (int64_t i = 0; i < n; ++i) {
    from[visible] = static_cast<uint64_t>(b->keys[i] - least) << 32 | static_cast<uint64_t>(i);
    visible += b->keys[i] != kCulled;
    if (visible == b->visible) break;
  }
  const int bits = bits_for(most - least), passes = (bits + kMaxDigitBits - 1) / kMaxDigitBits;
  const int digit_bits = (bits + passes - 1) / passes;
  const uint64_t digits = uint64_t{1} << digit_bits;
  for (int p = 0; p < passes; ++p) {
    const int shift = 32 + p * digit_bits;
    std::memset(count, 0, digits * sizeof(int32_t));
    for (int64_t k = 0; k < visible; ++k) ++count[from[k] >> shift & (digits - 1)];
    int32_t sum = 0;
    for (uint64_t d = 0; d < digits; ++d) {
      const int32_t c = count[d];
      count[d] = sum;
      sum += c;
    }
    for (int64_t k = 0; k < visible; ++k) to[count[from[k] >> shift & (digits - 1)]++] = from[k];
    std::swap(from, to);
  }
  b->order.reserve(visible), b->rects_in_order.reserve(visible);
  for (int64_t k = 0; k < visible; ++k) {
    const int32_t i = static_cast<int32_t>(from[k]);
    b->order[k] = i;
    b->rects_in_order[k] = b->rects[i];
  }
}

// Tiles by falling length, roughly: the long ones first, so that no worker is left with one.
void schedule(int64_t tiles, Bins* b) {
  constexpr int kBuckets = 64;
  const auto length = [&](int64_t t) { return b->tile_begin[t + 1] - b->tile_begin[t]; };
  int64_t longest = 1;
  for (int64_t t = 0; t < tiles; ++t) longest = std::max<int64_t>(longest, length(t));
  const auto bucket = [&](int64_t t) {
    return kBuckets - 1 - static_cast<int>(length(t) * (kBuckets - 1) / longest);
  };
  int32_t begin[kBuckets + 1] = {};
  for (int64_t t = 0; t < tiles; ++t) ++begin[bucket(t) + 1];
  for (int k = 0; k < kBuckets; ++k) begin[k + 1] += begin[k];
  b->schedule.reserve(tiles);
  for (int64_t t = 0; t < tiles; ++t) b->schedule[begin[bucket(t)]++] = static_cast<int32_t>(t);
}

}  // namespace

bool bin(xla::ffi::ThreadPool& pool, const Scene& s, Bins* b) {
  const int64_t n = s.n, chunks = (n + kChunk - 1) >> kChunkBits;
  b->tiles_x = (s.width + kTileSize - 1) / kTileSize;
  b->tiles_y = (s.height + kTileSize - 1) / kTileSize;
  const int64_t tiles = static_cast<int64_t>(b->tiles_x) * b->tiles_y;
  const Classified out = {b->records.reserve(n * record_stride(s.channels)), b->rects.reserve(n),
                          b->keys.reserve(n)};
  b->chunks.reserve(chunks), b->first_slots.reserve(chunks);
  parallel_for(pool, chunks, [&](int64_t c) {
    b->chunks[c] = kernels().classify(s, out, c << kChunkBits, std::min(n, (c + 1) << kChunkBits));
  });
  uint32_t least = kCulled, most = 0;
  b->visible = b->entries = 0;
  for (int64_t c = 0; c < chunks; ++c) {
    const Chunk& chunk = b->chunks[c];
    b->first_slots[c] = static_cast<int32_t>(b->entries);
    b->visible += chunk.visible, b->entries += chunk.entries;
    least = std::min(least, chunk.least), most = std::max(most, chunk.most);
    if (b->entries > std::numeric_limits<int32_t>::max()) return false;
  }
  if (b->visible > 0) sort_by_depth(n, least, most, b);

  // A stable counting sort by tile: each part of the depth order counts its own, and starts in a
  // tile's list where the parts before it end.
  const int64_t parts = std::max(1, std::min(worker_count(pool), 16));
  const auto over_part = [&](int64_t part, auto&& visit) {
    for (int64_t k = b->visible * part / parts; k < b->visible * (part + 1) / parts; ++k) {
      const TileRect r = b->rects_in_order[k];
      for (int y = r.y0; y < r.y1; ++y) {
        for (int x = r.x0; x < r.x1; ++x) visit(y * b->tiles_x + x, k);
      }
    }
  };
  b->cursor.reserve(parts * tiles), b->tile_begin.reserve(tiles + 1), b->lists.reserve(b->entries);
  parallel_for(pool, parts, [&](int64_t part) {
    int32_t* count = b->cursor.data() + part * tiles;
    std::memset(count, 0, tiles * sizeof(int32_t));
    over_part(part, [&](int32_t tile, int64_t) { ++count[tile]; });
  });
  int32_t sum = 0;
  for (int64_t t = 0; t < tiles; ++t) {
    b->tile_begin[t] = sum;
    for (int64_t part = 0; part < parts; ++part) {
      const int32_t c = b->cursor[part * tiles + t];
      b->cursor[part * tiles + t] = sum;
      sum += c;
    }
  }
  b->tile_begin[tiles] = sum;
  parallel_for(pool, parts, [&](int64_t part) {
    int32_t *cursor = b->cursor.data() + part * tiles, *lists = b->lists.data();
    over_part(part, [&](int32_t tile, int64_t k) { lists[cursor[tile]++] = b->order[k]; });
  });
  schedule(tiles, b);
  return true;
}

Tile tile_at(const Scene& s, const Bins& b, int64_t t) {
  const int32_t begin = b.tile_begin[t];
  return {static_cast<int>(t % b.tiles_x),
          static_cast<int>(t / b.tiles_x),
          s.width,
          s.height,
          s.channels,
          b.lists.data() + begin,
          b.tile_begin[t + 1] - begin,
          b.records.data()};
}

}  // namespace fg
