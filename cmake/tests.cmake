# Every tests/<area>/test_<name>.c is one Check program and one CTest test, <area>/<name>; every test_<name>.sh is one
# too, run by sh. A script that cannot run here prints "SKIP: reason" and exits with 77.
pkg_check_modules(CHECK REQUIRED IMPORTED_TARGET check)
file(GLOB LK_TEST_SOURCES CONFIGURE_DEPENDS tests/*/test_*.c)
# what tests of several areas use; a library, so that each program takes only what it needs
file(GLOB LK_TEST_COMMON CONFIGURE_DEPENDS tests/common/*.c)
add_library(lorikeet_test_common STATIC ${LK_TEST_COMMON} tests/ops/cases.c tests/ops/harness.c tests/faults/fake_device.c)
target_link_libraries(lorikeet_test_common PUBLIC lorikeet_internal PRIVATE lorikeet_warnings PkgConfig::CHECK)
target_compile_definitions(lorikeet_test_common PRIVATE _POSIX_C_SOURCE=200809L)
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

# No C++ is built here; the compiler is only looked for, to try the public headers with it.
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
