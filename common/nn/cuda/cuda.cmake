# mode_cuda_backend(TARGET): adds the cuda backend to TARGET. Kernels are compiled for CMAKE_CUDA_ARCHITECTURES, else
# for sm_80 (A100), sm_86 and sm_89 (RTX 30 and 40, A10, L40), sm_90 (H100, H200) and as PTX for later ones; *_hopper.cu
# for sm_90a alone, which its instructions require. The runtime is linked statically, cuBLAS is loaded when a GPU is
# first used.
set(MODE_CUDA_DIR ${CMAKE_CURRENT_LIST_DIR})
# cuDNN is loaded at run time; building needs only its header, which is not part of the toolkit
macro(mode_cudnn_sources list)
  find_path(MODE_CUDNN_INCLUDE cudnn_graph.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  if(MODE_CUDNN_INCLUDE)
    list(FILTER ${list} EXCLUDE REGEX "/cudnn_absent\\.c$")
    set_source_files_properties(${MODE_CUDA_DIR}/cudnn.c PROPERTIES COMPILE_OPTIONS "-isystem${MODE_CUDNN_INCLUDE}")
  else()
    message(STATUS "cuDNN is left out: cudnn_graph.h was not found")
    list(FILTER ${list} EXCLUDE REGEX "/cudnn\\.c$")
  endif()
endmacro()
# NCCL is loaded at run time; its header is only used to verify the declarations in nccl.h
macro(mode_nccl_header)
  find_path(MODE_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  if(MODE_NCCL_INCLUDE)
    set_source_files_properties(${MODE_CUDA_DIR}/nccl.c ${MODE_CUDA_DIR}/nccl_watch.c PROPERTIES COMPILE_OPTIONS "-DMODE_NCCL_HEADER=1;-isystem${MODE_NCCL_INCLUDE}")
  endif()
endmacro()
macro(mode_cuda_backend target)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90)
  endif()
  enable_language(CUDA)
  # in a project that requires CMake 3.25, CMake 3.25.1 marks a library as deprecated that CUDA 13 no longer has: an
  # error
  set(CMAKE_MINIMUM_REQUIRED_VERSION 3.24)
  find_package(CUDAToolkit REQUIRED)
  file(GLOB mode_cuda_kernels CONFIGURE_DEPENDS ${MODE_CUDA_DIR}/*.cu)
  file(GLOB mode_cuda_host CONFIGURE_DEPENDS ${MODE_CUDA_DIR}/*.c)
  mode_cudnn_sources(mode_cuda_host)
  mode_nccl_header()
  set(mode_hopper_kernels ${mode_cuda_kernels})
  list(FILTER mode_hopper_kernels INCLUDE REGEX "_hopper\\.cu$")
  list(FILTER mode_cuda_kernels EXCLUDE REGEX "_hopper\\.cu$")
  add_library(mode_cuda_kernels OBJECT ${mode_cuda_kernels})
  add_library(mode_hopper_kernels OBJECT ${mode_hopper_kernels})
  set_target_properties(mode_hopper_kernels PROPERTIES CUDA_ARCHITECTURES OFF)
  target_compile_options(mode_hopper_kernels PRIVATE -gencode arch=compute_90a,code=sm_90a)
  # no FMA contraction: bit-identical to the host in double
  set_source_files_properties(${MODE_CUDA_DIR}/nearest.cu ${MODE_CUDA_DIR}/groups.cu PROPERTIES COMPILE_OPTIONS -fmad=false)
  foreach(lib mode_cuda_kernels mode_hopper_kernels)
    set_target_properties(${lib} PROPERTIES CUDA_STANDARD 17)
    target_include_directories(${lib} PRIVATE ${MODE_CUDA_DIR}/../..)
    target_compile_options(${lib} PRIVATE -lineinfo --expt-extended-lambda -Xcompiler -Wall,-Wextra
                           -Werror all-warnings)
  endforeach()
  set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
  target_sources(${target} PRIVATE ${mode_cuda_host} $<TARGET_OBJECTS:mode_cuda_kernels>
                 $<TARGET_OBJECTS:mode_hopper_kernels>)
  target_include_directories(${target} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_definitions(${target} PUBLIC MODE_CUDA=1)
  target_link_libraries(${target} PUBLIC CUDA::cudart_static ${CMAKE_DL_LIBS})
endmacro()
