# mode_emulate_cuda(): the library mode_emulated, the cuda backend on a machine without a GPU, and the tests of the
# emulator, cuda-emulator, cuda-emulator-hopper and cuda-ptx-interpreter. The sources of common/nn/cuda are compiled unchanged, the kernels as
# C++ after rewrite.sh; CUDA need not be installed. Link mode_emulated before the library with the other backends: it
# brings nn/backend.c along.
set(MODE_EMULATOR_DIR ${CMAKE_CURRENT_LIST_DIR})
function(mode_emulate_cuda)
  set(common ${MODE_EMULATOR_DIR}/../../../common)
  set(out ${CMAKE_BINARY_DIR}/emulator)
  # no fused multiply-add unless the code asks for it, on any processor: nearest.cu is tested bit for bit
  set(flags -ffp-contract=off -include cuda_runtime.h -Wall -Wextra -Wno-unknown-pragmas -Wno-deprecated-enum-enum-conversion -fno-strict-aliasing)
  # a GPU faults on misaligned vector loads, the host does not
  set(aligned -fsanitize=alignment -fno-sanitize-recover=alignment)
  set(ptx) # kernels as nvcc compiled them
  foreach(name parse arithmetic memory collective tensor grid counts races)
    list(APPEND ptx ${MODE_EMULATOR_DIR}/../ptx/${name}.cpp)
  endforeach()
  # streams, memory and blocks; and what is loaded in place of cuBLAS
  add_library(mode_emulator SHARED ${MODE_EMULATOR_DIR}/blocks.cpp ${MODE_EMULATOR_DIR}/hopper.cpp
              ${MODE_EMULATOR_DIR}/runtime.cpp ${MODE_EMULATOR_DIR}/streams.cpp ${ptx})
  set_source_files_properties(${MODE_EMULATOR_DIR}/hopper.cpp ${ptx} PROPERTIES COMPILE_OPTIONS -O3) # the loops of wgmma and of lanes
  add_library(mode_emulated_blas SHARED ${MODE_EMULATOR_DIR}/blas.cpp)
  add_library(mode_emulated_lt SHARED ${MODE_EMULATOR_DIR}/lt.cpp)
  foreach(lib mode_emulated_blas mode_emulated_lt)
    target_link_libraries(${lib} PRIVATE mode_emulator)
    target_compile_options(${lib} PRIVATE -O3)
  endforeach()
  foreach(lib mode_emulator mode_emulated_blas mode_emulated_lt)
    set_target_properties(${lib} PROPERTIES CXX_STANDARD 20 LIBRARY_OUTPUT_DIRECTORY ${out} BUILD_RPATH ${out})
    target_include_directories(${lib} PUBLIC ${MODE_EMULATOR_DIR}/include)
    target_compile_options(${lib} PRIVATE ${flags})
  endforeach()
  set_target_properties(mode_emulated_blas PROPERTIES OUTPUT_NAME cublas SUFFIX .so.12)
  set_target_properties(mode_emulated_lt PROPERTIES OUTPUT_NAME cublasLt SUFFIX .so.12)
  foreach(name cublas cublasLt)
    add_library(mode_emulated_newer_${name} SHARED ${MODE_EMULATOR_DIR}/newer.c)
    set_target_properties(mode_emulated_newer_${name} PROPERTIES OUTPUT_NAME ${name} SUFFIX .so.13 LIBRARY_OUTPUT_DIRECTORY ${out})
  endforeach()

  # what is loaded in place of NCCL; it has its own copy of what it needs of common/
  add_library(mode_emulated_nccl SHARED ${MODE_EMULATOR_DIR}/nccl.c ${common}/dist/meeting.c ${common}/base/error.c
              ${common}/base/str.c ${common}/base/path.c ${common}/base/clock.c)
  set_target_properties(mode_emulated_nccl PROPERTIES OUTPUT_NAME nccl SUFFIX .so.2 C_VISIBILITY_PRESET default
                        LIBRARY_OUTPUT_DIRECTORY ${out} BUILD_RPATH ${out})
  target_include_directories(mode_emulated_nccl PRIVATE ${MODE_EMULATOR_DIR}/include ${common})
  target_compile_definitions(mode_emulated_nccl PRIVATE _GNU_SOURCE)
  target_link_options(mode_emulated_nccl PRIVATE -Wl,-Bsymbolic)
  target_link_libraries(mode_emulated_nccl PRIVATE mode_emulator)

  # what is loaded in place of cuDNN, the same way
  add_library(mode_emulated_cudnn SHARED ${MODE_EMULATOR_DIR}/cudnn.c ${common}/base/error.c ${common}/base/str.c)
  set_target_properties(mode_emulated_cudnn PROPERTIES OUTPUT_NAME cudnn SUFFIX .so.9 C_VISIBILITY_PRESET default
                        LIBRARY_OUTPUT_DIRECTORY ${out} BUILD_RPATH ${out})
  target_include_directories(mode_emulated_cudnn PRIVATE ${MODE_EMULATOR_DIR}/include ${common} ${MODE_EMULATOR_DIR}/../..)
  target_compile_definitions(mode_emulated_cudnn PRIVATE _GNU_SOURCE)
  target_compile_options(mode_emulated_cudnn PRIVATE -O2)
  target_link_options(mode_emulated_cudnn PRIVATE -Wl,-Bsymbolic)
  target_link_libraries(mode_emulated_cudnn PRIVATE mode_emulator m)

  foreach(test emulator hopper)
    set(name cuda-emulator)
    if(test STREQUAL "hopper")
      set(name cuda-emulator-hopper)
    endif()
    mode_rewrite_kernel(${MODE_EMULATOR_DIR}/test_${test}.cu ${out}/test_${test}.cpp)
    add_executable(${name} ${out}/test_${test}.cpp)
    set_target_properties(${name} PROPERTIES CXX_STANDARD 20)
    target_include_directories(${name} PRIVATE ${MODE_EMULATOR_DIR})
    target_compile_options(${name} PRIVATE ${flags} ${aligned})
    target_link_options(${name} PRIVATE ${aligned})
    target_link_libraries(${name} PRIVATE mode_emulator)
  endforeach()

  add_executable(cuda-ptx-interpreter ${MODE_EMULATOR_DIR}/../ptx/test_ptx.cpp ${MODE_EMULATOR_DIR}/../ptx/test_races.cpp)
  set_target_properties(cuda-ptx-interpreter PROPERTIES CXX_STANDARD 20)
  target_include_directories(cuda-ptx-interpreter PRIVATE ${MODE_EMULATOR_DIR})
  target_compile_options(cuda-ptx-interpreter PRIVATE ${flags})
  target_link_libraries(cuda-ptx-interpreter PRIVATE mode_emulator)

  # build/emulator/nn/cuda/: the kernels (.cu as .cpp) and their headers after rewriting
  file(GLOB host CONFIGURE_DEPENDS ${common}/nn/cuda/*.c)
  list(FILTER host EXCLUDE REGEX "/cudnn_absent\\.c$") # include/ has cuDNN's header
  file(GLOB kernels CONFIGURE_DEPENDS ${common}/nn/cuda/*.cu ${common}/nn/cuda/*.cuh)
  list(FILTER kernels EXCLUDE REGEX "/(ptx|hopper)\\.cuh$") # include/nn/cuda has their instructions here
  foreach(from ${kernels})
    get_filename_component(name ${from} NAME)
    string(REGEX REPLACE "\\.cu$" ".cpp" name ${name})
    mode_rewrite_kernel(${from} ${out}/nn/cuda/${name})
    list(APPEND rewritten ${out}/nn/cuda/${name})
  endforeach()
  add_library(mode_emulated OBJECT ${host} ${common}/nn/backend.c ${rewritten})
  set_target_properties(mode_emulated PROPERTIES CXX_STANDARD 20)
  target_compile_definitions(mode_emulated PUBLIC MODE_CUDA=1)
  target_include_directories(mode_emulated BEFORE PUBLIC ${out} ${MODE_EMULATOR_DIR}/include ${common}
                             PRIVATE ${MODE_EMULATOR_DIR}/../..)
  target_compile_options(mode_emulated PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${flags};${aligned}>)
  target_link_options(mode_emulated INTERFACE ${aligned})
  target_link_libraries(mode_emulated PUBLIC mode_emulator ${CMAKE_DL_LIBS})
  add_dependencies(mode_emulated mode_emulated_blas mode_emulated_lt mode_emulated_nccl mode_emulated_cudnn mode_emulated_newer_cublas
                   mode_emulated_newer_cublasLt)
  # the backend looks for libcublas.so.12 with dlopen; RPATH, unlike RUNPATH, is searched before LD_LIBRARY_PATH
  target_link_options(mode_emulated INTERFACE -Wl,--disable-new-dtags -Wl,-rpath,${out})
endfunction()

function(mode_rewrite_kernel from to)
  get_filename_component(folder ${to} DIRECTORY)
  add_custom_command(OUTPUT ${to}
                     COMMAND ${CMAKE_COMMAND} -E make_directory ${folder}
                     COMMAND sh ${MODE_EMULATOR_DIR}/rewrite.sh ${from} ${to}
                     DEPENDS ${from} ${MODE_EMULATOR_DIR}/rewrite.sh)
endfunction()
