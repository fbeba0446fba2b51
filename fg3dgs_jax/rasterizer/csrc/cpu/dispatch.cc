// Picks the instruction set once.
#include <cstdlib>
#include <cstring>

#include "cpu/kernels.h"

namespace fg {

#define FG_DECLARE(isa)                                                                          \
  namespace isa {                                                                                \
  void project(const ProjectArgs&, const ProjectOut&, int64_t, int64_t);                         \
  void project_vjp(const ProjectArgs&, const ProjectGrad&, int64_t, int64_t, float*);            \
  Chunk classify(const Scene&, const Classified&, int64_t, int64_t);                             \
  void blend(const Tile&, const TileForward&);                                                   \
  void blend_vjp(const Tile&, const TileBackward&);                                              \
  void collect(const Scene&, const TileRect*, const float*, const SceneGrad&, int64_t, int64_t); \
  const Kernels table = {project, project_vjp, classify, blend, blend_vjp, collect};             \
  }

FG_DECLARE(base)
#if defined(__x86_64__)
FG_DECLARE(avx2)
FG_DECLARE(avx512)
#endif

static const Kernels* choose() {
#if defined(__x86_64__)
  const char* wanted = std::getenv("FG3DGS_ISA");
  const auto allowed = [&](const char* isa) {
    return !wanted || !*wanted || !std::strcmp(wanted, isa) || !std::strcmp(wanted, "avx512");
  };
  __builtin_cpu_init();
  if (allowed("avx512") && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw")) {
    return &avx512::table;
  }
  if (allowed("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return &avx2::table;
#endif
  return &base::table;
}

const Kernels& kernels() {
  static const Kernels* chosen = choose();
  return *chosen;
}

}  // namespace fg
