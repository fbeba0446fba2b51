// Where everything lies in the two buffers that XLA allocates for a call: the state that the
// forward keeps for the backward, and a workspace that is dropped. Pure arithmetic on static sizes.
//
// A batch may be made of images that Python never saw together (vmap), each bringing the bytes of
// one. So the areas of B images must fit in B times those of one, which holds because every area is
// a sum over the images and rounding up is subadditive.
#pragma once

#include <stdint.h>

#include "core/gaussian_math.h"

namespace fg {

constexpr int64_t kAreaAlign = 256;  // bytes
constexpr int kProjectThreads = 256;

// Hands out areas one after the other.
struct Areas {
  int64_t bytes = 0;
  constexpr int64_t take(int64_t size) {
    const int64_t offset = bytes;
    bytes += (size + kAreaAlign - 1) / kAreaAlign * kAreaAlign;
    return offset;
  }
};

struct Sizes {
  int64_t batch, n, width, height, channels;
  int64_t capacity;  // (tile, Gaussian) pairs of one image; the batch shares the sum

  FG_HD_MEMBER constexpr int64_t items() const { return batch * n; }
  FG_HD_MEMBER constexpr int64_t pool() const { return batch * capacity; }
  FG_HD_MEMBER constexpr int64_t tiles_x() const { return (width + kTileSize - 1) / kTileSize; }
  FG_HD_MEMBER constexpr int64_t tiles_y() const { return (height + kTileSize - 1) / kTileSize; }
  FG_HD_MEMBER constexpr int64_t tiles() const { return batch * tiles_x() * tiles_y(); }
};

constexpr int kSortTile = 2048;    // keys that a block sorts
constexpr int kSortDigits = 256;   // at most, of a pass
constexpr int kSortPasses = 4;     // at most, of keys of 32 bits
constexpr int kEmitThreads = 256;  // depth positions of a block

FG_HD constexpr int64_t sort_rows(int64_t n) { return (n + kSortTile - 1) / kSortTile; }

// Counts of digits by pass and block, for keys of any size.
FG_HD constexpr int64_t sort_count_bytes(int64_t n) {
  return 4 * kSortPasses * kSortDigits * sort_rows(n);
}

struct StateLayout {  // of fg3dgs_rasterize_fwd, for its backward
  int64_t records, runs, entries, lists, bytes;
  constexpr explicit StateLayout(const Sizes& s)
      : records(0), runs(0), entries(0), lists(0), bytes(0) {
    Areas a;
    records = a.take(32 * s.items());  // Record
    runs = a.take(8 * s.items());      // Run
    entries = a.take(8 * s.pool());    // Entry
    lists = a.take(8 * s.tiles());     // List
    bytes = a.bytes;
  }
};

struct BinLayout {  // workspace of fg3dgs_rasterize_fwd
  int64_t rects, owners, keys[2], order[2], tile_keys[2], slots[2], totals[2], pairs;
  // These begin as zeros and lie together.
  int64_t depth_counts, block_pairs, image_pairs, tile_counts, bytes;
  constexpr explicit BinLayout(const Sizes& s)
      : rects(0),
        owners(0),
        keys{0, 0},
        order{0, 0},
        tile_keys{0, 0},
        slots{0, 0},
        totals{0, 0},
        pairs(0),
        depth_counts(0),
        block_pairs(0),
        image_pairs(0),
        tile_counts(0),
        bytes(0) {
    Areas a;
    rects = a.take(8 * s.items());
    owners = a.take(4 * s.pool());
    for (int k = 0; k < 2; ++k) {
      keys[k] = a.take(4 * s.items());
      order[k] = a.take(4 * s.items());
      tile_keys[k] = a.take(4 * s.pool());
      slots[k] = a.take(4 * s.pool());
      totals[k] = a.take(4 * kSortDigits);
    }
    pairs = a.take(4);
    depth_counts = a.take(sort_count_bytes(s.items()));
    block_pairs = a.take(8 * ((s.items() + kEmitThreads - 1) / kEmitThreads));
    image_pairs = a.take(8 * s.batch);
    tile_counts = a.take(sort_count_bytes(s.pool()));
    bytes = a.bytes;
  }
};

struct BlendGradLayout {  // workspace of fg3dgs_rasterize_bwd
  int64_t slot_sums, tile_sums, bytes;
  constexpr explicit BlendGradLayout(const Sizes& s) : slot_sums(0), tile_sums(0), bytes(0) {
    Areas a;
    slot_sums = a.take(4 * (kSlotHead + s.channels) * s.pool());
    tile_sums = a.take(4 * s.channels * s.tiles());
    bytes = a.bytes;
  }
};

struct ProjectGradLayout {  // workspace of fg3dgs_project_bwd
  int64_t blocks, bytes;    // blocks: of one image
  constexpr ProjectGradLayout(int64_t batch, int64_t n) : blocks(0), bytes(0) {
    Areas a;
    blocks = (n + kProjectThreads - 1) / kProjectThreads;
    a.take(4 * 12 * batch * blocks);
    bytes = a.bytes;
  }
};

struct EncodeGradLayout {  // workspace of fg3dgs_encode_bwd
  int64_t keys[2], points[2], begins, totals, counts, bytes;
  constexpr EncodeGradLayout(int64_t n, int64_t features, int64_t entries)
      : keys{0, 0}, points{0, 0}, begins(0), totals(0), counts(0), bytes(0) {
    Areas a;
    for (int k = 0; k < 2; ++k) {
      keys[k] = a.take(4 * n * features);
      points[k] = a.take(4 * n * features);
    }
    begins = a.take(4 * (entries + 1));
    totals = a.take(4 * kSortDigits);
    counts = a.take(sort_count_bytes(n * features));
    bytes = a.bytes;
  }
};

}  // namespace fg
