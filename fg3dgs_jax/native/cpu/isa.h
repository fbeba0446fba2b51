// The instruction sets that *_kernels.cc are compiled for, each in a namespace of its own.
#pragma once

namespace fg {

#if defined(__x86_64__)
#define FG_FOR_EACH_ISA(declare) declare(base) declare(avx2) declare(avx512)
#define FG_CHOOSE(name) \
  (fg::isa() == 2 ? &avx512::name : fg::isa() == 1 ? &avx2::name : &base::name)
#else
#define FG_FOR_EACH_ISA(declare) declare(base)
#define FG_CHOOSE(name) (&base::name)
#endif

// The best for this machine: 0 base, 1 avx2, 2 avx512 (FG3DGS_ISA=base|avx2|avx512 lowers it).
int isa();

}  // namespace fg
