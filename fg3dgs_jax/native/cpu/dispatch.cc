// Picks the instruction set once.
#include <cstdlib>
#include <cstring>

#include "cpu/isa.h"
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
FG_FOR_EACH_ISA(FG_DECLARE)

static int best_isa() {
#if defined(__x86_64__)
  const char* wanted = std::getenv("FG3DGS_ISA");
  const auto allowed = [&](const char* isa) {
    return !wanted || !*wanted || !std::strcmp(wanted, isa) || !std::strcmp(wanted, "avx512");
  };
  __builtin_cpu_init();
  if (allowed("avx512") && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw")) {
    return 2;
  }
  if (allowed("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}

int isa() {
  static const int chosen = best_isa();
  return chosen;
}

const Kernels& kernels() { return *FG_CHOOSE(table); }

}  // namespace fg
