# The cpu backend, compiled once per instruction set; mode_backend_open selects one (common/nn/backend.c).
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/cpu_plain.c PROPERTIES
                            COMPILE_OPTIONS "-O3;-ffp-contract=fast;-Wno-psabi")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/cpu_avx2.c PROPERTIES
                              COMPILE_OPTIONS "-O3;-mavx2;-mfma;-ffp-contract=fast")
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/cpu_avx512.c PROPERTIES COMPILE_OPTIONS
                              "-O3;-mavx2;-mfma;-mavx512f;-mavx512vl;-mavx512bw;-mavx512dq;-ffp-contract=fast")
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/cpu_amx.c PROPERTIES COMPILE_OPTIONS
    "-O3;-mavx2;-mfma;-mavx512f;-mavx512vl;-mavx512bw;-mavx512dq;-mamx-tile;-mamx-bf16;-ffp-contract=fast")
endif()
