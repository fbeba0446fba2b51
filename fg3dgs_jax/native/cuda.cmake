# libfg3dgs_cuda; included where nvcc works.
enable_language(CUDA)
set(FG3DGS_CUDA_ARCHS "" CACHE STRING "As CUDA_ARCHITECTURES; empty: those below")
set(archs ${FG3DGS_CUDA_ARCHS})
if(NOT archs)
  # Machine code for the chips from Turing (T4) on, and PTX for what comes after them.
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    set(archs 75-real 80-real 86-real 89-real 90-real 100-real 120)
  else()
    set(archs 75-real 80-real 86-real 89-real 90)
  endif()
endif()
set(CMAKE_CUDA_STANDARD 17)

file(GLOB CUDA_SOURCES CONFIGURE_DEPENDS
  "${CMAKE_CURRENT_SOURCE_DIR}/cuda/*.cc" "${CMAKE_CURRENT_SOURCE_DIR}/cuda/*.cu")
add_library(fg3dgs_cuda MODULE ${CUDA_SOURCES})
set_target_properties(fg3dgs_cuda PROPERTIES
  PREFIX "lib" SUFFIX ".so" CUDA_ARCHITECTURES "${archs}" CUDA_RUNTIME_LIBRARY Static)
target_include_directories(fg3dgs_cuda PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
target_include_directories(fg3dgs_cuda SYSTEM PRIVATE
  "${FG3DGS_FFI_INCLUDE}" ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
# No contraction, as on the CPU: the backward must repeat the forward's decisions bit for bit. Where a
# fused multiply-add is wanted, the code says so.
target_compile_options(fg3dgs_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CXX>:${FG3DGS_OPTIONS}>
  $<$<COMPILE_LANGUAGE:CUDA>:-O3 --fmad=false -Xcompiler=-Wall>)
target_link_libraries(fg3dgs_cuda PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
install(TARGETS fg3dgs_cuda LIBRARY DESTINATION fg3dgs_jax/_native)
