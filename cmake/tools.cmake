# Targets for those who work on the code: `format` rewrites it, `format_check` and `tidy` report.
find_program(LK_CLANG_FORMAT clang-format)
find_program(LK_CLANG_TIDY clang-tidy)
find_program(LK_RUN_CLANG_TIDY NAMES run-clang-tidy run-clang-tidy-14)

file(GLOB_RECURSE LK_FORMATTED CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}
  include/*.h core/*.[ch] dispatch/*.[ch] backends/*.[ch] cli/*.[ch] tests/*.[ch] bench/*.[ch] examples/*.[ch]
  tests/*.cc shaders/native/*.h shaders/native/*.cu)
if(LK_CLANG_FORMAT AND LK_FORMATTED)
  add_custom_target(format COMMAND ${LK_CLANG_FORMAT} -i ${LK_FORMATTED}
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} VERBATIM)
  add_custom_target(format_check COMMAND ${LK_CLANG_FORMAT} --dry-run -Werror ${LK_FORMATTED}
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} VERBATIM)
endif()

# The checks stand in .clang-tidy; headers are reported through the sources that include them.
if(LK_CLANG_TIDY AND LK_RUN_CLANG_TIDY)
  add_custom_target(tidy COMMAND ${LK_RUN_CLANG_TIDY} -quiet -p ${PROJECT_BINARY_DIR}
    -extra-arg=-Wno-unknown-warning-option
    -header-filter "^${PROJECT_SOURCE_DIR}/(include|core|dispatch|backends|cli)/"
    "^${PROJECT_SOURCE_DIR}/(core|dispatch|backends|cli|examples)/"
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} VERBATIM)
endif()
