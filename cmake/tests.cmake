# Every tests/<area>/test_<name>.c is one Check program and one CTest test, <area>/<name>; every test_<name>.sh is one
# too, run by sh. A script that cannot run here prints "SKIP: reason" and exits with 77.
include(CheckLanguage)
include(CheckCCompilerFlag)
pkg_check_modules(CHECK REQUIRED IMPORTED_TARGET check)
file(GLOB LK_TEST_SOURCES CONFIGURE_DEPENDS tests/*/test_*.c)
# what tests of several areas use; a library, so that each program takes only what it needs
file(GLOB LK_TEST_COMMON CONFIGURE_DEPENDS tests/common/*.c)
add_library(lorikeet_test_common STATIC ${LK_TEST_COMMON} tests/ops/cases.c tests/ops/harness.c tests/faults/fake_device.c)
target_link_libraries(lorikeet_test_common PUBLIC lorikeet_internal PRIVATE lorikeet_warnings PkgConfig::CHECK)
target_compile_definitions(lorikeet_test_common PRIVATE _POSIX_C_SOURCE=200809L)
# GCC 12 for ARM ends with an internal error where it vectorises the largest of doubles (fmax in a loop).
if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND CMAKE_C_COMPILER_VERSION VERSION_LESS 13 AND CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  target_compile_options(lorikeet_test_common PUBLIC -fno-tree-vectorize)
endif()
foreach(source IN LISTS LK_TEST_SOURCES)
  get_filename_component(name ${source} NAME_WE)
  get_filename_component(folder ${source} DIRECTORY)
  get_filename_component(area ${folder} NAME)
  string(REGEX REPLACE "^test_" "" name ${name})
  # helpers shared by the tests of an area stand beside them, in files that do not start with test_
  file(GLOB helpers CONFIGURE_DEPENDS ${folder}/*.c)
  list(FILTER helpers EXCLUDE REGEX "/test_[^/]*$|/tests/ops/cases.c$|/tests/ops/harness.c$|/tests/faults/fake_device.c$")
  add_executable(test_${area}_${name} ${source} ${helpers})
  target_link_libraries(test_${area}_${name} PRIVATE lorikeet_test_common lorikeet_internal lorikeet_warnings PkgConfig::CHECK)
  target_compile_definitions(test_${area}_${name} PRIVATE _POSIX_C_SOURCE=200809L LK_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data")
  if(area STREQUAL cli)
    target_link_libraries(test_${area}_${name} PRIVATE lorikeet_cli_parts)
  endif()
  add_test(NAME ${area}/${name} COMMAND test_${area}_${name})
  set_tests_properties(${area}/${name} PROPERTIES SKIP_RETURN_CODE 77)
endforeach()

# Its objects come before the library's, so they take the place of those that need a processor with AMX.
if(TARGET lorikeet_cpu_amx_emulated)
  target_sources(test_cpu_amx PRIVATE $<TARGET_OBJECTS:lorikeet_cpu_amx_emulated>)
  target_compile_definitions(test_cpu_amx PRIVATE LK_USE_AMX)
endif()

# What tests/gpu/run times with; built with the tests so that it is ready when a GPU is there.
file(GLOB LK_GPU_REPORT CONFIGURE_DEPENDS tests/gpu/*.c)
add_executable(gpu_report ${LK_GPU_REPORT})
target_link_libraries(gpu_report PRIVATE lorikeet_test_common lorikeet_internal lorikeet_warnings)
target_compile_definitions(gpu_report PRIVATE _POSIX_C_SOURCE=200809L)

if(TARGET lorikeet_cudnn) # is loaded at run time, and so is no link's dependency
  add_dependencies(gpu_report lorikeet_cudnn)
endif()

# The library has no C++; the compiler is looked for to try the public headers with it, and for the CUDA mock below.
find_program(LK_CXX NAMES c++ g++ clang++)
file(GLOB LK_TEST_SCRIPTS CONFIGURE_DEPENDS tests/*/test_*.sh)
foreach(script IN LISTS LK_TEST_SCRIPTS)
  get_filename_component(name ${script} NAME_WE)
  get_filename_component(folder ${script} DIRECTORY)
  get_filename_component(area ${folder} NAME)
  string(REGEX REPLACE "^test_" "" name ${name})
  add_test(NAME ${area}/${name} COMMAND sh ${script})
  set_tests_properties(${area}/${name} PROPERTIES SKIP_RETURN_CODE 77 ENVIRONMENT
    "LK_SOURCE_DIR=${PROJECT_SOURCE_DIR};LK_BUILD_DIR=${PROJECT_BINARY_DIR};CC=${CMAKE_C_COMPILER};CXX=$<$<BOOL:${LK_CXX}>:${LK_CXX}>;CFLAGS=${CMAKE_C_FLAGS};LK_LIBDIR=${CMAKE_INSTALL_LIBDIR};CMAKE=${CMAKE_COMMAND}")
endforeach()

# Kernels' PTX is executed by an interpreter, which is a test's subject itself.
check_c_compiler_flag(-march=native LK_HAS_MARCH_NATIVE)
add_subdirectory(tests/cuda/ptx)
target_link_libraries(test_cuda_ptx PRIVATE lorikeet_ptx)
set_property(TARGET test_cuda_ptx_native APPEND PROPERTY COMPILE_DEFINITIONS _GNU_SOURCE)

# The CUDA backend on machines without a GPU: the same tests through a mock driver that runs the kernels on the host.
check_language(CXX)
if(LK_CUDA AND LK_NVCC AND CMAKE_CXX_COMPILER)
  enable_language(CXX)
  add_subdirectory(tests/cuda/emulator)
  add_subdirectory(tests/cuda/mock)
  target_sources(test_cuda_emulator PRIVATE $<TARGET_OBJECTS:lorikeet_emulator> $<TARGET_OBJECTS:lorikeet_emulator_faults>)
  target_compile_definitions(test_cuda_emulator PRIVATE LK_HAS_EMULATOR)
  # linked as C, so that the flags of sanitizers, which are C's, hold for it
  set_target_properties(test_cuda_emulator PROPERTIES LINKER_LANGUAGE C)
  target_link_libraries(test_cuda_emulator PRIVATE stdc++)
  set(mock "LORIKEET_CUDA_DRIVER=$<TARGET_FILE:lorikeet_mock_cuda>;LORIKEET_CUBLASLT=none;LORIKEET_CUDNN=none")
  set(mock_cublaslt "LORIKEET_CUDA_DRIVER=$<TARGET_FILE:lorikeet_mock_cuda>;LORIKEET_CUBLASLT=$<TARGET_FILE:lorikeet_mock_cublaslt>;LORIKEET_CUDNN=none")
  set(plugin)
  if(TARGET lorikeet_cudnn)
    set(plugin $<TARGET_FILE:lorikeet_cudnn>)
  endif()
  set(mock_cudnn "LORIKEET_CUDA_DRIVER=$<TARGET_FILE:lorikeet_mock_cuda>;LORIKEET_CUBLASLT=none;LORIKEET_CUDNN=$<TARGET_FILE:lorikeet_mock_cudnn>")
  foreach(source IN LISTS LK_TEST_SOURCES)
    if(source MATCHES "tests/cuda/test_([^/]*).c$")
      set_tests_properties(cuda/${CMAKE_MATCH_1} PROPERTIES ENVIRONMENT "${mock};LK_MOCK=1")
    endif()
  endforeach()
  add_test(NAME cuda/conformance COMMAND test_ops_conformance)
  set_tests_properties(cuda/conformance PROPERTIES ENVIRONMENT "${mock};LK_TEST_BACKEND=cuda")
  add_test(NAME cuda/parts COMMAND test_shaders_parts)
  set_tests_properties(cuda/parts PROPERTIES ENVIRONMENT "${mock}")
  add_test(NAME cuda/devices COMMAND test_train_devices)
  set_tests_properties(cuda/devices PROPERTIES ENVIRONMENT "${mock}")
  add_test(NAME cuda/golden COMMAND test_train_golden)
  set_tests_properties(cuda/golden PROPERTIES ENVIRONMENT "${mock};LK_TEST_DEVICE=cuda;LK_TEST_RUN=stories260k-lora-qv")
  add_test(NAME cuda/cublaslt_conformance COMMAND test_ops_conformance)
  set_tests_properties(cuda/cublaslt_conformance PROPERTIES ENVIRONMENT
    "${mock_cublaslt};LK_TEST_BACKEND=cuda;LK_TEST_KERNELS=_lt")
  set_tests_properties(cuda/cublaslt PROPERTIES ENVIRONMENT
    "${mock_cublaslt};LK_MOCK=1")
  add_test(NAME cuda/cublaslt_select COMMAND test_cuda_select)
  add_test(NAME cuda/cudnn_select COMMAND test_cuda_select)
  set_tests_properties(cuda/cudnn_select PROPERTIES ENVIRONMENT "${mock_cudnn};LK_MOCK=1")
  set_tests_properties(cuda/select cuda/cublaslt_select cuda/cudnn_select PROPERTIES RESOURCE_LOCK cuda_select) # they write the same files
  set_tests_properties(cuda/cublaslt_select PROPERTIES ENVIRONMENT
    "${mock_cublaslt};LK_MOCK=1")
  add_test(NAME cuda/cudnn_conformance COMMAND test_ops_conformance)
  set_tests_properties(cuda/cudnn_conformance PROPERTIES ENVIRONMENT
    "${mock_cudnn};LK_TEST_BACKEND=cuda;LK_TEST_KERNELS=cudnn;LK_MOCK_CUDA_CARDS=H100")
  set_tests_properties(cuda/cudnn PROPERTIES ENVIRONMENT "${mock_cudnn};LK_MOCK=1;LK_CUDNN_PLUGIN=${plugin};LK_CUDNN_LIBRARY=$<$<BOOL:${LK_CUDNN_LIBRARY}>:${LK_CUDNN_LIBRARY}>;LK_MOCK_CUDA_LOADS=$<TARGET_FILE:lorikeet_mock_cuda_loads>")
  set_tests_properties(cuda/ptx_native PROPERTIES ENVIRONMENT
    "${mock};LK_MOCK=1;LK_PTX_FOLDER=${PROJECT_BINARY_DIR}/cuda")
  add_test(NAME cuda/ptx_conformance COMMAND test_ops_conformance)
  set_tests_properties(cuda/ptx_conformance PROPERTIES ENVIRONMENT
    "${mock};LK_TEST_BACKEND=cuda;LK_MOCK_CUDA_PTX=${PROJECT_BINARY_DIR}/cuda")
else()
  message(STATUS "no nvcc or no C++ compiler: the CUDA backend is not tested with the mock driver")
endif()
